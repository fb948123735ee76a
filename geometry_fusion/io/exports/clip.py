"""The masks of one video as the writers of formats read them: frame by frame, object by object.

A `Clip` is made of a folder of mask PNGs (`clip_of_folder`) or of ids in memory (`clip_of_frames`).
Object ids keep their numbers. Void pixels (-1) belong to no object.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from geometry_fusion.errors import InputError
from geometry_fusion.io.exports.pairing import PairedFrames
from geometry_fusion.io.frame_folder import Size, frame_stem
from geometry_fusion.io.mask_reader import ONE_OBJECT, VOID_16, VOID_ID, MaskFolder, list_masks
from geometry_fusion.io.parsing import is_text
from geometry_fusion.io.source_record import Record, record_of_masks
from geometry_fusion.io.temporary import working_folder

LONGEST_NAME = 200  # characters of an object's name


@dataclass(frozen=True)
class ObjectMask:
    """An object in one frame, cropped to its bounding box."""

    object_id: int
    left: int  # x of the crop in the frame
    top: int
    crop: np.ndarray  # [h, w] bool; its first and last row and column hold a pixel of the object

    @property
    def area(self) -> int:
        """Pixels of the object."""
        return int(np.count_nonzero(self.crop))

    @property
    def box(self) -> list[int]:
        """x, y, width, height in pixels, as COCO writes boxes."""
        height, width = self.crop.shape
        return [self.left, self.top, width, height]

    def full(self, size: Size) -> np.ndarray:
        """[H, W] bool at frame size (width, height)."""
        mask = np.zeros(size[::-1], bool)
        height, width = self.crop.shape
        mask[self.top : self.top + height, self.left : self.left + width] = self.crop
        return mask


@dataclass(frozen=True)
class Clip:
    """Masks of one video in order."""

    stems: Sequence[str]  # of the frames, such as 0012
    size: Size  # (width, height)
    names: Mapping[int, str]  # object id -> name, in the order of the ids; all objects
    read: Callable[[int], np.ndarray]  # index -> [H, W] int32: object ids, 0 nothing, -1 void
    frames: PairedFrames | None = None  # the pictures that belong to the masks, where given
    record: Record | None = None  # of the source that the masks were made from
    # Of the frames in their video, where the masks came with numbers and without stems.
    given_numbers: Sequence[int] | None = None
    progress: bool = False

    def __len__(self) -> int:
        return len(self.stems)

    def ids(self, index: int) -> np.ndarray:
        """[H, W] int32 of the mask number `index`: 0 nothing, -1 void, else the object's id."""
        return self.read(index)

    def objects(self, index: int) -> list[ObjectMask]:
        """The objects that the mask number `index` shows, by id."""
        ids = np.maximum(self.ids(index), 0)
        objects = []
        for object_id, place in enumerate(ndimage.find_objects(ids), start=1):
            if place is not None:
                rows, columns = place
                crop = ids[place] == object_id
                objects.append(ObjectMask(object_id, columns.start, rows.start, crop))
        return objects

    def each(self, doing: str) -> Iterator[int]:
        """The indices of all masks, with a progress bar where it takes more than a second."""
        bar = {"unit": "frame", "delay": 1, "disable": not self.progress, "desc": doing}
        return iter(tqdm(range(len(self)), **bar))

    @property
    def numbers(self) -> list[int]:
        """Each mask's number in its video, from 0: its place among the frames where they are given,
        else the number that is its stem, else its place among the masks.
        """
        if self.frames:
            return self.frames.positions
        if self.given_numbers is not None:
            return list(self.given_numbers)
        if all(stem.isascii() and stem.isdecimal() for stem in self.stems):
            numbers = [int(stem) for stem in self.stems]
            if all(one < other for one, other in pairwise(numbers)):
                return numbers
        return list(range(len(self)))

    @property
    def num_frames(self) -> int:
        """Frames of the whole video; where it is not given, as many as the masks show there are."""
        return self.frames.count if self.frames else self.numbers[-1] + 1

    @property
    def image_names(self) -> list[str]:
        """Name of each mask's picture; STEM.jpg where no files of pictures are given."""
        return self.frames.image_names if self.frames else [f"{stem}.jpg" for stem in self.stems]

    @property
    def categories(self) -> dict[str, int]:
        """Name -> the smallest id of the objects that have it: the class in formats."""
        categories: dict[str, int] = {}
        for object_id, name in self.names.items():
            categories.setdefault(name, object_id)
        return categories


def clip_of_folder(folder: Path) -> Clip:
    """The masks of a folder of PNGs, as `main.py segment`, `ab_iou.py` and labelling tools write
    them. Masks of one object without an id show object 1.

    Raises InputError for folders that cannot be read and sizes that differ.
    """
    files = list_masks(folder)
    masks = MaskFolder(files)
    stems = list(files)
    size = masks.sizes[stems[0]]
    for stem, other in masks.sizes.items():
        if other != size:
            raise InputError(
                f"{files[stem]}: is {other[0]}x{other[1]}, {files[stems[0]].name} is "
                f"{size[0]}x{size[1]}; masks of one video must have one size"
            )
    object_ids = [ONE_OBJECT] if masks.ids is None else masks.ids
    return Clip(
        stems,
        size,
        {object_id: f"object {object_id}" for object_id in object_ids},
        lambda index: masks.read(stems[index]),
        record=record_of_masks(folder),
    )


@contextmanager
def clip_of_frames(tracked: Iterable) -> Iterator[Clip]:
    """The masks of an iterable, which is read once; temporary files keep them for the block.

    tracked: ids [H, W] (bool, or integers: 0 nothing, -1 void), pairs (stem, ids), or TrackedFrames
    in any order. Raises InputError for anything else, sizes that differ, a frame that comes twice,
    and where there are none.
    """
    with working_folder("3am-export") as folder:
        stems: dict[int, str | None] = {}  # number of the frame -> its stem, where it has one
        object_ids: set[int] = set()
        size: Size | None = None
        for place, item in enumerate(tracked):
            number, stem, ids = _parts_of(item, place)
            if number in stems or (stem is not None and stem in stems.values()):
                raise InputError(
                    f"masks: frame {stem or number} comes twice; give every frame once"
                )
            if size is not None and ids.shape[::-1] != size:
                raise InputError(f"masks: frame {number} is not {size[0]}x{size[1]} as the first")
            size = ids.shape[::-1]
            object_ids |= set(np.unique(ids).tolist()) - {0, VOID_ID}
            _write_ids(folder / f"{number}.png", ids)
            stems[number] = stem
        if size is None:
            raise InputError("masks: there are none; give a folder, or ids [H, W] of frames")
        numbers = sorted(stems)
        names = {object_id: f"object {object_id}" for object_id in sorted(object_ids)}
        yield Clip(
            [stems[number] or frame_stem(number, numbers[-1] + 1) for number in numbers],
            size,
            names or {ONE_OBJECT: f"object {ONE_OBJECT}"},
            lambda index: _read_ids(folder / f"{numbers[index]}.png"),
            given_numbers=numbers if None in stems.values() else None,
        )


def _parts_of(item, place: int) -> tuple[int, str | None, np.ndarray]:
    """Number, stem and ids [H, W] int32 of the item number `place` of `clip_of_frames`."""
    number, stem = place, None
    if hasattr(item, "ids"):
        number, stem, item = item.index, item.stem, item.ids
    elif isinstance(item, tuple):
        stem, item = item
    ids = np.asarray(item)
    if ids.ndim != 2 or ids.dtype.kind not in "biu" or not ids.size:
        raise InputError(f"masks: frame {number} is {ids.dtype} {list(ids.shape)}; give ids [H, W]")
    ids = ids.astype(np.int32)
    if ids.min() < VOID_ID or ids.max() >= VOID_16:
        raise InputError(f"masks: frame {number} holds ids that are not in -1..{VOID_16 - 1}")
    return number, stem, ids


def _write_ids(file: Path, ids: np.ndarray) -> None:
    stored = np.where(ids == VOID_ID, VOID_16, ids).astype(np.uint16)
    if not cv2.imwrite(str(file), stored, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise OSError(f"{file.parent}: could not be written; is the disk full?")


def _read_ids(file: Path) -> np.ndarray:
    stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.int32)
    return np.where(stored == VOID_16, VOID_ID, stored)


def with_frames(clip: Clip, source) -> Clip:
    """The clip with its frames, as `PairedFrames` takes them: paired by stem, or by number where
    the masks have no stems.
    """
    places = clip.stems if clip.given_numbers is None else clip.given_numbers
    frames = PairedFrames(source, places, clip.size)
    return replace(clip, frames=frames, stems=frames.stems)


def check_text(clip: Clip) -> None:
    """Raise InputError where a name of a file cannot be written into a text file."""
    for name in (*clip.stems, *clip.image_names):
        if not is_text(name):
            raise InputError(f"{name}: the name is not valid UTF-8; rename the file")


def with_names(clip: Clip, names: Mapping[int, str]) -> Clip:
    """The clip with these names of objects; ids that it never shows become objects without masks.

    Raises InputError for names that cannot be written.
    """
    for object_id, name in names.items():
        if not 1 <= object_id < VOID_16:
            raise InputError(f"name {name!r}: {object_id} is no object id; ids are from 1")
        if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
            raise InputError(
                f"name of object {object_id}: {name[:40]!r} is empty, longer than {LONGEST_NAME} "
                "characters or has control characters; choose another"
            )
    return replace(clip, names=dict(sorted({**clip.names, **names}.items())))


def only_objects(clip: Clip, object_ids: Sequence[int]) -> Clip:
    """The clip with these objects alone, at least one. Raises InputError for one it has not."""
    if not object_ids:
        raise InputError("objects: there are none; name at least one id")
    if missing := sorted(set(object_ids) - set(clip.names)):
        raise InputError(
            f"object {missing[0]}: is in no mask; there are {', '.join(map(str, clip.names))}"
        )
    kept = [VOID_ID, *object_ids]

    def read(index: int) -> np.ndarray:
        ids = clip.read(index)
        return np.where(np.isin(ids, kept), ids, 0)

    names = {key: name for key, name in clip.names.items() if key in object_ids}
    return replace(clip, names=names, read=read)
