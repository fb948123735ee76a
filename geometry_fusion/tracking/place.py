"""The place of an object: the 3D points that its masks showed, and where a frame shows them again.

All of it runs on a square grid of cells that covers the whole frame, as SAM2's masks do, with
points in the coordinates of the geometry source. Cells lie row by row: [side * side].
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.spatial import cKDTree

from geometry_fusion.types import GeometryFrame, Tolerance

OUTLIER = 3.0  # points farther from the median point than this many median distances are dropped
REACH = 1.5  # tolerances; distances beyond it are not computed
CORE = 0.5  # tolerances
VOXEL = 0.25  # of a tolerance: one point of a place in each voxel
MOST_POINTS = 2000
FEWEST_CELLS = 6  # a mask that has fewer cells after erosion is not eroded


@dataclass(frozen=True)
class Cells:
    """The points of one frame on the grid."""

    points: np.ndarray  # [N, 3] float32
    known: np.ndarray  # [N] bool: where the source knows the point
    side: int  # N = side * side
    scale: float  # of the scene
    carried: bool = False  # from an earlier frame, by optical flow


def cells_of(geometry: GeometryFrame, side: int) -> Cells:
    """The geometry of a frame at the centres of side x side cells, from the nearest pixel.

    Unknown are cells without confidence, without finite points, and those that the source cropped
    away.
    """
    _, height, width = geometry.points.shape
    rows = np.floor(geometry.fit.seen_at(1, side) * height).astype(int)
    columns = np.floor(geometry.fit.seen_at(0, side) * width).astype(int)
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    read = np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))
    points = geometry.points.float().cpu().numpy()[:, *read].reshape(3, -1).T
    confidence = geometry.confidence.float().cpu().numpy()[read]
    known = (inside & (confidence > 0)).ravel() & np.isfinite(points).all(1)
    points = np.where(known[:, None], points, 0)
    return Cells(points, known, side, float(geometry.scale), geometry.carried)


@dataclass(frozen=True)
class Sight:
    """What a frame shows of a place, cell by cell."""

    distance: np.ndarray  # [N] to the place, in tolerances; inf beyond REACH and where unknown
    known: np.ndarray  # [N] bool
    seen: float  # share of the place's points that have a near cell

    @property
    def near(self) -> np.ndarray:
        """Cells within the tolerance [N] bool."""
        return self.distance < 1

    @property
    def core(self) -> np.ndarray:
        """Cells well within it [N] bool."""
        return self.distance < CORE

    def precision(self, masks: np.ndarray) -> np.ndarray:
        """Share of each mask's known cells that are near, [..., N] -> [...]; 0 without any."""
        known = (masks & self.known).sum(-1)
        return (masks & self.near).sum(-1) / np.maximum(known, 1)

    def recall(self, masks: np.ndarray) -> np.ndarray:
        """Share of the core that each mask covers; 0 without a core. [..., N] -> [...]"""
        return (masks & self.core).sum(-1) / max(self.core.sum(), 1)


@dataclass(frozen=True)
class GrowthRule:
    """The bounds of a place's growth, in radii of its object."""

    step: float  # most that one frame may move its median point
    whole: float  # most that all frames together may
    reach: float  # most that a point may lie from the median of the prompted points


@dataclass
class Place:
    """The points of one object: those of its prompts, by frame, and those it grew by."""

    tolerance_rule: Tolerance
    prompted: dict[int, np.ndarray] = field(default_factory=dict)  # frame -> [K, 3] float32
    grown: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    scale: float = 1.0  # of the scene

    def __post_init__(self):
        self._update()

    @property
    def exists(self) -> bool:
        """Whether any point is known."""
        return self._tree is not None

    def put_prompt(self, frame: int, points: np.ndarray, scale: float) -> None:
        """Add the points [K, 3] of a prompted mask, in place of earlier ones of that frame."""
        self.prompted[frame] = points
        self.scale = scale
        self._update()

    def drop_prompt(self, frame: int) -> None:
        """A prompt is given anew: forget its points, and all that was learnt after prompts."""
        self.prompted.pop(frame, None)
        self.grown = self.grown[:0]
        self._update()

    def sight(self, cells: Cells) -> Sight:
        """Where a frame shows this place."""
        distance = np.full(len(cells.points), np.inf, np.float32)
        reach = REACH * self.tolerance
        low, high = self.points.min(0) - reach, self.points.max(0) + reach
        close = cells.known & (cells.points >= low).all(1) & (cells.points <= high).all(1)
        if not close.any():
            return Sight(distance, cells.known, 0.0)
        measured, _ = self._tree.query(cells.points[close], distance_upper_bound=reach)
        distance[close] = measured / self.tolerance
        near = cells.points[distance < 1]
        if not len(near):
            return Sight(distance, cells.known, 0.0)
        to_near, _ = cKDTree(near).query(self.points, distance_upper_bound=self.tolerance)
        return Sight(distance, cells.known, float(np.isfinite(to_near).mean()))

    def grow(self, mask: np.ndarray, cells: Cells, sight: Sight, rule: GrowthRule) -> bool:
        """Add the points of a mask [N] bool that lie within reach; returns whether any was added.

        Growth has bounds (`GrowthRule`), because where the geometry drifts, or a mask is that of a
        neighbour, a place would slide away from its object.
        """
        inner = eroded(mask, cells.side) & np.isfinite(sight.distance)
        points = cells.points[inner & (sight.distance > VOXEL)]
        away = np.linalg.norm(points - self._start, axis=1)
        points = points[away <= rule.reach * self.radius]
        if not len(points) or len(self.points) >= MOST_POINTS:
            return False
        earlier = self.grown
        middle = np.median(self.points, 0)
        self.grown = thinned(np.concatenate([earlier, points]), VOXEL * self.tolerance)
        self._update()
        now = np.median(self.points, 0)
        step, whole = np.linalg.norm(now - middle), np.linalg.norm(now - self._first_middle)
        if step > rule.step * self.radius or whole > rule.whole * self.radius:
            self.grown = earlier
            self._update()
            return False
        return True

    def _update(self) -> None:
        """Compute what follows from the points. Growth leaves radius and tolerance as they are."""
        self._tree = None
        self.points = self.grown[:0]
        if not any(map(len, self.prompted.values())):
            return
        prompted = np.concatenate(list(self.prompted.values()))
        self._start = np.median(prompted, 0)
        self.radius = float(np.median(np.linalg.norm(prompted - self._start, axis=1)))
        self.tolerance = max(self.tolerance_rule.of(self.radius, self.scale), 1e-9)
        voxel = VOXEL * self.tolerance
        self._first_middle = np.median(thinned(prompted, voxel), 0)
        every = np.concatenate([prompted, self.grown])
        self.points = thinned(every, voxel)[:MOST_POINTS]
        self._tree = cKDTree(self.points)


def lifted(mask: np.ndarray, cells: Cells) -> np.ndarray:
    """Points [K, 3] of a prompted mask [N] bool: eroded, known, without outliers."""
    points = cells.points[eroded(mask, cells.side) & cells.known]
    if len(points) < FEWEST_CELLS:
        points = cells.points[mask & cells.known]
    if not len(points):
        return points
    distances = np.linalg.norm(points - np.median(points, 0), axis=1)
    return points[distances <= OUTLIER * np.median(distances)]


def eroded(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask [N] bool without its outermost cells, whose points are often those of the background;
    the mask itself where hardly anything would remain.
    """
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    cells = mask.reshape(side, side).astype(np.uint8)
    inner = cv2.erode(cells, cross).ravel() > 0  # the image's edge is no edge of the mask
    return inner if inner.sum() >= FEWEST_CELLS else mask


def thinned(points: np.ndarray, voxel: float) -> np.ndarray:
    """The first of the points [K, 3] in every voxel of that size, in their order."""
    cells = np.floor(points / voxel).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    return points[np.sort(first)]


def spread(cells: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
    """`count` of the cells [K, 2], beginning with `first` [2]: each the farthest from those before.

    Cells repeat where there are fewer.
    """
    chosen = [first]
    nearest = np.linalg.norm(cells - first, axis=1)
    while len(chosen) < count:
        chosen.append(cells[nearest.argmax()])
        nearest = np.minimum(nearest, np.linalg.norm(cells - chosen[-1], axis=1))
    return np.stack(chosen)
