"""Views for lifting: depth and camera of frames, from MUSt3R or from files."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from geometry_fusion.geometry.cameras import intrinsic_matrix
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.instances.settings import InstanceSettings
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
    known = np.isfinite(z) & (z > 0)
    left, top = fit.crop
    height, width = z.shape
    crop = slice(top, top + height), slice(left, left + width)
    depth, sure = np.zeros((2, *fit.resized[::-1]), np.float32)
    depth[crop] = np.where(known, z, 0)
    sure[crop] = np.where(known, geometry.confidence.cpu().numpy(), 0)
    fx, fy = (geometry.camera.focal * scale for scale in fit.scale)
    # MUSt3R's rays: the principal point of a crop is its corner plus half its size.
    k = intrinsic_matrix(fx, fy, left + width / 2, top + height / 2)
    return PosedView(depth, pose, Lens(k), sure, size=fit.original)


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


def cleaned(view: PosedView | None, settings: InstanceSettings) -> PosedView | None:
    """A view in which pixels with little confidence, and those at steps in depth, are unknown.

    At the outline of a thing, learned depth lies between the thing and what is behind it: points
    there fly along the ray. A step is a pixel whose neighbours' depths, 3x3 of them, differ by more
    than `depth_step` of the least of them.
    """
    if view is None or not (settings.least_confidence or settings.depth_step):
        return view
    sure = view.sureness()
    sure = np.where(sure >= settings.least_confidence, sure, 0)
    if settings.depth_step:
        depth = view.depth.astype(np.float32)
        around = np.ones((3, 3), np.uint8)
        least, most = cv2.erode(depth, around), cv2.dilate(depth, around)
        sure = np.where(most - least > settings.depth_step * least, 0, sure)
    return replace(view, confidence=sure)


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
                    np.savez(
                        handle,
                        depth=view.depth,
                        confidence=view.sureness().astype(np.float32),
                        pose=pose,
                        k=view.lens.k,
                        size=size,
                    )
        self._end.touch()

    def __getitem__(self, index: int) -> PosedView | None:
        if not self._file(index).exists():
            return None
        with np.load(self._file(index)) as stored:
            size = tuple(stored["size"].tolist())
            depth, sure = stored["depth"], stored["confidence"]
            return PosedView(depth, stored["pose"], Lens(stored["k"]), sure, size)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"
