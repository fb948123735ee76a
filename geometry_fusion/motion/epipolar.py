"""Motion without geometry: how far pixels are off the epipolar line, or off a homography.

Blind where an object moves along the epipolar line. F and H are estimated by MAGSAC (Barath et al.,
CVPR 2019 and 2020) from the flow of the background.
"""

import cv2
import numpy as np

THRESHOLD_PX, CERTAINTY, ITERATIONS = 1.0, 0.999, 2000
PLANE_SHARE = 0.9  # of F's inliers that a homography must explain to be preferred
LEAST_INLIERS = 0.5  # share of the background; with fewer the flow itself is wrong
LEAST = 64  # correspondences


class Epipolar:
    """Residuals by a fundamental matrix [3, 3]: Sampson distances (Hartley, Zisserman, 11.4.3)."""

    name = "epipolar"

    def __init__(self, matrix: np.ndarray):
        self._matrix = matrix

    def residuals(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Distances [N, 1] in pixels of correspondences [N, 2] from each other's lines."""
        return sampson(self._matrix, first, second)[:, None]


class Homography:
    """Residuals by a homography [3, 3]: a plane, or a camera that only turns."""

    name = "homography"

    def __init__(self, matrix: np.ndarray):
        self._matrix = matrix

    def residuals(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Observed minus expected pixel, [N, 2]."""
        return second - transferred(self._matrix, first)


def sampson(fundamental: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sampson distances [N] in pixels of correspondences [N, 2]."""
    p, q = (np.concatenate([a, np.ones((len(a), 1))], 1) for a in (first, second))
    lines, back = p @ fundamental.T, q @ fundamental
    size = np.sqrt((lines[:, :2] ** 2).sum(1) + (back[:, :2] ** 2).sum(1))
    return np.abs((q * lines).sum(1)) / np.maximum(size, 1e-12)


def transferred(homography: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Pixels [N, 2] after a homography."""
    mapped = np.concatenate([first, np.ones((len(first), 1))], 1) @ homography.T
    return mapped[:, :2] / np.where(np.abs(mapped[:, 2:]) > 1e-12, mapped[:, 2:], 1e-12)


def estimated(first: np.ndarray, second: np.ndarray) -> Epipolar | Homography | None:
    """The model of the background's correspondences [N, 2].

    None where there are too few, or where no model explains half of them.
    """
    if len(first) < LEAST:
        return None
    first, second = first.astype(np.float64), second.astype(np.float64)
    method = cv2.USAC_MAGSAC
    homography, _ = cv2.findHomography(
        first, second, method, THRESHOLD_PX, maxIters=ITERATIONS, confidence=CERTAINTY
    )
    try:
        fundamental, _ = cv2.findFundamentalMat(
            first, second, method, THRESHOLD_PX, CERTAINTY, ITERATIONS
        )
    except cv2.error:  # a standing camera leaves no epipolar geometry to estimate
        fundamental = None
    on_plane, on_lines = 0, 0
    if homography is not None:
        on_plane = _inliers(np.linalg.norm(second - transferred(homography, first), axis=1))
    if fundamental is not None and fundamental.shape == (3, 3):
        on_lines = _inliers(sampson(fundamental, first, second))
    if max(on_plane, on_lines) < LEAST_INLIERS * len(first):
        return None
    if on_plane >= PLANE_SHARE * on_lines:
        return Homography(homography)
    return Epipolar(fundamental)


def _inliers(distances: np.ndarray) -> int:
    return int((distances <= THRESHOLD_PX).sum())
