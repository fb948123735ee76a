"""The second look: unsure photos are asked again, once, when the whole set is known."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

VOXEL = 0.02  # of the object's size: points in one voxel count once


@dataclass(frozen=True)
class SecondLookRule:
    """Chosen without tuning."""

    sure_iou: float = 0.7  # predicted; a photo at least this sure is not asked again
    least_gain: float = 0.05  # of log IoU; must be exceeded


class ObjectCloud:
    """The 3D points of an object, gathered from the photos in which it was found."""

    def __init__(self):
        self._points: dict[int, np.ndarray] = {}  # by photo, [N, 3]

    def put(self, photo: int, points: np.ndarray) -> None:
        """The points [N, 3] of an object's mask in a photo, in place of earlier ones."""
        self._points[photo] = points

    def drop(self, photo: int) -> None:
        """Forget the points of a photo."""
        self._points.pop(photo, None)

    def others(self, photo: int) -> np.ndarray:
        """The points [N, 3] of all other photos, one for each voxel."""
        kept = [points for key, points in sorted(self._points.items()) if key != photo]
        points = np.concatenate(kept) if kept else np.empty((0, 3))
        if not len(points):
            return points
        # The middle 90% along each axis: single points far away are errors.
        low, high = np.quantile(points, (0.05, 0.95), 0)
        size = float((high - low).max())
        if size <= 0:
            return points
        # One number for each voxel: unique rows would take ten times as long.
        voxels = np.floor(points / (VOXEL * size)).clip(-(2**20), 2**20 - 1).astype(np.int64)
        _, first = np.unique(voxels @ (2**42, 2**21, 1), return_index=True)
        return points[np.sort(first)]


def distance_to(points: np.ndarray, cloud: np.ndarray) -> float:
    """The median distance of points [N, 3] to the nearest of a cloud [M, 3]; inf without points, 0
    without a cloud, which says nothing.
    """
    if not len(points):
        return np.inf
    return float(np.median(KDTree(cloud).query(points)[0])) if len(cloud) else 0.0


def is_better(
    before: tuple[float, float], after: tuple[float, float], rule: SecondLookRule
) -> bool:
    """Whether a second answer is kept: surer, and not farther from the object's points.

    before, after: (predicted IoU, median distance to the object's cloud) of both answers.
    """
    gain = np.log(max(after[0], 1e-6)) - np.log(max(before[0], 1e-6))
    return bool(gain > rule.least_gain and after[1] <= before[1])
