"""Fragments: the points that one track surely covers."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from geometry_fusion.instances.cloud import Cloud, voxel_keys
from geometry_fusion.instances.lifting import Lifted
from geometry_fusion.instances.settings import InstanceSettings

CORNER = 1.75  # voxels; the distance of two that touch at a corner is 1.73


def fragments_of(cloud: Cloud, lifted: Lifted, settings: InstanceSettings) -> list[np.ndarray]:
    """Per track the ids of its points, ascending; empty where too few are left.

    A point belongs to the fragment if it was inside the masks for `inside_share` of the weight with
    which it was seen, and with `least_weight` at all. Of several connected parts, small ones are
    left out.
    """
    fragments = []
    for ids, inside, seen in zip(lifted.points, lifted.inside, lifted.seen):
        is_sure = (inside >= settings.inside_share * seen) & (inside >= settings.least_weight)
        kept = large_parts(cloud.points, ids[is_sure], settings.part_voxel, settings.part_share)
        fragments.append(kept if len(kept) >= settings.least_points else kept[:0])
    return fragments


def large_parts(points: np.ndarray, ids: np.ndarray, voxel: float, share: float) -> np.ndarray:
    """Of points (`ids` of [N, 3]) those in the largest connected part, and in every part with at
    least `share` of its points. Voxels that touch, also at a corner, are connected.
    """
    if not len(ids):
        return ids
    _, first, voxel_of = np.unique(
        voxel_keys(points[ids], voxel), return_index=True, return_inverse=True
    )
    cells = np.floor(points[ids[first]] / voxel)
    pairs = cKDTree(cells).query_pairs(CORNER, output_type="ndarray")
    size = (len(cells), len(cells))
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), size)
    part_of = connected_components(graph, directed=False)[1][voxel_of]
    counts = np.bincount(part_of)
    return ids[counts[part_of] >= share * counts.max()]
