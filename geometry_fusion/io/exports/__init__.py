"""Masks in the formats of other tools: COCO, YouTube-VIS, DAVIS, YOLO, CVAT, labelme, videos.

    export("videos/segment/masks", "coco", "masks.json", names={1: "red vase"})
    export(tracker.track("walk.mp4", prompt), "prores", "vase.mov", frames="walk.mp4")

A format is a function that writes a `Clip`; to add one, register it in `FORMATS` and name it in
`choices.EXPORT_FORMATS`. What each keeps and loses is in docs/exports.md.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from geometry_fusion.choices import EXPORT_FORMATS, EXPORT_SHAPES
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import (
    CLUTTER,
    check_apart,
    replacing_file,
    replacing_folder,
)
from geometry_fusion.io.exports.clip import (
    Clip,
    check_text,
    clip_of_folder,
    clip_of_frames,
    only_objects,
    with_frames,
    with_names,
)
from geometry_fusion.io.exports.coco import write_coco, write_ytvis
from geometry_fusion.io.exports.cvat import write_cvat
from geometry_fusion.io.exports.labelme import write_labelme
from geometry_fusion.io.exports.pictures import write_davis, write_gif, write_png_alpha
from geometry_fusion.io.exports.video import write_prores, write_vp9
from geometry_fusion.io.exports.yolo import write_yolo
from geometry_fusion.io.source_record import check_belongs, record_of

# Marks a folder that was exported, so that --overwrite deletes nothing else.
MARKER = ".3am-export"


@dataclass(frozen=True)
class Format:
    """A format: its writer, and what it needs."""

    # (clip, new file or empty folder, outlines instead of masks) -> lines of what was lost
    write: Callable[[Clip, Path, bool], list[str]]
    suffix: str | None = None  # of the file; None: it is a folder
    needs_frames: bool = False
    shapes: tuple[str, ...] = ("masks",)  # that it can hold, the usual one first


FORMATS = {
    "coco": Format(write_coco, ".json", shapes=("masks", "polygons")),
    "ytvis": Format(write_ytvis, ".json"),
    "davis": Format(write_davis),
    "yolo": Format(write_yolo, shapes=("polygons",)),
    "cvat": Format(write_cvat, ".xml", shapes=("masks", "polygons")),
    "labelme": Format(write_labelme, shapes=("polygons", "masks")),
    "png-alpha": Format(write_png_alpha, needs_frames=True),
    "prores": Format(write_prores, ".mov", needs_frames=True),
    "vp9": Format(write_vp9, ".webm", needs_frames=True),
    "gif": Format(write_gif, ".gif", needs_frames=True),
}


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    out: Path
    num_frames: int
    names: Mapping[int, str]  # object id -> name
    notes: list[str] = field(default_factory=list)  # what the format could not keep, a line each


def export(
    masks: Path | str | Iterable,
    to: str,
    out: Path | str,
    *,
    frames=None,
    names: Mapping[int, str] | None = None,
    objects: Sequence[int] | None = None,
    shapes: str = "auto",
    overwrite: bool = False,
    progress: bool = False,
) -> Exported:
    """Write masks in a format (a key of `FORMATS`) to `out`, as a whole or not at all.

    masks: a folder of mask PNGs; or an iterable that is read once, of ids [H, W] (0 nothing, -1
    void), of pairs (stem, ids), or of TrackedFrames in any order.
    out: a file or a folder, as the format needs. It must not exist, unless `overwrite` is True and
    an export wrote it.
    frames: the video, folder or `Frames` that the masks belong to, paired by stem or number.
    Formats that show pictures need them; others take names, numbers and pictures from them.
    names: object id -> name, default "object ID". objects: only these ids.
    shapes: "masks", "polygons" or "auto", where the format can hold both.
    progress: show a bar.

    Raises InputError for input that cannot be used; nothing is written then.
    """
    out = Path(out)
    chosen = _checked_format(to, out, frames, shapes)
    is_folder = isinstance(masks, Path | str)
    paths = [path for path in (masks, frames) if isinstance(path, Path | str)]
    for path in paths:
        check_apart([out], [Path(path)])
    _check_new(out, chosen, overwrite)
    if len(paths) == 2:
        check_belongs(Path(masks), record_of(frames), "masks in")
    with _clip_of(Path(masks) if is_folder else masks) as clip:
        clip = with_names(clip, names or {})
        clip = only_objects(clip, objects) if objects is not None else clip
        if frames is not None:
            clip = with_frames(clip, frames)
        check_text(clip)
        clip = replace(clip, progress=progress)
        polygons = (chosen.shapes[0] if shapes == "auto" else shapes) == "polygons"
        if chosen.suffix:
            with replacing_file(out) as fresh:
                notes = chosen.write(clip, fresh, polygons)
        else:
            with replacing_folder(out) as fresh:
                notes = chosen.write(clip, fresh, polygons)
                about = {"format": to, "source": clip.record}
                (fresh / MARKER).write_text(json.dumps(about), encoding="utf-8")
        return Exported(out, len(clip), clip.names, notes)


@contextmanager
def _clip_of(masks: Path | Iterable) -> Iterator[Clip]:
    if isinstance(masks, Path):
        yield clip_of_folder(masks)
        return
    with clip_of_frames(masks) as clip:
        yield clip


def _checked_format(to: str, out: Path, frames, shapes: str) -> Format:
    """The format of an export. Raises InputError where it cannot be written like this."""
    if to not in FORMATS:
        raise InputError(f"format {to}: unknown; choose one of {', '.join(EXPORT_FORMATS)}")
    chosen = FORMATS[to]
    if shapes not in EXPORT_SHAPES:
        raise InputError(f"shapes {shapes}: unknown; choose one of {', '.join(EXPORT_SHAPES)}")
    if shapes != "auto" and shapes not in chosen.shapes:
        raise InputError(f"{to}: holds {chosen.shapes[0]} only; leave out shapes {shapes}")
    if chosen.needs_frames and frames is None:
        raise InputError(f"{to}: shows the frames; give the video or folder as frames")
    if chosen.suffix and out.suffix.lower() != chosen.suffix:
        raise InputError(f"{out}: {to} is written to one file; name it {out.stem}{chosen.suffix}")
    if not chosen.suffix and out.suffix.lower() in {f.suffix for f in FORMATS.values()} - {None}:
        raise InputError(f"{out}: {to} is written to a folder; name it {out.stem}")
    return chosen


def _check_new(out: Path, chosen: Format, overwrite: bool) -> None:
    """Raise InputError where `out` exists, unless it may be overwritten."""
    cure = "add --overwrite to replace it, or choose another --out"
    if chosen.suffix:
        if out.is_dir():
            raise InputError(f"{out}: is a folder; choose the name of a file")
        if out.exists() and not overwrite:
            raise InputError(f"{out}: exists; {cure}")
        return
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: exists and is not a folder; choose another name")
    if not out.is_dir():
        return
    entries = {entry.name for entry in out.iterdir()} - set(CLUTTER)
    if entries and not overwrite:
        raise InputError(f"{out}: exists and is not empty; {cure}")
    if entries and MARKER not in entries:
        raise InputError(
            f"{out}: was not written by an export, and is not overwritten; choose a new or empty "
            "folder"
        )
    if Path.cwd().is_relative_to(out.resolve()):
        raise InputError(f"{out}: is the folder you are in or above it; choose another")
