"""Polycam's raw export ("raw data" of a LiDAR or photo capture in developer mode), unpacked.

In CAPTURE/keyframes:

    images/<us>.jpg            as the phone saw them
    cameras/<us>.json          as the phone estimated them
    corrected_images/<us>.jpg  undistorted
    corrected_cameras/<us>.json  after loop closure
    depth/<us>.png             millimetres, of images/ but smaller

* corrected_images and corrected_cameras are used together or not at all: their poses and the
  uncorrected ones are of two worlds. Their black border is cut off. Each has its own intrinsics.
* Depth belongs to the uncorrected image: it is looked up along the ray of each corrected pixel.
  Beyond 5 m it is a guess and left out.
* Poses are camera-to-world of an OpenGL camera, row-major 3x4; the world (y up) stays as it is.
* Images stay as the sensor saw them: in landscape, also when the phone was held upright.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geometry_fusion.data.readers.captures import captures, depth_at, intrinsics_at, stored_rgb
from geometry_fusion.data.readers.source import (
    Intrinsics,
    Source,
    note_dropped,
    numbered,
    opencv_from_opengl,
    paired,
    read_json,
    read_values,
    rigid_poses,
    scaled_intrinsics,
    seen_by_other,
)
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import open_image
from geometry_fusion.io.parsing import number, reading, size_of

BORDER = 15  # pixels at the edges of corrected images that may be black; nerfstudio's number
FARTHEST_M = 5.0  # depth beyond is a guess


class Camera(NamedTuple):
    """A camera as one JSON file has it."""

    camera_to_world: np.ndarray  # [4, 4] OpenCV axes
    intrinsics: Intrinsics
    size: tuple[int, int] | None  # (width, height) that they are for; newer exports leave it out


class Files(NamedTuple):
    """Files of a capture, by frame number."""

    images: dict[int, Path]
    cameras: dict[int, Path]
    depths: dict[int, Path]
    raw_images: dict[int, Path]  # of the uncorrected camera, which the depth belongs to
    raw_cameras: dict[int, Path]
    corrected: bool  # whether images and cameras are the corrected ones


def find(root: Path) -> list[str]:
    """Names of the captures at `root`; InputError if there are none."""
    return sorted(_captures(root))


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`. Raises InputError if no frame is complete."""
    keyframes = _captures(root)[name] / "keyframes"
    notes: list[str] = []
    files = _files(keyframes, notes)
    tables = {"picture": files.images, "camera": files.cameras}
    if files.depths:
        tables["depth"] = files.depths
    cameras = {n: _camera(files.cameras[n]) for n in paired(notes, **tables)}
    poses = rigid_poses(notes, {n: camera.camera_to_world for n, camera in cameras.items()})
    if not poses:
        raise InputError(
            f"{keyframes}: no frame is complete ({'; '.join(notes) or 'no pictures'}); "
            "export it again"
        )
    if files.depths:
        notes.append(f"depth beyond {FARTHEST_M:g} m is left out: it is a guess there")

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in stems:
            n = int(stem)
            rgb, depth, intrinsics = _content(files, n, cameras[n])
            yield SceneFrame(stem, rgb, None, depth, poses[n], intrinsics)

    width = len(str(max(poses)))  # of stems, which sort as text; time stamps differ in length
    stems = [f"{n:0{width}d}" for n in sorted(poses)]
    return Source(name, stems, frames, notes=notes, border=BORDER if files.corrected else 0)


def _files(keyframes: Path, notes: list[str]) -> Files:
    """The corrected images and cameras if both are there, otherwise the uncorrected ones."""
    # [!.]: unpacking on a Mac leaves a ._ file beside every file.
    raw_images = numbered(keyframes.glob("images/[!.]*.jpg"))
    raw_cameras = numbered(keyframes.glob("cameras/[!.]*.json"))
    images = numbered(keyframes.glob("corrected_images/[!.]*.jpg"))
    cameras = numbered(keyframes.glob("corrected_cameras/[!.]*.json"))
    corrected = bool(images and cameras)
    if not corrected:
        if images or cameras:
            lacking = "corrected_cameras" if images else "corrected_images"
            notes.append(f"the uncorrected pictures and cameras are used: there are no {lacking}")
        images, cameras = raw_images, raw_cameras
    depths = numbered(keyframes.glob("depth/[!.]*.png"))
    depths = {n: file for n, file in depths.items() if n in images}
    if corrected:
        note_dropped(notes, sorted(set(raw_images) - set(images)), "not corrected")
    return Files(images, cameras, depths, raw_images, raw_cameras, corrected)


def _content(
    files: Files, n: int, camera: Camera
) -> tuple[np.ndarray, np.ndarray | None, Intrinsics]:
    """Colour [H, W, 3], depth [H, W] or None, and intrinsics of a frame."""
    rgb = stored_rgb(files.images[n])
    size = rgb.shape[1::-1]
    intrinsics = intrinsics_at(camera.intrinsics, camera.size, size, files.cameras[n])
    depth = _depth(files.depths[n]) if files.depths else None
    if not files.corrected:
        if depth is not None:
            depth = depth_at(depth, size, files.depths[n])
        return rgb, depth, intrinsics
    cut_rgb, cut_intrinsics = _cut(rgb, intrinsics, files.images[n])
    if depth is not None:
        of_depth = _depth_intrinsics(files, n, intrinsics, size, depth.shape[::-1])
        depth = seen_by_other(depth, of_depth, cut_intrinsics, cut_rgb.shape[1::-1])
    return cut_rgb, depth, cut_intrinsics


def _depth_intrinsics(
    files: Files,
    n: int,
    corrected: Intrinsics,  # of the corrected image before its border was cut
    corrected_size: tuple[int, int],
    depth_size: tuple[int, int],
) -> Intrinsics:
    """Intrinsics of the depth map: the uncorrected camera's, or else the corrected one's."""
    if n not in files.raw_cameras:
        return scaled_intrinsics(corrected, corrected_size, depth_size)
    camera = _camera(files.raw_cameras[n])
    size = camera.size or corrected_size
    if camera.size is None and n in files.raw_images:
        size = _stored_size(files.raw_images[n])
    return scaled_intrinsics(camera.intrinsics, size, depth_size)


def _captures(root: Path) -> dict[str, Path]:
    wanted = "keyframes/ of a Polycam raw export"
    return captures(root, lambda folder: (folder / "keyframes").is_dir(), wanted)


def _camera(file: Path) -> Camera:
    """The camera of a JSON file; InputError if it is damaged."""
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


def _cut(rgb: np.ndarray, intrinsics: Intrinsics, file: Path) -> tuple[np.ndarray, Intrinsics]:
    """A corrected image and its intrinsics without the border; InputError if nothing is left."""
    if min(rgb.shape[:2]) <= 2 * BORDER:
        raise InputError(
            f"{file}: is {rgb.shape[1]}x{rgb.shape[0]}, all border; take the original export"
        )
    fx, fy, cx, cy = intrinsics
    return rgb[BORDER:-BORDER, BORDER:-BORDER], (fx, fy, cx - BORDER, cy - BORDER)


def _depth(file: Path) -> np.ndarray:
    """[h, w] float32 metres, 0 = no measurement, or a guess."""
    metres = read_values(file).astype(np.float32) / 1000
    return np.where(metres <= FARTHEST_M, metres, np.float32(0))
