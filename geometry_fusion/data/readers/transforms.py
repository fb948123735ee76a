"""Cameras of ScanNet++ in JSON files: nerfstudio's transforms and ARKit's poses.

Both give what `colmap.read_model` gives: cameras and camera-to-world poses by frame number, in the
world of the mesh.
"""

from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.colmap_cameras import HALF, Camera, Image, by_number, frame_index
from geometry_fusion.data.readers.source import (
    note_dropped,
    opencv_from_opengl,
    read_json,
)
from geometry_fusion.errors import InputError
from geometry_fusion.io.parsing import each, reading, size_of
from geometry_fusion.io.parsing import number as number_of

# From the mesh's world to nerfstudio's, and back: the matrix is its own inverse.
NERFSTUDIO_WORLD = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])

# (width, height) of the images that pose_intrinsic_imu.json is for; the file does not state it.
ARKIT_SIZE = (1920, 1440)


def read_transforms(file: Path) -> tuple[dict[int, Camera], dict[int, np.ndarray]]:
    """Cameras and camera-to-world poses [4, 4] by frame number of transforms_undistorted.json.

    Test frames are included. Raises InputError if the file is damaged or its camera is distorted.
    """
    content = read_json(file)
    with reading(file, "a nerfstudio file", "copy it again"):
        fx, fy, cx, cy = (number_of(content[key]) for key in ("fl_x", "fl_y", "cx", "cy"))
        size = size_of(content["w"], content["h"])
        if not min(fx, fy) > 0:
            raise ValueError("a focal length is not positive")
        frames = each(dict, content["frames"], "frames")
        frames = frames + each(dict, content.get("test_frames", []), "test_frames")
        poses = [
            (str(frame["file_path"]), mesh_from_nerfstudio(_matrix(frame["transform_matrix"])))
            for frame in frames
        ]
        distorted = any(number_of(content.get(f"k{i}") or 0) for i in range(1, 5))
    if distorted:
        raise InputError(
            f"{file}: its camera is distorted (k1..k4); give the file of the undistorted images"
        )
    # The toolbox undistorts as if COLMAP's half pixels were whole ones. Its images are shifted by
    # the same half pixel as the principal point it writes.
    camera = Camera(size, (fx, fy, cx - HALF, cy - HALF))
    return by_number((Image(name, camera, pose) for name, pose in poses), file)


def mesh_from_nerfstudio(pose: np.ndarray) -> np.ndarray:
    """Pose [4, 4] of an OpenCV camera in the mesh's world, from one of transforms.json.

    nerfstudio has an OpenGL camera and another world.
    """
    return opencv_from_opengl(NERFSTUDIO_WORLD @ pose)


def read_arkit(file: Path, notes: list[str]) -> tuple[dict[int, Camera], dict[int, np.ndarray]]:
    """Cameras and poses by frame number of pose_intrinsic_imu.json.

    Frames that were not aligned to the mesh, or have no intrinsics, are left out and listed in
    `notes`. Raises InputError if the file is damaged.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not all(
        isinstance(entry, dict) for entry in content.values()
    ):
        raise InputError(f"{file}: not an object of frames; copy it again")
    entries = {frame_index(name, file): entry for name, entry in content.items()}
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


def _matrix(values) -> np.ndarray:
    """A JSON list as numbers; for anything else NaN [4, 4], which later checks refuse."""
    try:
        return np.array(values, float)
    except (TypeError, ValueError):
        return np.full((4, 4), np.nan)
