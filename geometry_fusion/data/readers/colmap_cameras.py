"""Cameras and images of ScanNet++, whichever file they come from."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.source import Intrinsics, frame_number
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.cameras import intrinsic_matrix

HALF = 0.5  # COLMAP's pixel coordinates minus ours


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with or without lens distortion."""

    size: tuple[int, int]  # (width, height)
    intrinsics: Intrinsics
    # OpenCV's k1 k2 p1 p2, or k1 k2 k3 k4 of a fisheye; empty for a camera without distortion.
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    @property
    def k(self) -> np.ndarray:
        """Intrinsics as a matrix [3, 3]."""
        return intrinsic_matrix(*self.intrinsics)


@dataclass(frozen=True)
class Image:
    """A registered image."""

    name: str  # as in the file, with its folders
    camera: Camera
    camera_to_world: np.ndarray  # [4, 4] OpenCV axes; NaN if the file's quaternion is zero


def frame_index(name: str, file: Path) -> int:
    """The frame number in an image's name; InputError, naming `file`, if it has none."""
    try:
        return frame_number(name)
    except ValueError:
        raise InputError(f"{file}: {name!r} has no frame number; copy it again") from None


def by_number(
    images: Iterable[Image], source: Path
) -> tuple[dict[int, Camera], dict[int, np.ndarray]]:
    """Cameras and poses by frame number; InputError, naming `source`, if two images have one."""
    images_by_number: dict[int, Image] = {}
    for image in images:
        other = images_by_number.setdefault(frame_index(image.name, source), image)
        if other is not image:
            raise InputError(
                f"{source}: {image.name} and {other.name} are the same frame; keep one of them"
            )
    cameras = {number: image.camera for number, image in images_by_number.items()}
    poses = {number: image.camera_to_world for number, image in images_by_number.items()}
    return cameras, poses
