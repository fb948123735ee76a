"""Outlines of masks as polygons. A polygon has no holes: those of a mask are filled.

Tools read the corners of polygons in two ways, and a mask keeps its pixels only in the right one:

`corners`  points are corners of pixels (x from 0 to the width), as COCO's tools and CVAT fill them
`centres`  points are centres of pixels, and the outline itself is filled, as OpenCV, labelme, YOLO
"""

import cv2
import numpy as np
from scipy.spatial.distance import cdist

from geometry_fusion.io.exports.clip import ObjectMask

LEAST_POINTS = 3  # of a polygon; a part of one or two pixels repeats its last point


def centres(mask: ObjectMask) -> list[np.ndarray]:
    """A polygon [N, 2] of pixel centres (x, y; int) in the frame per part of the object."""
    outlines, _ = _outlines(mask.crop)
    return [_at_least_three(outline) + (mask.left, mask.top) for outline in outlines]


def corners(mask: ObjectMask) -> list[np.ndarray]:
    """A polygon [N, 2] of pixel corners (x, y; int) in the frame per part of the object."""
    # At twice the size every pixel is 2x2, and half of the outline of these, rounded up, is the
    # corner of the pixel: 2x and 2x+1 are the left and right half of pixel x.
    doubled = mask.crop.repeat(2, 0).repeat(2, 1)
    outlines, _ = _outlines(doubled)
    polygons = []
    for outline in outlines:
        points = (outline + 1) // 2
        is_new = np.any(points != np.roll(points, 1, axis=0), axis=1)
        polygons.append(points[is_new] + (mask.left, mask.top))
    return polygons


def joined(polygons: list[np.ndarray]) -> np.ndarray:
    """One polygon [N, 2] of several, for formats with one per object: each next part is entered and
    left by a line between the points that are nearest to each other.
    """
    whole, *others = sorted(polygons, key=len, reverse=True)
    others = list(others)
    while others:
        gaps = [cdist(whole, part) for part in others]
        nearest = min(range(len(gaps)), key=lambda place: gaps[place].min())
        at, entry = np.unravel_index(gaps[nearest].argmin(), gaps[nearest].shape)
        part = np.roll(others.pop(nearest), -entry, axis=0)
        whole = np.concatenate([whole[: at + 1], part, part[:1], whole[at:]])
    return whole


def has_holes(mask: ObjectMask) -> bool:
    """Whether an outline would fill pixels that are not the object's."""
    return _outlines(mask.crop)[1]


def _outlines(mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
    """Outlines [N, 2] of the parts of a mask [h, w] bool, and whether they enclose holes."""
    outlines, levels = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )[-2:]
    is_hole = levels[0][:, 3] >= 0
    parts = [points.reshape(-1, 2) for points, hole in zip(outlines, is_hole) if not hole]
    return parts, bool(is_hole.any())


def _at_least_three(points: np.ndarray) -> np.ndarray:
    missing = max(0, LEAST_POINTS - len(points))
    return np.concatenate([points, points[-1:].repeat(missing, axis=0)])


def holes_note(num_holed: int, num_masks: int) -> list[str]:
    """The line that says how many masks lost their holes; no line where none did."""
    if not num_holed:
        return []
    return [f"polygons have no holes: those of {num_holed} of {num_masks} masks are filled"]
