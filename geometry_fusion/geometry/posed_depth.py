"""Geometry from depth maps and camera poses, where the user has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geometry_fusion.fit import fit_to_square
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.types import Camera, GeometryFrame


@dataclass(frozen=True)
class PosedView:
    """What is known of one frame. Its depth map covers the whole frame, at any resolution."""

    depth: np.ndarray  # [h, w] along z, in the unit of the pose; 0 = unknown
    camera_to_world: np.ndarray  # [4, 4]
    lens: Lens  # for pixels of the depth map
    # [h, w] in 0..1; None: 1 wherever there is depth. Where depth is 0 it does not count.
    confidence: np.ndarray | None = None
    # (width, height) of the picture that the map covers, where the map has another shape.
    size: tuple[int, int] | None = None

    @property
    def picture_size(self) -> tuple[int, int]:
        """(width, height) of the picture, as far as its shape is known."""
        return self.size or self.depth.shape[::-1]

    def sureness(self) -> np.ndarray:
        """[h, w] in 0..1, 0 wherever the depth is unknown."""
        has_depth = self.depth > 0
        return has_depth.astype(float) if self.confidence is None else self.confidence * has_depth


class PosedDepth(GeometrySource):
    """Points and rays from depth and poses. For scene folders, `posed_depth_of` makes one.

    look: frame number -> what is known of it, or None for nothing. side: cells per side of the
    square grid on which points are given. The reference is the first frame with a pose and depth;
    what comes before it is unknown, with confidence 0 everywhere.
    """

    origin = "Given depth and cameras"

    def __init__(self, look: Callable[[int], PosedView | None], side: int = 64):
        self._look, self._side = look, side
        self.reset()

    def reset(self) -> None:
        """Forget the reference frame: the next frame with depth becomes it."""
        self._world_to_reference: np.ndarray | None = None  # [4, 4]
        self._scale: float | None = None

    def trim(self, renders: bool = False) -> None:
        """Nothing to drop: no frame is kept."""

    def snapshot(self) -> dict:
        """Pose and scale of the reference frame."""
        reference = self._world_to_reference
        return {
            "reference": None if reference is None else torch.from_numpy(reference),
            "scale": self._scale,
        }

    def restore(self, snapshot: dict) -> None:
        """Continue from the reference frame of a `snapshot`."""
        reference = snapshot["reference"]
        self._world_to_reference = None if reference is None else reference.numpy()
        self._scale = snapshot["scale"]

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of one frame; of `image`, only the size is read."""
        size = image.shape[1::-1]
        view = self._look(frame_index)
        if view is None:
            return self._unknown(size)
        height, width = view.depth.shape
        # Centres of the cells of the grid, in pixels of the depth map.
        columns = (np.arange(self._side) + 0.5) * width / self._side - 0.5
        rows = (np.arange(self._side) + 0.5) * height / self._side - 0.5
        u, v = np.meshgrid(columns, rows)
        # The nearest pixel: between an object and its background no depth would be right.
        near = np.ix_(rows.round().astype(int), columns.round().astype(int))
        depth, sureness = view.depth[near], view.sureness()[near]
        directions = view.lens.directions(u, v)
        seen = np.isfinite(directions).all(0)
        directions = np.where(seen, directions, [[[0.0]], [[0.0]], [[1.0]]])
        sureness = sureness * seen
        if self._scale is None:
            if not sureness.any():
                return self._unknown(size)
            self._world_to_reference = np.linalg.inv(view.camera_to_world)
        pose = self._world_to_reference @ view.camera_to_world
        points = np.einsum("ij,jhw->ihw", pose[:3, :3], directions * depth) + pose[:3, 3:, None]
        if self._scale is None:
            self._scale = float(np.median(np.linalg.norm(points, axis=0)[sureness > 0]))
        directions = directions / np.linalg.norm(directions, axis=0)
        rays = np.einsum("ij,jhw->ihw", pose[:3, :3], directions)
        tensors = [
            torch.from_numpy(array.astype(np.float32))
            for array in (points, rays, sureness, np.array(self._scale))
        ]
        focal = float(view.lens.k[0, 0]) * size[0] / width
        camera = Camera(focal, torch.from_numpy(pose).float())
        return GeometryFrame((), *tensors, camera, fit_to_square(size, self._side))

    def _unknown(self, size: tuple[int, int]) -> GeometryFrame:
        """The answer for a frame of which nothing is known."""
        empty = torch.zeros(3, self._side, self._side)
        scale = torch.tensor(1.0 if self._scale is None else self._scale)
        fit = fit_to_square(size, self._side)
        return GeometryFrame((), empty, empty, empty[0], scale, None, fit)


def posed_depth_of(scene, frames: Sequence[int] | None = None, side: int = 64) -> PosedDepth:
    """`PosedDepth` of a scene folder (geometry_fusion.data.scenes.Scene).

    frames: the scene's frame number of each video frame; None: the video has all frames.
    """

    def look(index: int) -> PosedView:
        scene_index = frames[index] if frames is not None else index
        pose, k = scene.camera(scene_index)
        return PosedView(scene.depth(scene_index), pose, Lens(k))

    return PosedDepth(look, side)
