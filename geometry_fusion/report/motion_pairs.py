"""Pictures of the pairs of frames by which it was decided that an object moves (docs/motion.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from geometry_fusion.io.mask_writer import PALETTE
from geometry_fusion.motion import Decision
from geometry_fusion.report.pictures import jpeg, scaled
from geometry_fusion.types import Frames

HEIGHT = 160  # pixels of a picture
MARGIN = 0.6  # around the object, in its own size


@dataclass(frozen=True)
class PairPicture:
    """One pair of frames, as the page shows it."""

    object_id: int
    frames: tuple[int, int]
    picture: str  # data URI: the same stretch of both frames beside each other
    rho: float  # motion in object sizes
    z: float  # motion over the spread of the surroundings


def pair_pictures(
    decisions: Mapping[int, Decision],  # by object id
    frames: Frames,
    ids_of: Callable[[int], np.ndarray],  # frame -> ids [H, W] of SAM2 alone
) -> list[PairPicture]:
    """The strongest pairs of all objects that move."""
    return [
        PairPicture(
            object_id,
            (pair.first, pair.second),
            jpeg(_beside(object_id, pair.first, pair.second, frames, ids_of)),
            pair.rho,
            pair.z,
        )
        for object_id, decision in sorted(decisions.items())
        if decision.dynamic
        for pair in decision.evidence
    ]


def _beside(
    object_id: int, first: int, second: int, frames: Frames, ids_of: Callable[[int], np.ndarray]
) -> np.ndarray:
    """The same stretch [h, w, 3] of two frames, with the object's outline in its colour; the second
    also shows in white where the outline was in the first.
    """
    masks = [ids_of(index) == object_id for index in (first, second)]
    top, bottom, left, right = _stretch(masks[0] | masks[1])
    panels = []
    for index, mask in zip((first, second), masks):
        panel = frames[index][top:bottom, left:right].copy()
        panel = scaled(panel, HEIGHT / max(1, panel.shape[0]))
        _outline(panel, mask[top:bottom, left:right], PALETTE[object_id].tolist(), 2)
        if index == second:
            _outline(panel, masks[0][top:bottom, left:right], [255, 255, 255], 1)
        panels += [panel, np.full((panel.shape[0], 4, 3), 255, np.uint8)]
    return np.hstack(panels[:-1])


def _stretch(mask: np.ndarray) -> tuple[int, int, int, int]:
    """top, bottom, left, right around a mask [H, W] bool, with a margin; all of an empty one."""
    height, width = mask.shape
    if not mask.any():
        return 0, height, 0, width
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = 8 + int(MARGIN * max(len(rows), len(columns)))
    top, bottom = max(0, rows[0] - margin), min(height, rows[-1] + 1 + margin)
    left, right = max(0, columns[0] - margin), min(width, columns[-1] + 1 + margin)
    return top, bottom, left, right


def _outline(panel: np.ndarray, mask: np.ndarray, colour: list[int], thickness: int) -> None:
    """Draw the outline of a mask, of any size, onto a panel [h, w, 3]."""
    size = panel.shape[1::-1]
    large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(panel, contours, -1, colour, thickness, cv2.LINE_AA)
