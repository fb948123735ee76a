"""From mask tracks to instances: lifting, fragments, merging and votes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.instances.affinity import affinities, cloud_overlap, mask_overlap
from geometry_fusion.instances.cloud import Cloud
from geometry_fusion.instances.fragments import fragments_of
from geometry_fusion.instances.lifting import Lifted, lift
from geometry_fusion.instances.merging import agglomerate
from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.superpoints import superpoints_of
from geometry_fusion.instances.tracks import MaskTrack
from geometry_fusion.instances.votes import owners


@dataclass(frozen=True)
class Instance:
    """One thing in a cloud."""

    points: np.ndarray  # ids of its points, ascending; no other instance has them
    confidence: float  # 0..1
    tracks: tuple[int, ...]  # ids of its mask tracks, ascending


def solve(
    cloud: Cloud,
    tracks: Sequence[MaskTrack],
    frames: Iterable[int],
    view_of: Callable[[int], PosedView | None],
    settings: InstanceSettings,
    superpoints: np.ndarray | None = None,
) -> list[Instance]:
    """The instances of a scene, the surest first; of equally sure ones, the one with the first
    point.

    frames: of the video, ascending. superpoints: [N] int that a scan ships, in place of computed
    ones. The order and the ids of tracks change nothing but the ids in the result.
    """
    lifted = lift(cloud, tracks, frames, view_of, settings)
    fragments = fragments_of(cloud, lifted, settings)
    kept = _in_order(tracks, fragments)
    chosen = [tracks[k] for k in kept]
    space = cloud_overlap(cloud, [fragments[k] for k in kept], settings.part_voxel)
    affinity, apart = affinities(space, mask_overlap(chosen), settings)
    groups = agglomerate(affinity, apart, settings.merge_at)
    members = [[kept[place] for place in group] for group in groups]
    if superpoints is None:
        superpoints = superpoints_of(cloud, settings)
    owner = owners(superpoints, members, lifted, settings.vote_share)
    instances = []
    for number, places in enumerate(members):
        points = np.flatnonzero(owner == number)
        if len(points):
            ids = tuple(sorted(tracks[place].id for place in places))
            instances.append(Instance(points, _confidence(tracks, lifted, places), ids))
    return sorted(instances, key=lambda instance: (-instance.confidence, instance.points[0]))


def _in_order(tracks: Sequence[MaskTrack], fragments: Sequence[np.ndarray]) -> list[int]:
    """Places of the tracks with a fragment, by what they are and not by their ids."""
    kept = [place for place, ids in enumerate(fragments) if len(ids)]
    return sorted(kept, key=lambda k: (tracks[k].start, tracks[k].stop, *_signature(tracks[k])))


def _signature(track: MaskTrack) -> tuple:
    return tuple((frame, track.masks[frame]["counts"]) for frame in sorted(track.masks))


def _confidence(tracks: Sequence[MaskTrack], lifted: Lifted, places: list[int]) -> float:
    """Mean over tracks of predicted IoU times the share of frames with a mask, times the mean
    agreement of their depth.
    """
    sure = np.mean([tracks[k].score * tracks[k].share_present for k in places])
    return float(sure * np.mean([lifted.agreement[k] for k in places]))
