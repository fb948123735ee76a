"""Convert datasets and captures to scene folders, the layout that training and evaluation read.

    python -m geometry_fusion.data.convert scannetpp ROOT --out data/scannetpp \\
        --every 10 --long-side 640
    python -m geometry_fusion.data.convert nerfstudio MY_CAPTURE --out data/mine --list

docs/data.md describes the layout. Scenes that are in OUT already are kept, so that an interrupted
conversion continues; --again converts them anew.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from geometry_fusion.data.readers import FORMATS
from geometry_fusion.data.readers.source import Source, resized
from geometry_fusion.data.scenes import PARTS, SceneFrame
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import InputError, OneLineParser, printable, run_cli
from geometry_fusion.io.atomic import check_apart, check_holds_only


def find(kind: str, root: Path) -> list[str]:
    """Names of the scenes of a format (one of FORMATS) under `root`; InputError if none."""
    if not root.exists():
        raise InputError(f"{root}: no such folder; give the root of the {kind} data")
    return _reader(kind).find(root)


def open_scene(kind: str, root: Path, name: str) -> Source:
    """One of the scenes that `find` names. Raises InputError if its files are incomplete."""
    return _reader(kind).open_scene(root, name)


def _reader(kind: str):
    """The module of a format; imported when used, since some need packages that few have."""
    if kind not in FORMATS:
        raise InputError(f"format {kind!r}: unknown; known are: {', '.join(FORMATS)}")
    return import_module(f"geometry_fusion.data.readers.{kind}")


def converted(source: Source, every: int = 1, long_side: int | None = None) -> Iterator[SceneFrame]:
    """Every `every`-th frame of a source, shrunk to at most `long_side` pixels.

    long_side: of the longer side of a frame; None keeps the size.
    """
    for frame in source.frames(source.stems[::every]):
        width, height = frame.rgb.shape[1::-1]
        shrink = min(1.0, (long_side or max(width, height)) / max(width, height))
        yield resized(frame, (max(1, round(width * shrink)), max(1, round(height * shrink))))


def parse(argv=None) -> argparse.Namespace:
    """The command line of `python -m geometry_fusion.data.convert`."""
    formats = "\n".join(f"  {name:<14} {text}" for name, text in FORMATS.items())
    parser = OneLineParser(description=f"{__doc__}\nFormats:\n{formats}")
    parser.add_argument(
        "format", choices=FORMATS, metavar="FORMAT", help="one of the formats above"
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder (or file) of the data")
    parser.add_argument("--out", type=Path, help="receives one folder per scene")
    parser.add_argument("--scenes", help="only these, comma-separated; default: all")
    parser.add_argument("--every", type=int, default=1, help="keep every N-th frame")
    parser.add_argument(
        "--long-side", type=int, help="shrink frames to this many pixels; default: keep size"
    )
    parser.add_argument(
        "--again", action="store_true", help="convert scenes that are there already"
    )
    parser.add_argument(
        "--list", action="store_true", help="print which scenes there are, write nothing"
    )
    return parser.parse_args(argv)


def main(argv=None) -> None:
    """Convert or list the scenes. One that fails is left out, and the command fails at the end."""
    args = parse(argv)
    if args.out is None and not args.list:
        raise InputError(
            "--out is missing: give the folder that receives the scenes, or --list what there is"
        )
    for name, value in (("--every", args.every), ("--long-side", args.long_side)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value}: must be at least 1")
    available = find(args.format, args.root)
    names = args.scenes.split(",") if args.scenes else available
    if unknown := [name for name in names if name not in available]:
        raise InputError(
            f"--scenes {unknown[0]}: not in {args.root}; there are: {', '.join(available[:10])}"
        )
    if args.out:
        check_apart((args.out / name.replace("/", "_") for name in names), (args.root,))
    failed = []
    for name in names:
        try:
            convert_one(args, name)
        except InputError as error:
            if len(names) == 1:
                raise
            failed.append(name)
            print(printable(f"{name}: left out: {error}"))
    if failed:
        raise InputError(
            f"{len(failed)} of {len(names)} scenes were left out (first: {failed[0]}), see above"
        )


def convert_one(args: argparse.Namespace, name: str) -> None:
    """List or convert one scene; a scene that is in `args.out` already is kept."""
    source = open_scene(args.format, args.root, name)
    folder = args.out and args.out / source.name
    if args.list:
        print(printable(f"{name}: {len(source.stems)} frames, {len(source.objects)} objects"))
    elif folder.exists() and not args.again:
        print(printable(f"{folder}: exists and is kept; --again converts it anew"))
        return
    for note in source.notes:
        print(printable(f"  {note}"))
    if args.list:
        return
    check_apart((folder,), (args.root,))
    check_holds_only(folder, PARTS, "--out")  # a capture of the same name may lie there
    total = len(source.stems[:: args.every])
    frames = converted(source, args.every, args.long_side)
    progress = tqdm(frames, total=total, desc=source.name, unit="frame", disable=None)
    write_scene(folder, progress, source.objects)
    command = f"python -m geometry_fusion.data.look {folder}"
    print(printable(f"{folder}: {total} frames; look at it: {command}"))


if __name__ == "__main__":
    sys.exit(run_cli(main))
