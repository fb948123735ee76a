"""Polycam's raw export ("raw data" of a LiDAR or photo capture in developer mode), unpacked.

    CAPTURE/keyframes/images/<us>.jpg, cameras/<us>.json                      as the phone saw and
    believed it
    CAPTURE/keyframes/corrected_images/<us>.jpg, corrected_cameras/<us>.json  undistorted, loops
    closed
    CAPTURE/keyframes/depth/<us>.png                                          millimetres, of
    images/, smaller

* corrected_images and corrected_cameras are used together and only together: their poses and the
uncorrected ones are
  of two worlds. Their black border is cut off. Each has its own intrinsics.
* The depth belongs to the uncorrected picture: it is looked up along the ray of each corrected
pixel. Beyond
  5 m it is a guess and left out.
* Poses are camera-to-world of an OpenGL camera, row-major 3x4; the world (y up) stays as it is.
* Pictures stay as the sensor saw them: in landscape, also when the phone was held upright.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geometry_fusion.data.readers.captures import captures, depth_at, intrinsics_at, stored_rgb
from geometry_fusion.data.readers.source import (
    Source,
    note_dropped,
    numbered,
    opencv_from_opengl,
    paired,
    read_json,
    read_values,
    rigid_poses,
    scaled_intrinsics,
)
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError
from geometry_fusion.mask_files import open_image
from geometry_fusion.parsing import number, reading, size_of

BORDER = 15  # pixels of corrected pictures that may be black; what nerfstudio cuts off
FARTHEST_M = 5.0


class Camera(NamedTuple):
    camera_to_world: np.ndarray  # [4, 4] OpenCV axes
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy
    size: tuple[int, int] | None  # (width, height) that they are for; newer exports leave it out


def find(root: Path) -> list[str]:
    return sorted(_captures(root))


def open_scene(root: Path, name: str) -> Source:
    keyframes = _captures(root)[name] / "keyframes"
    notes: list[str] = []
    # [!.]: unpacking on a Mac leaves a ._ file beside every file.
    raw_images = numbered(keyframes.glob("images/[!.]*.jpg"))
    raw_cameras = numbered(keyframes.glob("cameras/[!.]*.json"))
    images = numbered(keyframes.glob("corrected_images/[!.]*.jpg"))
    files = numbered(keyframes.glob("corrected_cameras/[!.]*.json"))
    corrected = bool(images and files)
    if not corrected:
        if images or files:
            lacking = "corrected_cameras" if images else "corrected_images"
            notes.append(f"the uncorrected pictures and cameras are used: there are no {lacking}")
        images, files = raw_images, raw_cameras
    depths = {
        n: file for n, file in numbered(keyframes.glob("depth/[!.]*.png")).items() if n in images
    }
    if corrected:
        note_dropped(notes, sorted(set(raw_images) - set(images)), "not corrected")
    keys = paired(notes, picture=images, camera=files, **({"depth": depths} if depths else {}))
    cameras = {n: _camera(files[n]) for n in keys}
    poses = rigid_poses(notes, {n: camera.camera_to_world for n, camera in cameras.items()})
    if not poses:
        raise InputError(
            f"{keyframes}: no frame is complete ({'; '.join(notes) or 'no pictures'}); export it "
            "again"
        )
    if depths:
        notes.append(f"depth beyond {FARTHEST_M:g} m is left out: it is a guess there")

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in stems:
            n = int(stem)
            rgb = stored_rgb(images[n])
            size = rgb.shape[1::-1]
            intrinsics = intrinsics_at(cameras[n].intrinsics, cameras[n].size, size, files[n])
            depth = _depth(depths[n]) if depths else None
            if corrected:
                rgb, intrinsics, was = *_cut(rgb, intrinsics, images[n]), intrinsics
                if depth is not None:
                    seen = raw_intrinsics(n, was, size, depth.shape[::-1])
                    depth = _looked_up(depth, seen, intrinsics, rgb.shape[1::-1])
            elif depth is not None:
                depth = depth_at(depth, size, depths[n])
            yield SceneFrame(stem, rgb, None, depth, poses[n], intrinsics)

    def raw_intrinsics(n: int, otherwise: tuple, otherwise_size: tuple, depth_size: tuple) -> tuple:
        """Of the depth map; without the uncorrected camera those of the corrected picture before
        its border went.
        """
        if n not in raw_cameras:
            return scaled_intrinsics(otherwise, otherwise_size, depth_size)
        camera = _camera(raw_cameras[n])
        size = camera.size or (_stored_size(raw_images[n]) if n in raw_images else otherwise_size)
        return scaled_intrinsics(camera.intrinsics, size, depth_size)

    width = len(str(max(poses)))  # time stamps grow by a digit now and then; stems sort as text
    return Source(name, [f"{n:0{width}d}" for n in sorted(poses)], frames, notes=notes)


def _captures(root: Path) -> dict[str, Path]:
    return captures(
        root, lambda folder: (folder / "keyframes").is_dir(), "keyframes/ of a Polycam raw export"
    )


def _camera(file: Path) -> Camera:
    content = read_json(file)
    with reading(file, "a camera with a usable fx, fy, cx, cy and t_00..t_23"):
        rows = [[content[f"t_{row}{column}"] for column in range(4)] for row in range(3)]
        pose = np.array([*rows, (0, 0, 0, 1)], float)
        intrinsics = tuple(number(content[key]) for key in ("fx", "fy", "cx", "cy"))
        stated = "width" in content and "height" in content
        size = size_of(content["width"], content["height"]) if stated else None
        if not min(intrinsics[:2]) > 0:
            raise ValueError("a focal length is not positive")
    return Camera(opencv_from_opengl(pose), intrinsics, size)


def _stored_size(file: Path) -> tuple[int, int]:
    with open_image(file) as image:
        return image.size


def _cut(rgb: np.ndarray, intrinsics: tuple, file: Path) -> tuple[np.ndarray, tuple]:
    """A corrected picture and its intrinsics without the border."""
    if min(rgb.shape[:2]) <= 2 * BORDER:
        raise InputError(
            f"{file}: is {rgb.shape[1]}x{rgb.shape[0]}, all border; take the original export"
        )
    fx, fy, cx, cy = intrinsics
    return rgb[BORDER:-BORDER, BORDER:-BORDER], (fx, fy, cx - BORDER, cy - BORDER)


def _depth(file: Path) -> np.ndarray:
    """[h, w] float32 metres, 0 = unknown or a guess."""
    metres = read_values(file).astype(np.float32) / 1000
    return np.where(metres <= FARTHEST_M, metres, np.float32(0))


def _looked_up(
    depth: np.ndarray,  # [h, w]
    seen: tuple[float, float, float, float],  # its intrinsics
    wanted: tuple[float, float, float, float],  # intrinsics of the same camera's other picture
    size: tuple[int, int],  # (width, height) of that
) -> np.ndarray:  # [height, width]
    """Depth along the rays of another picture from the same place and direction, nearest; 0 outside
    the map.
    """
    fx, fy, cx, cy = wanted
    columns = np.rint((np.arange(size[0]) - cx) / fx * seen[0] + seen[2]).astype(int)
    rows = np.rint((np.arange(size[1]) - cy) / fy * seen[1] + seen[3]).astype(int)
    found = depth[np.ix_(rows.clip(0, depth.shape[0] - 1), columns.clip(0, depth.shape[1] - 1))]
    inside = (
        ((rows >= 0) & (rows < depth.shape[0]))[:, None]
        & (columns >= 0)
        & (columns < depth.shape[1])
    )
    return np.where(inside, found, np.float32(0))
