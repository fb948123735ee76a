"""Mask tracks: the masks of one thing from its keyframe on, run-length encoded.

Encodings are those of COCO (pycocotools), which SA-V and most tools read. Intersections and areas
are computed on them, so that no frame is decoded to compare masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from geometry_fusion.errors import InputError

try:
    from pycocotools import mask as coco
except ImportError:
    coco = None

Runs = dict  # {"size": [height, width], "counts": bytes}


@dataclass
class MaskTrack:
    """The masks of one track.

    It was propagated through the frames `start` <= t < `stop`; where `masks` has none of them, the
    mask is empty.
    """

    id: int  # 1, 2, ...
    start: int  # its keyframe
    stop: int
    score: float = 1.0  # predicted IoU of the proposal, 0..1
    masks: dict[int, Runs] = field(default_factory=dict)  # by frame, none of them empty

    def was_propagated(self, frame: int) -> bool:
        """Whether the track knows about a frame."""
        return self.start <= frame < self.stop

    @property
    def share_present(self) -> float:
        """Share of its frames with a mask."""
        return len(self.masks) / max(1, self.stop - self.start)


def check_runs() -> None:
    """Raise InputError where pycocotools is missing."""
    if coco is None:
        raise InputError(
            "instances: need pycocotools for run lengths; install it with: pip install "
            "'geometry-fusion-3am[instances]'"
        )


def encoded(mask: np.ndarray) -> Runs:
    """Run lengths of a mask [H, W] bool."""
    check_runs()
    return coco.encode(np.asfortranarray(mask, np.uint8))


def decoded(runs: Runs) -> np.ndarray:
    """The mask [H, W] bool of run lengths."""
    return coco.decode(runs).astype(bool)


def union(runs: Sequence[Runs]) -> Runs:
    """Run lengths of the union of masks of one size."""
    return runs[0] if len(runs) == 1 else coco.merge(list(runs), intersect=False)


def areas_of(runs: Sequence[Runs]) -> np.ndarray:
    """Pixels of masks, int64 [K]."""
    return coco.area(list(runs)).astype(np.int64) if len(runs) else np.zeros(0, np.int64)


def intersections(runs: Sequence[Runs], others: Sequence[Runs] | None = None) -> np.ndarray:
    """Pixels that pairs of masks of one frame share, int64 [K, L]; by default of all with all."""
    others = runs if others is None else others
    if not len(runs) or not len(others):
        return np.zeros((len(runs), len(others)), np.int64)
    ious = np.asarray(coco.iou(list(runs), list(others), [0] * len(others)))
    both = areas_of(runs)[:, None] + areas_of(others)
    # iou = i / (both - i); areas are whole numbers, so that rounding gives i back.
    return np.rint(ious * both / (1 + ious)).astype(np.int64)
