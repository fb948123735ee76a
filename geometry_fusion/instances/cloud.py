"""The cloud of a scene: points fused from depth maps, with normals and colours.

A point stands for a voxel: it is the mean of what was seen in it. Points are ordered by voxel, so
that the same views give the same cloud.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from geometry_fusion.errors import InputError
from geometry_fusion.geometry.posed_depth import PosedView

VIEW_CELLS = 40  # per side of a view, from which the size of a scene is estimated
KEY_BITS = 21  # per axis of a voxel's key; voxels lie within +-2**20 of the origin


@dataclass(frozen=True)
class Cloud:
    """N points of a scene."""

    points: np.ndarray  # [N, 3] float64, in the unit of the geometry
    normals: np.ndarray  # [N, 3] unit length, towards the cameras that saw the point
    colours: np.ndarray  # [N, 3] uint8 RGB
    labels: np.ndarray | None = None  # [N] int, what most pixels in the voxel show; 0 = nothing

    def __len__(self) -> int:
        return len(self.points)


class VoxelSums:
    """Sums of values by voxel, added view by view."""

    def __init__(self):
        self._keys = np.zeros(0, np.int64)
        self._sums: np.ndarray | None = None

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add values [M, C] to the voxels with keys [M]."""
        if self._sums is not None:
            keys = np.concatenate([self._keys, keys])
            values = np.concatenate([self._sums, values])
        self._keys, voxel_of = np.unique(keys, return_inverse=True)
        columns = [np.bincount(voxel_of, column, len(self._keys)) for column in values.T]
        self._sums = np.stack(columns, axis=1)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys [N], ascending, and sums [N, C]."""
        return self._keys, self._sums if self._sums is not None else np.zeros((0, 0))


class LabelVotes:
    """How often each label was seen in each voxel."""

    def __init__(self):
        self._sums: dict[int, VoxelSums] = {}  # by label

    def add(self, keys: np.ndarray, labels: np.ndarray) -> None:
        """Count labels [M] int in the voxels with keys [M]."""
        for label in np.unique(labels).tolist():
            here = keys[labels == label]
            self._sums.setdefault(label, VoxelSums()).add(here, np.ones((len(here), 1)))

    def majority(self, keys: np.ndarray) -> np.ndarray:
        """The most frequent label of every voxel in `keys`, ascending; of equals the lowest."""
        winner, most = np.zeros(len(keys), int), np.zeros(len(keys))
        for label in sorted(self._sums):
            voxels, counts = self._sums[label].result()
            place = np.searchsorted(keys, voxels)
            is_more = counts[:, 0] > most[place]
            winner[place[is_more]], most[place[is_more]] = label, counts[is_more, 0]
        return winner


def voxel_keys(points: np.ndarray, size: float) -> np.ndarray:
    """One int64 [N] for the voxel of each point [N, 3]."""
    half = 1 << (KEY_BITS - 1)
    x, y, z = np.clip(np.floor(points / size).astype(np.int64) + half, 0, 2 * half - 1).T
    return (x << 2 * KEY_BITS) | (y << KEY_BITS) | z


def world_points(view: PosedView, step: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World points [M, 3] of the pixels with depth and confidence, with rows and columns [M] of
    the depth map. step: of every n-th row and column only.
    """
    rows, columns = np.mgrid[0 : view.depth.shape[0] : step, 0 : view.depth.shape[1] : step]
    known = view.sureness()[rows, columns] > 0
    rows, columns = rows[known], columns[known]
    directions = view.lens.directions(columns.astype(float), rows.astype(float))
    seen = np.isfinite(directions).all(0)
    rows, columns, directions = rows[seen], columns[seen], directions[:, seen]
    pose = view.camera_to_world
    points = (pose[:3, :3] @ (directions * view.depth[rows, columns])).T + pose[:3, 3]
    return points, rows, columns


def scene_diameter(views: Iterable[PosedView | None]) -> float:
    """The diagonal of the box that holds the middle 98% of the seen points, per axis.

    Raises InputError where no view has depth.
    """
    sampled = []
    for view in views:
        if view is not None:
            sampled.append(world_points(view, max(1, max(view.depth.shape) // VIEW_CELLS))[0])
    points = np.concatenate(sampled) if sampled else np.zeros((0, 3))
    if not len(points):
        raise InputError("geometry: no frame has depth; give other geometry")
    low, high = np.percentile(points, [1, 99], axis=0)
    return float(np.linalg.norm(high - low))


def fuse(
    frames: Iterable[int],
    view_of: Callable[[int], PosedView | None],
    image_of: Callable[[int], np.ndarray],
    voxel: float,
    neighbours: int = 16,
    labels_of: Callable[[int], np.ndarray] | None = None,
) -> Cloud:
    """The cloud of the frames' depth maps.

    image_of: RGB uint8 [H, W, 3] of a frame. labels_of: ids [h, w] of a depth map's pixels, 0 for
    nothing, whose majority becomes the label of a voxel (the lowest id of equally frequent ones).
    Raises InputError where no frame has depth.
    """
    sums, votes = VoxelSums(), LabelVotes()
    for frame in frames:
        view = view_of(frame)
        if view is None:
            continue
        points, rows, columns = world_points(view)
        if not len(points):
            continue
        keys = voxel_keys(points, voxel)
        towards = view.camera_to_world[:3, 3] - points
        towards /= np.linalg.norm(towards, axis=1, keepdims=True)
        image = image_of(frame)
        colours = image[picture_pixels(view, image.shape, rows, columns)]
        counted = np.ones((len(points), 1))
        sums.add(keys, np.concatenate([points, towards, colours, counted], axis=1))
        if labels_of is not None:
            votes.add(keys, np.maximum(labels_of(frame)[rows, columns], 0))
    keys, totals = sums.result()
    if not len(keys):
        raise InputError("geometry: no frame has depth; give other geometry")
    means = totals / totals[:, -1:]
    cloud = Cloud(means[:, :3], np.zeros_like(means[:, :3]), means[:, 6:9].round().astype(np.uint8))
    cloud = replace(cloud, normals=normals_of(cloud.points, means[:, 3:6], neighbours))
    return cloud if labels_of is None else replace(cloud, labels=votes.majority(keys))


def picture_pixels(
    view: PosedView, shape: tuple[int, ...], rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in the picture, of `shape` (height, width, ...), of pixels of a view's
    depth map: the nearest pixel, since both cover the same area.
    """
    height, width = view.depth.shape
    picture_rows = np.floor((rows + 0.5) * shape[0] / height).astype(int)
    picture_columns = np.floor((columns + 0.5) * shape[1] / width).astype(int)
    return np.clip(picture_rows, 0, shape[0] - 1), np.clip(picture_columns, 0, shape[1] - 1)


def normals_of(points: np.ndarray, towards: np.ndarray, neighbours: int) -> np.ndarray:
    """Normals [N, 3]: the direction of least variance of the nearest points, turned `towards`
    [N, 3], the side from which a point was seen.
    """
    _, near = cKDTree(points).query(points, min(neighbours, len(points)))
    near = near.reshape(len(points), -1)
    normals = np.empty_like(points)
    for part in np.array_split(np.arange(len(points)), max(1, len(points) // 50_000)):
        around = points[near[part]]
        around = around - around.mean(1, keepdims=True)
        _, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
        normals[part] = axes[:, :, 0]
    away = np.einsum("ni,ni->n", normals, towards) < 0
    normals[away] *= -1
    return normals
