"""Given geometry from captures, by the readers of geometry_fusion.data.readers.

nerfstudio, Record3D, Polycam and Stray Scanner. The readers undo lens distortion and cut borders;
here both are put back, because the video shows the pictures as they were stored.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np

from geometry_fusion.data.given.layout import (
    Layout,
    digest_of_files,
    known_depth,
    padded_view,
    shrunk_view,
)
from geometry_fusion.data.readers.nerfstudio import FILE as TRANSFORMS
from geometry_fusion.data.readers.source import Source
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.cameras import intrinsic_matrix
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView

PATTERNS = {  # format -> what lies in a capture, or in a folder of captures
    "nerfstudio": (TRANSFORMS, f"*/{TRANSFORMS}"),
    "record3d": ("*.r3d",),
    "polycam": ("keyframes", "*/keyframes"),
    "stray": ("odometry.csv", "*/odometry.csv"),
}
TITLES = {
    "nerfstudio": "nerfstudio capture",
    "record3d": "Record3D capture",
    "polycam": "Polycam capture",
    "stray": "Stray Scanner capture",
}
PICTURES = (".jpg", ".jpeg", ".mp4", ".mov", ".glb", ".obj", ".ply")  # not part of the geometry


def format_of(path: Path) -> str | None:
    """The format of a capture at `path`; None where there is none."""
    if path.is_file():
        return {".r3d": "record3d", ".json": "nerfstudio"}.get(path.suffix)
    for name, patterns in PATTERNS.items():
        if any(next(path.glob(pattern), None) for pattern in patterns):
            return name
    return None


def open_capture(path: Path, kind: str) -> Layout:
    """The geometry of a capture. Raises InputError if it has no depth, or if there are several."""
    reader = import_module(f"geometry_fusion.data.readers.{kind}")
    names = reader.find(path)
    if len(names) > 1:
        raise InputError(
            f"{path}: holds {len(names)} captures ({', '.join(names[:3])}, ...); give one of them"
        )
    source = reader.open_scene(path, names[0])
    views = _Views(source, path)
    digest = digest_of_files(_files(path))
    notes = list(source.notes)
    return Layout(TITLES[kind], path, source.stems, len(source.stems), views.at, digest, notes)


def _files(path: Path) -> list[Path]:
    if path.is_file() and path.suffix != ".json":
        return [path]
    folder = path if path.is_dir() else path.parent
    files = (f for f in folder.rglob("*") if f.is_file() and not f.name.startswith("."))
    return [file for file in files if file.suffix.lower() not in PICTURES]


class _Views:
    """Views of a capture's frames, read once and in order: some captures are videos."""

    def __init__(self, source: Source, path: Path):
        self._source, self._path = source, path
        self._read: list[PosedView] = []
        self._frames: Iterator[SceneFrame] = source.frames(source.stems)

    def at(self, index: int) -> PosedView:
        """The view of a frame. Raises InputError where the capture has no depth."""
        while len(self._read) <= index:
            self._read.append(self._view(next(self._frames)))
        return self._read[index]

    def _view(self, frame: SceneFrame) -> PosedView:
        if frame.depth is None:
            raise InputError(
                f"{self._path}: has cameras but no depth; give a COLMAP model (with points), or "
                "a capture with depth"
            )
        lens = Lens(intrinsic_matrix(*frame.intrinsics))
        view = PosedView(known_depth(frame.depth), frame.camera_to_world, lens)
        if self._source.border:
            view = padded_view(view, self._source.border)
        view = shrunk_view(view)
        if frame.stem not in self._source.undone:
            return view
        return distorted(view, *self._source.undone[frame.stem])


def distorted(view: PosedView, coefficients: tuple[float, ...], fisheye: bool) -> PosedView:
    """The view of a picture as its lens stored it, from the view of its undistorted picture."""
    lens = Lens(view.lens.k, coefficients, fisheye)
    height, width = view.depth.shape
    u, v = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    directions = lens.directions(u, v)
    lost = ~np.isfinite(directions).all(0)
    x, y, _ = view.lens.pixels(np.where(lost, 0, directions).reshape(3, -1))
    columns, rows = (np.rint(values).astype(int).reshape(lost.shape) for values in (x, y))
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height) & ~lost
    depth = view.depth[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    depth = np.where(inside, depth, 0)
    return PosedView(depth, view.camera_to_world, lens, size=view.picture_size)
