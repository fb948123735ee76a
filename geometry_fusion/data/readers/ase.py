"""Aria Synthetic Environments: ROOT/SCENE or ROOT/train/SCENE.

A scene has rgb/, depth/, instances/ and trajectory.csv. The fisheye images become those of a
pinhole camera (`fisheye624.Pinhole`: same size, the lens's own focal length) and are then turned
upright, 90 degrees clockwise, with camera and pose. Depth on disk is millimetres along the ray and
becomes z-depth. Beyond the lens depth is 0 and the id -1.

Ids are those of the scene; the same number means something else in another scene. Empty space and
background become 0. They are known by their class name or, without
object_instances_to_classes.json, by their usual ids 0 and 1. Walls, floors and ceilings stay,
because the data counts each as an object; `objects` has their names.
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
from geometry_fusion.io.mask_reader import VOID_16
from geometry_fusion.io.mask_writer import read_rgb
from geometry_fusion.io.parsing import identity, reading

SIDES = (704, 1408)  # pixels of the square images
# One calibration for all scenes, of the images as they are stored, lying on their side.
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
# Turning the image clockwise makes its up the new right, and its right the new down.
CAMERA_FROM_UPRIGHT = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
NO_RANGE = 65535  # not documented, but farther than any room, so taken as no measurement
NOT_OBJECTS = ("empty_space", "background")
USUALLY_NOT_OBJECTS = (0, 1)  # ids of these two, by the authors (projectaria_tools issue 49)


def find(root: Path) -> list[str]:
    """Names SCENE, or train/SCENE if `root` holds the splits: both use the same numbers.

    Raises InputError if there are none.
    """
    folders = _folders(root)
    if not folders:
        zips = next(Path(root).glob("*.zip"), None)
        cure = "each is a numbered folder with rgb/ and trajectory.csv"
        if zips:
            cure = f"unzip {zips.name} and the others"
        raise InputError(f"{root}: holds no scenes of Aria Synthetic Environments; {cure}")
    return sorted(folders, key=_by_number)


def _by_number(name: str) -> list[tuple[int, str]]:
    """A sorting key that puts scene 2 before scene 10."""
    return [(len(word), word) for word in name.split("/")]


def _folders(root: Path) -> dict[str, Path]:
    """Name -> folder of every scene at `root`, or up to two folders below it."""
    root = Path(root).resolve()
    files = [f for level in ("", "*/", "*/*/") for f in root.glob(f"{level}trajectory.csv")]
    folders = [file.parent for file in files if (file.parent / "rgb").is_dir()]
    return {f.name if f == root else f.relative_to(root).as_posix(): f for f in folders}


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`. Raises InputError if no frame is complete."""
    folder = Path(root) / name
    if not folder.is_dir():  # `root` is the scene itself
        folder = Path(root)
    notes: list[str] = []
    colour = numbered((folder / "rgb").glob("vignette*.jpg"))
    poses = rigid_poses(notes, _trajectory(folder / "trajectory.csv"))
    depth = _optional(notes, folder / "depth", "depth")
    ids = _optional(notes, folder / "instances", "instance")
    tables = {"rgb": colour, "pose": poses}
    tables |= {name: files for name, files in (("depth", depth), ("ids", ids)) if files}
    stems = {f"{number:06d}": number for number in paired(notes, **tables)}
    if not stems:
        raise InputError(f"{folder}: no frame has {', '.join(tables)}; unzip this scene again")
    objects, background = _objects(notes, folder) if ids else ([], ())

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in wanted:
            number = stems[stem]
            yield _frame(number, colour, depth, ids, poses[number], background)

    return Source(name.replace("/", "_"), [*stems], frames, objects, notes)


def _frame(
    number: int,
    colour: Mapping[int, Path],
    depth: Mapping[int, Path],  # empty: the set has none
    ids: Mapping[int, Path],  # empty: the set has none
    world_from_device: np.ndarray,  # [4, 4]
    background: Sequence[int],  # ids that become 0
) -> SceneFrame:
    """One frame, as an upright pinhole camera would see it."""
    rgb = read_rgb(colour[number])
    side = _side(rgb, colour[number], SIDES)
    pinhole = _pinhole(side)
    z_depth = instance = None
    if depth:
        millimetres = read_values(depth[number])
        _side(millimetres, depth[number], (side,))
        z_depth = pinhole.z_depth(np.where(millimetres == NO_RANGE, 0, millimetres)) / 1000
    if ids:
        values = read_values(ids[number])
        _side(values, ids[number], (side,))
        instance = pinhole.values(np.where(np.isin(values, background), 0, values), -1)
    upright = [
        None if image is None else _clockwise(image)
        for image in (pinhole.colour(rgb), instance, z_depth)
    ]
    # The principal point is the middle of a square, where turning leaves it.
    intrinsics = (pinhole.fisheye.focal, pinhole.fisheye.focal, pinhole.centre, pinhole.centre)
    pose = world_from_device @ DEVICE_FROM_CAMERA @ CAMERA_FROM_UPRIGHT
    return SceneFrame(f"{number:06d}", *upright, pose, intrinsics)


@cache
def _pinhole(side: int) -> Pinhole:
    """Cached, because its look-up tables are the same for all frames."""
    return Pinhole(CAMERA_704.scaled(side / SIDES[0]), side)


def _clockwise(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image, -1))


def _side(image: np.ndarray, file: Path, sides: Sequence[int]) -> int:
    """The width of a square image; InputError if it is not one of `sides`."""
    height, width = image.shape[:2]
    if height != width or width not in sides:
        expected = " or ".join(f"{side}x{side}" for side in sides)
        raise InputError(
            f"{file}: is {width}x{height}, expected {expected}: "
            "the calibration is for pictures as published"
        )
    return width


def _optional(notes: list[str], folder: Path, prefix: str) -> dict[int, Path]:
    """Frame number -> depth or ids, which the test set lacks; InputError if they are JPEGs."""
    files = numbered(folder.glob(f"{prefix}*.png"))
    if not files and (wrong := next(folder.glob(f"{prefix}*.jpg"), None)):
        raise InputError(
            f"{wrong}: is a JPEG, which changes values; get the 16-bit PNGs of this scene"
        )
    if not files:
        notes.append(f"no {folder.name}/{prefix}*.png (the test set has none): frames come without")
    return files


def _trajectory(file: Path) -> dict[int, np.ndarray]:
    """World-from-device poses [4, 4] by frame number: row i after the header is frame i."""
    try:
        rows = [row for row in csv.reader(file.read_text(encoding="utf-8").splitlines()) if row]
    except (ValueError, csv.Error):
        raise InputError(f"{file}: not a CSV file; unzip this scene again") from None
    if not rows or _is_number(rows[0][-1]):
        raise InputError(
            f"{file}: has no header line, so rows may be of other frames; unzip this scene again"
        )
    poses = {}
    for index, row in enumerate(rows[1:]):
        try:
            tx, ty, tz, qx, qy, qz, qw = map(float, row[3:10])
        except ValueError:
            raise InputError(
                f"{file}: line {index + 2} lacks tx ty tz qx qy qz qw in columns 4 to 10; "
                "unzip this scene again"
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
    """Objects with their class names, and the ids of background."""
    file = folder / "object_instances_to_classes.json"
    if not file.exists():
        notes.append(
            f"no {file.name} (some scenes lack it): "
            "objects have no names, ids 0 and 1 count as background"
        )
        return [], USUALLY_NOT_OBJECTS
    table = read_json(file)
    with reading(file, "a table of id and class name", "unzip this scene again"):
        names = {identity(int(key), VOID_16 - 1): str(name) for key, name in table.items()}
    background = [
        key for key, name in names.items() if name.strip().lower().replace(" ", "_") in NOT_OBJECTS
    ]
    objects = [SceneObject(i, names[i]) for i in sorted(names) if i not in background]
    return objects, background
