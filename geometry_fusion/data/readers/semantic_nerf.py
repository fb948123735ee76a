"""Replica as rendered for Semantic-NeRF: ROOT/SCENE/Sequence_N with rgb, depth, traj_w_c.txt.

Depth is 16-bit z-depth in millimetres. Poses are camera-to-world, OpenCV axes, world z up. The
field of view is 90 degrees across. Ids (semantic_instance/) are Replica's own, the same in every
frame and sequence. They come in a separate zip and for Sequence_1 only; elsewhere frames have none.
Pixels of class 0 (semantic_class/) are void and get id -1. Class names are not in this data.

The camera jumps between random places: this is no smooth video.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.replica import trajectory, values_of_size
from geometry_fusion.data.readers.source import Source, note_dropped, numbered, paired, rigid_poses
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import read_rgb

# Frames whose camera is inside a wall; other readers of this data leave them out too.
INSIDE_WALLS = {"office_1/Sequence_1": range(474, 504), "office_4/Sequence_1": range(618, 734)}


def find(root: Path) -> list[str]:
    """Names SCENE/Sequence_N; `root` may be a scene or a sequence itself.

    Raises InputError if there are none.
    """
    folders = _folders(root)
    if not folders:
        cure = "each has rgb/ and traj_w_c.txt"
        if any(next(Path(root).glob(f"{level}traj.txt"), None) for level in ("", "*/")):
            cure = "this is NICE-SLAM's rendering, use replica"
        raise InputError(f"{root}: holds no Replica scenes of Semantic-NeRF's rendering; {cure}")
    return sorted(folders)


def _folders(root: Path) -> dict[str, Path]:
    root = Path(root).resolve()
    files = [f for level in ("", "*/", "*/*/") for f in root.glob(f"{level}traj_w_c.txt")]
    folders = [file.parent for file in files if (file.parent / "rgb").is_dir()]
    return {"/".join(folder.parts[-2:]): folder for folder in folders}


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`. Raises InputError if no frame is complete."""
    folder = _folders(root)[name]
    notes: list[str] = []
    colour, depth = _files(folder / "rgb", "rgb"), _files(folder / "depth", "depth")
    poses = rigid_poses(notes, trajectory(folder / "traj_w_c.txt"))
    ids = _files(folder / "semantic_instance", "semantic_instance")
    classes = _files(folder / "semantic_class", "semantic_class") if ids else {}
    if not ids:
        notes.append(
            "no semantic_instance/semantic_instance_*.png "
            "(a zip of its own): frames come without ids"
        )
    tables = {"rgb": colour, "depth": depth, "pose": poses}
    tables |= {key: files for key, files in (("ids", ids), ("class", classes)) if files}
    in_wall = INSIDE_WALLS.get(name, ())
    complete = paired(notes, **tables)
    note_dropped(notes, [n for n in complete if n in in_wall], "the camera is inside a wall")
    numbers = [n for n in complete if n not in in_wall]
    if not numbers:
        raise InputError(f"{folder}: no frame has {', '.join(tables)}; unzip this scene again")

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in wanted:
            n = int(stem)
            rgb = read_rgb(colour[n])
            width, height = size = rgb.shape[1::-1]
            instance = values_of_size(ids[n], size) if ids else None
            if classes:
                instance = np.where(values_of_size(classes[n], size) == 0, -1, instance)
            metres = values_of_size(depth[n], size) / 1000
            # 90 degrees across: the focal length is half the width.
            intrinsics = (width / 2, width / 2, (width - 1) / 2, (height - 1) / 2)
            yield SceneFrame(stem, rgb, instance, metres, poses[n], intrinsics)

    stems = [f"{n:06d}" for n in numbers]
    return Source(name.replace("/", "_"), stems, frames, [], notes)


def _files(folder: Path, prefix: str) -> dict[int, Path]:
    # Exact names, because vis_sem_instance_N.png, coloured for viewing, lies beside the ids.
    return numbered(f for f in folder.glob("*.png") if re.fullmatch(rf"{prefix}_\d+\.png", f.name))
