"""nerfstudio's transforms.json, as `ns-process-data` and many converters write it.

    CAPTURE/transforms.json    names images, depth and masks by paths relative to its folder

* Poses are camera-to-world of an OpenGL camera. `applied_transform` and `applied_scale` are undone:
  the world is the one before nerfstudio, in whose unit the depth is. Without them the world stays
  as it is.
* fl_x, fl_y, cx, cy, w, h, k1..k4, p1, p2 and camera_model are given for all frames or in a frame,
  which takes precedence. nerfstudio puts the centre of the first pixel at 0.5 (its issue 3048), we
  put it at 0.
* Lens distortion is undone at the same focal length. Places that the lens did not see are black,
  void and without depth.
* Depth is in millimetres (16-bit PNG or .npy), unless the JSON has a `depth_unit_scale_factor` in
  metres per unit.
* Black pixels of a mask are void (-1); there are no other ids. EXIF orientation is ignored, as
  nerfstudio does.
* Frames are in the order of the numbers in their names: the order in the JSON is not that of time.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from geometry_fusion.data.readers.captures import (
    captures,
    depth_at,
    intrinsics_at,
    load_array,
    stored_rgb,
)
from geometry_fusion.data.readers.source import (
    Intrinsics,
    Source,
    nearest,
    note_dropped,
    numbered,
    opencv_from_opengl,
    paired,
    read_json,
    read_values,
    rigid_poses,
)
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.geometry.cameras import intrinsic_matrix
from geometry_fusion.io.mask_writer import read_mask
from geometry_fusion.io.parsing import is_number, reading, size_of

FILE = "transforms.json"
SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")  # the JSON may leave them out
PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
FISHEYE = "OPENCV_FISHEYE"
LEAST_DEPTH_M = 0.05  # a map with nothing beyond is in another unit than the default millimetres
POSITIVE = ("depth_unit_scale_factor", "applied_scale", "fl_x", "fl_y")  # keys that scale or divide


class Lens(NamedTuple):
    """A camera: intrinsics for an image of `size`, and the distortion of its lens."""

    intrinsics: Intrinsics
    size: tuple[int, int] | None  # (width, height); None if the JSON does not state it
    fisheye: bool
    # OpenCV's k1 k2 p1 p2 k3, or k1 k2 k3 k4 of a fisheye; empty for no distortion.
    distortion: tuple[float, ...]


def find(root: Path) -> list[str]:
    """Names of the captures at `root`, a JSON file or a folder; InputError if there are none."""
    return sorted(_transforms(root))


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`. Raises InputError for damaged files and if no frame is complete.

    Frames with masks have ids, of which only void (-1) means something.
    """
    file = _transforms(root)[name]
    meta = read_json(file)
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise InputError(f"{file}: holds no list of frames; give nerfstudio's transforms.json")
    notes: list[str] = []
    entries = _by_number(file, meta["frames"], notes)
    pictures = {n: picture for n, (picture, _) in entries.items()}
    records = {n: record for n, (_, record) in entries.items()}
    depth = _files_named(file, records, "depth_file_path")
    masks = _files_named(file, records, "mask_path")
    tables = {"picture": pictures}
    tables |= {key: files for key, files in (("depth", depth), ("mask", masks)) if files}
    undo = _undoing(file, meta)
    poses = {}
    for n in paired(notes, **tables):
        poses[n] = undo(_matrix(file, records[n].get("transform_matrix")))
    poses = rigid_poses(notes, poses)
    if not poses:
        raise InputError(
            f"{file}: no frame is complete ({'; '.join(notes) or 'it lists none'}); export it again"
        )
    lenses = {n: _lens(file, meta, records[n]) for n in poses}
    unit = _number(file, "depth_unit_scale_factor", meta.get("depth_unit_scale_factor", 0.001))
    if depth and any("colmap_im_id" in records[n] for n in poses):
        notes.append(
            "poses are COLMAP's, whose scale is arbitrary: check that the depth agrees (data.look)"
        )

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in stems:
            n = int(stem)
            rgb = stored_rgb(pictures[n])
            size = rgb.shape[1::-1]
            intrinsics = intrinsics_at(lenses[n].intrinsics, lenses[n].size, size, file)
            metres = depth_at(_depth(depth[n], unit, file), size, depth[n]) if depth else None
            # Masks of other sizes are accepted, as nerfstudio does.
            valid = nearest(read_mask(masks[n]).astype(np.uint8), size) if masks else None
            if lenses[n].distortion:
                maps = _undistortion(lenses[n].fisheye, lenses[n].distortion, intrinsics, size)
                rgb = cv2.remap(rgb, *maps, cv2.INTER_LINEAR)
                if metres is not None:
                    metres = cv2.remap(metres, *maps, cv2.INTER_NEAREST)
                if valid is not None:
                    valid = cv2.remap(valid, *maps, cv2.INTER_NEAREST)
            ids = None if valid is None else np.where(valid > 0, 0, -1).astype(np.int32)
            yield SceneFrame(stem, rgb, ids, metres, poses[n], intrinsics)

    width = max(6, len(str(max(poses))))  # of stems, which sort as text
    stems = {f"{n:0{width}d}": lenses[n] for n in sorted(poses)}
    undone = {s: (lens.distortion, lens.fisheye) for s, lens in stems.items() if lens.distortion}
    return Source(name, list(stems), frames, notes=notes, undone=undone)


def _transforms(root: Path) -> dict[str, Path]:
    """Name -> JSON file of every capture."""
    if root.is_file():
        if root.suffix != ".json":
            raise InputError(
                f"{root}: is not a .json; give transforms.json or a folder that holds it"
            )
        return {root.resolve().parent.name if root.name == FILE else root.stem: root}
    folders = captures(root, lambda folder: (folder / FILE).is_file(), FILE)
    return {name: folder / FILE for name, folder in folders.items()}


def _by_number(file: Path, frames: list, notes: list[str]) -> dict[int, tuple[Path, dict]]:
    """Frame number -> its image and its entry in the JSON.

    Entries without an image, or without a number in its name, are left out and listed in `notes`.
    Raises InputError for damaged entries and images that are listed twice.
    """
    records: dict[Path, dict] = {}
    missing, nameless = [], []
    for index, record in enumerate(frames):
        if not isinstance(record, dict) or not isinstance(record.get("file_path"), str):
            raise InputError(f"{file}: frame {index} of the list has no file_path; export it again")
        picture = _file_named(file, record["file_path"])
        if picture in records:
            raise InputError(f"{file}: lists {record['file_path']} twice; keep one")
        if picture is None:
            missing.append(record["file_path"])
        elif not any(map(str.isdecimal, picture.stem)):
            nameless.append(picture.name)
        else:
            records[picture] = record
    note_dropped(notes, missing, "picture missing")
    note_dropped(notes, nameless, "no number in the name")
    return {n: (picture, records[picture]) for n, picture in numbered(records).items()}


def _files_named(file: Path, records: dict[int, dict], key: str) -> dict[int, Path]:
    """Frame number -> the file that `key` of its entry names, where there is one."""
    files = {n: _file_named(file, record[key]) for n, record in records.items() if key in record}
    return {n: named for n, named in files.items() if named is not None}


def _file_named(file: Path, text: str) -> Path | None:
    """The file that a path in the JSON means; None if there is none."""
    path = file.parent / str(text).replace("\\", "/")
    with_suffix = (Path(f"{path}{suffix}") for suffix in SUFFIXES)
    return next((p for p in (path, *with_suffix) if p.is_file()), None)


def _matrix(file: Path, values) -> np.ndarray:
    """[4, 4] of 3x4 or 4x4 nested lists; InputError for anything else."""
    try:
        matrix = np.array(values, float)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape not in ((3, 4), (4, 4)):
        raise InputError(
            f"{file}: {one_line(str(values))[:60]!r} is no 3x4 or 4x4 matrix; export it again"
        )
    return matrix if len(matrix) == 4 else np.vstack([matrix, (0, 0, 0, 1)])


def _undoing(file: Path, meta: dict) -> Callable[[np.ndarray], np.ndarray]:
    """A function from stored OpenGL poses to OpenCV poses before applied_transform and _scale.

    Raises InputError if these cannot be undone.
    """
    applied = _matrix(file, meta.get("applied_transform", np.eye(4)))
    if not np.isfinite(applied).all():
        raise InputError(
            f"{file}: applied_transform holds numbers that are not finite; export it again"
        )
    scale = _number(file, "applied_scale", meta.get("applied_scale", 1.0))
    if abs(np.linalg.det(applied[:3, :3])) < 1e-9:
        raise InputError(
            f"{file}: applied_transform cannot be undone, its determinant is 0; export it again"
        )
    back = np.linalg.inv(applied)

    def undo(pose: np.ndarray) -> np.ndarray:
        unscaled = pose.copy()
        unscaled[:3, 3] /= scale
        return back @ opencv_from_opengl(unscaled)

    return undo


def _number(file: Path, key: str, value) -> float:
    """A finite number, above 0 for the keys in POSITIVE; InputError otherwise."""
    is_finite = is_number(value) and np.isfinite(value)
    if not is_finite or (value <= 0 and key in POSITIVE):
        raise InputError(
            f"{file}: {key} is {value!r}, not a usable number; export it again or add it"
        )
    return float(value)


def _lens(file: Path, meta: dict, record: dict) -> Lens:
    """The camera of a frame; InputError for unknown models and numbers that make no sense."""

    def get(key: str, default=None) -> float:
        return _number(file, key, record.get(key, meta.get(key, default)))

    model = record.get("camera_model", meta.get("camera_model", "OPENCV"))
    if model not in (*PERSPECTIVE, FISHEYE) or (meta.get("is_fisheye") and model != FISHEYE):
        shown = "fisheye" if meta.get("is_fisheye") else model
        raise InputError(
            f"{file}: camera_model {shown!r} is not known here; undistort the pictures first "
            f"(known: {', '.join(PERSPECTIVE)}, {FISHEYE})"
        )
    k1, k2, k3, k4 = get("k1", 0.0), get("k2", 0.0), get("k3", 0.0), get("k4", 0.0)
    p1, p2 = get("p1", 0.0), get("p2", 0.0)
    if model != FISHEYE and k4:
        raise InputError(
            f"{file}: k4 {k4} of a {model} camera has no meaning in OpenCV; "
            "undistort the pictures first"
        )
    distortion = (k1, k2, k3, k4) if model == FISHEYE else (k1, k2, p1, p2, k3)
    sizes = [record.get(key, meta.get(key)) for key in ("w", "h")]
    with reading(file, f"a camera for pictures (w, h are {sizes})"):
        size = None if None in sizes else size_of(*sizes)
    # A fisheye without coefficients is still no pinhole camera.
    if model != FISHEYE and not any(distortion):
        distortion = ()
    intrinsics = (get("fl_x"), get("fl_y"), get("cx") - 0.5, get("cy") - 0.5)
    return Lens(intrinsics, size, model == FISHEYE, distortion)


@lru_cache(maxsize=1)  # most captures have one lens
def _undistortion(
    fisheye: bool, distortion: tuple[float, ...], intrinsics: Intrinsics, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows in the distorted image, [H, W] float32 each, of the undistorted pixels."""
    k = intrinsic_matrix(*intrinsics)
    build = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
    return build(k, np.array(distortion), np.eye(3), k, size, cv2.CV_32FC1)


def _depth(path: Path, unit: float, file: Path) -> np.ndarray:
    """[h, w] float32 metres, 0 = no measurement; InputError if they cannot be metres."""
    values = load_array(path) if path.suffix == ".npy" else read_values(path)
    metres = values * unit
    metres = np.where(np.isfinite(metres) & (metres > 0), metres, 0).astype(np.float32)
    if 0 < metres.max() < LEAST_DEPTH_M:
        raise InputError(
            f"{path}: no depth is beyond {metres.max() * 1000:.1f} mm; if these are other units "
            f'than mm, give metres per unit as "depth_unit_scale_factor" in {file.name}'
        )
    return metres
