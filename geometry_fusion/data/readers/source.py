"""What every reader returns, and the steps that readers share.

Numbers in file names, pairing of files, poses, intrinsics, depth and ids at the size of the frame.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.data.scenes import SceneFrame, SceneObject, rigid
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.mask_writer import open_image
from geometry_fusion.io.parsing import load_json

SHOWN = 5  # frames that a note names

Intrinsics = tuple[float, float, float, float]  # fx, fy, cx, cy in pixels, centres at integers


@dataclass(frozen=True)
class Source:
    """One scene of a dataset. Only names and poses are read before `frames` is called."""

    name: str  # usable as a folder name
    stems: list[str]  # of all frames, in time order
    # Some of `stems` -> their frames, in the order given.
    frames: Callable[[Sequence[str]], Iterator[SceneFrame]]
    objects: list[SceneObject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out and why, one line each
    # How a frame differs from its picture as it was stored:
    border: int = 0  # pixels that were cut from every edge
    # Stem -> (coefficients, whether they are a fisheye's) of the distortion that was undone at the
    # same intrinsics, in OpenCV's order. Stems of pictures without distortion lack.
    undone: dict[str, tuple[tuple[float, ...], bool]] = field(default_factory=dict)


def frame_number(name: str) -> int:
    """The last run of digits in a file's stem: frame_000012.color -> 12.

    Raises ValueError if there is none.
    """
    digits = re.findall(r"\d+", name.removesuffix(Path(name).suffix) or name)
    if not digits:
        raise ValueError(f"{name}: no frame number in this name")
    return int(digits[-1])


def numbered(files: Iterable[Path]) -> dict[int, Path]:
    """Frame number -> file, sorted by number; hidden files and names without digits are skipped.

    Raises InputError if two files have one number.
    """
    by_number: dict[int, Path] = {}
    for file in files:
        if file.name.startswith(".") or not re.search(r"\d", file.stem):
            continue
        other = by_number.setdefault(frame_number(file.name), file)
        if other is not file:
            raise InputError(
                f"{file}: has the frame number of {other.name}; keep one of them in that folder"
            )
    return dict(sorted(by_number.items()))


def paired(notes: list[str], **tables: Mapping) -> list:
    """Keys that all `tables` have, sorted; `notes` receives what each table lacks, by its name."""
    common = set.intersection(*(set(table) for table in tables.values()))
    every = set.union(*(set(table) for table in tables.values()))
    for name, table in tables.items():
        note_dropped(notes, sorted(every - set(table)), f"no {name}")
    return sorted(common)


def note_dropped(notes: list[str], frames: Sequence, reason: str) -> None:
    """Add "3 frames left out, REASON: 4, 8, 15" to the notes; nothing if there are none."""
    if frames:
        shown = ", ".join(map(str, frames[:SHOWN])) + (", ..." if len(frames) > SHOWN else "")
        notes.append(f"{len(frames)} frame{'s' * (len(frames) > 1)} left out, {reason}: {shown}")


def rigid_poses(notes: list[str], poses: Mapping) -> dict:
    """The poses that are `rigid`, as float; the others are listed in `notes`."""
    usable = {key: np.asarray(pose, float) for key, pose in poses.items() if rigid(pose)}
    note_dropped(notes, sorted(set(poses) - set(usable)), "pose not finite or not rigid")
    return usable


def opencv_from_opengl(camera_to_world: np.ndarray) -> np.ndarray:
    """Pose [4, 4] of an OpenCV camera from that of an OpenGL one (x right, y up, z backwards).

    Only the camera's axes change; the world stays as it is.
    """
    return np.asarray(camera_to_world, float) @ np.diag([1.0, -1.0, -1.0, 1.0])


def pose_of(quaternion_xyzw: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """Pose [4, 4] from a quaternion (x, y, z, w) and a translation.

    The quaternion need not have unit length; the rotation is NaN if its length is zero.
    """
    x, y, z, w = np.asarray(quaternion_xyzw, float) / (np.linalg.norm(quaternion_xyzw) or np.nan)
    pose = np.eye(4)
    pose[:3, :3] = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    pose[:3, 3] = translation
    return pose


def scaled_intrinsics(
    intrinsics: Sequence[float],  # fx, fy, cx, cy for an image of size `was`
    was: tuple[int, int],  # (width, height)
    size: tuple[int, int],  # (width, height)
) -> Intrinsics:
    """Intrinsics of the same image resized to `size`."""
    fx, fy, cx, cy = intrinsics
    sx, sy = size[0] / was[0], size[1] / was[1]
    # Centres are at integers, so the left and upper edges of the image are at -0.5.
    return fx * sx, fy * sy, (cx + 0.5) * sx - 0.5, (cy + 0.5) * sy - 0.5


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth or ids [h, w] resized to `size` (width, height).

    Nearest only: averages would invent depths and ids between two objects.
    """
    if values.shape[::-1] == tuple(size):
        return values
    rows = (np.arange(size[1]) + 0.5) * values.shape[0] / size[1]
    columns = (np.arange(size[0]) + 0.5) * values.shape[1] / size[0]
    return values[np.ix_(rows.astype(int), columns.astype(int))]


def seen_by_other(
    depth: np.ndarray,  # [h, w] z-depth, 0 = no measurement
    camera: Intrinsics,  # of the depth map
    other: Intrinsics,  # of another camera at the same place, looking the same way
    size: tuple[int, int],  # (width, height) of the other camera's image
) -> np.ndarray:  # [height, width]
    """Depth at the pixels of another camera: that of the nearest pixel on each ray.

    0 where the ray misses the depth map.
    """
    fx, fy, cx, cy = other
    columns = np.rint((np.arange(size[0]) - cx) / fx * camera[0] + camera[2]).astype(int)
    rows = np.rint((np.arange(size[1]) - cy) / fy * camera[1] + camera[3]).astype(int)
    height, width = depth.shape
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    values = depth[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))]
    return np.where(inside, values, depth.dtype.type(0))


def resized(frame: SceneFrame, size: tuple[int, int]) -> SceneFrame:
    """A frame at another size (width, height), with everything in it."""
    was = frame.rgb.shape[1::-1]
    if was == tuple(size):
        return frame
    interpolation = cv2.INTER_AREA if size[0] < was[0] else cv2.INTER_CUBIC
    return SceneFrame(
        frame.stem,
        cv2.resize(frame.rgb, size, interpolation=interpolation),
        None if frame.instance is None else nearest(frame.instance, size),
        None if frame.depth is None else nearest(frame.depth, size),
        frame.camera_to_world,
        None if frame.intrinsics is None else scaled_intrinsics(frame.intrinsics, was, size),
    )


def read_numbers(file: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Numbers of a text file, separated by white space, float of `shape` or [rows, columns].

    Raises InputError if the file is missing, holds anything else, or too few or many numbers.
    """
    try:
        values = np.loadtxt(file, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not a table of numbers ({one_line(error)})") from None
    if shape is not None and values.size != np.prod(shape):
        raise InputError(
            f"{file}: holds {values.size} numbers, expected {' x '.join(map(str, shape))}"
        )
    return values if shape is None else values.reshape(shape)


def read_json(file: Path):
    """The content of a JSON file; raises InputError if it is missing or damaged."""
    try:
        return load_json(file, "copy it again")
    except FileNotFoundError:
        raise InputError(f"{file}: missing; is this the right format and folder?") from None


def read_values(file: Path) -> np.ndarray:
    """[H, W] int32 values of a one-channel image (8 or 16 bits, or palette indices), unscaled.

    Raises InputError for missing, damaged and colour images.
    """
    with open_image(file) as image:
        try:
            values = np.array(image)
        except Exception as error:  # Pillow's decoders raise many kinds
            raise InputError(f"{file}: damaged ({one_line(error)}); copy it again") from None
    if values.ndim != 2:
        raise InputError(f"{file}: has {values.shape[2]} channels; ids and depth have one")
    return values.astype(np.int32)
