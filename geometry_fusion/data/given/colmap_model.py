"""A COLMAP model, text or binary: cameras, images with their observations, and points.

    MODEL/cameras.txt|bin, images.txt|bin, points3D.txt|bin

Read without COLMAP. Coordinates of pixels are ours: the first centre is at 0, not at 0.5.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.data.given.colmap_lenses import (
    HALF,
    MODELS,
    NAMES,
    OTHERS,
    lens_of,
    num_parameters,
)
from geometry_fusion.data.readers.source import pose_of
from geometry_fusion.data.scenes import rigid
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.io.parsing import reading, size_of

CURE = "copy the model again or export it with colmap model_converter"
UNKNOWN_MODEL_CURE = "undistort the pictures first (colmap image_undistorter), give that model"
LONGEST_NAME = 4096  # bytes
PARTS = ("cameras", "images", "points3D")


@dataclass(frozen=True)
class Camera:
    """A camera of the model."""

    size: tuple[int, int]  # (width, height) in pixels
    lens: Lens


@dataclass(frozen=True)
class Image:
    """A registered image and what it observes."""

    name: str  # as in the file, with its folders
    camera: Camera
    camera_to_world: np.ndarray  # [4, 4]; NaN where the stored quaternion is zero
    observed: np.ndarray  # [M, 2] pixels of the image
    point_ids: np.ndarray  # [M] int64: which point each observation is; those of none are left out


@dataclass(frozen=True)
class ColmapModel:
    """All of a model."""

    images: list[Image]
    points: dict[int, np.ndarray]  # id -> [3] world
    files: list[Path]
    is_binary: bool


def model_files(folder: Path) -> list[Path]:
    """The three files of a model in a folder, binary before text; empty if there are not all."""
    for suffix in (".bin", ".txt"):
        files = [folder / f"{part}{suffix}" for part in PARTS]
        if all(file.is_file() for file in files):
            return files
    return []


def read_model(folder: Path) -> ColmapModel:
    """A model in a folder. Raises InputError for damaged files and unknown camera models."""
    cameras_file, images_file, points_file = files = model_files(folder)
    is_binary = cameras_file.suffix == ".bin"
    read = (_cameras_of, _images_of, _points_of)
    if not is_binary:
        read = (_cameras_of_text, _images_of_text, _points_of_text)
    expected = "a file of a COLMAP model"
    with reading(cameras_file, expected, CURE):
        cameras = read[0](cameras_file)
    with reading(images_file, expected, CURE):
        images = read[1](images_file, cameras)
    with reading(points_file, expected, CURE):
        points = read[2](points_file)
    return ColmapModel(images, points, files, is_binary)


class _Bytes:
    """A binary file, read from its beginning; ValueError where it ends too early."""

    def __init__(self, file: Path):
        self._content, self._at = file.read_bytes(), 0

    def values(self, form: str) -> tuple:
        """Values of a struct, little-endian."""
        form = f"<{form}"
        start = self._advance(struct.calcsize(form))
        return struct.unpack_from(form, self._content, start)

    def count(self, least_bytes: int) -> int:
        """A number of entries, each of which takes at least so many bytes."""
        (number,) = self.values("Q")
        left = len(self._content) - self._at
        if number * least_bytes > left:
            raise ValueError(f"{number} entries do not fit into {left} bytes: it is cut off")
        return number

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        """[count] values."""
        start = self._advance(dtype.itemsize * count)
        return np.frombuffer(self._content, dtype, count, start)

    def text(self) -> str:
        """Text that ends with a zero byte."""
        end = self._content.find(b"\0", self._at, self._at + LONGEST_NAME)
        if end < 0:
            raise ValueError("a name without an end")
        start = self._advance(end + 1 - self._at)
        return self._content[start:end].decode(errors="surrogateescape")

    def skip(self, number: int) -> None:
        """Pass over so many bytes."""
        self._advance(number)

    def _advance(self, number: int) -> int:
        start, self._at = self._at, self._at + number
        if self._at > len(self._content):
            raise ValueError(f"ends after {len(self._content)} bytes: it is cut off")
        return start


OBSERVATION = np.dtype([("xy", "<f8", 2), ("point", "<i8")])


def _cameras_of(file: Path) -> dict[int, Camera]:
    content = _Bytes(file)
    cameras = {}
    for _ in range(content.count(24)):
        number, model, width, height = content.values("IiQQ")
        if model not in NAMES:
            raise _unknown_model(file, number, OTHERS.get(model, f"model {model}"))
        parameters = content.values(f"{num_parameters(NAMES[model])}d")
        cameras[number] = _camera(NAMES[model], width, height, parameters)
    return cameras


def _camera(name: str, width: int, height: int, parameters) -> Camera:
    return Camera(size_of(width, height), lens_of(name, parameters))


def _unknown_model(file: Path, number, model: str) -> InputError:
    return InputError(
        f"{file}: camera {number} is {model}, read are {', '.join(MODELS)}; {UNKNOWN_MODEL_CURE}"
    )


def _images_of(file: Path, cameras: dict[int, Camera]) -> list[Image]:
    content = _Bytes(file)
    images = []
    for _ in range(content.count(73)):
        _, *pose, camera = content.values("I7dI")
        name = content.text()
        entries = content.array(OBSERVATION, content.count(OBSERVATION.itemsize))
        images.append(_image(name, cameras, camera, pose, entries["xy"], entries["point"]))
    return images


def _image(name: str, cameras, camera: int, pose, xy: np.ndarray, points: np.ndarray) -> Image:
    """pose: qw, qx, qy, qz, tx, ty, tz, world to camera."""
    if camera not in cameras:
        raise ValueError(f"{name!r} has camera {camera}, which the file of cameras lacks")
    qw, qx, qy, qz, *translation = pose
    camera_to_world = np.full((4, 4), np.nan)
    world_to_camera = pose_of((qx, qy, qz, qw), translation)
    if rigid(world_to_camera):
        camera_to_world = np.linalg.inv(world_to_camera)
    used = (points >= 0) & np.isfinite(xy).all(1)
    return Image(name, cameras[camera], camera_to_world, xy[used] - HALF, points[used])


def _points_of(file: Path) -> dict[int, np.ndarray]:
    content = _Bytes(file)
    points = {}
    for _ in range(content.count(51)):
        number, *place = content.values("Q3d")
        content.skip(3 + 8)  # colour and error
        content.skip(8 * content.count(8))  # which images see it
        points[number] = np.array(place)
    return points


def _lines(file: Path) -> Iterator[str]:
    """Lines of a text file, without comments; InputError if it is not text."""
    try:
        with file.open(encoding="utf-8") as lines:
            yield from (line for line in lines if not line.startswith("#"))
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not text ({one_line(error)}); {CURE}") from None


def _cameras_of_text(file: Path) -> dict[int, Camera]:
    cameras = {}
    for line in filter(str.strip, _lines(file)):
        number, model, width, height, *parameters = line.split()
        if model not in MODELS:
            raise _unknown_model(file, number, model)
        values = [float(parameter) for parameter in parameters]
        cameras[int(number)] = _camera(model, int(width), int(height), values)
    return cameras


def _images_of_text(file: Path, cameras: dict[int, Camera]) -> list[Image]:
    images = []
    lines = _lines(file)
    for line in lines:
        # An image has two lines. The second, its observations, may be empty, so empty lines are
        # skipped here only, before an image.
        if not line.strip():
            continue
        _, *pose, camera, name = line.split(maxsplit=9)
        values = np.array(next(lines, "").split(), float).reshape(-1, 3)
        pose = [float(value) for value in pose]
        points = np.where(np.isfinite(values[:, 2]), values[:, 2], -1).astype(np.int64)
        images.append(_image(name.strip(), cameras, int(camera), pose, values[:, :2], points))
    return images


def _points_of_text(file: Path) -> dict[int, np.ndarray]:
    points = {}
    for line in filter(str.strip, _lines(file)):
        number, x, y, z = line.split(maxsplit=4)[:4]
        points[int(number)] = np.array([float(x), float(y), float(z)])
    return points
