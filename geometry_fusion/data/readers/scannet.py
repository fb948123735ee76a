"""ScanNet v2: ROOT/scans/sceneXXXX_XX or ROOT/sceneXXXX_XX, exported to folders or as SCENE.sens.

    color/N.jpg  depth/N.png  pose/N.txt  intrinsic/intrinsic_{color,depth}.txt         ScanNet's
    Python exporter
    frame-N.color.jpg  frame-N.depth.pgm  frame-N.pose.txt  _info.txt (also a folder deeper)   its
    C++ exporter
    instance-filt/N.png  SCENE.aggregation.json                                         ids and
    their names

Frames have the size of the colour: that and the ids, which are drawn at its size, stay as they are.
Depth, coarser, is brought to it: each colour pixel takes the nearest depth pixel of its ray, from
the two cameras' intrinsics (no plain scaling: the two differ in aspect ratio). Both cameras count
as one place, as for everybody who uses this data.

Ids are objectId + 1 of the aggregation. Objects that are in it twice (scene0217_00) become one.
Masks are projections of a labelled mesh, so their outlines are some pixels off; the rim of the
colour holds no picture in some scans.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    scaled_intrinsics,
)
from geometry_fusion.data.scenes import SceneFrame, SceneObject
from geometry_fusion.errors import InputError
from geometry_fusion.mask_files import read_rgb
from geometry_fusion.mask_rule import VOID_16
from geometry_fusion.parsing import each, identity, reading, size_of, whole

SCENE = re.compile(r"scene\d{4}_\d{2}")
COLOUR_SIZE, DEPTH_SIZE = (
    (1296, 968),
    (640, 480),
)  # width, height of the recordings; two scenes have smaller colour
SIDES = ("Width", "Height")
HIGHEST_ID = 255  # of 8-bit masks


@dataclass(frozen=True)
class Lens:
    """Intrinsics and the sizes (width, height) that they may be for, likeliest first; None is the
    picture's own.
    """

    file: Path
    matrix: np.ndarray  # [4, 4] or [3, 3]
    sizes: tuple[tuple[int, int] | None, ...]

    def at(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy for a picture of `size`. Raises InputError where they can be for none of
        `sizes`.
        """
        fx, fy, cx, cy = (self.matrix[i] for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
        for width, height in (known or size for known in self.sizes):
            # Nothing but the principal point, near the middle, tells which size intrinsics in a
            # text file are for.
            near = (
                abs(cx - (width - 1) / 2) < 0.1 * width
                and abs(cy - (height - 1) / 2) < 0.1 * height
            )
            whole = abs(size[0] * height / (size[1] * width) - 1) < 0.02  # resized, not cropped
            if near and whole and fx > 0 and fy > 0:
                return scaled_intrinsics((fx, fy, cx, cy), (width, height), size)
        raise InputError(
            f"{self.file}: principal point ({cx:g}, {cy:g}) is not near the middle of "
            f"{size[0]}x{size[1]}; "
            "the pictures were resized or cropped, export them at their own size"
        )


@dataclass(frozen=True)
class Recording:
    """Colour, depth and poses by frame number, whatever they are stored in."""

    colour: Mapping[int, object]
    depth: Mapping[int, object]  # empty where it was not exported
    poses: Mapping[int, np.ndarray]  # [4, 4] camera-to-world, as stored
    rgb_of: Callable[[int], np.ndarray]
    depth_of: Callable[[int], np.ndarray]  # metres
    colour_lens: Lens
    depth_lens: Lens | None


def find(root: Path) -> list[str]:
    """Names sceneXXXX_XX of scenes that have frames; `root` may be one itself."""
    scenes = _folders(root)
    if names := sorted(name for name, folder in scenes.items() if _kind(folder)):
        return names
    cure = (
        "no scene has color/, frame-*.color.jpg or SCENE.sens"
        if scenes
        else "expected [scans/]sceneXXXX_XX"
    )
    raise InputError(f"{root}: holds no ScanNet recordings; {cure}")


def _folders(root: Path) -> dict[str, Path]:
    root = Path(root).resolve()
    folders = [root, *root.glob("scene*"), *root.glob("scans/scene*")]
    return {f.name: f for f in folders if SCENE.fullmatch(f.name) and f.is_dir()}


def _kind(folder: Path) -> Callable[[Path], Recording] | None:
    if (folder / "color").is_dir() or _frames_folder(folder):
        return _exported
    return _from_sens if _sens(folder).exists() else None


def _sens(folder: Path) -> Path:
    return folder / f"{folder.name}.sens"


def _frames_folder(folder: Path) -> Path | None:
    """Where the C++ exporter wrote to."""
    first = next(
        (f for level in ("", "*/") for f in folder.glob(f"{level}frame-*.color.jpg")), None
    )
    return first and first.parent


def open_scene(root: Path, name: str) -> Source:
    folder, notes = _folders(root)[name], []
    # Before all else: exports with these ids often lack intrinsics too, and that is the smaller
    # mistake.
    ids = _id_files(folder, name, notes)
    recording = _kind(folder)(folder)
    parts = {"rgb": recording.colour, "pose": rigid_poses(notes, recording.poses)}
    if recording.depth:
        parts["depth"] = recording.depth
    else:
        notes.append("no depth was exported: frames come without")
    if ids:
        parts["ids"] = ids
    objects, same = (
        _objects(folder / f"{name}.aggregation.json", notes)
        if ids
        else ([], np.arange(HIGHEST_ID + 1))
    )
    stems = {f"{number:06d}": number for number in paired(notes, **parts)}
    if not stems:
        raise InputError(f"{folder}: no frame has {', '.join(parts)}; export this scene again")

    def frames(wanted: Sequence[str]) -> Iterator[SceneFrame]:
        for number in map(stems.__getitem__, wanted):
            rgb = recording.rgb_of(number)
            size = rgb.shape[1::-1]
            intrinsics = recording.colour_lens.at(size)
            instance = same[_ids(ids[number], size)] if ids else None
            depth = None
            if recording.depth:
                depth = recording.depth_of(number)
                depth = _seen_by(
                    depth, recording.depth_lens.at(depth.shape[::-1]), intrinsics, size
                )
            yield SceneFrame(
                f"{number:06d}", rgb, instance, depth, parts["pose"][number], intrinsics
            )

    return Source(name, [*stems], frames, objects, notes)


def _seen_by(
    depth: np.ndarray,  # [h, w]
    was: tuple[float, float, float, float],  # fx, fy, cx, cy of its camera
    intrinsics: tuple[float, float, float, float],  # of another camera at the same place
    size: tuple[int, int],  # width, height of the other camera's picture
) -> np.ndarray:  # [height, width]
    """Z-depth in the other camera's picture: the nearest pixel on each ray, 0 where the depth
    camera did not look.
    """
    height, width = depth.shape
    columns = np.rint(
        (np.arange(size[0]) - intrinsics[2]) / intrinsics[0] * was[0] + was[2]
    ).astype(int)
    rows = np.rint((np.arange(size[1]) - intrinsics[3]) / intrinsics[1] * was[1] + was[3]).astype(
        int
    )
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    return np.where(inside, depth[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))], 0)


def _id_files(folder: Path, name: str, notes: list[str]) -> dict[int, Path]:
    files = numbered((folder / "instance-filt").glob("*.png"))
    cure = f"unzip {name}_2d-instance-filt.zip here"
    if not files and (folder / "instance").is_dir():
        raise InputError(
            f"{folder / 'instance'}: not read, its ids (label * 1000 + n) are counted anew in "
            f"every picture; {cure}"
        )
    if not files:
        notes.append(f"no instance-filt/N.png: frames come without ids; {cure}")
    return files


def _ids(file: Path, size: tuple[int, int]) -> np.ndarray:
    """[H, W] values of a mask at a colour's size (width, height)."""
    values = read_values(file)
    if values.max() > HIGHEST_ID:
        raise InputError(
            f"{file}: has the value {values.max()}, ids of instance-filt are 8-bit; label * 1000 "
            "+ n is counted anew "
            "in every picture and tracks nothing, use SCENE_2d-instance-filt.zip"
        )
    if values.shape[::-1] not in (size, COLOUR_SIZE):
        raise InputError(
            f"{file}: is {values.shape[1]}x{values.shape[0]}, colour is {size[0]}x{size[1]}; "
            "export both at their own size"
        )
    return nearest(values, size)


def _objects(file: Path, notes: list[str]) -> tuple[list[SceneObject], np.ndarray]:
    """Objects by id, and for each value of a mask the id that it means, int32 [256]."""
    same = np.arange(HIGHEST_ID + 1, dtype=np.int32)
    if not file.exists():
        notes.append(
            f"no {file.name} (not that of _vh_clean, which counts other segments): objects have "
            "no names"
        )
        return [], same
    table = read_json(file)
    with reading(file, "segGroups with objectId, label and segments", "download it again"):
        groups = each(dict, table["segGroups"], "segGroups")
        by_number = {
            identity(g["objectId"], VOID_16 - 2) + 1: (str(g["label"]), _segments(g))
            for g in groups
        }
    first = {}
    for number, (_, segments) in sorted(by_number.items()):
        first.setdefault(segments or number, number)
    double = {number: first[segments or number] for number, (_, segments) in by_number.items()}
    twice = sorted(number for number, one in double.items() if one != number)
    if twice:
        notes.append(
            f"{len(twice)} objects are annotated twice and become one: ids "
            f"{', '.join(map(str, twice[:5]))}"
        )
    wrapped = sorted(number for number in double if number > HIGHEST_ID)
    for number, one in double.items():
        if number <= HIGHEST_ID:
            same[number] = one
    if wrapped:
        # 8 bits wrap: such a value means one of two objects, or nothing.
        unsure = {number % (HIGHEST_ID + 1) for number in wrapped} - {0}
        same[sorted(unsure)] = -1
        notes.append(
            f"ids {', '.join(map(str, wrapped[:5]))} do not fit 8 bits: pixels with their low "
            "bits are void"
        )
    known = {int(value) for value in same if value > 0}
    return [
        SceneObject(n, by_number[n][0]) for n in sorted(by_number) if n in known and double[n] == n
    ], same


def _segments(group: dict) -> frozenset[int]:
    return frozenset(each(whole, group["segments"], "segments"))


def _exported(folder: Path) -> Recording:
    """What either of ScanNet's exporters wrote."""
    if (folder / "color").is_dir():
        colour, depth, poses = (folder / part for part in ("color", "depth", "pose"))
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
    colour_lens, depth_lens, shift = _lenses(folder, colour, bool(depths))
    return Recording(
        files,
        depths,
        {number: read_numbers(file, (4, 4)) for number, file in texts.items()},
        lambda number: read_rgb(files[number]),
        lambda number: read_values(depths[number]) / shift,
        colour_lens,
        depth_lens,
    )


def _lenses(folder: Path, frames: Path, with_depth: bool) -> tuple[Lens, Lens | None, float]:
    """Cameras of colour and depth, and the depth counts a metre."""
    info = next((f for f in (frames / "_info.txt", folder / "_info.txt") if f.exists()), None)
    if info is None or (folder / "intrinsic").is_dir():
        files = [folder / "intrinsic" / f"intrinsic_{part}.txt" for part in ("color", "depth")]
        colour = Lens(files[0], read_numbers(files[0], (4, 4)), (None, COLOUR_SIZE))
        depth = (
            Lens(files[1], read_numbers(files[1], (4, 4)), (None, DEPTH_SIZE))
            if with_depth
            else None
        )
        return colour, depth, 1000.0
    table = dict(
        re.findall(r"^\s*(\w+)\s*=[ \t]*(.*?)\s*$", info.read_text(errors="replace"), re.MULTILINE)
    )
    try:
        lenses = []
        for part in ("color", "depth"):
            matrix = np.array(
                table[f"m_calibration{part.title()}Intrinsic"].split(), float
            ).reshape(4, 4)
            lenses.append(
                Lens(info, matrix, (size_of(*(int(table[f"m_{part}{side}"]) for side in SIDES)),))
            )
        shift = float(table["m_depthShift"])
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"{info}: lacks sizes, intrinsics or m_depthShift; export this scene again"
        ) from None
    if not 0 < shift < np.inf:
        raise InputError(
            f"{info}: m_depthShift {shift:g} is not a number of counts a metre; export this "
            "scene again"
        )
    return lenses[0], lenses[1], shift


def _from_sens(folder: Path) -> Recording:
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
