"""Frames of one video and masks for some of them, as a scene to train on: `experiment=my_video`.

Masks are PNGs named like the frames (palette index = object id, 255 = void; or 0/255 for one object); a frame without
a mask file is not annotated, a mask without any object says that none is there. The video is split by time: the last
annotated frames, and every frame from the first of them on, are validation and never seen in training.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from geometry_fusion.data.scenes import SceneObject
from geometry_fusion.downloads import file_digest
from geometry_fusion.errors import InputError
from geometry_fusion.files import digest_of
from geometry_fusion.frame_folder import FrameFolder
from geometry_fusion.mask_files import VOID, read_ids

LEAST = 2  # annotated frames of either part: one that is prompted, one that is asked for


class AnnotatedVideo:
    """Consecutive frames of a video, with the interface of geometry_fusion.data.scenes.Scene (no depth, no cameras).

    `annotated` [T] bool tells which frames have a mask. Geometry is streamed through all frames, as at inference;
    clips and validation use annotated ones. Raises InputError for masks that match no frame or have another size.
    """

    has_ids = True
    objects: list[SceneObject] = []

    def __init__(self, frames: FrameFolder, masks: dict[str, Path], part: range, name: str):
        self._frames, self._part, self._name = frames, part, name
        self.folder = frames.path
        self.stems = [frames.stems[i] for i in part]
        self.size = frames.size
        self._masks = [masks.get(stem) for stem in self.stems]
        self.annotated = np.array([file is not None for file in self._masks], bool)

    def __len__(self) -> int:
        return len(self._part)

    def rgb(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8."""
        return self._frames[self._part[index]]

    def instance(self, index: int) -> np.ndarray:
        """[H, W] int32 ids of an annotated frame, 0 = nothing, -1 = void."""
        ids = read_ids(self._masks[index], self._frames.size).astype(np.int32)
        return np.where(ids == VOID, -1, ids)

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of every id in every frame, int [T, max_id + 1]; zero in frames that are not annotated."""
        seen = [self.instance(i) if known else np.zeros(0, int) for i, known in enumerate(self.annotated)]
        counts = [np.bincount(ids[ids >= 0]) for ids in seen]
        table = np.zeros((len(self), max(map(len, counts))), int)
        for row, count in zip(table, counts):
            row[: len(count)] = count
        return table

    @cached_property
    def cache_name(self) -> str:
        """Tells these frames from others, for files that depend on them."""
        facts = [[file.name, file.stat().st_size] for file in (self._frames.files[i] for i in self._part)]
        return f"{self._name}_{digest_of(facts)}"

    @property
    def digest(self) -> str:
        """Tells frames and masks from others: what a training on them must not change when it is resumed."""
        return digest_of([self.cache_name, [f and file_digest(f) for f in self._masks]])


def split_by_time(frames: Path, masks: Path, val_share: float) -> tuple[AnnotatedVideo, AnnotatedVideo]:
    """(train, val) of a folder of frames and a folder of masks; val is the last `val_share` of the annotated frames.

    Raises InputError where there are too few, naming how many are needed.
    """
    if Path(frames).is_file():
        raise InputError(f"{frames}: is a file; extract its frames first: python main.py frames {frames} --every 1")
    folder, masks = FrameFolder(frames), Path(masks)
    if not masks.is_dir():
        raise InputError(f"{masks}: no such folder of masks; import them: python -m geometry_fusion.data.import_masks")
    found = sorted(f for f in masks.iterdir() if f.suffix.lower() == ".png" and not f.name.startswith("."))
    known = set(folder.stems)
    if stray := [f for f in found if f.stem not in known]:
        raise InputError(f"{stray[0]}: no frame of {frames} is called {stray[0].stem}; name masks like their frames")
    by_stem = {f.stem: f for f in found}
    annotated = [i for i, stem in enumerate(folder.stems) if stem in by_stem]
    count = max(LEAST, round(val_share * len(annotated)))
    if len(annotated) < count + LEAST:
        raise InputError(
            f"{masks}: {len(annotated)} frames of {frames} have masks; training needs at least {LEAST} and validation "
            f"{count}: annotate more frames, spread over the video"
        )
    cut = annotated[-count]
    parts = ("train", range(cut)), ("val", range(cut, len(folder)))
    train, val = (AnnotatedVideo(folder, by_stem, part, name) for name, part in parts)
    for part in (train, val):
        if part.areas.shape[1] < 2:
            raise InputError(f"{masks}: no object in frames {part.stems[0]} to {part.stems[-1]}; annotate some there")
    return train, val
