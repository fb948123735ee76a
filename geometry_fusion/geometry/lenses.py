"""Lenses: from pixels to viewing directions and back, with or without distortion.

OpenCV axes; pixel centres at integers, as everywhere (geometry_fusion.geometry.cameras).
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from geometry_fusion.geometry.cameras import IN_FRONT_M, directions_of, resized_intrinsics

LARGEST_MISS = 0.1  # pixels by which a direction may miss the pixel that it was found for
STEPS = 20  # of refining directions; OpenCV's own search ends after few, and versions differ


@dataclass(frozen=True)
class Lens:
    """A pinhole camera, or one of OpenCV's two models of distortion."""

    k: np.ndarray  # [3, 3] intrinsics, pixels
    # OpenCV's k1 k2 p1 p2 [k3 [k4 k5 k6]], or k1 k2 k3 k4 of a fisheye; empty: no distortion.
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    @property
    def is_pinhole(self) -> bool:
        """Whether pixels are linear in x/z and y/z."""
        return not self.fisheye and not any(self.distortion)

    def resized(self, scale: tuple[float, float]) -> "Lens":
        """The lens of a picture that was resized by `scale` (x, y)."""
        return replace(self, k=resized_intrinsics(self.k, scale))

    def padded(self, border: int) -> "Lens":
        """The lens of a picture to which `border` pixels were added on every side."""
        k = self.k.copy()
        k[:2, 2] += border
        return replace(self, k=k)

    def directions(
        self,
        u: np.ndarray,  # [...] columns, pixels
        v: np.ndarray,  # [...] rows, pixels
    ) -> np.ndarray:
        """Directions [3, ...] through pixels, with z = 1; NaN where this lens sees nothing."""
        if self.is_pinhole:
            return directions_of(self.k, u, v)
        pixels = np.stack([u, v], -1).reshape(-1, 1, 2).astype(np.float64)
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        flat = undistort(pixels, self.k, np.array(self.distortion)).reshape(-1, 2)
        directions = np.stack([*flat.T, np.ones(len(flat))])
        focals = np.array([[self.k[0, 0]], [self.k[1, 1]]])
        off = pixels[:, 0].T - np.stack(self.pixels(directions)[:2])  # [2, N]
        for _ in range(STEPS):
            nearer = directions.copy()
            nearer[:2] += off / focals
            new_off = pixels[:, 0].T - np.stack(self.pixels(nearer)[:2])
            better = np.abs(new_off).max(0) < np.abs(off).max(0)
            directions[:, better], off[:, better] = nearer[:, better], new_off[:, better]
        # Far from the middle a polynomial has no inverse, and the search ends anywhere.
        directions[:, ~(np.abs(off).max(0) <= LARGEST_MISS)] = np.nan
        return directions.reshape(3, *np.shape(u))

    def pixels(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels and depths (u, v, z), each [N], of points [3, N] in camera axes.

        u and v have no meaning where z is not above `IN_FRONT_M`.
        """
        x, y, z = np.asarray(points, float)
        divisor = np.where(z > IN_FRONT_M, z, 1.0)
        if self.is_pinhole:
            k = self.k
            return k[0, 0] * x / divisor + k[0, 2], k[1, 1] * y / divisor + k[1, 2], z
        flat = np.stack([x / divisor, y / divisor, np.ones_like(z)], -1).reshape(-1, 1, 3)
        still = np.zeros(3)
        if self.fisheye:
            found, _ = cv2.fisheye.projectPoints(
                flat, still, still, self.k, np.array(self.distortion)
            )
        else:
            found, _ = cv2.projectPoints(flat, still, still, self.k, np.array(self.distortion))
        u, v = found.reshape(-1, 2).T
        return u, v, z
