"""MOSE, DAVIS 2017, YouTube-VOS and LVOS: JPEGImages/VIDEO/00000.jpg, Annotations/VIDEO/00000.png.

DAVIS has a folder per resolution in between (JPEGImages/480p/bear): the resolution is part of a
scene's name. The value of a mask (a palette's index, never its colour) is the id; 255 is void. A
frame without a mask file has no ids (None): its content is unknown, not empty. Frames and masks
pair by number; numbers may step by 5 (YouTube-VOS, LVOS).

In validation sets with `meta.json` an object may be drawn only where it enters. A later mask then
says nothing about the objects that entered before: its background is void.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.source import (
    Source,
    note_dropped,
    numbered,
    read_json,
    read_values,
)
from geometry_fusion.data.scenes import SceneFrame, SceneObject
from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import IMAGE_SUFFIXES
from geometry_fusion.io.mask_reader import VOID, VOID_ID
from geometry_fusion.io.mask_writer import open_image, read_rgb
from geometry_fusion.io.parsing import reading

IMAGES = "JPEGImages"
MASKS = ("Annotations", "Annotations_unsupervised")  # the first that exists


def find(root: Path) -> list[str]:
    """Names SPLIT/VIDEO or RESOLUTION/VIDEO, as folders lie under `root`, without JPEGImages.

    Raises InputError if there are none.
    """
    names = _videos(Path(root))
    if not names:
        raise InputError(
            f"{root}: no {IMAGES}/VIDEO with frames here or up to two folders below; "
            "give that folder"
        )
    return names


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`; objects are those of meta.json, if there is one.

    Raises InputError if the video is missing or two files have one frame number.
    """
    names = name.split("/")
    places = (Path(root, *names[:i], IMAGES, *names[i:]) for i in range(len(names)))
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise InputError(f"{root}: has no video {name!r}")
    images = numbered(f for f in folder.iterdir() if _is_image(f))
    notes: list[str] = []
    masks, meta_folders = _masks_of(folder, notes)
    stray = [file.name for number, file in masks.items() if number not in images]
    note_dropped(notes, stray, "a mask without its frame")
    masks = {number: file for number, file in masks.items() if number in images}
    num_unknown = len(images) - len(masks)
    if masks and num_unknown:
        notes.append(
            f"{num_unknown} of {len(images)} frames have no mask: their content is unknown"
        )
    entries = _meta(meta_folders, folder.name)
    partial_masks = _partial_masks(entries, list(masks))
    if partial_masks:
        notes.append(
            f"{len(partial_masks)} masks show only objects that enter there: "
            "the rest of them is void"
        )
    objects = [
        SceneObject(i, str(entry.get("category") or f"object {i}"))
        for i, entry in sorted(entries.items())
    ]
    stems = {file.stem: number for number, file in images.items()}
    read = partial(_frames, images, masks, partial_masks, stems)
    return Source(name.replace("/", "_"), list(stems), read, objects, notes)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")


def _videos(root: Path) -> list[str]:
    """Names of the videos at `root` and up to two folders below it."""
    below = _folders(root)
    places = [root, *below]
    for folder in below:
        places += _folders(folder)
    names: set[str] = set()
    for place in places:
        for folder in _folders(place / IMAGES):
            # A folder without images of its own is a resolution of DAVIS.
            is_video = any(map(_is_image, folder.iterdir()))
            videos = [folder] if is_video else _folders(folder)
            for video in videos:
                if video is folder or any(map(_is_image, video.iterdir())):
                    path = video.relative_to(root).parts
                    names.add("/".join(name for name in path if name != IMAGES))
    return sorted(names)


def _folders(folder: Path) -> list[Path]:
    """Folders in `folder`, sorted, without hidden ones; empty if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _masks_of(folder: Path, notes: list[str]) -> tuple[dict[int, Path], list[Path]]:
    """Frame number -> mask, and the folders of the split, in which meta.json may lie."""
    below = next(parent for parent in folder.parents if parent.name == IMAGES)
    split = below.parent
    # YouTube-VOS: frames of valid_all_frames are annotated in valid.
    splits = [split, split.with_name(split.name.removesuffix("_all_frames"))]
    for kind in MASKS:
        for place in splits:
            masks = place / kind / folder.relative_to(below)
            if masks.is_dir():
                if kind != MASKS[0]:
                    notes.append(f"masks are those of {kind}")
                pngs = (f for f in masks.iterdir() if _is_image(f) and f.suffix.lower() == ".png")
                return numbered(pngs), splits
    notes.append(f"no {MASKS[0]} folder for this video: the content of its frames is unknown")
    return {}, splits


def _meta(splits: list[Path], video: str) -> dict[int, dict]:
    """Object id -> its entry in meta.json (YouTube-VOS) or SPLIT_meta.json (LVOS).

    Empty if there is no such file. Raises InputError if it is damaged.
    """
    for split in splits:
        for file in _meta_files(split):
            if not file.is_file():
                continue
            videos = read_json(file)
            with reading(f"{file}: {video}", "objects by id", "copy the file again"):
                objects = (videos["videos"].get(video) or {}).get("objects")
                if objects is not None:
                    return {_object_id(i): dict(entry) for i, entry in objects.items()}
    return {}


def _meta_files(split: Path) -> list[Path]:
    """Where the meta file of a split may be."""
    other_name = {"val": "valid", "valid": "val"}.get(split.name, split.name)
    names = [f"{split.name}_meta.json", f"{other_name}_meta.json"]
    return [split / "meta.json", *(place / n for place in (split, split.parent) for n in names)]


def _object_id(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < VOID):
        raise ValueError(f"the id {text!r} is not in 1..{VOID - 1}")
    return int(text)


def _partial_masks(entries: dict[int, dict], masks: list[int]) -> set[int]:
    """Numbers of the masks that show only the objects that enter there.

    These are all masks but the first, if each mask is the first frame of some object.
    """
    firsts = {first for entry in entries.values() if (first := _first_frame(entry)) is not None}
    return set(masks[1:]) if len(masks) > 1 and set(masks) <= firsts else set()


def _first_frame(entry: dict) -> int | None:
    """The frame where an object enters; None if its entry does not state it.

    LVOS: {"frame_range": {"start": 5 or "5"}}; YouTube-VOS: {"frames": ["00005", ...]}.
    """
    try:
        frames = [entry["frame_range"]["start"]] if "frame_range" in entry else entry["frames"]
        return min(int(frame) for frame in frames)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _frames(
    images: dict[int, Path],
    masks: dict[int, Path],
    partial_masks: set[int],  # numbers of masks whose background is void
    numbers: dict[str, int],  # stem -> number
    stems: Sequence[str],  # of the wanted frames
) -> Iterator[SceneFrame]:
    """The wanted frames; InputError for masks of another size, and for masks without ids."""
    if masks:
        _check_has_ids(next(iter(masks.values())))
    for stem in stems:
        number = numbers[stem]
        rgb, ids = read_rgb(images[number]), None
        if number in masks:
            ids = read_values(masks[number])
            if ids.shape != rgb.shape[:2]:
                raise InputError(
                    f"{masks[number]}: mask is {ids.shape[1]}x{ids.shape[0]}, its frame "
                    f"{rgb.shape[1]}x{rgb.shape[0]}; use both at one size"
                )
            ids = np.where(ids == VOID, VOID_ID, ids)
            if number in partial_masks:
                ids = np.where(ids == 0, VOID_ID, ids)
        yield SceneFrame(stem, rgb, ids)


def _check_has_ids(first_mask: Path) -> None:
    """Raise InputError if a video's first mask, which shows an object, has 0 and 255 only in grey.

    That is a black and white mask (DAVIS 2016), whose object would be read as void.
    """
    with open_image(first_mask) as image:
        grey = image.mode == "L"
    if grey and set(np.unique(read_values(first_mask)).tolist()) - {0} == {VOID}:
        raise InputError(
            f"{first_mask}: grey with 0 and 255 only, and 255 is void; write ids, or import such "
            "masks with geometry_fusion.data.import_masks"
        )
