"""COLMAP text models as ScanNet++ has them, and the undistortion of images by their cameras.

COLMAP's pixel centres are at half integers; everything returned here has them at integers, as
scenes do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.data.readers.colmap_cameras import HALF, Camera, Image, by_number
from geometry_fusion.data.readers.source import (
    note_dropped,
    pose_of,
    scaled_intrinsics,
)
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.parsing import number as number_of
from geometry_fusion.io.parsing import size_of

# Camera model -> number of parameters: fx fy cx cy, then 4 of the lens.
NUM_PARAMETERS = {"PINHOLE": 4, "OPENCV": 8, "OPENCV_FISHEYE": 8}


@dataclass(frozen=True)
class Undistortion:
    """Turns images of a camera into those of a pinhole camera of the same size."""

    intrinsics: tuple[float, float, float, float]  # of the result
    # Columns and rows in the original, [H, W] float32 each, of the pixels of the result.
    map_xy: tuple[np.ndarray, np.ndarray]

    def colour(self, rgb: np.ndarray) -> np.ndarray:
        """[H, W, 3], bilinear; beyond the edges of the original, its mirror image."""
        return cv2.remap(rgb, *self.map_xy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """[H, W], nearest; 0 beyond the edges of the original."""
        return cv2.remap(
            depth, *self.map_xy, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )

    def valid(self, valid: np.ndarray) -> np.ndarray:
        """[H, W] bool: pixels whose colour comes from valid pixels of the original only."""
        share = cv2.remap(
            valid.astype(np.uint8) * 255, *self.map_xy, cv2.INTER_LINEAR, borderValue=0
        )
        return share == 255


def fitted(camera: Camera, size: tuple[int, int], what: str | Path) -> Camera:
    """The camera for frames of `size` (width, height).

    Raises InputError, naming `what`, if the frames are not its images resized.
    """
    if camera.size == tuple(size):
        return camera
    scales = np.divide(size, camera.size)
    if abs(scales[0] / scales[1] - 1) > 0.01:
        raise InputError(
            f"{what}: frames are {size[0]}x{size[1]}, their camera is "
            f"{camera.size[0]}x{camera.size[1]}; "
            "use frames that are neither turned nor cropped"
        )
    return replace(
        camera, size=tuple(size), intrinsics=scaled_intrinsics(camera.intrinsics, camera.size, size)
    )


@lru_cache(maxsize=2)
def undistortion(camera: Camera) -> Undistortion | None:
    """The undistortion of a camera's images; None for a pinhole camera.

    An OPENCV camera keeps its intrinsics. A fisheye gets those of the ScanNet++ toolbox: OpenCV's
    estimate at balance 0, with the principal point in the middle of the image. Unlike the toolbox,
    this takes the offset of half a pixel into account.
    """
    if not any(camera.distortion):
        return None
    size, k = camera.size, camera.k
    lens = np.array(camera.distortion)
    if camera.fisheye:
        new = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(
            k, lens, size, np.eye(3), balance=0.0
        )
        new[:2, 2] = np.array(size) / 2 - HALF
        maps = cv2.fisheye.initUndistortRectifyMap(k, lens, np.eye(3), new, size, cv2.CV_32FC1)
    else:
        new = k
        maps = cv2.initUndistortRectifyMap(k, lens, None, new, size, cv2.CV_32FC1)
    return Undistortion((new[0, 0], new[1, 1], new[0, 2], new[1, 2]), maps)


def read_cameras(file: Path) -> dict[str, Camera]:
    """Camera id -> camera, of cameras.txt. Raises InputError for other models and bad lines."""
    cameras = {}
    for line in _lines(file):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            number, model, width, height, *parameters = line.split()
            values = tuple(number_of(float(parameter)) for parameter in parameters)
            size = size_of(int(width), int(height))
        except (ValueError, TypeError):
            raise InputError(
                f"{file}: {line.strip()[:60]!r} is not a camera; export the model as text again"
            ) from None
        if len(values) != NUM_PARAMETERS.get(model):
            readable = ", ".join(NUM_PARAMETERS)
            raise InputError(
                f"{file}: camera {number} is {model} with {len(values)} parameters; "
                f"readable are {readable} (4, 8, 8)"
            )
        fx, fy, cx, cy = values[:4]
        intrinsics = (fx, fy, cx - HALF, cy - HALF)
        if not min(fx, fy) > 0:
            raise InputError(
                f"{file}: camera {number} has a focal length of {min(fx, fy):g}; "
                "export the model again"
            )
        cameras[number] = Camera(size, intrinsics, values[4:], model == "OPENCV_FISHEYE")
    return cameras


def read_images(folder: Path) -> list[Image]:
    """Images of a text model (images.txt and cameras.txt in `folder`), in the order of the file.

    Raises InputError for damaged lines and unknown cameras.
    """
    cameras = read_cameras(folder / "cameras.txt")
    file = folder / "images.txt"
    images = []
    lines = iter(_lines(file))
    for line in lines:
        # An image has two lines; the second, its points, may be empty. So empty lines are skipped
        # here, before an image, but not after one.
        if not line.strip() or line.startswith("#"):
            continue
        try:
            _, qw, qx, qy, qz, tx, ty, tz, camera, name = line.split(maxsplit=9)
            quaternion = [float(q) for q in (qx, qy, qz, qw)]
            world_to_camera = pose_of(quaternion, [float(t) for t in (tx, ty, tz)])
        except ValueError:
            raise InputError(
                f"{file}: {line.strip()[:60]!r} is not an image; export the model as text again"
            ) from None
        if camera not in cameras:
            raise InputError(
                f"{file}: {name.strip()} has camera {camera}, which cameras.txt lacks; "
                "copy both again"
            )
        if _is_image(next(lines, "")):
            raise InputError(
                f"{file}: {name.strip()} has no line of points after it; "
                "keep empty lines in that file"
            )
        images.append(Image(name.strip(), cameras[camera], _inverse(world_to_camera)))
    return images


def read_model(
    folder: Path,  # with images.txt and cameras.txt
    foreign: Sequence[str],  # folders of another device's images, which the model may hold too
    notes: list[str],  # receives what was left out
) -> tuple[dict[int, Camera], dict[int, np.ndarray]]:
    """Cameras and camera-to-world poses [4, 4] by frame number."""
    images, others = [], []
    for image in read_images(folder):
        if image.name.split("/")[0] in foreign:
            others.append(image.name)
        else:
            images.append(image)
    note_dropped(notes, others, "of another device")
    return by_number(images, folder / "images.txt")


def _is_image(line: str) -> bool:
    """Whether a line names an image: its tenth word is a name; in a line of points, a number."""
    words = line.split(maxsplit=10)
    if len(words) < 10:
        return False
    try:
        float(words[9])
    except ValueError:
        return True
    return False


def _inverse(pose: np.ndarray) -> np.ndarray:
    """The inverse [4, 4] of a rotation with a translation."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def _lines(file: Path) -> Iterator[str]:
    """Lines of a text file; InputError if it is missing or not text."""
    try:
        with file.open(encoding="utf-8") as lines:
            yield from lines
    except FileNotFoundError:
        raise InputError(
            f"{file}: missing; "
            "a binary model becomes text with colmap model_converter --output_type TXT"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not text ({one_line(error)}); copy it again") from None
