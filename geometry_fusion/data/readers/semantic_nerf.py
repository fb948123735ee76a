"""Replica as rendered for Semantic-NeRF: ROOT/SCENE/Sequence_N/{rgb, depth, traj_w_c.txt, ...}.

Depth is 16-bit z-depth in millimetres; poses are camera-to-world, OpenCV axes, world z up; the
field of view is 90 degrees across. Ids (semantic_instance/) are Replica's own, the same in every
frame and sequence. They come in a separate zip and for Sequence_1 only; elsewhere frames have none.
Pixels of class 0 (semantic_class/), void, get id -1. Class names are not in this data.

The camera hops between random places: this is no smooth video.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.replica import trajectory, values_of_size
from geometry_fusion.data.readers.source import Source, note_dropped, numbered, paired, rigid_poses
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError
from geometry_fusion.mask_files import read_rgb

# Readers of this data leave out Sequence_1 frames whose camera is inside a wall.
INSIDE_WALLS = {"office_1/Sequence_1": range(474, 504), "office_4/Sequence_1": range(618, 734)}


def find(root: Path) -> list[str]:
    """Names SCENE/Sequence_N; `root` may be a scene or a sequence itself."""
    folders = _folders(root)
    if not folders:
        other = any(next(Path(root).glob(f"{level}traj.txt"), None) for level in ("", "*/"))
        cure = (
            "this is NICE-SLAM's rendering, use replica"
            if other
            else "each has rgb/ and traj_w_c.txt"
        )
        raise InputError(f"{root}: holds no Replica scenes of Semantic-NeRF's rendering; {cure}")
    return sorted(folders)


def _folders(root: Path) -> dict[str, Path]:
    found = [
        f.parent
        for level in ("", "*/", "*/*/")
        for f in Path(root).resolve().glob(f"{level}traj_w_c.txt")
    ]
    return {"/".join(folder.parts[-2:]): folder for folder in found if (folder / "rgb").is_dir()}


def open_scene(root: Path, name: str) -> Source:
    folder, notes = _folders(root)[name], []
    parts = {
        "rgb": _files(folder / "rgb", "rgb"),
        "depth": _files(folder / "depth", "depth"),
        "pose": rigid_poses(notes, trajectory(folder / "traj_w_c.txt")),
    }
    ids = _files(folder / "semantic_instance", "semantic_instance")
    classes = _files(folder / "semantic_class", "semantic_class") if ids else {}
    if not ids:
        notes.append(
            "no semantic_instance/semantic_instance_*.png (a zip of its own): frames come "
            "without ids"
        )
    parts |= {part: files for part, files in (("ids", ids), ("class", classes)) if files}
    walls = INSIDE_WALLS.get(name, ())
    numbers = paired(notes, **parts)
    note_dropped(
        notes, [number for number in numbers if number in walls], "the camera is inside a wall"
    )
    stems = {f"{number:06d}": number for number in numbers if number not in walls}
    if not stems:
        raise InputError(f"{folder}: no frame has {', '.join(parts)}; unzip this scene again")

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for number in map(stems.__getitem__, wanted):
            rgb = read_rgb(parts["rgb"][number])
            height, width = rgb.shape[:2]
            size = (width, height)
            instance = values_of_size(ids[number], size) if ids else None
            if classes:
                instance = np.where(values_of_size(classes[number], size) == 0, -1, instance)
            metres = values_of_size(parts["depth"][number], size) / 1000
            intrinsics = (width / 2, width / 2, (width - 1) / 2, (height - 1) / 2)
            yield SceneFrame(
                f"{number:06d}", rgb, instance, metres, parts["pose"][number], intrinsics
            )

    return Source(name.replace("/", "_"), [*stems], frames, [], notes)


def _files(folder: Path, prefix: str) -> dict[int, Path]:
    # The exact name: beside ids lie vis_sem_instance_N.png, pictures of colours.
    return numbered(f for f in folder.glob("*.png") if re.fullmatch(rf"{prefix}_\d+\.png", f.name))
