"""The camera model of Project Aria's colour camera (Fisheye624), and images made pinhole images.

The model is FISHEYE624 of projectaria_tools, without thin-prism terms: the camera of Aria Synthetic
Environments has none. Pixel centres are at integers.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from geometry_fusion.geometry.cameras import directions_of, intrinsic_matrix


@dataclass(frozen=True)
class Fisheye624:
    """A fisheye lens with radial (6) and tangential (2) distortion of the angle off its axis.

    It sees nothing beyond a circle in the image and an angle off the axis.
    """

    focal: float  # pixels per radian on the axis
    centre: tuple[float, float]  # principal point in pixels
    radial: tuple[float, ...]  # k0..k5
    tangential: tuple[float, float]  # p0, p1
    valid_radius: float  # pixels around the principal point
    max_angle: float = 1.0  # radians off axis

    def scaled(self, scale: float) -> "Fisheye624":
        """The same camera with images `scale` times as large."""
        centre = tuple(scale * (c + 0.5) - 0.5 for c in self.centre)
        return replace(
            self, focal=scale * self.focal, centre=centre, valid_radius=scale * self.valid_radius
        )

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project points [..., 3], in camera axes with z forward.

        Returns pixels [..., 2] as x, y, and whether the lens sees the points, bool [...]. Pixels of
        points that it does not see have no meaning.
        """
        x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
        across = np.hypot(x, y)
        angle = np.arctan2(across, z)
        bent = angle * (1 + sum(k * angle ** (2 * i + 2) for i, k in enumerate(self.radial)))
        divisor = np.where(across > 0, across, 1.0)  # on the axis x and y are 0
        xr, yr = bent * x / divisor, bent * y / divisor
        p0, p1 = self.tangential
        square = xr**2 + yr**2
        u = xr + (2 * xr**2 + square) * p0 + 2 * xr * yr * p1
        v = yr + (2 * yr**2 + square) * p1 + 2 * xr * yr * p0
        offset = self.focal * np.stack([u, v], -1)
        seen = (angle <= self.max_angle) & (np.linalg.norm(offset, axis=-1) <= self.valid_radius)
        return offset + self.centre, seen


@dataclass(frozen=True)
class Pinhole:
    """A pinhole camera in place of a fisheye camera: same centre, axes and (square) image size.

    Its focal length is the fisheye's own, so that the middle of the image keeps its resolution: a
    longer one would enlarge blurred pixels, a shorter one would throw sharp ones away. With Aria's
    lens this shows 99.5 of the 115 degrees across. What is lost lies at the rim, where a pinhole
    image would be stretched more than twice. Only the outermost corners lie beyond the lens.
    """

    fisheye: Fisheye624
    side: int  # pixels of the image's width and height

    @property
    def centre(self) -> float:
        """Principal point, x and y."""
        return (self.side - 1) / 2

    @cached_property
    def rays(self) -> np.ndarray:
        """Viewing directions of the pixels [side, side, 3], with z = 1."""
        k = intrinsic_matrix(self.fisheye.focal, self.fisheye.focal, self.centre, self.centre)
        u, v = np.meshgrid(np.arange(self.side), np.arange(self.side))
        return np.ascontiguousarray(np.moveaxis(directions_of(k, u, v), 0, -1))

    @cached_property
    def _source(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of all pixels in the fisheye image, [side, side, 2] float32, and if they exist."""
        pixels, seen = self.fisheye.project(self.rays)
        inside = ((pixels >= -0.5) & (pixels < self.side - 0.5)).all(-1)
        return pixels.astype(np.float32), seen & inside

    def colour(self, fisheye_rgb: np.ndarray) -> np.ndarray:
        """[side, side, 3] uint8, bilinear; black where the lens sees nothing."""
        pixels, seen = self._source
        rgb = cv2.remap(
            fisheye_rgb, pixels, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.where(seen[..., None], rgb, 0).astype(np.uint8)

    def values(self, fisheye_values: np.ndarray, unseen: int) -> np.ndarray:
        """[side, side] ids or ranges, nearest; `unseen` where the lens sees nothing."""
        pixels, seen = self._source
        columns, rows = np.moveaxis(np.clip(np.rint(pixels), 0, self.side - 1).astype(int), -1, 0)
        return np.where(seen, fisheye_values[rows, columns], unseen)

    def z_depth(self, fisheye_range: np.ndarray) -> np.ndarray:
        """[side, side] z-depth from distances along rays, in their unit; 0 (unknown) stays 0."""
        return self.values(fisheye_range, 0) / np.linalg.norm(self.rays, axis=-1)
