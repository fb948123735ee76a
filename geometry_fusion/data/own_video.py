"""Frames of one video and masks for some of them, as a scene to train on: `experiment=my_video`.

Masks are PNGs named like the frames, read by the one rule for masks (docs/data.md). A frame without
a mask file is not annotated; a mask without any object says that none is in view. Some annotated
frames are held out: they are validated on and never trained on (geometry_fusion/data/hold_out.py).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from geometry_fusion.data.hold_out import BACK, hold_out, states_of
from geometry_fusion.data.scenes import SceneObject
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import digest_of
from geometry_fusion.io.digests import file_digest
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.mask_reader import ONE_OBJECT, MaskFolder, list_masks
from geometry_fusion.io.source_record import check_belongs, record_of

LEAST = 2  # annotated frames that training and validation each need


class AnnotatedVideo:
    """All frames of a video and masks of some, with the interface of
    geometry_fusion.data.scenes.Scene (no depth, no cameras).

    `annotated` [T] bool says which frames have a mask. Geometry is streamed through all frames, as
    in inference; clips use annotated ones only.
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
        """[H, W] int32 ids of an annotated frame, 0 = background, -1 = void.

        Raises KeyError for a frame without a mask.
        """
        return self._masks.read(self.stems[index])

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of every id in every frame, int [T, max_id + 1]; 0 in frames without a mask."""
        table = np.zeros((len(self), max(self._masks.ids or [ONE_OBJECT]) + 1), int)
        for index in np.flatnonzero(self.annotated):
            ids = self.instance(index)
            counts = np.bincount(ids[ids >= 0])
            table[index, : len(counts)] = counts
        largest = int(np.flatnonzero(table.any(0)).max(initial=0))
        return table[:, : largest + 1]

    @cached_property
    def cache_name(self) -> str:
        """A key for files that depend on these frames: a hash of their names and sizes."""
        facts = [[file.name, file.stat().st_size] for file in self.frames.files]
        return f"video_{digest_of(facts)}"

    @property
    def digest(self) -> str:
        """A hash of frames and masks."""
        masks = {stem: file_digest(file) for stem, file in self._masks.files.items()}
        return digest_of([self.cache_name, masks])


@dataclass(frozen=True)
class Split:
    """One video with its masks in two parts. Objects are prompted on frames of `train`."""

    train: AnnotatedVideo
    val: AnnotatedVideo
    prompts: dict[int, int]  # object id -> the frame that prompts it
    returned: dict[int, frozenset[int]]  # object id -> frames of `val` that show it again

    @property
    def digest(self) -> str:
        """A hash of frames and masks: a training is only resumed on the same ones."""
        return digest_of([self.train.digest, self.val.digest])

    def describe(self) -> str:
        """The split in one line, for the log."""
        held_out = np.flatnonzero(self.val.annotated)
        annotated = np.flatnonzero(self.val.annotated | self.train.annotated)
        num_returned = len(frozenset().union(*self.returned.values()))
        back = f"{num_returned} of them after an absence"
        if not num_returned:
            back = "none of them after an absence, so that coming back is not validated"
        stems = self.train.stems
        prompts = ", ".join(f"{i} on {stems[frame]}" for i, frame in self.prompts.items())
        return (
            f"validation: {len(held_out)} of {len(annotated)} annotated frames are held out "
            f"({self._blocks(held_out, annotated)}), {back}; "
            f"prompted by a mask that is trained on: object {prompts}"
        )

    def _blocks(self, held_out: np.ndarray, annotated: np.ndarray) -> str:
        """Stems of held-out frames; first and last of a run without a trained frame in between."""
        positions = np.searchsorted(annotated, held_out)
        blocks = np.split(held_out, np.flatnonzero(np.diff(positions) > 1) + 1)
        stems = self.val.stems
        ends = [dict.fromkeys((stems[block[0]], stems[block[-1]])) for block in blocks]
        return ", ".join("..".join(pair) for pair in ends)


def split_video(
    frames: Path,  # folder of frames
    masks: Path,  # folder of masks
    val_share: float,  # share of the annotated frames that is held out
    min_area: float = 0,  # share of the image that an object should cover where it is prompted
) -> Split:
    """Split the annotated frames into training and validation, by geometry_fusion.data.hold_out.

    An object is prompted on the first annotated frame in which it covers `min_area`, or else on its
    largest view. Raises InputError if there are too few masks, naming how many are needed.
    """
    folder, mask_folder = _read(Path(frames), Path(masks))
    video = AnnotatedVideo(folder, mask_folder)
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
    least_area = max(1, min_area * folder.size[0] * folder.size[1])
    prompt_rows = (areas >= np.minimum(least_area, areas.max(0))).argmax(0).tolist()
    prompts = {int(column) + 1: int(annotated[row]) for column, row in zip(columns, prompt_rows)}
    rows = hold_out(areas > 0, prompt_rows, count)
    if not (areas[rows] > 0).any():
        shown = ", ".join(dict.fromkeys(video.stems[frame] for frame in prompts.values()))
        raise InputError(
            f"{masks}: only the frames that prompt the objects show them ({shown}); validation "
            "needs others: annotate more frames that show an object"
        )
    held_out = {video.stems[annotated[row]] for row in rows}
    train = AnnotatedVideo(folder, mask_folder.part(set(mask_folder.files) - held_out))
    val = AnnotatedVideo(folder, mask_folder.part(held_out))
    returned = {}
    for object_id, column, prompt_row in zip(prompts, areas.T, prompt_rows):
        states = states_of(column > 0, prompt_row)
        returned[object_id] = frozenset(int(annotated[row]) for row in rows if states[row] == BACK)
    return Split(train, val, prompts, returned)


def _read(frames: Path, masks: Path) -> tuple[FrameFolder, MaskFolder]:
    """The frames and the masks.

    Raises InputError for masks that match no frame, have another size, or are of another video.
    """
    if frames.is_file():
        raise InputError(
            f"{frames}: is a file; extract its frames first: "
            f"python main.py frames {frames} --every 1"
        )
    folder = FrameFolder(frames)
    if not masks.is_dir():
        raise InputError(
            f"{masks}: no such folder of masks; import them: "
            "python -m geometry_fusion.data.import_masks"
        )
    check_belongs(masks, record_of(folder.path), "data.masks")
    files = list_masks(masks)
    stems = set(folder.stems)
    if stray := [file for stem, file in files.items() if stem not in stems]:
        raise InputError(
            f"{stray[0]}: no frame of {frames} is called {stray[0].stem}; "
            "name masks like their frames"
        )
    mask_folder = MaskFolder(files)
    mask_folder.check_size(folder.size)
    return folder, mask_folder
