"""Where pixels of a rigid scene would be in another frame, by their depth and the camera's motion.

The camera's motion between two frames is fitted to the flow of the background, because the poses of
a small network leave more pixels of it than objects move (docs/motion.md). Depth comes from the
geometry.
"""

from dataclasses import dataclass

import numpy as np

from geometry_fusion.motion.views import FrameDepth

STEP = 8  # every such pixel of the background, in both directions, is fitted
LEAST = 64  # background pixels that a fit needs
ROTATION_STEPS, FULL_STEPS = 4, 6
LEAST_SPREAD_PX = 0.25
NEAR = 1e-6


@dataclass(frozen=True)
class CameraMotion:
    """Maps points in the axes of the first camera to those of the second: x -> R x + t."""

    rotation: np.ndarray  # [3, 3]
    translation: np.ndarray  # [3]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 3] -> [..., 3]."""
        return points @ self.rotation.T + self.translation


def of_poses(first: FrameDepth, second: FrameDepth) -> CameraMotion:
    """The camera's motion by the two poses."""
    relative = np.linalg.inv(second.camera_to_world) @ first.camera_to_world
    return CameraMotion(relative[:3, :3], relative[:3, 3])


def projected(points: np.ndarray, focal: float, centre: np.ndarray) -> np.ndarray:
    """Pixels [..., 2] of points [..., 3] in the camera's axes; NaN behind the camera."""
    z = np.where(points[..., 2:] > NEAR, points[..., 2:], np.nan)
    return focal * points[..., :2] / z + centre


def fitted(
    points: np.ndarray,  # [N, 3] of the background, in the axes of the first camera
    targets: np.ndarray,  # [N, 2] where the flow saw them in the second frame, pixels
    focal: float,  # of the second frame, pixels
    centre: np.ndarray,  # [2]
) -> tuple[CameraMotion, float]:
    """The motion that explains the flow best, and its median residual in pixels.

    Gauss-Newton with Cauchy weights (iteratively reweighted least squares), from a camera that
    stands still: the rotation first, which needs no depth, then all six numbers.
    """
    points = points.astype(np.float64)
    motion = CameraMotion(np.eye(3), np.zeros(3))
    # Distances in units of the median depth, so that the damping means the same everywhere.
    unit = float(np.median(points[:, 2]))
    points = points / unit
    for step in range(ROTATION_STEPS + FULL_STEPS):
        motion = _improved(motion, points, targets, focal, centre, step >= ROTATION_STEPS)
    residuals = np.linalg.norm(targets - projected(motion(points), focal, centre), axis=1)
    residual = float(np.nanmedian(residuals)) if np.isfinite(residuals).any() else np.inf
    return CameraMotion(motion.rotation, motion.translation * unit), residual


def _improved(
    motion: CameraMotion,
    points: np.ndarray,
    targets: np.ndarray,
    focal: float,
    centre: np.ndarray,
    full: bool,
) -> CameraMotion:
    """One weighted Gauss-Newton step; `full`: of rotation and translation."""
    moved = motion(points)
    usable = moved[:, 2] > 0.05
    moved = moved[usable]
    if len(moved) < LEAST // 2:
        return motion
    residuals = targets[usable] - projected(moved, focal, centre)
    lengths = np.linalg.norm(residuals, axis=1)
    spread = 2 * max(float(np.median(lengths)), LEAST_SPREAD_PX)
    weights = 1 / (1 + (lengths / spread) ** 2)
    x, y, z = moved.T
    zero, a = np.zeros_like(z), focal / z
    # Derivatives of the pixel by the moved point, [2, 3, N], then by rotation and translation.
    by_point = np.array([[a, zero, -a * x / z], [zero, a, -a * y / z]])
    turns = np.array([[zero, z, -y], [-z, zero, x], [y, -x, zero]])  # -[moved]x, [3, 3, N]
    jacobian = np.einsum("ijn,jkn->ikn", by_point, turns)
    if full:
        jacobian = np.concatenate([jacobian, by_point], 1)
    weighted = jacobian * weights
    normal = np.einsum("ijn,ikn->jk", weighted, jacobian)
    normal += 1e-6 * np.trace(normal) / len(normal) * np.eye(len(normal))
    step = np.linalg.solve(normal, np.einsum("ijn,ni->j", weighted, residuals))
    turn = _rotation(step[:3])
    shift = step[3:] if full else 0.0
    return CameraMotion(turn @ motion.rotation, turn @ motion.translation + shift)


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Rodrigues' formula: the rotation [3, 3] about an axis by the length of `vector`, radians."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    if angle < 1e-9:
        return np.eye(3) + cross
    sine, cosine = np.sin(angle) / angle, (1 - np.cos(angle)) / angle**2
    return np.eye(3) + sine * cross + cosine * cross @ cross


def residuals_to(
    observed: np.ndarray,  # [N, 2] pixels
    points: np.ndarray,  # [N, 3] in the axes of the first camera
    motion: CameraMotion,
    focal: float,
    centre: np.ndarray,
    tolerance: float,  # share by which the depth may be wrong
) -> np.ndarray:
    """Observed minus expected pixel, [N, 2]; NaN behind the camera.

    With a tolerance, the expected pixel is the closest one on the segment that the point covers
    while its depth goes from (1 - tolerance) to (1 + tolerance) of what is known.
    """
    expected = projected(motion(points), focal, centre)
    if tolerance == 0:
        return observed - expected
    near = projected(motion(points * (1 - tolerance)), focal, centre)
    far = projected(motion(points * (1 + tolerance)), focal, centre)
    along = far - near
    length = np.maximum((along**2).sum(-1), 1e-12)
    place = np.clip(((observed - near) * along).sum(-1) / length, 0, 1)
    return observed - (near + place[:, None] * along)
