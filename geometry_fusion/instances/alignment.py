"""Alignment: the similarity that moves views of learned geometry onto views that are known.

Camera centres alone do not settle it. Where a camera stands still, moves on a line or in a plane,
they leave its rotation or its scale to noise: the tiny MUSt3R's centres of a room turn it by ten
degrees. So the rotation comes from the cameras' orientations, the scale from depth, and the centres
give the shift only. All three are medians of a kind, so that some wrong frames do no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from geometry_fusion.errors import InputError
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.instances.cloud import picture_pixels

STEPS = 50  # of reweighting; the medians below change by less than 1e-4 after far fewer
LEAST_DISTANCE = 1e-6  # below which a residual weighs no more
DEPTH_CELLS = 32  # per side of a view, where its depth is compared


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + shift."""

    scale: float
    rotation: np.ndarray  # [3, 3]
    shift: np.ndarray  # [3]

    def of_points(self, points: np.ndarray) -> np.ndarray:
        """Points [N, 3] in the coordinates and the unit that this leads to."""
        return self.scale * points @ self.rotation.T + self.shift

    def of_view(self, view: PosedView) -> PosedView:
        """A view in the coordinates and the unit that this leads to."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation @ view.camera_to_world[:3, :3]
        pose[:3, 3] = self.of_points(view.camera_to_world[:3, 3])
        return replace(view, depth=view.depth * np.float32(self.scale), camera_to_world=pose)


def median_rotation(rotations: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] with the least sum of chordal distances to others [T, 3, 3].

    By Weiszfeld's reweighting of the chordal mean (Hartley et al., Rotation Averaging, 2013).
    """
    weights = np.ones(len(rotations))
    for _ in range(STEPS):
        median = Rotation.from_matrix(rotations).mean(weights).as_matrix()
        distances = np.linalg.norm(rotations - median, axis=(1, 2))
        weights = 1 / np.maximum(distances, LEAST_DISTANCE)
    return median


def median_point(points: np.ndarray) -> np.ndarray:
    """The point [3] with the least sum of distances to others [T, 3] (Weiszfeld 1937)."""
    median = np.median(points, axis=0)
    for _ in range(STEPS):
        weights = 1 / np.maximum(np.linalg.norm(points - median, axis=1), LEAST_DISTANCE)
        median = weights @ points / weights.sum()
    return median


def depth_ratio(view: PosedView, known: PosedView) -> float:
    """The median of known depth over a view's depth, of one frame; NaN where nothing has both."""
    height, width = view.depth.shape
    step = max(1, max(height, width) // DEPTH_CELLS)
    rows, columns = (grid.ravel() for grid in np.mgrid[0:height:step, 0:width:step])
    depth = np.where(view.sureness() > 0, view.depth, 0)[rows, columns]
    there = picture_pixels(view, known.depth.shape, rows, columns)
    true_depth = np.where(known.sureness() > 0, known.depth, 0)[there]
    both = (depth > 0) & (true_depth > 0)
    return float(np.median(true_depth[both] / depth[both])) if both.any() else float("nan")


def similarity_of(views: Sequence[PosedView], known: Sequence[PosedView]) -> Similarity:
    """The similarity from views to known views of the same frames.

    Raises InputError where no frame has depth in both.
    """
    ratios = np.array([depth_ratio(view, other) for view, other in zip(views, known)])
    if not np.isfinite(ratios).any():
        raise InputError("geometry: no frame has depth in both; it cannot be aligned")
    start = np.array([view.camera_to_world for view in views])
    end = np.array([view.camera_to_world for view in known])
    rotation = median_rotation(np.einsum("tij,tkj->tik", end[:, :3, :3], start[:, :3, :3]))
    scale = float(np.nanmedian(ratios))
    shift = median_point(end[:, :3, 3] - scale * start[:, :3, 3] @ rotation.T)
    return Similarity(scale, rotation, shift)


def aligned(
    views: Sequence[PosedView | None], known: Sequence[PosedView]
) -> list[PosedView | None]:
    """Views moved onto known views of the same frames, as well as one similarity can."""
    both = [(view, other) for view, other in zip(views, known) if view is not None]
    if not both:
        return list(views)
    similarity = similarity_of(*zip(*both))
    return [None if view is None else similarity.of_view(view) for view in views]
