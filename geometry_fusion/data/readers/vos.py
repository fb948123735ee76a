"""MOSE, DAVIS 2017, YouTube-VOS and LVOS: JPEGImages/VIDEO/00000.jpg and
Annotations/VIDEO/00000.png.

DAVIS has a folder per resolution between (JPEGImages/480p/bear): the resolution is part of a
scene's name. The value of a mask (a palette's index, never its colour) is the id, 255 is void. A
frame without a mask file has ids None: it is not known, not empty. Frames and masks pair by number;
numbers may step by 5 (YouTube-VOS, LVOS).

In validation sets with `meta.json` an object may be drawn only where it enters. A later mask then
says nothing about the objects that were there before: what it leaves empty is void.
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
from geometry_fusion.frame_folder import IMAGE_SUFFIXES
from geometry_fusion.mask_files import open_image, read_rgb
from geometry_fusion.mask_rule import VOID, VOID_ID
from geometry_fusion.parsing import reading

IMAGES = "JPEGImages"
MASKS = ("Annotations", "Annotations_unsupervised")  # the first that exists


def find(root: Path) -> list[str]:
    """Names: SPLIT/VIDEO or RESOLUTION/VIDEO as folders lie under `root`, without JPEGImages."""
    found = _videos(Path(root))
    if not found:
        raise InputError(
            f"{root}: no {IMAGES}/VIDEO with frames here or up to two folders below; give that "
            "folder"
        )
    return found


def open_scene(root: Path, name: str) -> Source:
    """One video; objects are those of meta.json, where there is one."""
    parts = name.split("/")
    places = (Path(root, *parts[:i], IMAGES, *parts[i:]) for i in range(len(parts)))
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise InputError(f"{root}: has no video {name!r}")
    images = numbered(f for f in folder.iterdir() if _is_image(f))
    notes: list[str] = []
    masks, meta_folders = _masks_of(folder, notes)
    note_dropped(
        notes, [masks[n].name for n in masks if n not in images], "a mask without its frame"
    )
    masks = {n: file for n, file in masks.items() if n in images}
    if masks and (without := len(images) - len(masks)):
        notes.append(
            f"{without} of {len(images)} frames have no mask: what is in them is not known"
        )
    entries = _meta(meta_folders, folder.name)
    partial_masks = _entering(entries, list(masks))
    if partial_masks:
        notes.append(
            f"{len(partial_masks)} masks show only objects that enter there: the rest of them is "
            "void"
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
    found: set[str] = set()
    for above in (
        root,
        *_folders(root),
        *(inner for outer in _folders(root) for inner in _folders(outer)),
    ):
        for video in _folders(above / IMAGES):
            # A folder without frames of its own is a resolution of DAVIS.
            inside = [video] if any(map(_is_image, video.iterdir())) else _folders(video)
            for folder in inside:
                if folder is video or any(map(_is_image, folder.iterdir())):
                    found.add(
                        "/".join(part for part in folder.relative_to(root).parts if part != IMAGES)
                    )
    return sorted(found)


def _folders(folder: Path) -> list[Path]:
    return (
        sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
        if folder.is_dir()
        else []
    )


def _masks_of(folder: Path, notes: list[str]) -> tuple[dict[int, Path], list[Path]]:
    """Frame number -> mask file, and the folders (split, and above) where meta.json may lie."""
    below = next(parent for parent in folder.parents if parent.name == IMAGES)
    split = below.parent
    # YouTube-VOS: frames of valid_all_frames are annotated in valid.
    splits = [split, split.with_name(split.name.removesuffix("_all_frames"))]
    for kind in MASKS:
        for there in splits:
            if (masks := there / kind / folder.relative_to(below)).is_dir():
                if kind != MASKS[0]:
                    notes.append(f"masks are those of {kind}")
                return numbered(
                    f for f in masks.iterdir() if _is_image(f) and f.suffix.lower() == ".png"
                ), splits
    notes.append(f"no {MASKS[0]} folder for this video: what is in its frames is not known")
    return {}, splits


def _meta(splits: list[Path], video: str) -> dict[int, dict]:
    """Object id -> its entry in meta.json (YouTube-VOS) or SPLIT_meta.json (LVOS); empty where
    there is none.
    """
    for split in splits:
        names = {"val": "valid", "valid": "val"}
        named = [f"{name}_meta.json" for name in (split.name, names.get(split.name, split.name))]
        for file in (
            split / "meta.json",
            *(place / n for place in (split, split.parent) for n in named),
        ):
            if file.is_file():
                videos = read_json(file)
                with reading(f"{file}: {video}", "objects by id", "copy the file again"):
                    objects = (videos["videos"].get(video) or {}).get("objects")
                    if objects is not None:
                        return {_object_id(i): dict(entry) for i, entry in objects.items()}
    return {}


def _object_id(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < VOID):
        raise ValueError(f"the id {text!r} is not in 1..{VOID - 1}")
    return int(text)


def _entering(entries: dict[int, dict], masks: list[int]) -> set[int]:
    """Numbers of masks that show only what enters: all but the first, if each mask is the first
    frame of an object.
    """
    firsts = {first for entry in entries.values() if (first := _first_frame(entry)) is not None}
    return set(masks[1:]) if len(masks) > 1 and set(masks) <= firsts else set()


def _first_frame(entry: dict) -> int | None:
    """LVOS: {"frame_range": {"start"}}, maybe as text; YouTube-VOS: {"frames": ["00005", ...]}."""
    try:
        frames = [entry["frame_range"]["start"]] if "frame_range" in entry else entry["frames"]
        return min(int(frame) for frame in frames)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _frames(
    images: dict[int, Path],
    masks: dict[int, Path],
    partial_masks: set[int],
    numbers: dict[str, int],
    stems: Sequence[str],
) -> Iterator[SceneFrame]:
    if masks:
        _check_has_ids(next(iter(masks.values())))
    for stem in stems:
        number = numbers[stem]
        rgb, ids = read_rgb(images[number]), None
        if number in masks:
            ids = read_values(masks[number])
            if ids.shape != rgb.shape[:2]:
                found, frame = (
                    "x".join(map(str, shape[::-1])) for shape in (ids.shape, rgb.shape[:2])
                )
                raise InputError(
                    f"{masks[number]}: mask is {found}, its frame {frame}; use both at one size"
                )
            ids = np.where(ids == VOID, VOID_ID, ids)
            if number in partial_masks:
                ids = np.where(ids == 0, VOID_ID, ids)
        yield SceneFrame(stem, rgb, ids)


def _check_has_ids(first_mask: Path) -> None:
    """The first mask of a video shows an object. Grey with nothing but 255 is a black and white
    mask (DAVIS 2016).
    """
    with open_image(first_mask) as image:
        grey = image.mode == "L"
    if grey and set(np.unique(read_values(first_mask)).tolist()) - {0} == {VOID}:
        raise InputError(
            f"{first_mask}: grey with 0 and 255 only, and 255 is void; write ids, or import such "
            "masks with "
            "geometry_fusion.data.import_masks"
        )
