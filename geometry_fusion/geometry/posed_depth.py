"""Geometry from depth maps and camera poses, where the user has them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from geometry_fusion.errors import InputError
from geometry_fusion.fit import fit_to_square
from geometry_fusion.geometry.cameras import back_project, directions_of
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.types import Camera, GeometryFrame


class PosedDepth(GeometrySource):
    """Points and rays from depth and poses. For scene folders, `posed_depth_of` makes one.

    look: frame number -> depth [H, W] in metres (0 = unknown), camera-to-world pose [4, 4] and
    intrinsics K [3, 3] in pixels of the depth map. side: cells per side of the square grid on which
    points are given.
    """

    origin = "Given depth and cameras"

    def __init__(
        self, look: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]], side: int = 64
    ):
        self._look, self._side = look, side
        self.reset()

    def reset(self) -> None:
        """Forget the reference frame: the next frame becomes it."""
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
        """Geometry of one frame; of `image`, only the size is read.

        Raises InputError if the first frame has no depth at all.
        """
        depth, pose, k = self._look(frame_index)
        height, width = depth.shape
        if self._world_to_reference is None:
            self._world_to_reference = np.linalg.inv(pose)
        pose = self._world_to_reference @ pose
        # Centres of the cells of the grid, in pixels of the depth map.
        columns = (np.arange(self._side) + 0.5) * width / self._side - 0.5
        rows = (np.arange(self._side) + 0.5) * height / self._side - 0.5
        u, v = np.meshgrid(columns, rows)
        # The nearest pixel: between an object and its background no depth would be right.
        cell_depth = depth[np.ix_(rows.round().astype(int), columns.round().astype(int))]
        points = back_project(cell_depth, k, pose, u, v)
        directions = directions_of(k, u, v)
        directions /= np.linalg.norm(directions, axis=0)
        rays = np.einsum("ij,jhw->ihw", pose[:3, :3], directions)
        has_depth = cell_depth > 0
        if self._scale is None:
            if not has_depth.any():
                raise InputError(
                    f"frame {frame_index}: the reference frame has no depth; start at another frame"
                )
            self._scale = float(np.median(np.linalg.norm(points, axis=0)[has_depth]))
        tensors = [
            torch.from_numpy(array.astype(np.float32))
            for array in (points, rays, has_depth, np.array(self._scale))
        ]
        camera = Camera(float(k[0, 0]) * image.shape[1] / width, torch.from_numpy(pose).float())
        return GeometryFrame((), *tensors, camera, fit_to_square(image.shape[1::-1], self._side))


def posed_depth_of(scene, frames: Sequence[int] | None = None, side: int = 64) -> PosedDepth:
    """`PosedDepth` of a scene folder (geometry_fusion.data.scenes.Scene).

    frames: the scene's frame number of each video frame; None: the video has all frames.
    """

    def look(index: int):
        scene_index = frames[index] if frames is not None else index
        return scene.depth(scene_index), *scene.camera(scene_index)

    return PosedDepth(look, side)
