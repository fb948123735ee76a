"""One picture of a scene, to see before training whether its masks, depth and cameras agree.

    python -m geometry_fusion.data.look data/mine/kitchen
    python -m geometry_fusion.data.look --format polycam CAPTURE --scene kitchen

The first form reads a scene folder, the second a dataset or capture before its conversion. Both
write videos/look/kitchen.png: frames with their masks, depth in colours, cameras and points from
above, and a check that finds wrong axes, units, pairings and half-pixel errors. The check
back-projects the pixels of one frame and looks them up in another, about ten frames away. In
correct data the depth agrees to about a percent (from sensors: a few) wherever both frames see the
place. What a scene lacks is left out.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from geometry_fusion.data.agreement import GAP, Agreement, View, agreement
from geometry_fusion.data.convert import find, open_scene
from geometry_fusion.data.look_figure import draw, report
from geometry_fusion.data.readers import FORMATS
from geometry_fusion.data.scenes import Scene, SceneFrame
from geometry_fusion.errors import InputError, OneLineParser, printable, run_cli
from geometry_fusion.io.atomic import check_apart


def choose(count: int, number: int) -> tuple[list[int], dict[int, int]]:
    """Indices of `number` frames spread evenly over `count`, and the partner of each in the check.

    A partner is `GAP` frames away, or as far as the sequence allows; a lone frame has none.
    """
    shown = sorted({round(p) for p in np.linspace(0, count - 1, min(number, count))})
    pairs = {}
    for i in shown:
        later, earlier = min(i + GAP, count - 1), max(i - GAP, 0)
        partner = later if later - i >= i - earlier else earlier
        if partner != i:
            pairs[i] = partner
    return shown, pairs


def view_of_scene(folder: Path, number: int) -> View:
    """View of a scene folder with `number` frames shown.

    Parts that are damaged or missing for some frames are listed in `problems`. Raises InputError if
    the folder or its colour images cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a scene folder (or --format FORMAT ROOT)")
    scene = Scene(folder)
    problems: list[str] = []
    has_depth, has_cameras = (folder / "depth").is_dir(), (folder / "cameras.json").exists()

    def read_part(exists: bool, read: Callable, index: int):
        try:
            return read(index) if exists else None
        except InputError as error:
            problems.append(str(error))
            return None

    cameras = {}
    for i in range(len(scene)):
        camera = read_part(has_cameras, scene.camera, i)
        if camera is not None:
            cameras[i] = camera
    shown, pairs = choose(len(scene), number)
    frames = {}
    for i in sorted({*shown, *pairs.values()}):
        pose, k = cameras.get(i, (None, None))
        intrinsics = None if k is None else (k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        ids = read_part(scene.has_ids, scene.instance, i)
        depth = read_part(has_depth, scene.depth, i)
        frames[i] = SceneFrame(scene.stems[i], scene.rgb(i), ids, depth, pose, intrinsics)
    poses = _stacked([pose for pose, _ in cameras.values()])
    names = {o.id: o.name for o in scene.objects}
    return View(folder.resolve().name, scene.stems, frames, shown, pairs, poses, names, problems)


def view_of_source(kind: str, root: Path, name: str | None, number: int) -> View:
    """View of a scene as its dataset stores it; `name` may be None if there is only one.

    Only the cameras of the frames that are read appear in `poses`. Raises InputError if `name` is
    not one of the scenes under `root`.
    """
    scenes = find(kind, root)
    if name is None and len(scenes) == 1:
        name = scenes[0]
    if name not in scenes:
        raise InputError(
            f"--scene {name or ''}: not one scene of {root}; there are: {', '.join(scenes[:10])}"
        )
    source = open_scene(kind, root, name)
    shown, pairs = choose(len(source.stems), number)
    needed = sorted({*shown, *pairs.values()})
    frames = dict(zip(needed, source.frames([source.stems[i] for i in needed])))
    poses = _stacked([f.camera_to_world for f in frames.values() if f.camera_to_world is not None])
    names = {o.id: o.name for o in source.objects}
    return View(source.name, source.stems, frames, shown, pairs, poses, names, list(source.notes))


def _stacked(poses: list[np.ndarray]) -> np.ndarray:
    """[T, 4, 4]; T may be 0."""
    return np.stack(poses) if poses else np.empty((0, 4, 4))


def checks(view: View) -> dict[int, Agreement]:
    """Index of a shown frame -> agreement with its partner, if both have depth and cameras."""
    results = {i: agreement(view.frames[i], view.frames[j]) for i, j in view.pairs.items()}
    return {i: result for i, result in results.items() if result is not None}


def parse(argv=None) -> argparse.Namespace:
    """The command line of `python -m geometry_fusion.data.look`."""
    parser = OneLineParser(prog="python -m geometry_fusion.data.look", description=__doc__)
    parser.add_argument(
        "place", type=Path, metavar="SCENE", help="scene folder; with --format the root of the data"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"look at a dataset: {', '.join(FORMATS)}",
    )
    parser.add_argument(
        "--scene", metavar="NAME", help="which scene of the dataset; default: the only one"
    )
    parser.add_argument("--out", type=Path, help="PNG to write; default: videos/look/NAME.png")
    parser.add_argument("--frames", type=int, default=4, help="how many frames to show")
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    """Raise InputError for values out of range and options that do not go together."""
    if not 1 <= args.frames <= 20:
        raise InputError(f"--frames {args.frames}: must be 1..20")
    if args.out is not None:
        if args.out.suffix.lower() != ".png":
            raise InputError(f"--out {args.out}: must end in .png")
        check_apart([args.out], [args.place])
        if args.out.exists() and args.out.resolve().is_relative_to(args.place.resolve()):
            raise InputError(
                f"--out {args.out}: would replace a file of {args.place}; choose another name"
            )
    if args.scene and not args.format:
        raise InputError(
            f"--scene {args.scene}: goes with --format; without it give the scene folder itself"
        )


def main(argv=None) -> None:
    """Print the numbers of a scene and write its picture."""
    args = parse(argv)
    _check(args)
    if args.format:
        view = view_of_source(args.format, args.place, args.scene, args.frames)
    else:
        view = view_of_scene(args.place, args.frames)
    results = checks(view)
    for line in report(view, results):
        print(printable(line))
    out = args.out or Path("videos/look") / f"{view.name}.png"
    draw(view, results, out)
    print(printable(str(out)))


if __name__ == "__main__":
    sys.exit(run_cli(main))
