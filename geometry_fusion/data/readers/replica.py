"""Replica as rendered for iMAP and NICE-SLAM: ROOT/SCENE with results/ and traj.txt.

results/ has frame*.jpg and depth*.png. Depth is 16-bit z-depth with `scale` (6553.5) counts per
metre. Poses are camera-to-world with OpenCV axes as they are; what NICE-SLAM negates is for its own
renderer. There are no masks, and those of Semantic-NeRF's rendering do not fit: it has the same
rooms but other camera paths.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.source import (
    Source,
    numbered,
    paired,
    read_json,
    read_numbers,
    read_values,
    rigid_poses,
)
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import read_rgb
from geometry_fusion.io.parsing import number as number_of
from geometry_fusion.io.parsing import reading

# The content of cam_params.json for all rooms, used if the file is missing.
PUBLISHED = {
    "w": 1200,
    "h": 680,
    "fx": 600.0,
    "fy": 600.0,
    "cx": 599.5,
    "cy": 339.5,
    "scale": 6553.5,
}


def find(root: Path) -> list[str]:
    """Names of scenes; `root` may be one itself. Raises InputError if there are none."""
    folders = _folders(root)
    if not folders:
        cure = "each has results/ and traj.txt"
        if any(next(Path(root).glob(f"{level}traj_w_c.txt"), None) for level in ("", "*/", "*/*/")):
            cure = "this is Semantic-NeRF's rendering, use semantic_nerf"
        raise InputError(f"{root}: holds no Replica scenes of NICE-SLAM's rendering; {cure}")
    return sorted(folders)


def _folders(root: Path) -> dict[str, Path]:
    root = Path(root).resolve()
    folders = [file.parent for level in ("", "*/") for file in root.glob(f"{level}traj.txt")]
    return {folder.name: folder for folder in folders if (folder / "results").is_dir()}


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`. Raises InputError if no frame is complete."""
    folder = _folders(root)[name]
    notes = ["this rendering of Replica has no masks; semantic_nerf is the one that has"]
    results = folder / "results"
    colour = numbered(f for f in results.glob("frame*") if f.suffix in (".jpg", ".png"))
    depth = numbered(results.glob("depth*.png"))
    poses = rigid_poses(notes, trajectory(folder / "traj.txt"))
    numbers = paired(notes, rgb=colour, depth=depth, pose=poses)
    if not numbers:
        raise InputError(f"{folder}: no frame has rgb, depth and a pose; unzip this scene again")
    camera = _camera(folder, notes)
    intrinsics = tuple(camera[key] for key in ("fx", "fy", "cx", "cy"))

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in wanted:
            n = int(stem)
            rgb = read_rgb(colour[n])
            size = rgb.shape[1::-1]
            if size != (camera["w"], camera["h"]):
                raise InputError(
                    f"{colour[n]}: is {size[0]}x{size[1]}, the camera "
                    f"{camera['w']:g}x{camera['h']:g}; "
                    "put the cam_params.json of this rendering above the scenes"
                )
            metres = values_of_size(depth[n], size) / camera["scale"]
            yield SceneFrame(stem, rgb, None, metres, poses[n], intrinsics)

    return Source(name, [f"{n:06d}" for n in numbers], frames, [], notes)


def _camera(folder: Path, notes: list[str]) -> dict[str, float]:
    """w, h, fx, fy, cx, cy and scale of cam_params.json in the scene or above it.

    Without that file, the published values. Raises InputError if it is damaged.
    """
    places = (folder / "cam_params.json", folder.parent / "cam_params.json")
    file = next((place for place in places if place.exists()), None)
    if file is None:
        notes.append(
            "no cam_params.json: "
            "the published camera is used (1200x680, f 600, depth 6553.5 a metre)"
        )
        return PUBLISHED
    table = read_json(file)
    with reading(file, "a camera with w, h, fx, fy, cx, cy as numbers", "copy it again"):
        stated = {"scale": PUBLISHED["scale"], **table["camera"]}
        camera = {key: number_of(stated[key]) for key in PUBLISHED}
    if not all(np.isfinite(value) and value > 0 for value in camera.values()):
        raise InputError(
            f"{file}: camera has values that are not positive numbers: {camera}; copy it again"
        )
    return camera


def trajectory(file: Path) -> dict[int, np.ndarray]:
    """Camera-to-world poses [4, 4] by frame number: 16 numbers a line, line i (from 0) is frame i.

    Raises InputError for other files.
    """
    values = read_numbers(file)
    if values.shape[1] != 16:
        raise InputError(
            f"{file}: has {values.shape[1]} numbers a line, a pose has 16; unzip this scene again"
        )
    return dict(enumerate(values.reshape(-1, 4, 4)))


def values_of_size(file: Path, size: tuple[int, int]) -> np.ndarray:
    """[H, W] as `read_values`; InputError unless its size is the colour's (width, height)."""
    values = read_values(file)
    if values.shape[::-1] != tuple(size):
        raise InputError(
            f"{file}: is {values.shape[1]}x{values.shape[0]}, colour is {size[0]}x{size[1]}; "
            "they are of two renderings"
        )
    return values
