"""Frames of one video and masks for some of them, as a scene to train on: `experiment=my_video`.

Masks are PNGs named like the frames, read by the rule of all masks (docs/data.md); a frame without
a mask file is not annotated, a mask without any object says that none is there. Some annotated
frames are held out: they are validated on and never trained on (geometry_fusion/data/hold_out.py).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from geometry_fusion.data.hold_out import BACK, hold_out, states_of
from geometry_fusion.data.scenes import SceneObject
from geometry_fusion.downloads import file_digest
from geometry_fusion.errors import InputError
from geometry_fusion.files import digest_of
from geometry_fusion.frame_folder import FrameFolder
from geometry_fusion.mask_rule import ONE_OBJECT, MaskFolder, list_masks
from geometry_fusion.source_record import check_belongs, record_of

LEAST = 2  # annotated frames of either part


class AnnotatedVideo:
    """All frames of a video and masks of some, with the interface of
    geometry_fusion.data.scenes.Scene (no depth, no cameras).

    `annotated` [T] bool tells which frames have a mask. Geometry is streamed through all frames, as
    at inference; clips use annotated ones. Raises InputError for masks of another size than the
    frames.
    """

    has_ids = True
    objects: list[SceneObject] = []

    def __init__(self, frames: FrameFolder, masks: MaskFolder):
        self.frames, self.folder = frames, frames.path
        self.stems, self.size = list(frames.stems), frames.size
        self._masks = masks
        self.annotated = np.isin(self.stems, list(masks.files))

    def __len__(self) -> int:
        return len(self.frames)

    def rgb(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8."""
        return self.frames[index]

    def instance(self, index: int) -> np.ndarray:
        """[H, W] int32 ids of an annotated frame, 0 = nothing, -1 = void. Raises KeyError for
        another frame.
        """
        return self._masks.read(self.stems[index])

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of every id in every frame, int [T, max_id + 1]; zero in frames that are not
        annotated.
        """
        table = np.zeros((len(self), max(self._masks.ids or [ONE_OBJECT]) + 1), int)
        for index in np.flatnonzero(self.annotated):
            ids = self.instance(index)
            counts = np.bincount(ids[ids >= 0])
            table[index, : len(counts)] = counts
        largest = int(np.flatnonzero(table.any(0)).max(initial=0))
        return table[:, : largest + 1]

    @cached_property
    def cache_name(self) -> str:
        """Tells these frames from others, for files that depend on them."""
        facts = [[file.name, file.stat().st_size] for file in self.frames.files]
        return f"video_{digest_of(facts)}"

    @property
    def digest(self) -> str:
        """Tells frames and masks from others."""
        return digest_of(
            [self.cache_name, {stem: file_digest(file) for stem, file in self._masks.files.items()}]
        )


@dataclass(frozen=True)
class Split:
    """One video, its masks in two parts. Objects are prompted on frames of `train`."""

    train: AnnotatedVideo
    val: AnnotatedVideo
    prompts: dict[int, int]  # object id -> the frame that prompts it
    returned: dict[int, frozenset[int]]  # object id -> frames of `val` that show it again

    @property
    def digest(self) -> str:
        """Tells frames and masks from others: a run on them is only resumed on the same."""
        return digest_of([self.train.digest, self.val.digest])

    def describe(self) -> str:
        """What was chosen, in one line."""
        held = np.flatnonzero(self.val.annotated)
        known = np.flatnonzero(self.val.annotated | self.train.annotated)
        after = len(frozenset().union(*self.returned.values()))
        back = f"{after} of them after an absence"
        if not after:
            back = "none of them after an absence, so that coming back is not validated"
        stems = self.train.stems
        prompts = ", ".join(f"{i} on {stems[frame]}" for i, frame in self.prompts.items())
        return (
            f"validation: {len(held)} of {len(known)} annotated frames are held out "
            f"({self._blocks(held, known)}), {back}; prompted by a mask that is trained on: "
            f"object {prompts}"
        )

    def _blocks(self, held: np.ndarray, known: np.ndarray) -> str:
        """Stems of held-out frames; of those without an annotated one between, first and last."""
        rows = np.searchsorted(known, held)
        blocks = np.split(held, np.flatnonzero(np.diff(rows) > 1) + 1)
        stems = self.val.stems
        ends = [dict.fromkeys((stems[block[0]], stems[block[-1]])) for block in blocks]
        return ", ".join("..".join(pair) for pair in ends)


def split_video(frames: Path, masks: Path, val_share: float, min_area: float = 0) -> Split:
    """A folder of frames and a folder of masks; about `val_share` of the annotated frames are held
    out.

    min_area: share of the image; an object is prompted on the first annotated frame in which it is
    at least so large, or else on its largest view.
    Raises InputError where there are too few masks, naming how many are needed.
    """
    folder, by_stem = _read(Path(frames), Path(masks))
    video = AnnotatedVideo(folder, by_stem)
    annotated = np.flatnonzero(video.annotated)
    count = max(LEAST, round(val_share * len(annotated)))
    if len(annotated) < count + LEAST:
        raise InputError(
            f"{masks}: {len(annotated)} frames of {frames} have masks; training needs at least "
            f"{LEAST} and validation {count}: annotate more frames, spread over the video"
        )
    areas = video.areas[annotated, 1:]  # [N, ids]
    columns = np.flatnonzero(areas.any(0))
    if not len(columns):
        raise InputError(f"{masks}: no object in any of {len(annotated)} masks; annotate one")
    areas = areas[:, columns]
    enough = np.minimum(max(1, min_area * folder.size[0] * folder.size[1]), areas.max(0))
    large = areas >= enough
    first = large.argmax(0).tolist()
    rows = hold_out(areas > 0, first, count)
    prompts = {int(column) + 1: int(annotated[row]) for column, row in zip(columns, first)}
    if not (areas[rows] > 0).any():
        shown = ", ".join(dict.fromkeys(video.stems[frame] for frame in prompts.values()))
        raise InputError(
            f"{masks}: only the frames that prompt the objects show them ({shown}); validation "
            "needs others: annotate more frames that show an object"
        )
    held = {video.stems[annotated[row]] for row in rows}
    parts = (set(by_stem.files) - held, held)
    train, val = (AnnotatedVideo(folder, by_stem.part(part)) for part in parts)
    states = [states_of(column > 0, row) for column, row in zip(areas.T, first)]
    back = [frozenset(int(annotated[row]) for row in rows if of[row] == BACK) for of in states]
    return Split(train, val, prompts, dict(zip(prompts, back)))


def _read(frames: Path, masks: Path) -> tuple[FrameFolder, MaskFolder]:
    """The frames and the masks. Raises InputError for masks that match no frame or have another
    size.
    """
    if frames.is_file():
        raise InputError(
            f"{frames}: is a file; extract its frames first: python main.py frames {frames} "
            "--every 1"
        )
    folder = FrameFolder(frames)
    if not masks.is_dir():
        raise InputError(
            f"{masks}: no such folder of masks; import them: python -m "
            "geometry_fusion.data.import_masks"
        )
    check_belongs(masks, record_of(folder.path), "data.masks")
    by_stem = list_masks(masks)
    known = set(folder.stems)
    if stray := [file for stem, file in by_stem.items() if stem not in known]:
        raise InputError(
            f"{stray[0]}: no frame of {frames} is called {stray[0].stem}; name masks like their "
            "frames"
        )
    read = MaskFolder(by_stem)
    read.check_size(folder.size)
    return folder, read
