"""Depth maps from sparse observations: the nearest ones say how deep a place is, and how surely.

A place takes the depth of the nearest observations in the image. Where these agree, they are
averaged; where they do not (an edge of an object lies between them), the nearer ones decide alone.
Confidence is 1 at an observation, falls with the distance to it, and is 0 from `REACH` on: there
nothing is known.
"""

import numpy as np
from scipy.spatial import cKDTree

NEIGHBOURS = 4
REACH = 0.08  # of the picture's diagonal
ALIKE = 0.1  # relative difference of depths up to which they count as one surface


def filled(
    observed: np.ndarray,  # [M, 2] pixels of the picture, centres at integers
    depths: np.ndarray,  # [M] along z, all above 0
    size: tuple[int, int],  # (width, height) of the picture
    cells: tuple[int, int],  # (columns, rows) of the result, which covers the picture
) -> tuple[np.ndarray, np.ndarray]:
    """Depth and confidence in 0..1, both [rows, columns] float32; 0 where nothing is known."""
    columns, rows = (
        (np.arange(count) + 0.5) * side / count - 0.5 for count, side in zip(cells, size)
    )
    places = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    reach = REACH * np.hypot(*size)
    shape = (cells[1], cells[0])
    if not len(observed):
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    count = min(NEIGHBOURS, len(observed))
    distances, nearest = cKDTree(observed).query(places, list(range(1, count + 1)))
    near = depths[nearest]  # [places, count]
    # An observation beyond the reach says nothing; the small number keeps the weight at 0 finite.
    weights = np.where(distances < reach, 1 / (distances**2 + 1e-6 * reach**2), 0)
    total = np.maximum(weights.sum(1), 1e-12)
    middle = _weighted_median(near, weights)
    alike = weights * (np.abs(near / middle[:, None] - 1) <= ALIKE)
    # Planes are linear in 1/depth, so that is what is averaged.
    inverse = (alike / near).sum(1) / np.maximum(alike.sum(1), 1e-12)
    confidence = np.clip(1 - distances[:, 0] / reach, 0, 1) * alike.sum(1) / total
    known = (confidence > 0) & (inverse > 0)
    depth = np.where(known, 1 / np.where(known, inverse, 1), 0)
    confidence = np.where(known, confidence, 0)
    return depth.reshape(shape).astype(np.float32), confidence.reshape(shape).astype(np.float32)


def _weighted_median(
    values: np.ndarray,  # [N, K]
    weights: np.ndarray,  # [N, K]
) -> np.ndarray:  # [N]
    """For each row, the smallest value at which half of the weight is reached."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, 1)
    reached = np.cumsum(np.take_along_axis(weights, order, 1), axis=1)
    first = (reached >= reached[:, -1:] / 2).argmax(1)
    return ordered[np.arange(len(values)), first]
