"""Views for lifting: depth and camera of frames, from MUSt3R or from files, and their alignment."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geometry_fusion.geometry.cameras import intrinsic_matrix
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.types import Frames, GeometryFrame


def view_of_geometry(geometry: GeometryFrame) -> PosedView | None:
    """Depth and camera of a frame, from MUSt3R's points; None where its camera is not known.

    Depth is that of the points along the camera's axis, on the resized picture, 0 where MUSt3R's
    crop does not reach.
    """
    if geometry.camera is None:
        return None
    fit, pose = geometry.fit, geometry.camera.camera_to_world.cpu().numpy().astype(float)
    points = geometry.points.cpu().numpy().astype(float)
    z = np.einsum("i,ihw->hw", pose[:3, 2], points - pose[:3, 3, None, None])
    known = np.isfinite(z) & (z > 0) & (geometry.confidence.cpu().numpy() > 0)
    left, top = fit.crop
    height, width = z.shape
    depth = np.zeros(fit.resized[::-1], np.float32)
    depth[top : top + height, left : left + width] = np.where(known, z, 0)
    fx, fy = (geometry.camera.focal * scale for scale in fit.scale)
    # MUSt3R's rays: the principal point of a crop is its corner plus half its size.
    k = intrinsic_matrix(fx, fy, left + width / 2, top + height / 2)
    return PosedView(depth, pose, Lens(k), size=fit.original)


def rendered_views(
    source: GeometrySource, frames: Frames, progress: bool = False
) -> Iterator[PosedView | None]:
    """The views of all frames, by the source's memory after it has seen every one.

    progress: show bars.
    """
    order = range(len(frames))
    for index in tqdm(order, desc="geometry", unit="frame", disable=not progress):
        source.push(index, frames[index])
    for index in tqdm(order, desc="depth", unit="frame", disable=not progress):
        yield view_of_geometry(source.render(index, frames[index]))


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + shift."""

    scale: float
    rotation: np.ndarray  # [3, 3]
    shift: np.ndarray  # [3]

    def of_view(self, view: PosedView) -> PosedView:
        """A view in the coordinates and the unit that this leads to."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation @ view.camera_to_world[:3, :3]
        pose[:3, 3] = self.scale * self.rotation @ view.camera_to_world[:3, 3] + self.shift
        return replace(view, depth=view.depth * np.float32(self.scale), camera_to_world=pose)


def similarity_of(start: np.ndarray, end: np.ndarray) -> Similarity:
    """The similarity that takes points [N, 3] to others with least squares (Umeyama 1991)."""
    start_mean, end_mean = start.mean(0), end.mean(0)
    spread, target = start - start_mean, end - end_mean
    u, values, vt = np.linalg.svd(target.T @ spread)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = float((values * signs).sum() / np.square(spread).sum())
    return Similarity(scale, rotation, end_mean - scale * rotation @ start_mean)


def aligned(views: Sequence[PosedView | None], centres: np.ndarray) -> list[PosedView | None]:
    """Views moved so that their camera centres lie at `centres` [T, 3], as well as they can."""
    known = [index for index, view in enumerate(views) if view is not None]
    start = np.array([views[index].camera_to_world[:3, 3] for index in known])
    similarity = similarity_of(start, centres[known])
    return [None if view is None else similarity.of_view(view) for view in views]


class ViewFiles:
    """Views of frames in a folder, so that they are computed once and read one at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._end = folder / "complete"

    @property
    def is_complete(self) -> bool:
        """Whether all views were written."""
        return self._end.exists()

    def write(self, views: Iterable[PosedView | None]) -> None:
        """Write the views of all frames, in order."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for index, view in enumerate(views):
            if view is not None:
                with replacing_file(self._file(index)) as fresh, open(fresh, "wb") as handle:
                    pose, size = view.camera_to_world, np.array(view.picture_size)
                    np.savez(handle, depth=view.depth, pose=pose, k=view.lens.k, size=size)
        self._end.touch()

    def __getitem__(self, index: int) -> PosedView | None:
        if not self._file(index).exists():
            return None
        with np.load(self._file(index)) as stored:
            size = tuple(stored["size"].tolist())
            return PosedView(stored["depth"], stored["pose"], Lens(stored["k"]), size=size)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"
