"""SA-V. Train: ID.mp4 with ID_manual.json. Val and test: JPEGImages_24fps/ID with masks in
Annotations_6fps/ID/OBJECT/FRAME.png.

Every 4th frame is annotated; the others have no ids (None). Ids are SA-V's plus 1, because its
object 0 is an object. Objects may overlap, which an id map cannot show: the smaller one keeps the
pixels. In an annotated frame a missing PNG, a null and an all-zero mask all mean that the object is
out of view. Automatic masklets (ID_auto.json) are not ground truth and not read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from geometry_fusion.io.mask_reader import VOID_16
from geometry_fusion.io.mask_writer import read_rgb
from geometry_fusion.io.parsing import each, identity, reading
from geometry_fusion.io.video_file import VideoFile

STEP = 4  # video frames from one annotated frame to the next
FRAMES, MASKS, MANUAL = "JPEGImages_24fps", "Annotations_6fps", "_manual.json"


def find(root: Path) -> list[str]:
    """Names: paths of videos under `root`, without suffix and without JPEGImages_24fps.

    Raises InputError if there are none.
    """
    names = _videos(Path(root))
    if not names:
        raise InputError(
            f"{root}: neither ID.mp4 with ID{MANUAL} nor {FRAMES}/ID here or in a folder below; "
            "give the folder of SA-V"
        )
    return names


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`; all frames are in `stems`, also those without annotation.

    Raises InputError if the video is missing or its files are damaged.
    """
    place = Path(root, name)
    if (frames := place.parent / FRAMES / place.name).is_dir():
        return _open_folder(name, frames)
    if (video := place.with_name(place.name + ".mp4")).is_file():
        return _open_video(name, video)
    raise InputError(f"{root}: has no video {name!r}")


def _videos(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    names: list[str] = []
    for folder in (root, *(f for f in sorted(root.iterdir()) if f.is_dir())):
        for video in folder.glob("*.mp4"):
            if video.with_name(video.stem + MANUAL).is_file():
                names.append(video.relative_to(root).with_suffix("").as_posix())
        for frames in (folder / FRAMES).iterdir() if (folder / FRAMES).is_dir() else ():
            if frames.is_dir():
                names.append((folder.relative_to(root) / frames.name).as_posix())
    return sorted(names)


def _source(
    name: str,
    stems: list[str],
    frames: Callable[[Sequence[str]], Iterator[SceneFrame]],
    objects: dict[int, str],  # id -> name
    num_annotated: int,  # frames
    notes: list[str],
) -> Source:
    """The source of either split, with the notes that both need."""
    if num_annotated < len(stems):
        share = f"{num_annotated} of {len(stems)} frames are annotated"
        notes.insert(0, f"{share}; --every {STEP} keeps just these")
    if len(objects) > 1:
        notes.append("where objects overlap, the smaller one keeps the pixels")
    listed = [SceneObject(i, objects[i]) for i in sorted(objects)]
    return Source(name.replace("/", "_"), stems, frames, listed, notes)


def merged(masks: Mapping[int, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """[H, W] int32 ids of masks [H, W] bool by id.

    Smaller masks are over larger ones, and of equal ones the lower id is on top.
    """
    ids = np.zeros(shape, np.int32)
    for object_id in sorted(masks, key=lambda i: (np.count_nonzero(masks[i]), i), reverse=True):
        ids[masks[object_id]] = object_id
    return ids


def _open_folder(name: str, folder: Path) -> Source:
    """A video of the validation or test set: a folder of images, and masks if they are there."""
    images = numbered(folder.glob("*.jpg"))
    if not images:
        raise InputError(f"{folder}: holds no frames; copy it again")
    notes: list[str] = []
    masks: dict[int, dict[int, Path]] = {}  # object id -> frame number -> file
    names: dict[int, str] = {}
    mask_folder = folder.parents[1] / MASKS / folder.name
    for object_folder in sorted(mask_folder.iterdir()) if mask_folder.is_dir() else ():
        if object_folder.is_dir() and object_folder.name.isdecimal():
            object_id = int(object_folder.name) + 1
            pngs = (f for f in object_folder.iterdir() if f.suffix.lower() == ".png")
            masks[object_id] = numbered(pngs)
            names[object_id] = object_folder.name
    if not masks:
        notes.append(f"no {MASKS} for this video: the content of its frames is unknown")
    drawn = {number for files in masks.values() for number in files}
    note_dropped(notes, sorted(drawn - set(images)), "a mask without its frame")
    annotated = set()
    if masks:
        annotated = {number for number in images if number % STEP == 0 or number in drawn}
    stems = {file.stem: number for number, file in images.items()}

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in wanted:
            number = stems[stem]
            rgb, ids = read_rgb(images[number]), None
            if number in annotated:
                hw = rgb.shape[:2]
                files = {i: by_frame.get(number) for i, by_frame in masks.items()}
                ids = merged({i: _binary(file, hw) for i, file in files.items() if file}, hw)
            yield SceneFrame(stem, rgb, ids)

    return _source(name, list(stems), frames, names, len(annotated), notes)


def _binary(file: Path, hw: tuple[int, int]) -> np.ndarray:
    """[H, W] bool of a mask; InputError if it does not have its frame's size."""
    mask = read_values(file) > 0
    if mask.shape != hw:
        raise InputError(
            f"{file}: mask is {mask.shape[1]}x{mask.shape[0]}, its frame {hw[1]}x{hw[0]}; "
            "copy both again"
        )
    return mask


def _open_video(name: str, video: Path) -> Source:
    """A video of the training set."""
    file = video.with_name(video.stem + MANUAL)
    rows, masklets = _masklets(file)
    source = VideoFile(video)
    count = source.num_frames
    notes: list[str] = []
    beyond = [row * STEP for row in range(len(rows)) if row * STEP >= count]
    note_dropped(notes, beyond, f"annotated beyond the {count} frames of the video")
    annotated = {
        row * STEP: masks
        for row, masks in enumerate(rows)
        if masks is not None and row * STEP < count
    }
    stems = {f"{number:05d}": number for number in range(count)}
    names = {i + 1: f"masklet {i}" for i in masklets}

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        return _video_frames(source, file, annotated, list(names), {stems[stem] for stem in wanted})

    return _source(name, list(stems), frames, names, len(annotated), notes)


def _masklets(file: Path) -> tuple[list[list | None], list[int]]:
    """The masks of every STEP-th frame (None if not annotated), and the ids of their objects.

    Raises InputError if the file is damaged.
    """
    document = read_json(file)
    with reading(file, "SA-V's masklets", "copy it again"):
        # Numbers may be written as floats. masklet_first_appeared_frame counts rows, not frames,
        # and is not needed.
        rows = each(_row, document["masklet"], "masklet")
        ids = document.get("masklet_id")
        if not ids:
            ids = list(range(max((len(row or ()) for row in rows), default=0)))
        masklets = each(lambda i: identity(i, VOID_16 - 2), ids, "masklet_id")
        is_complete = all(not row or len(row) == len(masklets) for row in rows)
        if len(set(masklets)) < len(masklets) or not is_complete:
            raise ValueError(f"rows of masklet do not have {len(masklets)} masks each")
    return rows, masklets


def _row(masks) -> list | None:
    """The masks of one annotated frame; None if it was not annotated. TypeError for others."""
    if masks is None:
        return None
    if not isinstance(masks, list) or any(not isinstance(m, (dict, type(None))) for m in masks):
        raise TypeError("a row of masklet is no list of masks")
    return masks


def _video_frames(
    source: VideoFile,
    file: Path,  # of the masklets, for messages
    annotated: dict[int, list],  # frame number -> masks
    ids: list[int],  # of the masks
    wanted: set[int],  # frame numbers
) -> Iterator[SceneFrame]:
    """The wanted frames in order; InputError if the video ends before the last of them."""
    remaining = set(wanted)
    for number, rgb in enumerate(source):
        if number in remaining:
            instance = None
            if number in annotated:
                instance = _instance(file, annotated[number], ids, number, rgb)
            yield SceneFrame(f"{number:05d}", rgb, instance)
            remaining.discard(number)
        if not remaining:
            return
    if remaining:
        raise InputError(
            f"{source.path}: ends before frame {min(remaining)}; the file is damaged, copy it again"
        )


def _instance(file: Path, masks: list, ids: list[int], number: int, rgb: np.ndarray) -> np.ndarray:
    """[H, W] int32 ids of one frame; InputError if a mask is damaged or has another size."""
    with reading(f"{file}: frame {number}", "a mask", "copy video and file again"):
        pairs = zip(ids, masks, strict=True)
        decoded = {i: decode_rle(rle, rgb.shape[1::-1]) for i, rle in pairs if rle}
        return merged(decoded, rgb.shape[:2])
