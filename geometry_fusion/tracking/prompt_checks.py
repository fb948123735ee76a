"""Checks of prompts: against the video, and against one another."""

import math
from itertools import combinations

import numpy as np

from geometry_fusion.types import Prompt

# Two objects are prompted in the same place if their clicks are this close, in pixels, or the IoU
# of their boxes or masks is above this.
SAME_CLICK = 3.0
SAME_AREA = 0.7


def hidden_objects(prompts: list[Prompt]) -> str | None:
    """A warning about objects that are prompted in the same place of a frame, where one will hide
    the other in the masks; None if there are none.
    """
    areas = [(prompt, _area(prompt)) for prompt in prompts]
    pairs = [
        (a, b)
        for (a, area_a), (b, area_b) in combinations(areas, 2)
        if a.frame == b.frame and a.object_id != b.object_id and _same_place(a, area_a, b, area_b)
    ]
    if not pairs:
        return None
    a, b = pairs[0]
    others = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
    return (
        f"objects {a.object_id} and {b.object_id} are prompted in the same place of frame "
        f"{a.frame}{others}: a pixel belongs to one object, the most confident one, so that one "
        "may hide the other (docs/prompts.md)"
    )


def _same_place(a: Prompt, area_a: tuple | None, b: Prompt, area_b: tuple | None) -> bool:
    """Whether two prompts mark the same thing. area_a, area_b: their boxes by `_area`."""
    if area_a and area_b:
        if a.mask is None or b.mask is None or a.mask.shape != b.mask.shape:
            return _box_iou(area_a, area_b) > SAME_AREA
        # Boxes first: a palette may hold many masks, and comparing large ones takes time.
        if _box_iou(area_a, area_b) <= SAME_AREA / 2:
            return False
        shared = np.count_nonzero(a.mask & b.mask)
        return shared > SAME_AREA * np.count_nonzero(a.mask | b.mask)
    if a.points and b.points:
        return any(math.dist(p, q) <= SAME_CLICK for p in a.points for q in b.points)
    mask, points = (a.mask, b.points) if a.mask is not None else (b.mask, a.points)
    return mask is not None and bool(points) and all(_covers(mask, point) for point in points)


def _area(prompt: Prompt) -> tuple[float, float, float, float] | None:
    """The box x0, y0, x1, y1 around a prompt's box or mask; None for clicks alone."""
    if prompt.mask is None or not prompt.mask.any():
        return prompt.box
    rows = np.flatnonzero(prompt.mask.any(1))
    columns = np.flatnonzero(prompt.mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _box_iou(a: tuple, b: tuple) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared
    return shared / union if union > 0 else 0.0


def _covers(mask: np.ndarray, point: tuple[float, float]) -> bool:
    column = round(point[0])
    row = round(point[1])
    return 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and bool(mask[row, column])


def check_prompts(prompts: list[Prompt], frames) -> None:
    """Raise InputError for the first prompt that does not fit `frames` (.size and .stems)."""
    for prompt in prompts:
        prompt.check(frames.size, len(frames.stems))
