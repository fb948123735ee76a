"""Replica as rendered for iMAP and NICE-SLAM: ROOT/SCENE/{results/frame*.jpg, results/depth*.png,
traj.txt}.

Depth is 16-bit z-depth with `scale` (6553.5) counts a metre. Poses are camera-to-world with OpenCV
axes as they are (what NICE-SLAM negates is for its own renderer). There are no masks of any kind,
and those of Semantic-NeRF's rendering do not fit: it has the same rooms but other walks.
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
from geometry_fusion.mask_files import read_rgb
from geometry_fusion.parsing import number as number_of
from geometry_fusion.parsing import reading

# What cam_params.json says for all rooms; used where the file did not come along.
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
    """Names of scenes; `root` may be one itself."""
    folders = _folders(root)
    if not folders:
        other = any(
            next(Path(root).glob(f"{level}traj_w_c.txt"), None) for level in ("", "*/", "*/*/")
        )
        cure = (
            "this is Semantic-NeRF's rendering, use semantic_nerf"
            if other
            else "each has results/ and traj.txt"
        )
        raise InputError(f"{root}: holds no Replica scenes of NICE-SLAM's rendering; {cure}")
    return sorted(folders)


def _folders(root: Path) -> dict[str, Path]:
    found = [
        f.parent for level in ("", "*/") for f in Path(root).resolve().glob(f"{level}traj.txt")
    ]
    return {folder.name: folder for folder in found if (folder / "results").is_dir()}


def open_scene(root: Path, name: str) -> Source:
    folder, notes = (
        _folders(root)[name],
        ["this rendering of Replica has no masks; semantic_nerf is the one that has"],
    )
    colour = numbered(
        f for f in (folder / "results").glob("frame*") if f.suffix in (".jpg", ".png")
    )
    depth = numbered((folder / "results").glob("depth*.png"))
    poses = rigid_poses(notes, trajectory(folder / "traj.txt"))
    stems = {
        f"{number:06d}": number for number in paired(notes, rgb=colour, depth=depth, pose=poses)
    }
    if not stems:
        raise InputError(f"{folder}: no frame has rgb, depth and a pose; unzip this scene again")
    camera = _camera(folder, notes)

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for number in map(stems.__getitem__, wanted):
            rgb = read_rgb(colour[number])
            size = rgb.shape[1::-1]
            if size != (camera["w"], camera["h"]):
                raise InputError(
                    f"{colour[number]}: is {size[0]}x{size[1]}, the camera "
                    f"{camera['w']:g}x{camera['h']:g}; "
                    "put the cam_params.json of this rendering above the scenes"
                )
            metres = values_of_size(depth[number], size) / camera["scale"]
            intrinsics = tuple(camera[key] for key in ("fx", "fy", "cx", "cy"))
            yield SceneFrame(f"{number:06d}", rgb, None, metres, poses[number], intrinsics)

    return Source(name, [*stems], frames, [], notes)


def _camera(folder: Path, notes: list[str]) -> dict[str, float]:
    """w, h, fx, fy, cx, cy and scale of cam_params.json in the scene or above it."""
    file = next(
        (f for f in (folder / "cam_params.json", folder.parent / "cam_params.json") if f.exists()),
        None,
    )
    if file is None:
        notes.append(
            "no cam_params.json: the published camera is taken (1200x680, f 600, depth 6553.5 a "
            "metre)"
        )
        return PUBLISHED
    table = read_json(file)
    with reading(file, "a camera with w, h, fx, fy, cx, cy as numbers", "copy it again"):
        given = table["camera"]
        camera = {
            key: number_of(given.get(key, PUBLISHED[key]) if key == "scale" else given[key])
            for key in PUBLISHED
        }
    if not all(np.isfinite(value) and value > 0 for value in camera.values()):
        raise InputError(
            f"{file}: camera has values that are not positive numbers: {camera}; copy it again"
        )
    return camera


def trajectory(file: Path) -> dict[int, np.ndarray]:
    """Camera-to-world [4, 4] by frame number: 16 numbers a line, line i (from 0) belongs to frame
    i.
    """
    values = read_numbers(file)
    if values.shape[1] != 16:
        raise InputError(
            f"{file}: has {values.shape[1]} numbers a line, a pose has 16; unzip this scene again"
        )
    return dict(enumerate(values.reshape(-1, 4, 4)))


def values_of_size(file: Path, size: tuple[int, int]) -> np.ndarray:
    """[H, W] of `read_values`; raises InputError unless it has the (width, height) of the
    colour.
    """
    values = read_values(file)
    if values.shape[::-1] != tuple(size):
        raise InputError(
            f"{file}: is {values.shape[1]}x{values.shape[0]}, colour is {size[0]}x{size[1]}; "
            "they are of two renderings"
        )
    return values
