"""The overlap rule: does a frame see something new? (docs/must3r_spec.md section 10.3)"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

FAR = np.finfo(np.float64).max  # the distance to the nearest of no points
# between bins of directions in the tree, in units of points: farther than any point of a scene
APART = 1e6


@dataclass(frozen=True)
class Sight:
    """What the rule reads of one frame: its sure points, of every n-th row and column."""

    points: np.ndarray  # [N, 3]
    bins: np.ndarray  # [N], of the direction in which the frame's camera sees them
    depth: np.ndarray  # [N] along the camera's axis
    median_confidence: float  # over all pixels


class OverlapRule:
    """Keeps points of keyframes in a nearest-neighbour structure for each bin of viewing direction.
    Here they are one tree, its bins far apart along a fourth axis.

    Score: p-th percentile over the frame's sure points of the distance to the nearest kept point of
    the same bin, relative to the point's own depth. A frame is new if its score exceeds `threshold`
    and its median confidence `min_confidence`.
    """

    def __init__(
        self,
        threshold: float = 0.15,
        min_confidence: float = 1.5,
        percentile: float = 70,
        subsample: int = 4,
        relative: bool = True,  # mode nn-norm; False is mode nn
        angular_bins: int = 2,  # along the polar angle; 2 n^2 bins in all
    ):
        self.threshold, self.min_confidence, self.percentile = threshold, min_confidence, percentile
        self._every, self._relative, self._n = subsample, relative, angular_bins
        self.reset()

    def reset(self) -> None:
        self._kept: dict[
            int, tuple[np.ndarray, np.ndarray]
        ] = {}  # keyframe -> points [N, 3], bins [N]
        self._tree: KDTree | None = None

    def sights(
        self,
        points: Tensor,  # [F, H, W, 3]
        confidence: Tensor,  # [F, H, W], 1..inf
        depth: Tensor,  # [F, H, W], local z
        poses: Tensor,  # [F, 4, 4] camera-to-world
    ) -> list[Sight]:
        """Of each frame what the rule reads of it."""
        medians = confidence.flatten(1).median(1).values.tolist()
        every = (slice(None), *(slice(None, None, self._every),) * 2)
        points, confidence, depth = (t[every].cpu().numpy() for t in (points, confidence, depth))
        sure = (confidence > self.min_confidence) & np.isfinite(points).all(-1)
        bins = self._direction_bins(points, poses[:, None, None, :3, 3].cpu().numpy())
        parts = zip(points, bins, depth, sure, medians)
        return [
            Sight(p[s], b[s].astype(int), d[s].astype(np.float64), median)
            for p, b, d, s, median in parts
        ]

    def score(self, sight: Sight) -> float:
        """0 if no point is sure."""
        if not len(sight.points):
            return 0.0
        distance = np.full(len(sight.points), np.inf)
        if self._kept:
            distance = self._built().query(
                _with_bins(sight.points, sight.bins), distance_upper_bound=APART / 2
            )[0]
        if self._relative:
            distance /= sight.depth + 1e-9
        distance[np.isinf(distance)] = FAR
        with np.errstate(over="ignore", invalid="ignore"):
            score = np.percentile(distance, self.percentile)
        return float(score) if np.isfinite(score) else FAR

    def is_new(self, score: float, sight: Sight) -> bool:
        return score > self.threshold and sight.median_confidence > self.min_confidence

    def keep(self, keyframe: int, sight: Sight) -> None:
        self._kept[keyframe] = (sight.points, sight.bins)
        self._tree = None

    def drop(self, keyframe: int) -> None:
        self._kept.pop(keyframe, None)
        self._tree = None

    def snapshot(self) -> dict:
        return {
            keyframe: tuple(map(torch.from_numpy, kept)) for keyframe, kept in self._kept.items()
        }

    def restore(self, snapshot: dict) -> None:
        self._kept = {
            keyframe: tuple(t.cpu().numpy() for t in kept) for keyframe, kept in snapshot.items()
        }
        self._tree = None

    def _built(self) -> KDTree:
        if self._tree is None:
            points, bins = (np.concatenate(parts) for parts in zip(*self._kept.values()))
            # Not balanced: it is built anew with every keyframe, in 60% of the time, and asked as
            # fast.
            self._tree = KDTree(_with_bins(points, bins), balanced_tree=False)
        return self._tree

    def _direction_bins(self, points: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """[F, H, W, 3] and [F, 1, 1, 3] -> [F, H, W]; of points that are not finite anything."""
        with np.errstate(invalid="ignore", over="ignore"):
            rays = points - centres
            rays = rays / np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-5)
            theta = np.clip(np.arccos(np.clip(rays[..., 2], -1, 1)) / np.pi, 1e-5, 1 - 1e-5)
            phi = np.clip(np.arctan2(rays[..., 1], rays[..., 0]) / np.pi, -1 + 1e-5, 1 - 1e-5)
            return np.floor(theta * self._n) + (np.floor(phi * self._n) + self._n) * self._n


def _with_bins(points: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """[N, 3], [N] -> [N, 4]: distances within a bin stay what they are, other bins are out of
    reach.
    """
    return np.concatenate((points, bins[:, None] * APART), 1, dtype=np.float64)
