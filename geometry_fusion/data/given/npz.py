"""Geometry in .npz files: our own minimal layout, and those of feed-forward models.

One file for all frames (N), or a folder with one file per frame, named like the frame, whose arrays
lack the first axis:

    depth            [N, H, W] along z, 0 or NaN = unknown
    intrinsics       [N, 3, 3] or [3, 3], pixels of the depth maps, pixel centres at integers
    camera_to_world  [N, 4, 4] or [N, 3, 4], OpenCV axes; or
    extrinsics       [N, 4, 4] or [N, 3, 4], world to camera, as Depth Anything 3 and VGGT write
    confidence       [N, H, W], optional
    names            [N] text: the frames' file names, optional

Depth and poses are in one unit, whichever it is. Confidence is 0..1. If any value is above 1, as in
the models' own scales, which begin at 1, all become 1 - 1/value. Other arrays are not read. Arrays
are read as numbers only: pickled objects are refused.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from geometry_fusion.data.given.arrays import (
    CURE,
    array_of,
    header_of,
    maps_of,
    opened_arrays,
)
from geometry_fusion.data.given.layout import (
    Layout,
    digest_of_files,
    known_depth,
    shrunk_view,
    stem_of,
)
from geometry_fusion.data.scenes import rigid
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView

# Name here -> names in files: ours first, then Depth Anything 3's, VGGT's, and common ones.
KEYS = {
    "depth": ("depth", "depths"),
    "intrinsics": ("intrinsics", "intrinsic", "ixts"),
    "camera_to_world": ("camera_to_world", "c2w"),
    "extrinsics": ("extrinsics", "extrinsic", "exts", "world_to_camera", "w2c"),
    "confidence": ("confidence", "conf", "depth_conf"),
    "names": ("names",),
}
MOST_FRAMES = 1_000_000
FILES = (
    "geometry.npz",
    "results.npz",
    "predictions.npz",
    "exports/mini_npz/results.npz",
    "exports/npz/results.npz",
)


def is_named(file: Path) -> bool:
    """Whether a file has a name that only geometry for all frames has."""
    return file.name in {Path(name).name for name in FILES}


def find_npz(path: Path) -> list[Path]:
    """The .npz files that a path means: itself, one for all frames in it, or one per frame."""
    if path.is_file():
        return [path] if path.suffix == ".npz" else []
    for name in FILES:
        if (path / name).is_file():
            return [path / name]
    return sorted(file for file in path.glob("*.npz") if not file.name.startswith("."))


def open_npz(path: Path) -> Layout:
    """The geometry of .npz files. Raises InputError for anything that cannot be used."""
    files = find_npz(path)
    views: list[PosedView | None] = []
    names: list[str] | None = []
    for file in files:
        with opened_arrays(file) as archive:
            stack = _Stack(file, archive)
            own = stack.names or ([file.stem] if stack.count == 1 else None)
            if own is None and len(files) > 1:
                raise InputError(
                    f"{file}: holds {stack.count} frames beside {len(files) - 1} other files; give "
                    "that file alone, or one file per frame"
                )
            names = None if own is None else [*names, *own]
            views += stack.views()
    _scale_confidence(views)
    lacking = sum(view is None for view in views)
    if lacking == len(views):
        raise InputError(
            f"{path}: no frame has a pose that is a rotation and a place, and a focal length above "
            f"0; {CURE}"
        )
    notes = [f"{lacking} of {len(views)} frames have no usable camera"] if lacking else []
    what = "npz file" if len(files) == 1 else f"{len(files)} npz files"
    return Layout(what, path, names, len(views), views.__getitem__, digest_of_files(files), notes)


class _Stack:
    """The arrays of one file."""

    def __init__(self, file: Path, archive: zipfile.ZipFile):
        self._file, self._archive = file, archive
        members = {name.removesuffix(".npy") for name in archive.namelist()}
        self._members = {
            key: member
            for key, names in KEYS.items()
            if (member := next((name for name in names if name in members), None))
        }
        has_pose = {"camera_to_world", "extrinsics"} & self._members.keys()
        if not ({"depth", "intrinsics"} <= self._members.keys() and has_pose):
            held = ", ".join(sorted(members)[:12]) or "nothing"
            raise InputError(
                f"{file}: holds {held}; needed are depth, intrinsics, and camera_to_world or "
                f"extrinsics; {CURE}"
            )
        self.count, self._map_hw = self._sizes("depth")
        self.names = self._names() if "names" in self._members else None

    def views(self) -> list[PosedView | None]:
        """Views with confidence as stored; None for frames without a usable camera."""
        poses, ks = self._poses(), self._intrinsics()
        confidences: Iterator = iter([None] * self.count)
        if "confidence" in self._members:
            if self._sizes("confidence") != (self.count, self._map_hw):
                raise InputError(
                    f"{self._file}: confidence is {_written(self._sizes('confidence'))}, depth "
                    f"{_written((self.count, self._map_hw))}; give one value per depth, {CURE}"
                )
            confidences = self._maps("confidence")
        views: list[PosedView | None] = []
        depths = self._maps("depth")
        for depth, confidence, pose, k in zip(depths, confidences, poses, ks):
            if not (rigid(pose) and np.isfinite(k).all() and min(k[0, 0], k[1, 1]) > 0):
                views.append(None)
                continue
            if confidence is not None:
                confidence = np.where(np.isfinite(confidence), confidence, 0).astype(np.float32)
            view = PosedView(known_depth(depth), pose, Lens(k), confidence)
            views.append(shrunk_view(view))
        return views

    def _sizes(self, key: str) -> tuple[int, tuple[int, int]]:
        """(number of frames, (height, width)) of an array of maps."""
        shape = header_of(self._file, self._archive, self._members[key])[0]
        wanted = shape[:-1] if len(shape) == 4 and shape[-1] == 1 else shape
        wanted = wanted[1:] if len(wanted) == 4 and wanted[0] == 1 else wanted
        count, *map_hw = (1, *wanted) if len(wanted) == 2 else wanted or (0,)
        if len(map_hw) != 2 or not (0 < count <= MOST_FRAMES and min(map_hw) > 0):
            raise InputError(
                f"{self._file}: {self._members[key]} is {list(shape)}, not [frames, height, "
                f"width]; {CURE}"
            )
        return count, tuple(map_hw)

    def _maps(self, key: str) -> Iterator[np.ndarray]:
        return maps_of(self._file, self._archive, self._members[key], self._map_hw)

    def _matrices(self, key: str, shapes: tuple[tuple[int, int], ...]) -> np.ndarray:
        """[N or 1, rows, columns] float64 of an array with matrices of one of `shapes`."""
        name = self._members[key]
        values = array_of(self._file, self._archive, name)
        rows = values.shape[-2:]
        if values.ndim < 2 or rows not in shapes or values.size not in self._counts(rows):
            expected = " or ".join(f"[{self.count}, {r}, {c}]" for r, c in shapes)
            raise InputError(
                f"{self._file}: {name} is {list(values.shape)}, expected {expected} for "
                f"{self.count} depth maps; {CURE}"
            )
        return values.reshape(-1, *rows).astype(np.float64)

    def _counts(self, rows: tuple[int, int]) -> tuple[int, int]:
        return rows[0] * rows[1] * self.count, rows[0] * rows[1]

    def _poses(self) -> np.ndarray:
        """[N, 4, 4] camera to world; NaN where a matrix has no inverse."""
        is_inverse = "camera_to_world" not in self._members
        key = "extrinsics" if is_inverse else "camera_to_world"
        matrices = self._matrices(key, ((4, 4), (3, 4)))
        if len(matrices) != self.count:
            raise InputError(
                f"{self._file}: has one pose for {self.count} depth maps; give one for each"
            )
        if matrices.shape[1] == 3:
            last = np.broadcast_to([[[0.0, 0, 0, 1]]], (self.count, 1, 4))
            matrices = np.concatenate([matrices, last], 1)
        if not is_inverse:
            return matrices
        usable = np.array([rigid(matrix) for matrix in matrices])
        poses = np.full_like(matrices, np.nan)
        poses[usable] = np.linalg.inv(matrices[usable])
        return poses

    def _intrinsics(self) -> np.ndarray:
        """[N, 3, 3]."""
        return np.broadcast_to(self._matrices("intrinsics", ((3, 3),)), (self.count, 3, 3))

    def _names(self) -> list[str]:
        values = array_of(self._file, self._archive, "names")
        if values.dtype.kind not in "US" or values.size != self.count:
            raise InputError(
                f"{self._file}: names is {values.dtype} with {values.size} values, expected text "
                f"for {self.count} frames; {CURE}"
            )
        texts = values.ravel().tolist()
        return [stem_of(t.decode(errors="replace") if isinstance(t, bytes) else t) for t in texts]


def _written(sizes: tuple[int, tuple[int, int]]) -> str:
    count, (height, width) = sizes
    return f"[{count}, {height}, {width}]"


def _scale_confidence(views: list[PosedView | None]) -> None:
    """Bring the confidences of all views to 0..1, in place; the module's text says how."""
    maps = [v.confidence for v in views if v is not None and v.confidence is not None]
    is_open = max((float(values.max()) for values in maps), default=0.0) > 1
    for values in maps:
        if is_open:
            np.copyto(values, 1 - 1 / np.maximum(values, 1))
        np.clip(values, 0, 1, out=values)
