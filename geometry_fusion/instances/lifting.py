"""Lifting: which points of the cloud lie in the masks of a track.

Votes are cast on the cloud's points, not on back-projected pixels, so that near frames do not count
more. Two measures keep wrong outlines and wrong depth out (3AM, arXiv 2601.08831, section 4.2):
masks are eroded, and a point counts by how well its depth agrees with the frame's.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from geometry_fusion.geometry.cameras import IN_FRONT_M
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.instances.cloud import Cloud, picture_pixels
from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.tracks import MaskTrack, decoded


@dataclass(frozen=True)
class Sight:
    """The points of a cloud that one frame shows."""

    ids: np.ndarray  # [V] of the cloud's points
    weights: np.ndarray  # [V] float64 in 0..1, how well the depth agrees
    rows: np.ndarray  # [V] of the depth map
    columns: np.ndarray  # [V]


@dataclass(frozen=True)
class Lifted:
    """The weight of every track on every point, for tracks in the order of their list."""

    points: list[np.ndarray]  # per track, ids of the points that its masks cover, ascending
    inside: list[np.ndarray]  # per track, their weight inside masks
    seen: list[np.ndarray]  # per track, their weight in all frames through which it was propagated
    most_seen: np.ndarray  # [N], the largest `seen` of any track
    agreement: np.ndarray  # per track, the mean weight of what its masks cover, 0..1
    ignored: list[tuple[int, int]]  # (place of the track, frame) whose depth does not agree


def sight_of(cloud: Cloud, view: PosedView, settings: InstanceSettings) -> Sight:
    """The points that a view shows: the depth map agrees, and the surface faces the camera."""
    centre = view.camera_to_world[:3, 3]
    to_point = cloud.points - centre
    camera_points = to_point @ view.camera_to_world[:3, :3]
    height, width = view.depth.shape
    ahead = np.flatnonzero(camera_points[:, 2] > IN_FRONT_M)
    u, v, z = view.lens.pixels(camera_points[ahead].T)
    columns, rows = np.rint(u), np.rint(v)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    ids, z = ahead[inside], z[inside]
    columns, rows = columns[inside].astype(int), rows[inside].astype(int)
    depth = np.where(view.sureness() > 0, view.depth, 0)[rows, columns].astype(float)
    off = z - depth
    distance = np.linalg.norm(to_point[ids], axis=1)
    towards = -np.einsum("ni,ni->n", cloud.normals[ids], to_point[ids]) / distance
    tolerance = np.maximum(settings.tolerance, settings.relative_tolerance * z)
    visible = (depth > 0) & (np.abs(off) <= tolerance) & (towards > settings.facing)
    weights = np.ones(visible.sum())
    if settings.relative_sigma:
        sigma = settings.relative_sigma * z[visible]
        weights = np.exp(-np.square(off[visible] / sigma) / 2)
    return Sight(ids[visible], weights, rows[visible], columns[visible])


def eroded(mask: np.ndarray, share: float) -> np.ndarray:
    """A mask [H, W] without a rim of `share` times the root of its area, at least one pixel; 0
    changes nothing. The border of the image is no rim.
    """
    if not share:
        return mask
    radius = max(1, round(share * np.sqrt(mask.sum())))
    offset = np.arange(-radius, radius + 1)
    disc = (offset**2 + offset[:, None] ** 2 <= radius**2).astype(np.uint8)
    return cv2.erode(mask.astype(np.uint8), disc).astype(bool)


class _Totals:
    """The weight with which points were seen, up to every frame at which a track begins or ends."""

    def __init__(self, num_points: int, boundaries: Iterable[int]):
        self._now = np.zeros(num_points)
        self._waiting = sorted(set(boundaries), reverse=True)
        self._before: dict[int, np.ndarray] = {}

    def reach(self, frame: int) -> None:
        """Note the totals of all boundaries up to `frame`, which is added next."""
        while self._waiting and self._waiting[-1] <= frame:
            self._before[self._waiting.pop()] = self._now.copy()

    def add(self, sight: Sight) -> None:
        self._now[sight.ids] += sight.weights

    def between(self, start: int, stop: int) -> np.ndarray:
        """[N] for the frames `start` <= t < `stop`, after all frames were added."""
        return self._before.get(stop, self._now) - self._before.get(start, self._now)


def lift(
    cloud: Cloud,
    tracks: Sequence[MaskTrack],
    frames: Iterable[int],
    view_of: Callable[[int], PosedView | None],
    settings: InstanceSettings,
) -> Lifted:
    """Weights of tracks on points, from frames in ascending order; every `lift_every`-th counts."""
    totals = _Totals(len(cloud), [edge for track in tracks for edge in (track.start, track.stop)])
    covered: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in tracks]
    not_counted: list[list[Sight]] = [[] for _ in tracks]
    ignored = []
    for frame in frames:
        view = view_of(frame) if frame % settings.lift_every == 0 else None
        if view is None:
            continue
        sight = sight_of(cloud, view, settings)
        totals.reach(frame)
        totals.add(sight)
        for place, track in enumerate(tracks):
            if not track.was_propagated(frame) or frame not in track.masks:
                continue
            inside = _inside(track, frame, view, sight, settings)
            weights = sight.weights[inside]
            if len(weights) and weights.mean() < settings.least_agreement:
                ignored.append((place, frame))
                not_counted[place].append(sight)
            elif len(weights):
                covered[place].append((sight.ids[inside], weights))
    return _summed(tracks, covered, not_counted, totals, ignored)


def _inside(
    track: MaskTrack, frame: int, view: PosedView, sight: Sight, settings: InstanceSettings
) -> np.ndarray:
    """Which points of a sight lie in the eroded mask of a track, bool [V]."""
    mask = eroded(decoded(track.masks[frame]), settings.erosion)
    return mask[picture_pixels(view, mask.shape, sight.rows, sight.columns)]


def _summed(
    tracks: Sequence[MaskTrack],
    covered: list[list[tuple[np.ndarray, np.ndarray]]],
    not_counted: list[list[Sight]],
    totals: _Totals,
    ignored: list[tuple[int, int]],
) -> Lifted:
    points, inside, seen, agreement = [], [], [], []
    most_seen = np.zeros(len(totals._now))
    for place, track in enumerate(tracks):
        of_track = totals.between(track.start, track.stop)
        for sight in not_counted[place]:
            of_track[sight.ids] -= sight.weights
        most_seen = np.maximum(most_seen, of_track)
        hits = [np.zeros(0, int), *(ids for ids, _ in covered[place])]
        weights = np.concatenate([np.zeros(0), *(w for _, w in covered[place])])
        ids, place_of = np.unique(np.concatenate(hits), return_inverse=True)
        points.append(ids)
        inside.append(np.bincount(place_of, weights, len(ids)))
        seen.append(of_track[ids])
        agreement.append(weights.mean() if len(weights) else 0.0)
    return Lifted(points, inside, seen, most_seen, np.array(agreement), ignored)
