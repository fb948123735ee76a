"""How likely two fragments are one thing: by their points in space and their masks in time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from geometry_fusion.instances.cloud import Cloud, voxel_keys
from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.tracks import MaskTrack, areas_of, intersections


@dataclass(frozen=True)
class MaskOverlap:
    """How the masks of K tracks overlap in the frames through which both were propagated."""

    shared: np.ndarray  # [K, K] pixels of both, over all frames
    areas: np.ndarray  # [K, K] pixels of the first of two tracks in their common frames
    both_present: np.ndarray  # [K, K] frames in which both have a mask
    start_iou: np.ndarray  # [K, K] IoU of two proposals of one keyframe; NaN for others

    @property
    def iou(self) -> np.ndarray:
        """Of the masks over all common frames; 0 where both are empty there."""
        union = self.areas + self.areas.T - self.shared
        return _ratio(self.shared, union)

    @property
    def contained(self) -> np.ndarray:
        """The share of the smaller one that lies in the other."""
        return _ratio(self.shared, np.minimum(self.areas, self.areas.T))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def mask_overlap(tracks: Sequence[MaskTrack]) -> MaskOverlap:
    """The overlap of all pairs of tracks."""
    count = len(tracks)
    shared, areas = np.zeros((count, count)), np.zeros((count, count))
    both_present = np.zeros((count, count), int)
    start_iou = np.full((count, count), np.nan)
    starts = np.array([track.start for track in tracks], int)
    stops = np.array([track.stop for track in tracks], int)
    for frame in sorted({frame for track in tracks for frame in track.masks}):
        present = np.array([k for k, track in enumerate(tracks) if frame in track.masks])
        masks = [tracks[k].masks[frame] for k in present]
        sizes = areas_of(masks)
        knows = (starts <= frame) & (frame < stops)
        areas[present] += np.where(knows, sizes[:, None], 0)
        common = intersections(masks)
        here = np.ix_(present, present)
        shared[here] += common
        both_present[here] += 1
        begins = np.flatnonzero(starts[present] == frame)
        if len(begins):
            union = sizes[begins][:, None] + sizes[begins] - common[np.ix_(begins, begins)]
            start_iou[np.ix_(present[begins], present[begins])] = (
                common[np.ix_(begins, begins)] / union
            )
    return MaskOverlap(shared, areas, both_present, start_iou)


@dataclass(frozen=True)
class CloudOverlap:
    """How the points of K fragments overlap."""

    iou: np.ndarray  # [K, K]
    contained: np.ndarray  # [K, K] share of the smaller one that lies in the other
    touch: np.ndarray  # [K, K] bool, whether they have a voxel in common


def cloud_overlap(cloud: Cloud, fragments: Sequence[np.ndarray], voxel: float) -> CloudOverlap:
    """The overlap of all pairs of fragments (ids of points)."""
    points = _counts(_members(fragments, np.arange(len(cloud))))
    _, voxel_of = np.unique(voxel_keys(cloud.points, voxel), return_inverse=True)
    voxels = _counts(_members(fragments, voxel_of))
    sizes = np.diag(points)
    union = sizes[:, None] + sizes - points
    contained = _ratio(points, np.minimum(sizes[:, None], sizes))
    return CloudOverlap(_ratio(points, union), contained, voxels > 0)


def _members(fragments: Sequence[np.ndarray], place_of: np.ndarray) -> csr_matrix:
    """[K, P] 1 where a fragment has a point at a place. place_of: [N] of every point."""
    places = [np.unique(place_of[ids]) for ids in fragments]
    rows = np.repeat(np.arange(len(places)), np.array([len(p) for p in places], int))
    columns = np.concatenate([np.zeros(0, int), *places])
    size = (len(places), int(place_of.max(initial=-1)) + 1)
    return csr_matrix((np.ones(len(columns)), (rows, columns)), size)


def _counts(members: csr_matrix) -> np.ndarray:
    return (members @ members.T).toarray()


def affinities(
    space: CloudOverlap, time: MaskOverlap, settings: InstanceSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Affinity [K, K] in 0..1 of all pairs, and whether a pair must stay apart, bool [K, K].

    The affinity is the mean of the overlap in space and in time; where no common frame shows either
    of the two, it is the IoU in space. Fragments without a common voxel have affinity 0.
    """
    in_space = np.maximum(space.iou, settings.contained * space.contained)
    in_time = np.maximum(time.iou, settings.contained * time.contained)
    knows_time = (time.areas + time.areas.T) > 0
    if settings.use_space and settings.use_time:
        affinity = np.where(knows_time, (in_space + in_time) / 2, space.iou)
    elif settings.use_space:
        affinity = in_space
    else:
        affinity = np.where(knows_time, in_time, 0.0)
    affinity = np.where(space.touch, affinity, 0.0)
    apart = np.zeros_like(space.touch)
    if settings.use_apart:
        with np.errstate(invalid="ignore"):
            apart = time.start_iou < settings.apart_iou
        often = time.both_present >= settings.apart_frames
        apart |= often & (time.contained < settings.apart_overlap)
    np.fill_diagonal(apart, False)
    return affinity, apart
