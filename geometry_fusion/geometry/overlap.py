"""The overlap rule: does a frame see something new? (docs/must3r_spec.md section 10.3)"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

FAR = np.finfo(np.float64).max  # stands for the distance to the nearest point where there is none
# Distance between the bins of directions in the tree, in units of the points: farther than any
# point of a scene.
APART = 1e6


@dataclass(frozen=True)
class FrameView:
    """The rule's input of one frame: its confident points, of every n-th row and column."""

    points: np.ndarray  # [N, 3] in the reference frame
    bins: np.ndarray  # [N] bin of the direction in which the frame's camera sees each point
    depth: np.ndarray  # [N] along the camera's axis
    median_confidence: float  # over all pixels


class OverlapRule:
    """The overlap rule, with the points of keyframes that it compares with.

    Score of a frame: the `percentile` of the distances of its confident points to the nearest
    keyframe point that was seen from a similar direction (in the same bin), relative to the point's
    depth. A frame is new if its score exceeds `threshold` and its median confidence exceeds
    `min_confidence`.

    The specification has a nearest-neighbour structure for each bin; here it is one tree, with the
    bins far apart along a fourth axis.
    """

    def __init__(
        self,
        threshold: float = 0.15,
        min_confidence: float = 1.5,  # MUSt3R's own confidence, 1..inf
        percentile: float = 70,  # 0..100
        subsample: int = 4,  # read every n-th row and column
        relative: bool = True,  # mode nn-norm; False is mode nn
        angular_bins: int = 2,  # along the polar angle; 2 n^2 bins in all
    ):
        self.threshold, self.min_confidence, self.percentile = threshold, min_confidence, percentile
        self._every, self._relative, self._n = subsample, relative, angular_bins
        self.reset()

    def reset(self) -> None:
        """Forget the points of all keyframes."""
        # keyframe -> points [N, 3], bins [N]
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._tree: KDTree | None = None  # of all kept points; None until it is built again

    def views(
        self,
        points: Tensor,  # [F, H, W, 3]
        confidence: Tensor,  # [F, H, W], 1..inf
        depth: Tensor,  # [F, H, W], local z
        poses: Tensor,  # [F, 4, 4] camera-to-world
    ) -> list[FrameView]:
        """The rule's input of each frame."""
        medians = confidence.flatten(1).median(1).values.tolist()
        step = slice(None, None, self._every)
        points = points[:, step, step].cpu().numpy()
        confidence = confidence[:, step, step].cpu().numpy()
        depth = depth[:, step, step].cpu().numpy()
        is_sure = (confidence > self.min_confidence) & np.isfinite(points).all(-1)
        bins = self._direction_bins(points, poses[:, None, None, :3, 3].cpu().numpy())
        views = []
        for i, sure in enumerate(is_sure):
            frame_bins = bins[i][sure].astype(int)
            frame_depth = depth[i][sure].astype(np.float64)
            views.append(FrameView(points[i][sure], frame_bins, frame_depth, medians[i]))
        return views

    def score(self, view: FrameView) -> float:
        """How new a frame is, from 0; 0 if it has no confident point."""
        if not len(view.points):
            return 0.0
        distance = np.full(len(view.points), np.inf)
        if self._kept:
            # The bound keeps the search inside the point's own bin.
            distance, _ = self._built().query(
                _with_bins(view.points, view.bins), distance_upper_bound=APART / 2
            )
        if self._relative:
            distance /= view.depth + 1e-9
        distance[np.isinf(distance)] = FAR
        with np.errstate(over="ignore", invalid="ignore"):
            score = np.percentile(distance, self.percentile)
        return float(score) if np.isfinite(score) else FAR

    def is_new(self, score: float, view: FrameView) -> bool:
        """Whether a frame with this score becomes a keyframe."""
        return score > self.threshold and view.median_confidence > self.min_confidence

    def keep(self, keyframe: int, view: FrameView) -> None:
        """Add the points of a keyframe, to which later frames are compared."""
        self._kept[keyframe] = (view.points, view.bins)
        self._tree = None

    def drop(self, keyframe: int) -> None:
        """Remove the points of a keyframe, if it has any."""
        self._kept.pop(keyframe, None)
        self._tree = None

    def snapshot(self) -> dict:
        """Points and bins by keyframe, as tensors."""
        return {
            keyframe: tuple(map(torch.from_numpy, kept)) for keyframe, kept in self._kept.items()
        }

    def restore(self, snapshot: dict) -> None:
        """Continue from a `snapshot` of a rule with the same arguments."""
        self._kept = {
            keyframe: tuple(t.cpu().numpy() for t in kept) for keyframe, kept in snapshot.items()
        }
        self._tree = None

    def _built(self) -> KDTree:
        if self._tree is None:
            points = np.concatenate([points for points, _ in self._kept.values()])
            bins = np.concatenate([bins for _, bins in self._kept.values()])
            # Unbalanced, because it is built again for every keyframe: that takes 60% of the time,
            # and queries are as fast.
            self._tree = KDTree(_with_bins(points, bins), balanced_tree=False)
        return self._tree

    def _direction_bins(self, points: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """Bins of the directions from camera centres [F, 1, 1, 3] to points [F, H, W, 3].

        [F, H, W]; arbitrary where a point is not finite.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            rays = points - centres
            rays = rays / np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-5)
            theta = np.clip(np.arccos(np.clip(rays[..., 2], -1, 1)) / np.pi, 1e-5, 1 - 1e-5)
            phi = np.clip(np.arctan2(rays[..., 1], rays[..., 0]) / np.pi, -1 + 1e-5, 1 - 1e-5)
            return np.floor(theta * self._n) + (np.floor(phi * self._n) + self._n) * self._n


def _with_bins(points: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Points [N, 3] with their bin as a fourth coordinate, [N, 4]. Distances inside a bin do not
    change; other bins are farther than any search goes.
    """
    return np.concatenate((points, bins[:, None] * APART), 1, dtype=np.float64)
