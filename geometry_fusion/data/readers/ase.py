"""Aria Synthetic Environments: ROOT/SCENE or ROOT/train/SCENE, with rgb, depth, instances and
trajectory.csv.

The fisheye pictures become those of a pinhole camera (`fisheye624.Pinhole`: same size, the lens's
own focal length) and are then turned upright, 90 degrees clockwise, with camera and pose. Depth on
disk is millimetres along the ray and becomes z-depth. Beyond the lens depth is 0 and the id -1.

Ids are those of the scene (numbers mean nothing in another scene). Empty space and background,
known by the class name or, without object_instances_to_classes.json, by their usual ids 0 and 1,
become 0. Walls, floors and ceilings stay: the data counts each as an object; `objects` tells their
names.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.fisheye624 import Fisheye624, Pinhole
from geometry_fusion.data.readers.source import (
    Source,
    numbered,
    paired,
    pose_of,
    read_json,
    read_values,
    rigid_poses,
)
from geometry_fusion.data.scenes import SceneFrame, SceneObject
from geometry_fusion.errors import InputError
from geometry_fusion.mask_files import read_rgb
from geometry_fusion.mask_rule import VOID_16
from geometry_fusion.parsing import identity, reading

SIDES = (704, 1408)  # pixels of the square pictures
# one calibration for all scenes, of the pictures as they are stored (lying on their side)
CAMERA_704 = Fisheye624(
    focal=297.6375381,
    centre=(357.6599197, 349.1922497),
    radial=(0.365089038, -0.173808242, -0.753494548, 2.434788883, -2.577862203, 0.878848354),
    tangential=(0.000800520, -0.000294238),
    valid_radius=353.75,
)
DEVICE_FROM_CAMERA = pose_of(
    (0.326409344, 0.029274992, 0.033361060, 0.944185869), (-0.007530097, -0.010908550, -0.003598063)
)
# Turning the picture clockwise makes the old up the new right, and the old right the new down.
CAMERA_FROM_UPRIGHT = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
NO_RANGE = 65535  # not documented; farther than any room, so no measurement
NOT_OBJECTS = ("empty_space", "background")
USUALLY_NOT_OBJECTS = (0, 1)  # these two, as the authors tell (projectaria_tools issue 49)


def find(root: Path) -> list[str]:
    """SCENE, or train/SCENE where `root` holds folders of scenes: both splits use the same
    numbers.
    """
    folders = _folders(root)
    if not folders:
        zips = next(Path(root).glob("*.zip"), None)
        cure = (
            f"unzip {zips.name} and the others"
            if zips
            else "each is a numbered folder with rgb/ and trajectory.csv"
        )
        raise InputError(f"{root}: holds no scenes of Aria Synthetic Environments; {cure}")
    return sorted(folders, key=lambda name: [(len(part), part) for part in name.split("/")])


def _folders(root: Path) -> dict[str, Path]:
    root = Path(root).resolve()
    found = [f.parent for level in ("", "*/", "*/*/") for f in root.glob(f"{level}trajectory.csv")]
    folders = [folder for folder in found if (folder / "rgb").is_dir()]
    return {f.name if f == root else f.relative_to(root).as_posix(): f for f in folders}


def open_scene(root: Path, name: str) -> Source:
    folder, notes = Path(root) / name, []
    if not folder.is_dir():  # `root` is the scene itself
        folder = Path(root)
    colour = numbered((folder / "rgb").glob("vignette*.jpg"))
    parts = {"rgb": colour, "pose": rigid_poses(notes, _trajectory(folder / "trajectory.csv"))}
    depth = _optional(notes, folder / "depth", "depth")
    ids = _optional(notes, folder / "instances", "instance")
    parts |= {part: files for part, files in (("depth", depth), ("ids", ids)) if files}
    stems = {f"{number:06d}": number for number in paired(notes, **parts)}
    if not stems:
        raise InputError(f"{folder}: no frame has {', '.join(parts)}; unzip this scene again")
    objects, nothing = _objects(notes, folder) if ids else ([], ())

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for number in map(stems.__getitem__, wanted):
            yield _frame(number, colour, depth, ids, parts["pose"][number], nothing)

    return Source(name.replace("/", "_"), [*stems], frames, objects, notes)


def _frame(
    number: int,
    colour: Mapping[int, Path],
    depth: Mapping[int, Path],  # empty: the set has none
    ids: Mapping[int, Path],  # empty: the set has none
    world_from_device: np.ndarray,  # [4, 4]
    nothing: Sequence[int],  # ids that become 0
) -> SceneFrame:
    rgb = read_rgb(colour[number])
    side = _side(rgb, colour[number], SIDES)
    pinhole, z_depth, instance = _pinhole(side), None, None
    if depth:
        millimetres = read_values(depth[number])
        _side(millimetres, depth[number], (side,))
        z_depth = pinhole.z_depth(np.where(millimetres == NO_RANGE, 0, millimetres)) / 1000
    if ids:
        values = read_values(ids[number])
        _side(values, ids[number], (side,))
        instance = pinhole.values(np.where(np.isin(values, nothing), 0, values), -1)
    upright = [
        None if image is None else _clockwise(image)
        for image in (pinhole.colour(rgb), instance, z_depth)
    ]
    # The principal point is the middle of a square: turning leaves it there.
    intrinsics = (pinhole.fisheye.focal, pinhole.fisheye.focal, pinhole.centre, pinhole.centre)
    pose = world_from_device @ DEVICE_FROM_CAMERA @ CAMERA_FROM_UPRIGHT
    return SceneFrame(f"{number:06d}", *upright, pose, intrinsics)


@cache
def _pinhole(side: int) -> Pinhole:
    return Pinhole(CAMERA_704.scaled(side / SIDES[0]), side)


def _clockwise(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image, -1))


def _side(image: np.ndarray, file: Path, sides: Sequence[int]) -> int:
    height, width = image.shape[:2]
    if height != width or width not in sides:
        known = " or ".join(f"{side}x{side}" for side in sides)
        raise InputError(
            f"{file}: is {width}x{height}, expected {known}: the calibration is for pictures as "
            "published"
        )
    return width


def _optional(notes: list[str], folder: Path, prefix: str) -> dict[int, Path]:
    """Files of a part that the test set does not have."""
    files = numbered(folder.glob(f"{prefix}*.png"))
    if not files and (wrong := next(folder.glob(f"{prefix}*.jpg"), None)):
        raise InputError(
            f"{wrong}: is a JPEG, which changes values; get the 16-bit PNGs of this scene"
        )
    if not files:
        notes.append(f"no {folder.name}/{prefix}*.png (the test set has none): frames come without")
    return files


def _trajectory(file: Path) -> dict[int, np.ndarray]:
    """World from device [4, 4] by frame number: row i, after the header, belongs to frame i."""
    try:
        rows = [row for row in csv.reader(file.read_text(encoding="utf-8").splitlines()) if row]
    except (ValueError, csv.Error):
        raise InputError(f"{file}: not a CSV file; unzip this scene again") from None
    if not rows or _is_number(rows[0][-1]):
        raise InputError(
            f"{file}: has no header line; without it every row would count for the wrong frame"
        )
    poses = {}
    for index, row in enumerate(rows[1:]):
        try:
            tx, ty, tz, qx, qy, qz, qw = map(float, row[3:10])
        except ValueError:
            raise InputError(
                f"{file}: line {index + 2} lacks tx ty tz qx qy qz qw in columns 4 to 10; unzip "
                "this scene again"
            ) from None
        poses[index] = pose_of((qx, qy, qz, qw), (tx, ty, tz))
    return poses


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _objects(notes: list[str], folder: Path) -> tuple[list[SceneObject], Sequence[int]]:
    """Objects with their class names, and the ids that are none."""
    file = folder / "object_instances_to_classes.json"
    if not file.exists():
        notes.append(
            f"no {file.name} (some scenes lack it): objects have no names, ids 0 and 1 count as "
            "background"
        )
        return [], USUALLY_NOT_OBJECTS
    table = read_json(file)
    with reading(file, "a table of id and class name", "unzip this scene again"):
        names = {identity(int(key), VOID_16 - 1): str(name) for key, name in table.items()}
    nothing = [
        key for key, name in names.items() if name.strip().lower().replace(" ", "_") in NOT_OBJECTS
    ]
    return [
        SceneObject(key, name) for key, name in sorted(names.items()) if key not in nothing
    ], nothing
