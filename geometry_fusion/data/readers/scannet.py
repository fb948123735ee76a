"""ScanNet v2: ROOT/scans/sceneXXXX_XX or ROOT/sceneXXXX_XX, exported to folders or as SCENE.sens.

ScanNet's Python exporter writes

    color/N.jpg  depth/N.png  pose/N.txt  intrinsic/intrinsic_{color,depth}.txt

and its C++ exporter, sometimes one folder deeper,

    frame-N.color.jpg  frame-N.depth.pgm  frame-N.pose.txt  _info.txt

Ids are in instance-filt/N.png and their names in SCENE.aggregation.json.

Frames have the size of the colour images: these and the ids, which are drawn at their size, stay as
they are. Depth, which is coarser, is brought to it: each colour pixel takes the nearest depth pixel
of its ray, by the two cameras' intrinsics. Plain scaling would not do, because the two differ in
aspect ratio. Both cameras count as one place, as for everyone who uses this data.

Ids are objectId + 1 of the aggregation. Objects that are listed twice (scene0217_00) become one.
Masks are projections of a labelled mesh, so their outlines are some pixels off; the rim of the
colour image is empty in some scans.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.scannet_lenses import COLOUR_SIZE, Lens, lenses_of
from geometry_fusion.data.readers.sens import SensFile
from geometry_fusion.data.readers.source import (
    Source,
    nearest,
    numbered,
    paired,
    read_json,
    read_numbers,
    read_values,
    rigid_poses,
    seen_by_other,
)
from geometry_fusion.data.scenes import SceneFrame, SceneObject
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_reader import VOID_16
from geometry_fusion.io.mask_writer import read_rgb
from geometry_fusion.io.parsing import each, identity, reading, whole

SCENE = re.compile(r"scene\d{4}_\d{2}")
HIGHEST_ID = 255  # of 8-bit masks
SHOWN = 5  # ids that a note names


@dataclass(frozen=True)
class Recording:
    """Colour, depth and poses by frame number, however they are stored."""

    colour: Mapping[int, object]
    depth: Mapping[int, object]  # empty where it was not exported
    poses: Mapping[int, np.ndarray]  # [4, 4] camera-to-world, as stored
    rgb_of: Callable[[int], np.ndarray]  # [H, W, 3] uint8
    depth_of: Callable[[int], np.ndarray]  # [h, w] metres, 0 = no measurement
    colour_lens: Lens
    depth_lens: Lens | None


def find(root: Path) -> list[str]:
    """Names sceneXXXX_XX of scenes that have frames; `root` may be one itself.

    Raises InputError if there are none.
    """
    scenes = _folders(root)
    names = sorted(name for name, folder in scenes.items() if _opener(folder))
    if names:
        return names
    cure = "expected [scans/]sceneXXXX_XX"
    if scenes:
        cure = "no scene has color/, frame-*.color.jpg or SCENE.sens"
    raise InputError(f"{root}: holds no ScanNet recordings; {cure}")


def _folders(root: Path) -> dict[str, Path]:
    root = Path(root).resolve()
    folders = [root, *root.glob("scene*"), *root.glob("scans/scene*")]
    return {f.name: f for f in folders if SCENE.fullmatch(f.name) and f.is_dir()}


def _opener(folder: Path) -> Callable[[Path], Recording] | None:
    """What opens the scene's frames; None if there are none."""
    if (folder / "color").is_dir() or _frames_folder(folder):
        return _exported
    return _from_sens if _sens(folder).exists() else None


def _sens(folder: Path) -> Path:
    return folder / f"{folder.name}.sens"


def _frames_folder(folder: Path) -> Path | None:
    """The folder that the C++ exporter wrote to; None if it did not."""
    files = (f for level in ("", "*/") for f in folder.glob(f"{level}frame-*.color.jpg"))
    first = next(files, None)
    return first and first.parent


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`. Raises InputError if no frame is complete."""
    folder = _folders(root)[name]
    notes: list[str] = []
    # First of all: exports with the wrong ids often lack intrinsics too, and the ids matter more.
    ids = _id_files(folder, name, notes)
    recording = _opener(folder)(folder)
    poses = rigid_poses(notes, recording.poses)
    tables = {"rgb": recording.colour, "pose": poses}
    if recording.depth:
        tables["depth"] = recording.depth
    else:
        notes.append("no depth was exported: frames come without")
    objects, id_of_value = [], np.arange(HIGHEST_ID + 1)
    if ids:
        tables["ids"] = ids
        objects, id_of_value = _objects(folder / f"{name}.aggregation.json", notes)
    numbers = paired(notes, **tables)
    if not numbers:
        raise InputError(f"{folder}: no frame has {', '.join(tables)}; export this scene again")

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in wanted:
            n = int(stem)
            rgb = recording.rgb_of(n)
            size = rgb.shape[1::-1]
            intrinsics = recording.colour_lens.at(size)
            instance = id_of_value[_ids(ids[n], size)] if ids else None
            depth = None
            if recording.depth:
                coarse = recording.depth_of(n)
                camera = recording.depth_lens.at(coarse.shape[::-1])
                depth = seen_by_other(coarse, camera, intrinsics, size)
            yield SceneFrame(stem, rgb, instance, depth, poses[n], intrinsics)

    return Source(name, [f"{n:06d}" for n in numbers], frames, objects, notes)


def _id_files(folder: Path, name: str, notes: list[str]) -> dict[int, Path]:
    """Frame number -> mask; InputError if only masks without consistent ids are there."""
    files = numbered((folder / "instance-filt").glob("*.png"))
    cure = f"unzip {name}_2d-instance-filt.zip here"
    if not files and (folder / "instance").is_dir():
        raise InputError(
            f"{folder / 'instance'}: not read, its ids (label * 1000 + n) start again in "
            f"every picture; {cure}"
        )
    if not files:
        notes.append(f"no instance-filt/N.png: frames come without ids; {cure}")
    return files


def _ids(file: Path, size: tuple[int, int]) -> np.ndarray:
    """[H, W] values of a mask at the size (width, height) of the colour image.

    Raises InputError for values above 255 and other sizes.
    """
    values = read_values(file)
    if values.max() > HIGHEST_ID:
        raise InputError(
            f"{file}: has the value {values.max()}, ids of instance-filt are 8-bit; label * 1000 "
            "+ n starts again in every picture and tracks nothing, use "
            "SCENE_2d-instance-filt.zip"
        )
    if values.shape[::-1] not in (size, COLOUR_SIZE):
        raise InputError(
            f"{file}: is {values.shape[1]}x{values.shape[0]}, colour is {size[0]}x{size[1]}; "
            "export both at their own size"
        )
    return nearest(values, size)


def _objects(file: Path, notes: list[str]) -> tuple[list[SceneObject], np.ndarray]:
    """Objects by id, and the id that each value of a mask means, int32 [256].

    Raises InputError if the file is damaged.
    """
    id_of_value = np.arange(HIGHEST_ID + 1, dtype=np.int32)
    if not file.exists():
        notes.append(
            f"no {file.name} (not that of _vh_clean, "
            "which counts other segments): objects have no names"
        )
        return [], id_of_value
    table = read_json(file)
    with reading(file, "segGroups with objectId, label and segments", "download it again"):
        groups = each(dict, table["segGroups"], "segGroups")
        numbers = [identity(group["objectId"], VOID_16 - 2) + 1 for group in groups]
        labels = {n: str(group["label"]) for n, group in zip(numbers, groups)}
        segments = {n: _segments(group) for n, group in zip(numbers, groups)}
    # Objects with the same segments are one, under the lowest id.
    first_with: dict[object, int] = {}
    for n in sorted(segments):
        first_with.setdefault(segments[n] or n, n)
    merged = {n: first_with[segments[n] or n] for n in segments}
    repeated = sorted(n for n, first in merged.items() if first != n)
    if repeated:
        shown = ", ".join(map(str, repeated[:SHOWN]))
        notes.append(f"{len(repeated)} objects are annotated twice and become one: ids {shown}")
    for n, first in merged.items():
        if n <= HIGHEST_ID:
            id_of_value[n] = first
    wrapped = sorted(n for n in merged if n > HIGHEST_ID)
    if wrapped:
        # An id that wrapped around in 8 bits: the value means one of two objects, or background.
        ambiguous = {n % (HIGHEST_ID + 1) for n in wrapped} - {0}
        id_of_value[sorted(ambiguous)] = -1
        shown = ", ".join(map(str, wrapped[:SHOWN]))
        notes.append(f"ids {shown} do not fit 8 bits: pixels with their low bits are void")
    in_masks = {int(value) for value in id_of_value if value > 0}
    kept = [n for n in sorted(labels) if n in in_masks and merged[n] == n]
    return [SceneObject(n, labels[n]) for n in kept], id_of_value


def _segments(group: dict) -> frozenset[int]:
    return frozenset(each(whole, group["segments"], "segments"))


def _exported(folder: Path) -> Recording:
    """The files of either of ScanNet's exporters."""
    if (folder / "color").is_dir():
        colour, depth, poses = folder / "color", folder / "depth", folder / "pose"
    else:
        colour = depth = poses = _frames_folder(folder)
    files = numbered(
        f for f in colour.iterdir() if re.fullmatch(r"(\d+|frame-\d+\.color)\.(jpg|png)", f.name)
    )
    depths = numbered(
        f for f in depth.glob("*") if re.fullmatch(r"\d+\.png|frame-\d+\.depth\.(pgm|png)", f.name)
    )
    texts = numbered(
        f for f in poses.glob("*.txt") if re.fullmatch(r"(\d+|frame-\d+\.pose)\.txt", f.name)
    )
    colour_lens, depth_lens, shift = lenses_of(folder, colour, bool(depths))
    return Recording(
        files,
        depths,
        {number: read_numbers(file, (4, 4)) for number, file in texts.items()},
        lambda number: read_rgb(files[number]),
        lambda number: read_values(depths[number]) / shift,
        colour_lens,
        depth_lens,
    )


def _from_sens(folder: Path) -> Recording:
    """The frames of SCENE.sens."""
    sens = SensFile(_sens(folder))
    numbers = {number: number for number in range(len(sens))}
    return Recording(
        numbers,
        numbers,
        dict(enumerate(sens.poses)),
        sens.rgb,
        lambda number: sens.depth(number) / sens.depth_shift,
        Lens(sens.file, sens.colour_intrinsics, (sens.colour_size,)),
        Lens(sens.file, sens.depth_intrinsics, (sens.depth_size,)),
    )
