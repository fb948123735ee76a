"""The record of moving objects in a scene: `motion.json`.

    {"frame_rate": 5.0, "objects": [{"id", "moving", "kind", "speed", "start", "size_m",
     "object_to_world": [[4x4] per frame], "part_to_world": [[4x4] per frame] or null}]}

Poses are in metres and in the axes of cameras.json. `part_to_world` is the pose of a part that
rotates against the object, such as a door.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_reader import VOID_16
from geometry_fusion.io.parsing import each, identity, load_json, number, reading, whole

STILL = "none"  # the kind of an object that does not move
KINDS = ("translate", "spin", "carry", "door", "teleport")


@dataclass(frozen=True)
class ObjectMotion:
    """How one object of a scene moves."""

    id: int
    moving: bool
    kind: str  # of KINDS, or STILL
    speed: float | None  # object sizes per second; None where there is no constant speed
    start: int  # number of the frame after which it moves; of teleport: the first in its new place
    size_m: float  # the object's size, metres
    object_to_world: np.ndarray  # [T, 4, 4]
    part_to_world: np.ndarray | None = None  # [T, 4, 4] of a part that moves

    @property
    def moved(self) -> np.ndarray:
        """Motion [T, T] between each two frames, in object sizes.

        The largest of the distances that the ends of three axes of half a size go.
        """
        ends = np.concatenate([np.eye(3), -np.eye(3)], 1) * self.size_m / 2  # [3, 6]
        largest = np.zeros((len(self.object_to_world),) * 2)
        for pose in (self.object_to_world, self.part_to_world):
            if pose is not None:
                placed = pose[:, :3, :3] @ ends + pose[:, :3, 3:]  # [T, 3, 6]
                apart = np.linalg.norm(placed[:, None] - placed[None], axis=2).max(-1)
                largest = np.maximum(largest, apart)
        return largest / self.size_m


def motion_json(motions: list[ObjectMotion], frame_rate: float) -> dict:
    """The content of motion.json."""
    objects = []
    for motion in motions:
        entry = {
            "id": motion.id,
            "moving": motion.moving,
            "kind": motion.kind,
            "speed": motion.speed,
            "start": motion.start,
            "size_m": motion.size_m,
            "object_to_world": motion.object_to_world.tolist(),
            "part_to_world": None
            if motion.part_to_world is None
            else motion.part_to_world.tolist(),
        }
        objects.append(entry)
    return {"frame_rate": frame_rate, "objects": objects}


def read_motion(file: Path, num_frames: int) -> dict[int, ObjectMotion]:
    """The motions of motion.json by object id; empty if there is no such file.

    Raises InputError for a file that is no record of `num_frames` frames.
    """
    if not file.exists():
        return {}
    content = load_json(file, "write the scene again")
    with reading(file, "a record of moving objects", "write the scene again"):
        motions = [_motion(entry) for entry in each(dict, content["objects"], "objects")]
        for motion in motions:
            if len(motion.object_to_world) != num_frames:
                raise InputError(
                    f"{file}: object {motion.id} has {len(motion.object_to_world)} poses, the "
                    f"scene has {num_frames} frames; write the scene again"
                )
        return {motion.id: motion for motion in motions}


def _motion(entry: dict) -> ObjectMotion:
    if entry["kind"] not in (*KINDS, STILL) or not isinstance(entry["moving"], bool):
        raise ValueError(f"kind {entry['kind']!r}, moving {entry['moving']!r}"[:80])
    return ObjectMotion(
        identity(entry["id"], VOID_16 - 1),
        entry["moving"],
        entry["kind"],
        None if entry["speed"] is None else number(entry["speed"]),
        whole(entry["start"]),
        number(entry["size_m"]),
        _poses(entry["object_to_world"]),
        None if entry["part_to_world"] is None else _poses(entry["part_to_world"]),
    )


def _poses(values) -> np.ndarray:
    poses = np.array(values, float)
    if poses.shape[1:] != (4, 4) or not np.isfinite(poses).all():
        raise ValueError("a pose is no 4x4 of finite numbers")
    return poses
