"""Exports of annotation tools into a folder of masks: DAVIS palette PNGs, named like the frames and
of their size.

    python -m geometry_fusion.data.import_masks cvat_export.zip --frames videos/frames --out masks
    python -m geometry_fusion.data.import_masks labelme_folder --frames my_video.mp4 --out masks
    --label vase

Reads CVAT (Segmentation mask 1.1; for images/video 1.1), labelme, COCO (per image, per video),
DAVIS palettes and plain PNGs. Index 255 of a mask is void. Frames that nobody annotated get no
mask; annotated frames without objects get an empty one. `objects.json` beside the masks tells the
names: {"objects": [{"id", "name"}]}.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from natsort import natsorted
from tqdm import tqdm

from geometry_fusion.data.annotations import (
    AnnotatedFrame,
    AnnotatedObject,
    Annotations,
    Files,
    coco,
    cvat,
    labelme,
    pngs,
    stem_of,
)
from geometry_fusion.data.readers.source import nearest, note_dropped, read_json
from geometry_fusion.errors import InputError, OneLineParser, printable, run_cli
from geometry_fusion.files import check_apart, check_replaceable, replacing_folder
from geometry_fusion.frame_folder import FRAMES_JSON, FrameFolder, Size
from geometry_fusion.mask_files import write_palette_mask
from geometry_fusion.mask_rule import VOID, VOID_ID
from geometry_fusion.parsing import each, is_whole, reading, whole
from geometry_fusion.source_record import OVERWRITE_CURE, as_text, check_may_replace, record_of
from geometry_fusion.video import VideoFile, open_frames

COUNTS = ("auto", "video", "frames")  # what numbers in the names of an export count
FORMATS = ("auto", "cvat", "cvat_xml", "labelme", "coco", "davis", "png")
NONE_EMPTY = (
    "no annotated frame is empty; where no object is in view, tell that too: by a tag on the "
    "image in CVAT (exported "
    "as CVAT for images 1.1), or by a black PNG named like the frame"
)
OBJECTS_JSON = "objects.json"  # readers of masks look at PNGs only


@dataclass(frozen=True)
class Imported:
    objects: list[AnnotatedObject]  # that are in some frame
    frames_of: dict[int, int]  # id -> in how many frames
    num_annotated: int
    num_empty: int  # of those
    num_frames: int
    notes: list[str]


def import_masks(
    export: Path,
    frames: Path,
    out: Path,
    kind: str = "auto",
    labels: Sequence[str] = (),
    progress: bool = False,
    counts: str = "auto",
    overwrite: bool = False,
) -> Imported:
    """Write the masks of an export to `out`, which is replaced once all are there.

    `labels` keeps the objects of these labels; ids do not depend on it. `counts`: whether names
    such as frame_000012 count frames of the video or of the folder, where the folder holds every
    n-th of them. Raises InputError for everything that would give wrong masks: names that fit no
    frame, other sizes, identities that the export does not tell. `overwrite` lets masks of other
    frames be replaced.
    """
    export, out = Path(export), Path(out)
    check_apart([out], [export, frames])
    _check_holds_only_masks(out)
    source = open_frames(frames)
    record = record_of(frames)
    record.pop("sample", None)  # annotations are work, whatever they are of
    check_may_replace([out], record, overwrite, OVERWRITE_CURE)
    kind, files, only = _opened(export, kind)
    annotations = _read(kind, files, only, Path(frames).stem)
    objects = _chosen(annotations.objects, labels, files.path)
    notes = list(annotations.notes)
    about = _about(source)
    counts = _counted(annotations, source, about, counts)
    targets = _targets(
        annotations, _FrameNames(source, about, annotations.num_images, counts), notes
    )
    kept, frames_of, empty = [o.id for o in objects], Counter(), 0
    with replacing_folder(out.resolve()) as fresh:
        for stem, frame in tqdm(targets.items(), unit="mask", disable=None if progress else True):
            ids = _ids(frame, source.size, about, notes)
            ids = np.where(np.isin(ids, [VOID_ID, *kept]), ids, 0)
            present = np.unique(ids[ids > 0]).tolist()
            frames_of.update(present)
            empty += not present
            write_palette_mask(fresh / f"{stem}.png", np.where(ids < 0, VOID, ids), as_text(record))
        found = [o for o in objects if frames_of[o.id]]
        if not found:
            raise InputError(f"{export}: no frame shows an object; nothing was imported")
        listing = {"objects": [{"id": o.id, "name": o.name} for o in found]}
        (fresh / OBJECTS_JSON).write_text(
            json.dumps(listing, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    if unseen := [o.name for o in objects if not frames_of[o.id]]:
        notes.append(f"in no frame: {', '.join(unseen)}")
    if not empty and len(targets) < len(source.stems):
        notes.append(NONE_EMPTY)
    return Imported(found, dict(frames_of), len(targets), empty, len(source.stems), notes)


def _opened(export: Path, kind: str) -> tuple[str, Files, str | None]:
    """The format, the files, and which folder of a CVAT mask export is meant, if only one is."""
    part = (
        export.name in (cvat.CLASSES, cvat.INSTANCES) and (export.parent / "labelmap.txt").exists()
    )
    if part and kind in ("auto", "cvat"):
        return "cvat", Files(export.parent), export.name
    files = Files(export)
    return (_detected(files) if kind == "auto" else kind), files, None


def _detected(files: Files) -> str:
    folders = {part for name in files.names for part in name.split("/")[:-1]}
    if folders & {cvat.CLASSES, cvat.INSTANCES}:
        return "cvat"
    if files.ending(".xml"):
        return "cvat_xml"
    for name in files.ending(".json"):
        if coco.is_coco(document := files.json(name)):
            return "coco"
        if labelme.is_labelme(document):
            return "labelme"
    if files.ending(".png"):
        return "png"
    raise InputError(
        f"{files.path}: no known export (CVAT, labelme, COCO, PNG masks); name its --format"
    )


def _read(kind: str, files: Files, only: str | None, name: str) -> Annotations:
    if kind == "coco":
        return coco.read(files, name)
    if kind == "cvat":
        return cvat.read_masks(files, only)
    if kind in ("davis", "png"):
        return pngs.read(files, palettes_only=kind == "davis")
    return {"cvat_xml": cvat.read_xml, "labelme": labelme.read}[kind](files)


def _chosen(
    objects: list[AnnotatedObject], labels: Sequence[str], export: Path
) -> list[AnnotatedObject]:
    known = sorted({o.label for o in objects})
    if missing := [label for label in labels if label not in known]:
        raise InputError(
            f"--label {missing[0]}: not in {export}, which has {', '.join(known) or 'no labels'}"
        )
    chosen = [o for o in objects if not labels or o.label in labels]
    if chosen and max(o.id for o in chosen) >= VOID:
        raise InputError(
            f"{export}: {len(objects)} objects; a mask holds ids 1..254, annotate in several "
            "exports"
        )
    return chosen


def _check_holds_only_masks(out: Path) -> None:
    for file in out.glob("*.json") if out.is_dir() else ():
        if file.name != OBJECTS_JSON:
            raise InputError(
                f"--out {out}: holds {file.name!r}, not only old masks; choose a new or empty "
                "folder"
            )
    check_replaceable(out, (".png", ".json"), "--out")


def _about(source: VideoFile | FrameFolder) -> dict:
    """What frames.json tells about the video that the frames are from; a video is its own
    source.
    """
    if isinstance(source, VideoFile):
        return {"every": 1, "source_size": source.size}
    file = source.path / FRAMES_JSON
    if not file.exists():
        return {}
    about = read_json(file)
    with reading(
        file, "what main.py frames writes", "extract the frames again, or delete the file"
    ):
        every, size = about.get("every"), about.get("source_size")
        if every is not None and not (is_whole(every) and every >= 1):
            raise ValueError(f"every is {every!r}")
        if size is not None and not (len(each(whole, size, "source_size")) == 2 and min(size) >= 1):
            raise ValueError(f"source_size is {size!r}")
    return about


def _counted(
    annotations: Annotations, source: VideoFile | FrameFolder, about: dict, wanted: str
) -> str:
    """What frame_000012 of an export counts: "video", or "frames" of a folder that holds every n-th
    of the video.

    Tools number what they were given. Raises InputError where that may have been either: the masks
    would land on other frames.
    """
    every, known = about.get("every", 1), set(source.stems)
    numbered = [(_number(f.name), f) for f in annotations.frames if isinstance(f.name, str)]
    numbered = [(n, f) for n, f in numbered if n is not None and stem_of(f.name) not in known]
    highest = max((number for number, _ in numbered), default=0)
    if wanted != "auto":
        return wanted
    if (
        every == 1
        or not highest
        or max(highest, (annotations.num_frames or 1) - 1) >= len(source.stems)
    ):
        return "video"
    shrunk_from = tuple(about.get("source_size") or source.size)
    number, frame = max(numbered, key=lambda pair: pair[0])
    drawn = _drawn_size(frame, (tuple(source.size), shrunk_from))
    if shrunk_from != tuple(source.size) and drawn is not None:
        return "video" if drawn == shrunk_from else "frames"
    raise InputError(
        f"{frame.name}: {number} may count the frames of the video or those of {source.path}, "
        "which holds every "
        f"{every}th; say which was annotated: --counts video or --counts frames"
    )


def _drawn_size(frame: AnnotatedFrame, sizes: Sequence[Size]) -> Size | None:
    """(width, height) of the picture that was annotated; None where the export draws at any
    size.
    """
    if frame.size:
        return tuple(frame.size)
    try:
        found = {frame.ids(size).shape[::-1] for size in sizes}
    except InputError:
        return None
    return found.pop() if len(found) == 1 else None


def _number(name: str) -> int | None:
    """CVAT's number of a frame, 12 of frame_000012.PNG."""
    numbered = re.fullmatch(r"frame_(\d{6,12})", stem_of(name))
    return int(numbered[1]) if numbered else None


class _FrameNames:
    """Finds the frame that an export means: by stem, by CVAT's number of a video's frame, or by
    position.
    """

    def __init__(
        self, source: VideoFile | FrameFolder, about: dict, num_images: int | None, counts: str
    ):
        self.stems, self.path, self.num_images = source.stems, source.path, num_images
        self.every = 1 if counts == "frames" else about.get("every")
        self._known = set(self.stems)
        self._by_number = {int(stem): stem for stem in self.stems if stem.isdecimal()}

    def stem(self, name: str | int) -> str | None:
        """The stem of the frame; None for a video's frame that was not extracted. Raises InputError
        for others.
        """
        if isinstance(name, int):
            if self.num_images != len(self.stems) or natsorted(self.stems) != sorted(self.stems):
                raise InputError(
                    f"image {name} of {self.num_images}: which of {len(self.stems)} frames in "
                    f"{self.path} it is cannot "
                    "be told; export CVAT for images 1.1, which has names"
                )
            return self.stems[name]
        stem = stem_of(name)
        if stem in self._known:
            return stem
        cure = f"name masks like the frames, such as {self.stems[0]}"
        if (number := _number(name)) is not None:
            if self.every:
                # CVAT's number is the video's frame, whatever its start and step were.
                index, rest = divmod(number, self.every)
                if rest:
                    return None
                if index in self._by_number:
                    return self._by_number[index]
                end = max(self._by_number, default=0) * self.every
                cure = f"the frames end at number {end} of the video; give those of the video "
                "that was annotated"
            else:
                cure = "give the video as --frames, or frames of `main.py frames` (here is no "
                f"{FRAMES_JSON})"
        raise InputError(f"{name}: no such frame in {self.path}; {cure}")


def _targets(
    annotations: Annotations, names: _FrameNames, notes: list[str]
) -> dict[str, AnnotatedFrame]:
    """Frame stem -> what was annotated in it, in the order of the frames."""
    targets: dict[str, AnnotatedFrame] = {}
    between: list[str] = []
    for frame in annotations.frames:
        stem = names.stem(frame.name)
        if stem is None:
            between.append(stem_of(frame.name))
        elif (other := targets.setdefault(stem, frame)) is not frame:
            raise InputError(
                f"{frame.name}: is the same frame as {other.name}; export one video or folder at "
                "a time"
            )
    if between and not targets:
        raise InputError(
            f"{between[0]}: not in {names.path}, which has every {names.every}th frame; extract "
            "with --every 1"
        )
    note_dropped(
        notes, between, f"between the frames, which are every {names.every}th of the video"
    )
    return {stem: targets[stem] for stem in names.stems if stem in targets}


def _ids(frame: AnnotatedFrame, size: Size, about: dict, notes: list[str]) -> np.ndarray:
    """[H, W] ids at the size (width, height) of the frames."""
    shrunk_from = tuple(about.get("source_size") or size)
    _check_size(frame, frame.size or size, size, shrunk_from)
    ids = frame.ids(frame.size or size)
    found = ids.shape[::-1]
    _check_size(frame, found, size, shrunk_from)
    if (
        found != tuple(size)
        and (told := f"masks shrunk from {found[0]}x{found[1]} as the frames were") not in notes
    ):
        notes.append(told)
    return nearest(ids, size)


def _check_size(frame: AnnotatedFrame, found: Size, size: Size, shrunk_from: Size) -> None:
    if tuple(found) not in (tuple(size), shrunk_from):
        turned = (
            "; was it annotated without its EXIF orientation?"
            if tuple(found) == tuple(size)[::-1]
            else ""
        )
        raise InputError(
            f"{frame.name}: its masks are {found[0]}x{found[1]}, the frames {size[0]}x{size[1]}; "
            "annotate and export "
            f"at their size{turned}"
        )


def parse(argv=None) -> argparse.Namespace:
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
        help="what frame_000012 counts; auto: told or asked",
    )
    parser.add_argument(
        "--label", nargs="+", default=[], metavar="NAME", help="only these labels; default: all"
    )
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    options = {"counts": args.counts, "overwrite": args.overwrite, "progress": True}
    done = import_masks(args.export, args.frames, args.out, args.format, args.label, **options)
    listed = (f"{o.id} {o.name} ({done.frames_of[o.id]} frames)" for o in done.objects)
    print(printable(f"objects: {', '.join(listed)}"))
    print(
        f"{args.out}: {done.num_annotated} of {done.num_frames} frames are annotated, "
        f"{done.num_empty} of them empty"
    )
    for note in done.notes:
        print(printable(f"  {note}"))


if __name__ == "__main__":
    sys.exit(run_cli(main))
