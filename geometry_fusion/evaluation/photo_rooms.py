"""Sets of photos of rendered rooms: cameras drawn from free space, by how much they overlap.

A set grows camera by camera. A new one is taken if its largest overlap with those that are there
lies between the bounds of its regime. So no pair overlaps more than the upper bound, and every
photo overlaps at least one other by the lower one: the set is connected.
"""

from pathlib import Path

import numpy as np

from geometry_fusion.data.room_layout import EYE_CLEARANCE_M, Layout, draw_layout
from geometry_fusion.data.room_renderer import Renderer
from geometry_fusion.data.rooms import focal_of, rendered_frame, room_objects
from geometry_fusion.data.scenes import Scene, SceneFrame
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import InputError
from geometry_fusion.photos.overlap import harmonic, points_of
from geometry_fusion.tracking.memories.views import SIDE, View
from geometry_fusion.tracking.place import Cells

# Regime -> bounds of the largest overlap of a photo with any other (harmonic mean of both
# directions, from true depth).
REGIMES = {"dense": (0.6, 0.95), "medium": (0.3, 0.6), "sparse": (0.1, 0.3)}
PHOTO_SIDE = 256  # pixels
POOL, ANYWHERE = 240, 80  # cameras that are drawn; of these independently, the others beside one
BESIDE_M, BESIDE_DEG = 0.5, 15.0  # standard deviations of a camera beside another
HEIGHTS_M = (1.2, 1.8)
LEAST_DEPTH_M = 1.0  # the median of a picture; nearer, it shows little but one surface
TRIES = 20  # cameras from which a set may start


def pose_of(place: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Camera-to-world pose [4, 4] (OpenCV axes) of an upright camera at a place [3], in radians."""
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = place
    return pose


def is_free(layout: Layout, place: np.ndarray) -> bool:
    """Whether a camera can be at a place [3]: clear of walls and objects, at the height of eyes."""
    x, y, z = place
    room = np.array(layout.size[:2]) / 2 - EYE_CLEARANCE_M
    if abs(x) > room[0] or abs(y) > room[1] or not HEIGHTS_M[0] <= z <= HEIGHTS_M[1]:
        return False
    return all(
        np.hypot(x - o.position[0], y - o.position[1]) >= o.radius + EYE_CLEARANCE_M
        for o in layout.objects
    )


def drawn_cameras(
    layout: Layout, rng: np.random.Generator
) -> list[tuple[np.ndarray, float, float]]:
    """`POOL` cameras in free space: place [3], yaw and pitch in radians."""
    cameras: list[tuple[np.ndarray, float, float]] = []
    while len(cameras) < POOL:
        if len(cameras) < ANYWHERE:
            x, y = (rng.uniform(-0.5, 0.5) * side for side in layout.size[:2])
            place = np.array([x, y, rng.uniform(*HEIGHTS_M)])
            yaw, pitch = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(-25, 5))
        else:
            near, yaw, pitch = cameras[int(rng.integers(len(cameras)))]
            place = near + rng.normal(0, BESIDE_M, 3) * (1, 1, 0.3)
            yaw = yaw + np.radians(rng.normal(0, BESIDE_DEG))
            pitch = np.clip(pitch + np.radians(rng.normal(0, 5)), *np.radians((-25, 5)))
        if is_free(layout, place):
            cameras.append((place, float(yaw), float(pitch)))
    return cameras


def true_view(depth: np.ndarray, pose: np.ndarray, focal: float) -> View:
    """What a camera shows, from its depth [SIDE, SIDE] in metres and its focal length in cells."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] + 0.5 - SIDE / 2
    rays = np.stack([columns / focal, rows / focal, np.ones_like(rows)], -1).reshape(-1, 3)
    points = (rays * depth.reshape(-1, 1)) @ pose[:3, :3].T + pose[:3, 3]
    cells = Cells(points, depth.ravel() > 0, SIDE, 1.0)
    return View(cells, (focal, focal), pose)


def overlaps_of(views: list[View]) -> np.ndarray:
    """Overlaps [n, n] of all pairs, 1 with itself."""
    points = [points_of(view, 256) for view in views]
    overlaps = np.eye(len(views))
    for i, one in enumerate(views):
        for j in range(i):
            value = harmonic(views[j].shows(points[i]), one.shows(points[j]))
            overlaps[i, j] = overlaps[j, i] = value
    return overlaps


def chosen_set(
    overlaps: np.ndarray, count: int, bounds: tuple[float, float], rng: np.random.Generator
) -> list[int] | None:
    """`count` cameras within bounds, see the top of this file; None where `TRIES` starts fail."""
    low, high = bounds
    for _ in range(TRIES):
        chosen = [int(rng.integers(len(overlaps)))]
        while len(chosen) < count:
            best = overlaps[:, chosen].max(1)
            offered = np.flatnonzero((best >= low) & (best <= high))
            offered = offered[~np.isin(offered, chosen)]
            if not len(offered):
                break
            chosen.append(int(rng.choice(offered)))
        else:
            return chosen
    return None


class PhotoRoom:
    """The camera sets of one room, kept as scene folders under `root`."""

    def __init__(self, seed: int, root: Path):
        self.seed, self.root = seed, root
        self._pool: tuple[list[np.ndarray], np.ndarray] | None = None

    def scene(self, regime: str, count: int) -> Scene | None:
        """The set of `count` photos, rendered where it is missing; None where there is none."""
        folder = self.root / f"room_{self.seed:06d}_{regime}_{count}"
        if (folder / "none").exists():
            return None
        if not (folder / "scene.json").exists():
            with Renderer(draw_layout(self.seed)) as renderer:
                chosen = self._chosen(regime, count, renderer)
                if chosen is None:
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / "none").touch()
                    return None
                focal = focal_of(draw_layout(self.seed), PHOTO_SIDE, PHOTO_SIDE)
                frames = (
                    rendered_frame(renderer, at, pose, PHOTO_SIDE, PHOTO_SIDE, focal)
                    for at, pose in enumerate(chosen)
                )
                write_scene(folder, frames, room_objects(self.seed))
        return Scene(folder)

    def _chosen(self, regime: str, count: int, renderer: Renderer) -> list[np.ndarray] | None:
        """Poses of a set; None where there is none."""
        if self._pool is None:
            self._pool = self._drawn(renderer)
        poses, overlaps = self._pool
        rng = np.random.default_rng([self.seed, list(REGIMES).index(regime), count])
        chosen = chosen_set(overlaps, count, REGIMES[regime], rng)
        return None if chosen is None else [poses[i] for i in chosen]

    def _drawn(self, renderer: Renderer) -> tuple[list[np.ndarray], np.ndarray]:
        """Poses of the cameras that see more than one near surface, and their overlaps."""
        layout = draw_layout(self.seed)
        focal = focal_of(layout, SIDE, SIDE)
        poses, views = [], []
        for camera in drawn_cameras(layout, np.random.default_rng([self.seed, 7])):
            pose = pose_of(*camera)
            frame: SceneFrame = rendered_frame(renderer, 0, pose, SIDE, SIDE, focal)
            if np.median(frame.depth) >= LEAST_DEPTH_M:
                poses.append(pose)
                views.append(true_view(frame.depth, pose, focal))
        return poses, overlaps_of(views)


def best_overlaps(overlaps: np.ndarray) -> np.ndarray:
    """Of each photo the largest overlap with another, [n]."""
    return (overlaps - 2 * np.eye(len(overlaps))).max(1)


def clip_scene(rooms: Path, seed: int) -> Scene:
    """The room's clip, rendered before. Raises InputError where it is missing."""
    folder = rooms / f"room_{seed:06d}"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: missing; render it: python -m geometry_fusion.data.rooms "
            f"--seeds {seed}:{seed + 1} --out {rooms}"
        )
    return Scene(folder)
