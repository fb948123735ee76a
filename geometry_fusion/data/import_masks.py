"""Import an annotation tool's export as a folder of masks.

    python -m geometry_fusion.data.import_masks cvat_export.zip --frames videos/frames --out masks
    python -m geometry_fusion.data.import_masks labelme_folder --frames my_video.mp4 --out masks \\
        --label vase

Writes DAVIS palette PNGs, named like the frames and of their size. Reads CVAT (Segmentation mask
1.1; for images/video 1.1), labelme, COCO (per image, per video), DAVIS palettes and plain PNGs.
Index 255 of a mask is void. Frames that nobody annotated get no mask; annotated frames without
objects get an empty one. `objects.json` beside the masks has the names:
{"objects": [{"id", "name"}]}.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geometry_fusion.data.annotations import AnnotatedFrame, AnnotatedObject
from geometry_fusion.data.annotations.formats import FORMATS, open_export
from geometry_fusion.data.frame_names import (
    COUNTS,
    FrameNames,
    counted_by,
    extraction_of,
    targets_of,
)
from geometry_fusion.data.readers.source import nearest
from geometry_fusion.errors import InputError, OneLineParser, printable, run_cli
from geometry_fusion.io.atomic import check_apart, check_replaceable, replacing_folder
from geometry_fusion.io.frame_folder import Size
from geometry_fusion.io.mask_reader import VOID, VOID_ID
from geometry_fusion.io.mask_writer import write_palette_mask
from geometry_fusion.io.open_frames import open_frames
from geometry_fusion.io.source_record import OVERWRITE_CURE, as_text, check_may_replace, record_of

OBJECTS_JSON = "objects.json"  # in the folder of masks; readers of masks look at PNGs only

NONE_EMPTY = (
    "no annotated frame is empty; mark frames that show no object as well: with a tag on the image "
    "in CVAT (exported as CVAT for images 1.1), or with a black PNG named like the frame"
)


@dataclass(frozen=True)
class Imported:
    """What an import wrote."""

    objects: list[AnnotatedObject]  # those that some frame shows
    frames_of: dict[int, int]  # id -> number of frames that show it
    num_annotated: int  # frames with a mask
    num_empty: int  # frames whose mask shows no object
    num_frames: int  # frames of the video
    notes: list[str]  # what was left out or should be looked at, one line each


def import_masks(
    export: Path,
    frames: Path,
    out: Path,
    kind: str = "auto",  # one of FORMATS
    labels: Sequence[str] = (),  # keep only objects of these labels; ids do not depend on it
    progress: bool = False,
    counts: str = "auto",  # one of COUNTS: what the number in frame_000012 counts
    overwrite: bool = False,  # masks of another video may be replaced
) -> Imported:
    """Write the masks of an export to `out`, which is replaced once all are there.

    Raises InputError for everything that would give wrong masks: names that match no frame, other
    sizes than the frames', objects whose identity the export does not state.
    """
    export, out = Path(export), Path(out)
    check_apart([out], [export, frames])
    _check_holds_only_masks(out)
    source = open_frames(frames)
    record = record_of(frames)
    record.pop("sample", None)  # annotations are work, also those of a bundled sample
    check_may_replace([out], record, overwrite, OVERWRITE_CURE)
    opened = open_export(export, kind)
    annotations = opened.read(Path(frames).stem)
    objects = _chosen(annotations.objects, labels, opened.files.path)
    notes = list(annotations.notes)
    extraction = extraction_of(source)
    counts = counted_by(annotations, source, extraction, counts)
    names = FrameNames(source, extraction, annotations.num_images, counts)
    targets = targets_of(annotations, names, notes)
    kept = [VOID_ID, *(o.id for o in objects)]
    frames_of: Counter = Counter()
    num_empty = 0
    with replacing_folder(out.resolve()) as fresh:
        for stem, frame in tqdm(targets.items(), unit="mask", disable=None if progress else True):
            ids = _ids(frame, source.size, extraction.source_size or source.size, notes)
            ids = np.where(np.isin(ids, kept), ids, 0)
            present = np.unique(ids[ids > 0]).tolist()
            frames_of.update(present)
            num_empty += not present
            write_palette_mask(fresh / f"{stem}.png", np.where(ids < 0, VOID, ids), as_text(record))
        shown = [o for o in objects if frames_of[o.id]]
        if not shown:
            raise InputError(f"{export}: no frame shows an object; nothing was imported")
        _write_names(fresh / OBJECTS_JSON, shown)
    if unseen := [o.name for o in objects if not frames_of[o.id]]:
        notes.append(f"in no frame: {', '.join(unseen)}")
    if not num_empty and len(targets) < len(source.stems):
        notes.append(NONE_EMPTY)
    return Imported(shown, dict(frames_of), len(targets), num_empty, len(source.stems), notes)


def _check_holds_only_masks(out: Path) -> None:
    """Raise InputError if replacing `out` would delete something other than masks."""
    for file in out.glob("*.json") if out.is_dir() else ():
        if file.name != OBJECTS_JSON:
            raise InputError(
                f"--out {out}: holds {file.name!r}, not only old masks; "
                "choose a new or empty folder"
            )
    check_replaceable(out, (".png", ".json"), "--out")


def _chosen(
    objects: list[AnnotatedObject], labels: Sequence[str], export: Path
) -> list[AnnotatedObject]:
    """The objects of `labels`, or all; InputError for an unknown label and for too many objects."""
    all_labels = sorted({o.label for o in objects})
    if missing := [label for label in labels if label not in all_labels]:
        raise InputError(
            f"--label {missing[0]}: not in {export}, which has "
            f"{', '.join(all_labels) or 'no labels'}"
        )
    chosen = [o for o in objects if not labels or o.label in labels]
    if chosen and max(o.id for o in chosen) >= VOID:
        raise InputError(
            f"{export}: {len(objects)} objects; "
            "a mask holds ids 1..254, annotate in several exports"
        )
    return chosen


def _ids(frame: AnnotatedFrame, size: Size, video_size: Size, notes: list[str]) -> np.ndarray:
    """[H, W] ids at the size (width, height) of the frames.

    Masks may have that size, or the size of the video that the frames were shrunk from.
    """
    _check_size(frame, frame.size or size, size, video_size)
    ids = frame.ids(frame.size or size)
    drawn = ids.shape[::-1]
    _check_size(frame, drawn, size, video_size)
    if drawn != tuple(size):
        note = f"masks shrunk from {drawn[0]}x{drawn[1]} as the frames were"
        if note not in notes:
            notes.append(note)
    return nearest(ids, size)


def _check_size(frame: AnnotatedFrame, drawn: Size, size: Size, video_size: Size) -> None:
    if tuple(drawn) in (tuple(size), tuple(video_size)):
        return
    is_turned = tuple(drawn) == tuple(size)[::-1]
    question = "; was it annotated without its EXIF orientation?" if is_turned else ""
    raise InputError(
        f"{frame.name}: its masks are {drawn[0]}x{drawn[1]}, the frames {size[0]}x{size[1]}; "
        f"annotate and export at their size{question}"
    )


def _write_names(file: Path, objects: list[AnnotatedObject]) -> None:
    listing = {"objects": [{"id": o.id, "name": o.name} for o in objects]}
    text = json.dumps(listing, indent=1, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")


def parse(argv=None) -> argparse.Namespace:
    """The command line of `python -m geometry_fusion.data.import_masks`."""
    parser = OneLineParser(description=__doc__)
    parser.add_argument(
        "export", type=Path, metavar="EXPORT", help="folder, zip or file that the tool exported"
    )
    parser.add_argument(
        "--frames",
        type=Path,
        required=True,
        help="the folder of frames, or the video, of the masks",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="receives the masks")
    parser.add_argument("--overwrite", action="store_true", help="replace masks of another video")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="what EXPORT is")
    parser.add_argument(
        "--counts",
        choices=COUNTS,
        default="auto",
        help="what frame_000012 counts; auto: found out, or an error that asks",
    )
    parser.add_argument(
        "--label", nargs="+", default=[], metavar="NAME", help="only these labels; default: all"
    )
    return parser.parse_args(argv)


def main(argv=None) -> None:
    """Import an export and print what it held."""
    args = parse(argv)
    imported = import_masks(
        args.export,
        args.frames,
        args.out,
        args.format,
        args.label,
        progress=True,
        counts=args.counts,
        overwrite=args.overwrite,
    )
    listed = (f"{o.id} {o.name} ({imported.frames_of[o.id]} frames)" for o in imported.objects)
    print(printable(f"objects: {', '.join(listed)}"))
    print(
        f"{args.out}: {imported.num_annotated} of {imported.num_frames} frames are annotated, "
        f"{imported.num_empty} of them empty"
    )
    for note in imported.notes:
        print(printable(f"  {note}"))


if __name__ == "__main__":
    sys.exit(run_cli(main))
