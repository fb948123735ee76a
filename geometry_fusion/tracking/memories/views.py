"""The geometry of one frame as memory strategies use it: points, a camera, visibility."""

from dataclasses import dataclass

import numpy as np

from geometry_fusion.tracking.place import Cells, cells_of
from geometry_fusion.types import GeometryFrame

SIDE = 64  # cells per side
LEAST_CONFIDENCE = 1 / 3  # median; MUSt3R's own value 1.5, as for keyframes (geometry/overlap.py)
SAME_DEPTH = 0.1  # share of the depth within which a point counts as the surface that is seen


@dataclass(frozen=True)
class View:
    """What one frame shows, on a grid of cells that covers it, row by row."""

    cells: Cells
    focal: tuple[float, float]  # x, y in cells
    camera_to_world: np.ndarray  # [4, 4]

    def points_of(self, mask: np.ndarray, at_most: int) -> np.ndarray:
        """World points [N, 3] of the known cells of a mask [h, w] bool, evenly thinned."""
        chosen = np.flatnonzero(on_cells(mask, self.cells.side) & self.cells.known)
        if len(chosen) > at_most:
            chosen = chosen[np.linspace(0, len(chosen) - 1, at_most).astype(int)]
        return self.cells.points[chosen]

    def shows(self, points: np.ndarray) -> float:
        """The share of world points [N, 3] that this frame shows: inside the image, in front of the
        camera, and at the depth of the surface there.
        """
        if not len(points):
            return 0.0
        index, depth, inside = self._cells_of(points)
        rotation, centre = self.camera_to_world[:3, :3], self.camera_to_world[:3, 3]
        surface = ((self.cells.points[index] - centre) @ rotation)[:, 2]
        same = np.abs(surface - depth) <= SAME_DEPTH * depth
        return float((inside & self.cells.known[index] & same).mean())

    def frames(self, points: np.ndarray) -> float:
        """The share of world points [N, 3] inside the image and in front of the camera, hidden or
        not.
        """
        return float(self._cells_of(points)[2].mean()) if len(points) else 0.0

    def _cells_of(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of world points [N, 3]: cell, depth, and whether they lie inside the image; each [N]."""
        side = self.cells.side
        rotation, centre = self.camera_to_world[:3, :3], self.camera_to_world[:3, 3]
        x, y, depth = ((points - centre) @ rotation).T
        front = depth > 0
        divisor = np.where(front, depth, 1)
        columns = np.floor(x / divisor * self.focal[0] + side / 2)
        rows = np.floor(y / divisor * self.focal[1] + side / 2)
        inside = front & (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
        index = (np.where(inside, rows, 0) * side + np.where(inside, columns, 0)).astype(int)
        return index, depth, inside


def view_of(geometry: GeometryFrame | None) -> View | None:
    """The view of a frame; None where its geometry cannot be used: no camera, or a median
    confidence under that of keyframes.
    """
    if geometry is None or geometry.camera is None:
        return None
    if float(geometry.confidence.median()) <= LEAST_CONFIDENCE:
        return None
    return with_camera(geometry)


def with_camera(geometry: GeometryFrame) -> View:
    """The view of a frame with a camera, whatever its confidence."""
    focal, (width, height) = geometry.camera.focal, geometry.fit.original
    scaled = (focal / width * SIDE, focal / height * SIDE)
    pose = geometry.camera.camera_to_world.double().cpu().numpy()
    return View(cells_of(geometry, SIDE), scaled, pose)


def on_cells(mask: np.ndarray, side: int) -> np.ndarray:
    """A square mask [h, w] bool -> [side * side] bool, where at least half of a cell is inside.

    The mask's side is a multiple of `side`, or divides it.
    """
    height = len(mask)
    if height < side:
        mask = mask.repeat(side // height, 0).repeat(side // height, 1)
    elif height > side:
        factor = height // side
        mask = mask.reshape(side, factor, side, factor).mean((1, 3)) >= 0.5
    return mask.ravel()
