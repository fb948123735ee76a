"""Cameras of ScanNet++: COLMAP text models, JSON files of nerfstudio and ARKit, pictures without
lens distortion.

COLMAP's pixel centres are at half integers; everything returned here has them at integers, as
scenes do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.data.readers.source import (
    frame_number,
    note_dropped,
    opencv_from_opengl,
    pose_of,
    read_json,
    scaled_intrinsics,
)
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.parsing import each, reading, size_of
from geometry_fusion.parsing import number as number_of

NERFSTUDIO_WORLD = np.array(
    [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]
)  # of the mesh's; own inverse
HALF = 0.5  # what COLMAP's pixel coordinates are ahead of ours
ARKIT_SIZE = (
    1920,
    1440,
)  # (width, height) of the intrinsics in pose_intrinsic_imu.json, which does not state it
NUM_PARAMETERS = {"PINHOLE": 4, "OPENCV": 8, "OPENCV_FISHEYE": 8}  # fx fy cx cy, then 4 of the lens


@dataclass(frozen=True)
class Camera:
    size: tuple[int, int]  # (width, height)
    intrinsics: tuple[
        float, float, float, float
    ]  # fx, fy, cx, cy in pixels, pixel centres at integers
    distortion: tuple[
        float, ...
    ] = ()  # OpenCV's k1 k2 p1 p2, of a fisheye k1 k2 k3 k4; empty = pinhole
    fisheye: bool = False

    @property
    def k(self) -> np.ndarray:
        """[3, 3]."""
        fx, fy, cx, cy = self.intrinsics
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], float)


@dataclass(frozen=True)
class Image:
    name: str  # as in the file, with its folders
    camera: Camera
    camera_to_world: np.ndarray  # [4, 4] OpenCV axes; NaN where the file's quaternion is zero


@dataclass(frozen=True)
class Undistortion:
    """From pictures of a camera to those of a pinhole camera of the same size."""

    intrinsics: tuple[float, float, float, float]  # of the result
    map_xy: tuple[
        np.ndarray, np.ndarray
    ]  # [H, W] float32 each: where a pixel of the result is in the original

    def colour(self, rgb: np.ndarray) -> np.ndarray:
        """[H, W, 3]; what lies beyond the picture is mirrored."""
        return cv2.remap(rgb, *self.map_xy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """[H, W]; nearest, and 0 beyond the picture."""
        return cv2.remap(
            depth, *self.map_xy, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )

    def valid(self, valid: np.ndarray) -> np.ndarray:
        """[H, W] bool: pixels whose colour comes from valid pixels of the picture only."""
        share = cv2.remap(
            valid.astype(np.uint8) * 255, *self.map_xy, cv2.INTER_LINEAR, borderValue=0
        )
        return share == 255


def fitted(camera: Camera, size: tuple[int, int], what: str | Path) -> Camera:
    """The camera for frames of `size`. Raises InputError where that is no plain resize; `what`
    names the frames.
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
    """None for a pinhole camera.

    OPENCV keeps its intrinsics. A fisheye gets those of the ScanNet++ toolbox: OpenCV's estimate at
    balance 0 with the principal point in the middle of the picture. Unlike there, half pixels are
    taken into account.
    """
    if not any(camera.distortion):
        return None
    size, k, lens = camera.size, camera.k, np.array(camera.distortion)
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
    """Camera id -> camera, of cameras.txt."""
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
            known = ", ".join(NUM_PARAMETERS)
            raise InputError(
                f"{file}: camera {number} is {model} with {len(values)} parameters; read are "
                f"{known} (4, 8, 8)"
            )
        fx, fy, cx, cy = values[:4]
        if not min(fx, fy) > 0:
            raise InputError(
                f"{file}: camera {number} has a focal length of {min(fx, fy):g}; export the "
                "model again"
            )
        cameras[number] = Camera(
            size, (fx, fy, cx - HALF, cy - HALF), values[4:], model == "OPENCV_FISHEYE"
        )
    return cameras


def read_images(folder: Path) -> list[Image]:
    """Registered images of a text model (images.txt, cameras.txt in `folder`), in the order of the
    file.
    """
    cameras, file = read_cameras(folder / "cameras.txt"), folder / "images.txt"
    lines, images = iter(_lines(file)), []
    for line in lines:
        # An image without points still has its second line, which is empty: blank lines count only
        # before an image.
        if not line.strip() or line.startswith("#"):
            continue
        try:
            _, qw, qx, qy, qz, tx, ty, tz, camera, name = line.split(maxsplit=9)
            world_to_camera = pose_of(
                [float(q) for q in (qx, qy, qz, qw)], [float(t) for t in (tx, ty, tz)]
            )
        except ValueError:
            raise InputError(
                f"{file}: {line.strip()[:60]!r} is not an image; export the model as text again"
            ) from None
        if camera not in cameras:
            raise InputError(
                f"{file}: {name.strip()} has camera {camera}, which cameras.txt lacks; copy both "
                "again"
            )
        if _is_image(next(lines, "")):
            raise InputError(
                f"{file}: {name.strip()} has no line of points after it; keep empty lines in "
                "that file"
            )
        images.append(Image(name.strip(), cameras[camera], _inverse(world_to_camera)))
    return images


def read_model(
    folder: Path,  # with images.txt and cameras.txt
    foreign: Sequence[
        str
    ],  # folders that names of another device's images start with: one model may have both
    notes: list[str],  # receives what was left out
) -> tuple[dict[int, Camera], dict[int, np.ndarray]]:
    """Cameras and camera-to-world poses [4, 4] by frame number."""
    images = read_images(folder)
    others = [image.name for image in images if image.name.split("/")[0] in foreign]
    note_dropped(notes, others, "of another device")
    return _by_number(
        [image for image in images if image.name.split("/")[0] not in foreign],
        folder / "images.txt",
    )


def _by_number(
    images: Iterable[Image], source: Path
) -> tuple[dict[int, Camera], dict[int, np.ndarray]]:
    found: dict[int, Image] = {}
    for image in images:
        if (other := found.setdefault(_number(image.name, source), image)) is not image:
            raise InputError(
                f"{source}: {image.name} and {other.name} are the same frame; keep one of them"
            )
    return {n: i.camera for n, i in found.items()}, {n: i.camera_to_world for n, i in found.items()}


def read_transforms(file: Path) -> tuple[dict[int, Camera], dict[int, np.ndarray]]:
    """As `read_model`, of the frames and test frames of transforms_undistorted.json."""
    content = read_json(file)
    with reading(file, "a nerfstudio file", "copy it again"):
        fx, fy, cx, cy = (number_of(content[key]) for key in ("fl_x", "fl_y", "cx", "cy"))
        size = size_of(content["w"], content["h"])
        if not min(fx, fy) > 0:
            raise ValueError("a focal length is not positive")
        frames = each(dict, content["frames"], "frames") + each(
            dict, content.get("test_frames", []), "test_frames"
        )
        poses = [
            (str(frame["file_path"]), mesh_from_nerfstudio(_matrix(frame["transform_matrix"])))
            for frame in frames
        ]
        distorted = any(number_of(content.get(f"k{i}") or 0) for i in range(1, 5))
    if distorted:
        raise InputError(
            f"{file}: its camera is distorted (k1..k4); this needs the one of the undistorted "
            "images"
        )
    # The toolbox takes COLMAP's half pixels for whole ones; its pictures are shifted by as much as
    # it says of them.
    camera = Camera(size, (fx, fy, cx - HALF, cy - HALF))
    return _by_number((Image(name, camera, pose) for name, pose in poses), file)


def mesh_from_nerfstudio(pose: np.ndarray) -> np.ndarray:
    """[4, 4] of transforms.json (OpenGL camera, turned world) -> OpenCV camera to the world of the
    mesh.
    """
    return opencv_from_opengl(NERFSTUDIO_WORLD @ pose)


def read_arkit(file: Path, notes: list[str]) -> tuple[dict[int, Camera], dict[int, np.ndarray]]:
    """As `read_model`, of pose_intrinsic_imu.json: the frames that were aligned to the mesh."""
    content = read_json(file)
    if not isinstance(content, dict) or not all(
        isinstance(entry, dict) for entry in content.values()
    ):
        raise InputError(f"{file}: not an object of frames; copy it again")
    entries = {_number(name, file): entry for name, entry in content.items()}
    aligned = {number for number, entry in entries.items() if entry.get("aligned_pose") is not None}
    note_dropped(notes, sorted(set(entries) - aligned), "no aligned_pose")
    cameras, poses = {}, {}
    for number in sorted(aligned):
        k = _matrix(entries[number].get("intrinsic"))
        if k.shape == (3, 3) and np.isfinite(k).all() and min(k[0, 0], k[1, 1]) > 0:
            cameras[number] = Camera(ARKIT_SIZE, (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
            poses[number] = _matrix(entries[number]["aligned_pose"])
    note_dropped(notes, sorted(aligned - set(cameras)), "no intrinsic 3x3")
    return cameras, poses


def _number(name: str, file: Path) -> int:
    try:
        return frame_number(name)
    except ValueError:
        raise InputError(f"{file}: {name!r} has no frame number; copy it again") from None


def _matrix(values) -> np.ndarray:
    """Numbers of a JSON list; NaN [4, 4], which no check lets pass, where they are something
    else.
    """
    try:
        return np.array(values, float)
    except (TypeError, ValueError):
        return np.full((4, 4), np.nan)


def _is_image(line: str) -> bool:
    """Whether this is an image's line: there the tenth word is a name, in a line of points all are
    numbers.
    """
    words = line.split(maxsplit=10)
    if len(words) < 10:
        return False
    try:
        float(words[9])
    except ValueError:
        return True
    return False


def _inverse(pose: np.ndarray) -> np.ndarray:
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def _lines(file: Path):
    try:
        with file.open(encoding="utf-8") as lines:
            yield from lines
    except FileNotFoundError:
        raise InputError(
            f"{file}: missing; a binary model becomes text with colmap model_converter "
            "--output_type TXT"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not text ({one_line(error)}); copy it again") from None
