"""What every reader gives, and the steps that readers share: numbers in names, poses, depth and ids
at frame size.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.data.scenes import SceneFrame, SceneObject, rigid
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.mask_files import open_image
from geometry_fusion.parsing import load_json

SHOWN = 5  # names in a note


@dataclass(frozen=True)
class Source:
    """One scene of a dataset. Nothing but names and poses is read before `frames` is asked for."""

    name: str  # usable as a folder name
    stems: list[str]  # frames in time order
    frames: Callable[
        [Sequence[str]], Iterator[SceneFrame]
    ]  # of some of `stems`, given and returned in their order
    objects: list[SceneObject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out and why, one line each


def frame_number(name: str) -> int:
    """The last run of digits in a file's stem: frame_000012.color -> 12. Raises ValueError if there
    is none.
    """
    digits = re.findall(r"\d+", name.removesuffix(Path(name).suffix) or name)
    if not digits:
        raise ValueError(f"{name}: no frame number in this name")
    return int(digits[-1])


def numbered(files: Iterable[Path]) -> dict[int, Path]:
    """Frame number -> file, sorted by number. Raises InputError when two files have one number."""
    found: dict[int, Path] = {}
    for file in files:
        if file.name.startswith(".") or not re.search(r"\d", file.stem):
            continue
        if (other := found.setdefault(frame_number(file.name), file)) is not file:
            raise InputError(
                f"{file}: has the frame number of {other.name}; keep one of them in that folder"
            )
    return dict(sorted(found.items()))


def paired(notes: list[str], **parts: Mapping) -> list:
    """Keys that all `parts` have, sorted; what each lacks is told in `notes` under its name."""
    keys = set.intersection(*(set(part) for part in parts.values()))
    every = set.union(*(set(part) for part in parts.values()))
    for name, part in parts.items():
        note_dropped(notes, sorted(every - set(part)), f"no {name}")
    return sorted(keys)


def note_dropped(notes: list[str], frames: Sequence, reason: str) -> None:
    """Add "3 frames left out, REASON: 4, 8, 15" to the notes; nothing if there are none."""
    if frames:
        shown = ", ".join(map(str, frames[:SHOWN])) + (", ..." if len(frames) > SHOWN else "")
        notes.append(f"{len(frames)} frame{'s' * (len(frames) > 1)} left out, {reason}: {shown}")


def rigid_poses(notes: list[str], poses: Mapping) -> dict:
    """The poses that are `rigid`; the others are told in `notes`."""
    good = {key: np.asarray(pose, float) for key, pose in poses.items() if rigid(pose)}
    note_dropped(notes, sorted(set(poses) - set(good)), "pose not finite or not rigid")
    return good


def opencv_from_opengl(camera_to_world: np.ndarray) -> np.ndarray:
    """[4, 4] of an OpenGL camera (x right, y up, z back) -> of an OpenCV one; the world stays as it
    is.
    """
    return np.asarray(camera_to_world, float) @ np.diag([1.0, -1.0, -1.0, 1.0])


def pose_of(quaternion_xyzw: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """[4, 4] from a quaternion (x, y, z, w; need not be a unit) and a translation; NaN where it is
    zero.
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
    intrinsics: Sequence[
        float
    ],  # fx, fy, cx, cy of an image of size `was`, pixel centres at integers
    was: tuple[int, int],  # (width, height)
    size: tuple[int, int],
) -> tuple[float, float, float, float]:
    """Intrinsics of the same image resized to `size`."""
    fx, fy, cx, cy = intrinsics
    sx, sy = size[0] / was[0], size[1] / was[1]
    return fx * sx, fy * sy, (cx + 0.5) * sx - 0.5, (cy + 0.5) * sy - 0.5


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth or ids [h, w] at another size (width, height): nearest only, averages would invent
    values.
    """
    if values.shape[::-1] == tuple(size):
        return values
    columns, rows = ((np.arange(n) + 0.5) * old / n for n, old in zip(size, values.shape[::-1]))
    return values[np.ix_(rows.astype(int), columns.astype(int))]


def resized(frame: SceneFrame, size: tuple[int, int]) -> SceneFrame:
    """A frame at another size (width, height)."""
    was = frame.rgb.shape[1::-1]
    if was == tuple(size):
        return frame
    shrinks = size[0] < was[0]
    return SceneFrame(
        frame.stem,
        cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC),
        None if frame.instance is None else nearest(frame.instance, size),
        None if frame.depth is None else nearest(frame.depth, size),
        frame.camera_to_world,
        None if frame.intrinsics is None else scaled_intrinsics(frame.intrinsics, was, size),
    )


def read_numbers(file: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Numbers of a text file, separated by white space; raises InputError when it is missing or of
    another shape.
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
    """The content of a JSON file; raises InputError when it is missing or damaged."""
    try:
        return load_json(file, "copy it again")
    except FileNotFoundError:
        raise InputError(f"{file}: missing; is this the right format and folder?") from None


def read_values(file: Path) -> np.ndarray:
    """[H, W] values of a one-channel picture (8 or 16 bits, or palette indices) as they are, int32.

    Raises InputError for missing, damaged and colour pictures.
    """
    with open_image(file) as image:
        try:
            values = np.array(image)
        except Exception as error:  # Pillow's decoders raise many kinds
            raise InputError(f"{file}: damaged ({one_line(error)}); copy it again") from None
    if values.ndim != 2:
        raise InputError(f"{file}: has {values.shape[2]} channels; ids and depth have one")
    return values.astype(np.int32)
