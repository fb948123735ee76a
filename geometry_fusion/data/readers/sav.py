"""SA-V. Train: ID.mp4 with ID_manual.json. Val and test: JPEGImages_24fps/ID and
Annotations_6fps/ID/OBJECT/FRAME.png.

Every 4th frame is annotated; the others have ids None. Ids are SA-V's plus 1, because object 0 is
an object. Objects overlap, an id map cannot: the smaller one keeps the pixels. In an annotated
frame a missing PNG, a null and an all-zero mask all say that the object is out of view. Automatic
masklets (ID_auto.json) are not truth and not read.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from geometry_fusion.data.annotations.coco import decode_rle
from geometry_fusion.data.readers.source import (
    Source,
    note_dropped,
    numbered,
    read_json,
    read_values,
)
from geometry_fusion.data.scenes import SceneFrame, SceneObject
from geometry_fusion.errors import InputError
from geometry_fusion.mask_files import read_rgb
from geometry_fusion.mask_rule import VOID_16
from geometry_fusion.parsing import each, identity, reading
from geometry_fusion.video import VideoFile

STEP = 4  # video frames from one annotated frame to the next
FRAMES, MASKS, MANUAL = "JPEGImages_24fps", "Annotations_6fps", "_manual.json"


def find(root: Path) -> list[str]:
    """Names: paths of videos under `root`, without suffix and without JPEGImages_24fps."""
    found = _videos(Path(root))
    if not found:
        raise InputError(
            f"{root}: neither ID.mp4 with ID{MANUAL} nor {FRAMES}/ID here or in a folder below"
        )
    return found


def open_scene(root: Path, name: str) -> Source:
    """One video; all frames are in `stems`, also those that are not annotated."""
    place = Path(root, name)
    if (frames := place.parent / FRAMES / place.name).is_dir():
        return _open_folder(name, frames)
    if (video := place.with_name(place.name + ".mp4")).is_file():
        return _open_video(name, video)
    raise InputError(f"{root}: has no video {name!r}")


def _videos(root: Path) -> list[str]:
    found: list[str] = []
    for folder in (
        (root, *(f for f in sorted(root.iterdir()) if f.is_dir())) if root.is_dir() else ()
    ):
        for video in folder.glob("*.mp4"):
            if video.with_name(video.stem + MANUAL).is_file():
                found.append(video.relative_to(root).with_suffix("").as_posix())
        for frames in (folder / FRAMES).iterdir() if (folder / FRAMES).is_dir() else ():
            if frames.is_dir():
                found.append((folder.relative_to(root) / frames.name).as_posix())
    return sorted(found)


def _source(
    name: str, stems: list[str], frames, objects: dict[int, str], annotated: int, notes: list[str]
) -> Source:
    if annotated < len(stems):
        notes.insert(
            0, f"{annotated} of {len(stems)} frames are annotated; --every {STEP} keeps just these"
        )
    if len(objects) > 1:
        notes.append("where objects overlap, the smaller one keeps the pixels")
    listed = [SceneObject(i, objects[i]) for i in sorted(objects)]
    return Source(name.replace("/", "_"), stems, frames, listed, notes)


def merged(masks: Mapping[int, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """[H, W] int32 ids of masks [H, W] bool by id: smaller over larger, and of equal ones the lower
    id.
    """
    ids = np.zeros(shape, np.int32)
    for object_id in sorted(masks, key=lambda i: (np.count_nonzero(masks[i]), i), reverse=True):
        ids[masks[object_id]] = object_id
    return ids


# --- val and test


def _open_folder(name: str, folder: Path) -> Source:
    images = numbered(folder.glob("*.jpg"))
    if not images:
        raise InputError(f"{folder}: holds no frames; copy it again")
    notes: list[str] = []
    masks: dict[int, dict[int, Path]] = {}  # object id -> frame number -> file
    names: dict[int, str] = {}
    there = folder.parents[1] / MASKS / folder.name
    for of_object in sorted(there.iterdir()) if there.is_dir() else ():
        if of_object.is_dir() and of_object.name.isdecimal():
            object_id = int(of_object.name) + 1
            masks[object_id] = numbered(
                f for f in of_object.iterdir() if f.suffix.lower() == ".png"
            )
            names[object_id] = of_object.name
    if not masks:
        notes.append(f"no {MASKS} for this video: what is in its frames is not known")
    drawn = {number for files in masks.values() for number in files}
    note_dropped(notes, sorted(drawn - set(images)), "a mask without its frame")
    annotated = (
        {number for number in images if number % STEP == 0 or number in drawn} if masks else set()
    )
    stems = {file.stem: number for number, file in images.items()}

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in wanted:
            number = stems[stem]
            rgb = read_rgb(images[number])
            here = {
                i: _binary(files[number], rgb.shape[:2])
                for i, files in masks.items()
                if number in files
            }
            yield SceneFrame(
                stem, rgb, merged(here, rgb.shape[:2]) if number in annotated else None
            )

    return _source(name, list(stems), frames, names, len(annotated), notes)


def _binary(file: Path, shape: tuple[int, int]) -> np.ndarray:
    mask = read_values(file) > 0
    if mask.shape != shape:
        found, frame = ("x".join(map(str, size[::-1])) for size in (mask.shape, shape))
        raise InputError(f"{file}: mask is {found}, its frame {frame}; copy both again")
    return mask


# --- train


def _open_video(name: str, video: Path) -> Source:
    file = video.with_name(video.stem + MANUAL)
    document = read_json(file)
    with reading(file, "SA-V's masklets", "copy it again"):
        # Numbers may be written as floats. masklet_first_appeared_frame counts rows, not frames,
        # and is not needed.
        rows = each(_row, document["masklet"], "masklet")
        ids = document.get("masklet_id") or list(
            range(max((len(row or ()) for row in rows), default=0))
        )
        masklets = each(lambda i: identity(i, VOID_16 - 2), ids, "masklet_id")
        if len(set(masklets)) < len(masklets) or any(
            row and len(row) != len(masklets) for row in rows
        ):
            raise ValueError(f"rows of masklet do not have {len(masklets)} masks each")
    source = VideoFile(video)
    notes: list[str] = []
    count = source.num_frames
    surplus = [row for row in range(len(rows)) if row * STEP >= count]
    note_dropped(
        notes, [row * STEP for row in surplus], f"annotated beyond the {count} frames of the video"
    )
    stems = {f"{number:05d}": number for number in range(count)}
    annotated = {
        row * STEP: masks
        for row, masks in enumerate(rows)
        if masks is not None and row * STEP < count
    }
    names = {i + 1: f"masklet {i}" for i in masklets}

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        return _video_frames(source, file, annotated, list(names), {stems[stem] for stem in wanted})

    return _source(name, list(stems), frames, names, len(annotated), notes)


def _row(masks) -> list | None:
    """The masks of one annotated frame; None where it was not annotated."""
    if masks is not None and not (
        isinstance(masks, list) and all(m is None or isinstance(m, dict) for m in masks)
    ):
        raise TypeError("a row of masklet is no list of masks")
    return masks


def _video_frames(
    source: VideoFile, file: Path, annotated: dict[int, list], ids: list[int], wanted: set[int]
) -> Iterator[SceneFrame]:
    left = set(wanted)
    for number, rgb in enumerate(source):
        if number in left:
            instance = (
                _instance(file, annotated[number], ids, number, rgb)
                if number in annotated
                else None
            )
            yield SceneFrame(f"{number:05d}", rgb, instance)
            left.discard(number)
        if not left:
            return
    if left:
        raise InputError(
            f"{source.path}: ends before frame {min(left)}; the file is damaged, copy it again"
        )


def _instance(file: Path, masks: list, ids: list[int], number: int, rgb: np.ndarray) -> np.ndarray:
    with reading(f"{file}: frame {number}", "a mask", "copy video and file again"):
        size = rgb.shape[1::-1]
        return merged(
            {i: decode_rle(rle, size) for i, rle in zip(ids, masks, strict=True) if rle},
            rgb.shape[:2],
        )
