"""Given geometry from COLMAP: a sparse model, and the dense depth maps beside it if there are any.

A folder holds the model itself, or in sparse/0, sparse, dense/sparse (a dense workspace), or
colmap/sparse/0. Of several models in sparse/, the one with most images is taken. Without dense maps
(stereo/depth_maps/*.geometric.bin) depth is filled between the points that an image observes
(`sparse_fill`). Distorted pictures are fine: points are filled in where they were observed, and the
lens gives the viewing directions.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from geometry_fusion.data.given.colmap_model import (
    CURE,
    ColmapModel,
    Image,
    model_files,
    read_model,
)
from geometry_fusion.data.given.layout import (
    Layout,
    digest_of_files,
    known_depth,
    shrunk_view,
    stem_of,
)
from geometry_fusion.data.given.sparse_fill import filled
from geometry_fusion.data.scenes import rigid
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.cameras import IN_FRONT_M
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.io.parsing import reading

PLACES = ("", "dense/sparse", "dense/0/sparse", "sparse", "colmap", "colmap/sparse")
CELLS = 64  # of a side: those on which PosedDepth gives points


def find_models(path: Path) -> list[Path]:
    """Folders with a COLMAP model that `path` means; several where sparse/ has several parts."""
    for place in PLACES:
        folder = path / place
        if model_files(folder):
            return [folder]
        numbered = [f for f in sorted(folder.glob("[0-9]*")) if f.is_dir() and model_files(f)]
        if numbered:
            return numbered
    return []


def open_colmap(path: Path) -> Layout:
    """The geometry of a COLMAP model. Raises InputError where no image of it can be used."""
    folders = find_models(path)
    models = [read_model(folder) for folder in folders]
    best = max(range(len(models)), key=lambda index: len(models[index].images))
    folder, model = folders[best], models[best]
    notes = []
    if len(folders) > 1:
        notes.append(
            f"of {len(folders)} models {folder.name} is used, with {len(model.images)} images; "
            "they share no coordinates"
        )
    images = [image for image in model.images if rigid(image.camera_to_world)]
    if not images:
        raise InputError(f"{folder}: no image of the model has a usable pose; {CURE}")
    if not model.points:
        raise InputError(f"{folder}: the model has no points; triangulate them in COLMAP first")
    size = images[0].camera.size
    alike = [image for image in images if _same_shape(image.camera.size, size)]
    if len(alike) < len(images):
        notes.append(f"{len(images) - len(alike)} images of another shape than {size} are left out")
    dense = _dense_maps(folder, alike)
    what = f"COLMAP model ({'binary' if model.is_binary else 'text'}"
    what += f", {len(dense)} dense depth maps)" if dense else f", {len(model.points)} points)"
    digest = digest_of_files([*model.files, *dense.values()])
    names = [stem_of(image.name) for image in alike]
    view = _viewer(model, alike, dense)
    return Layout(what, folder, names, len(alike), view, digest, notes)


def _same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) < 0.02


def _viewer(
    model: ColmapModel, images: list[Image], dense: dict[int, Path]
) -> Callable[[int], PosedView | None]:
    def view(index: int) -> PosedView | None:
        image = images[index]
        if index in dense:
            return _dense_view(image, dense[index])
        return _sparse_view(image, model.points)

    return view


def _sparse_view(image: Image, points: dict[int, np.ndarray]) -> PosedView | None:
    """The view of an image by the points that it observes; None if it observes none."""
    seen = [(row, points[i]) for row, i in enumerate(image.point_ids.tolist()) if i in points]
    if not seen:
        return None
    rows, places = [row for row, _ in seen], np.array([place for _, place in seen])
    world_to_camera = np.linalg.inv(image.camera_to_world)
    depths = places @ world_to_camera[2, :3] + world_to_camera[2, 3]
    usable = np.isfinite(depths) & (depths > IN_FRONT_M)
    size = image.camera.size
    observed = image.observed[rows][usable]
    depth, confidence = filled(observed, depths[usable], size, (CELLS, CELLS))
    lens = image.camera.lens.resized((CELLS / size[0], CELLS / size[1]))
    return PosedView(depth, image.camera_to_world, lens, confidence, size)


def _dense_maps(folder: Path, images: list[Image]) -> dict[int, Path]:
    """Index -> dense depth map of the images that have one."""
    for workspace in (folder.parent, folder.parent.parent, folder):
        maps = workspace / "stereo" / "depth_maps"
        if maps.is_dir():
            files = {i: maps / f"{image.name}.geometric.bin" for i, image in enumerate(images)}
            return {i: file for i, file in files.items() if file.is_file()}
    return {}


def _dense_view(image: Image, file: Path) -> PosedView:
    with reading(file, "a depth map of COLMAP (width&height&1& and float32)", CURE):
        content = file.read_bytes()
        width, height, channels, _ = content[:64].split(b"&", 3)
        shape = int(height), int(width)
        start = len(width) + len(height) + len(channels) + 3
        if int(channels) != 1 or min(shape) < 1 or len(content) - start != 4 * shape[0] * shape[1]:
            raise ValueError(
                f"{width.decode()}x{height.decode()}x{channels.decode()} do not fit into "
                f"{len(content)} bytes"
            )
        depth = known_depth(np.frombuffer(content, "<f4", offset=start).reshape(shape))
    size = image.camera.size
    lens = image.camera.lens.resized((shape[1] / size[0], shape[0] / size[1]))
    return shrunk_view(PosedView(depth, image.camera_to_world, lens, size=size))
