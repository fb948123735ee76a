"""nerfstudio's transforms.json, as `ns-process-data` and many converters write it.

    CAPTURE/transforms.json          pictures, depth and masks lie wherever it says, relative to its
    folder

* Poses are camera-to-world of an OpenGL camera. `applied_transform` and `applied_scale` are undone,
so that the world
  is the one before nerfstudio, in whose unit the depth is. Without them the world stays as it is.
* fl_x, fl_y, cx, cy, w, h, k1..k4, p1, p2, camera_model stand in the frame or for all frames; the
frame's word counts.
  nerfstudio puts the centre of the first pixel at 0.5 (its issue 3048), we put it at 0.
* Lens distortion is undone at the same focal length: places that the lens did not see are black,
void, without depth.
* Depth is in millimetres (16-bit PNG or .npy) unless the JSON has a `depth_unit_scale_factor`,
metres per unit.
* A mask's black pixels are void (-1); there are no other ids. EXIF orientation is ignored, as
nerfstudio does.
* Frames come in the order of the numbers in their names: the order in the JSON is not that of time.

`captures`, `stored_rgb`, `intrinsics_at`, `depth_at` serve the other readers of phone captures too.
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
from geometry_fusion.mask_files import read_mask
from geometry_fusion.parsing import is_number, reading, size_of

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".PNG",
    ".JPG",
    ".JPEG",
)  # of pictures whose suffix the JSON leaves out
PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
FISHEYE = "OPENCV_FISHEYE"
LEAST_DEPTH_M = (
    0.05  # a map that ends nearer than this holds other units than the millimetres it should
)


class Lens(NamedTuple):
    """Intrinsics, pixel centres at integers, for an image of `size`, and how the lens bends."""

    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy
    size: tuple[int, int] | None  # (width, height); None where the JSON does not say
    fisheye: bool
    distortion: tuple[
        float, ...
    ]  # OpenCV's order: k1 k2 p1 p2 k3, of a fisheye k1 k2 k3 k4; () = none


def find(root: Path) -> list[str]:
    return sorted(_transforms(root))


def open_scene(root: Path, name: str) -> Source:
    file = _transforms(root)[name]
    meta = read_json(file)
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise InputError(f"{file}: holds no list of frames; is it nerfstudio's transforms.json?")
    notes: list[str] = []
    records = _by_number(file, meta["frames"], notes)
    depth, masks = (
        {
            n: path
            for n, (_, record) in records.items()
            if key in record and (path := _picture(file, record[key]))
        }
        for key in ("depth_file_path", "mask_path")
    )
    parts = {
        "picture": records,
        **({"depth": depth} if depth else {}),
        **({"mask": masks} if masks else {}),
    }
    keys = paired(notes, **parts)
    undo = _undone(file, meta)
    poses = rigid_poses(
        notes, {n: undo(_matrix(file, records[n][1].get("transform_matrix"))) for n in keys}
    )
    if not poses:
        raise InputError(
            f"{file}: no frame is complete ({'; '.join(notes) or 'it lists none'}); export it again"
        )
    lenses = {n: _lens(file, meta, records[n][1]) for n in poses}
    unit = _number(file, "depth_unit_scale_factor", meta.get("depth_unit_scale_factor", 0.001))
    if depth and any("colmap_im_id" in records[n][1] for n in poses):
        notes.append(
            "poses are COLMAP's, whose scale is arbitrary: check that the depth agrees (data.look)"
        )

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        for stem in stems:
            n = int(stem)
            rgb = stored_rgb(records[n][0])
            size = rgb.shape[1::-1]
            intrinsics = intrinsics_at(lenses[n].intrinsics, lenses[n].size, size, file)
            metres = depth_at(_depth(depth[n], unit, file), size, depth[n]) if depth else None
            # nearest() also gives masks of other sizes a meaning; nerfstudio does the same.
            known = nearest(read_mask(masks[n]).astype(np.uint8), size) if masks else None
            if lenses[n].distortion:
                maps = _straight(lenses[n].fisheye, lenses[n].distortion, intrinsics, size)
                rgb = cv2.remap(rgb, *maps, cv2.INTER_LINEAR)
                metres, known = (
                    v if v is None else cv2.remap(v, *maps, cv2.INTER_NEAREST)
                    for v in (metres, known)
                )
            ids = None if known is None else np.where(known > 0, 0, -1).astype(np.int32)
            yield SceneFrame(stem, rgb, ids, metres, poses[n], intrinsics)

    width = max(6, len(str(max(poses))))  # stems sort as text
    return Source(name, [f"{n:0{width}d}" for n in sorted(poses)], frames, notes=notes)


def _transforms(root: Path) -> dict[str, Path]:
    if root.is_file():
        if root.suffix != ".json":
            raise InputError(
                f"{root}: is not a .json; give transforms.json or a folder that holds it"
            )
        return {root.resolve().parent.name if root.name == "transforms.json" else root.stem: root}
    found = captures(root, lambda folder: (folder / "transforms.json").is_file(), "transforms.json")
    return {name: folder / "transforms.json" for name, folder in found.items()}


def _by_number(file: Path, frames: list, notes: list[str]) -> dict[int, tuple[Path, dict]]:
    """Frame number -> its picture and its entry in the JSON."""
    found, missing, nameless = {}, [], []
    for index, record in enumerate(frames):
        if not isinstance(record, dict) or not isinstance(record.get("file_path"), str):
            raise InputError(f"{file}: frame {index} of the list has no file_path; export it again")
        picture = _picture(file, record["file_path"])
        if picture in found:
            raise InputError(f"{file}: lists {record['file_path']} twice; keep one")
        if picture is None:
            missing.append(record["file_path"])
        elif not any(map(str.isdecimal, picture.stem)):
            nameless.append(picture.name)
        else:
            found[picture] = record
    note_dropped(notes, missing, "picture missing")
    note_dropped(notes, nameless, "no number in the name")
    return {n: (picture, found[picture]) for n, picture in numbered(found).items()}


def _picture(file: Path, text: str) -> Path | None:
    """The file that a path in the JSON means; None if there is none."""
    path = file.parent / str(text).replace("\\", "/")
    others = (Path(f"{path}{suffix}") for suffix in SUFFIXES)
    return next((p for p in (path, *others) if p.is_file()), None)


def _matrix(file: Path, values) -> np.ndarray:
    """[4, 4] of 3x4 or 4x4 nested lists."""
    try:
        matrix = np.array(values, float)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape not in ((3, 4), (4, 4)):
        raise InputError(
            f"{file}: {one_line(str(values))[:60]!r} is no 3x4 or 4x4 matrix; export it again"
        )
    return matrix if len(matrix) == 4 else np.vstack([matrix, (0, 0, 0, 1)])


def _undone(file: Path, meta: dict) -> Callable[[np.ndarray], np.ndarray]:
    """Saved OpenGL poses -> OpenCV poses in the world before applied_transform and
    applied_scale.
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
    """A finite number that is not 0 where it scales or divides; raises InputError otherwise."""
    usable = is_number(value) and np.isfinite(value)
    if not usable or (
        value <= 0 and key in ("depth_unit_scale_factor", "applied_scale", "fl_x", "fl_y")
    ):
        raise InputError(
            f"{file}: {key} is {value!r}, not a usable number; export it again or add it"
        )
    return float(value)


def _lens(file: Path, meta: dict, record: dict) -> Lens:
    def get(key: str, default=None) -> float:
        return _number(file, key, record.get(key, meta.get(key, default)))

    model = record.get("camera_model", meta.get("camera_model", "OPENCV"))
    if model not in (*PERSPECTIVE, FISHEYE) or (meta.get("is_fisheye") and model != FISHEYE):
        raise InputError(
            f"{file}: camera_model {'fisheye' if meta.get('is_fisheye') else model!r} is not "
            "known here; undistort "
            f"the pictures first (known: {', '.join(PERSPECTIVE)}, {FISHEYE})"
        )
    k1, k2, k3, k4, p1, p2 = (get(key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if model != FISHEYE and k4:
        raise InputError(
            f"{file}: k4 {k4} of a {model} camera has no meaning in OpenCV; undistort the "
            "pictures first"
        )
    bends = (k1, k2, k3, k4) if model == FISHEYE else (k1, k2, p1, p2, k3)
    sizes = [record.get(key, meta.get(key)) for key in ("w", "h")]
    with reading(file, f"a camera for pictures (w, h are {sizes})"):
        size = None if None in sizes else size_of(*sizes)
    straight = model != FISHEYE and not any(
        bends
    )  # a fisheye without coefficients is still no pinhole
    intrinsics = (get("fl_x"), get("fl_y"), get("cx") - 0.5, get("cy") - 0.5)
    return Lens(intrinsics, size, model == FISHEYE, () if straight else bends)


@lru_cache(maxsize=1)  # most captures have one lens
def _straight(fisheye: bool, distortion: tuple, intrinsics: tuple, size: tuple[int, int]) -> tuple:
    """Where in the distorted picture each pixel of the straight one lies: x, y, each [H, W]
    float32.
    """
    fx, fy, cx, cy = intrinsics
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    build = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
    return build(k, np.array(distortion), np.eye(3), k, size, cv2.CV_32FC1)


def _depth(path: Path, unit: float, file: Path) -> np.ndarray:
    """[h, w] float32 metres, 0 = unknown."""
    if path.suffix == ".npy":
        metres = load_array(path) * unit
    else:
        metres = read_values(path) * unit
    metres = np.where(np.isfinite(metres) & (metres > 0), metres, 0).astype(np.float32)
    if 0 < metres.max() < LEAST_DEPTH_M:
        raise InputError(
            f"{path}: no depth is beyond {metres.max() * 1000:.1f} mm; if these are other units "
            "than mm, give metres "
            f'per unit as "depth_unit_scale_factor" in {file.name}'
        )
    return metres
