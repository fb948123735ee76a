"""Superpoints: small patches of a cloud that belong to one surface.

The graph segmentation of Felzenszwalb and Huttenlocher (2004) on nearest neighbours, as ScanNet's
over-segmentation, which has edges of a mesh instead. Edges cost little where normals and colours
agree, and half where the surface is convex: things meet the floor in concave edges.
"""

import numpy as np
from scipy.spatial import cKDTree

from geometry_fusion.instances.cloud import Cloud
from geometry_fusion.instances.settings import InstanceSettings


def superpoints_of(cloud: Cloud, settings: InstanceSettings) -> np.ndarray:
    """The superpoint 0, 1, ... of every point, int [N]; without superpoints, each point's own."""
    if not settings.superpoints or len(cloud) < 2:
        return np.arange(len(cloud))
    edges, weights = neighbour_edges(cloud, settings)
    return segment_graph(
        len(cloud), edges, weights, settings.graph_scale, settings.superpoint_points
    )


def neighbour_edges(cloud: Cloud, settings: InstanceSettings) -> tuple[np.ndarray, np.ndarray]:
    """Edges [E, 2] between nearest neighbours, each once, and their weights [E], at least 0."""
    count = min(settings.graph_neighbours + 1, len(cloud))
    _, near = cKDTree(cloud.points).query(cloud.points, count)
    start = np.repeat(np.arange(len(cloud)), count)
    low, high = np.minimum(start, near.ravel()), np.maximum(start, near.ravel())
    # One number per pair: unique rows would take many times as long.
    pairs = np.unique((low * len(cloud) + high)[low < high])
    one, other = pairs // len(cloud), pairs % len(cloud)
    edges = np.stack([one, other], axis=1)
    turn = 1 - np.einsum("ni,ni->n", cloud.normals[one], cloud.normals[other])
    step = cloud.points[other] - cloud.points[one]
    # From both ends the surface bends away from its normal.
    falls = np.einsum("ni,ni->n", cloud.normals[one], step) < 0
    falls &= np.einsum("ni,ni->n", cloud.normals[other], step) > 0
    turn = np.where(falls, turn / 2, turn)
    colours = cloud.colours.astype(float) / 255
    contrast = np.linalg.norm(colours[one] - colours[other], axis=1)
    return edges, np.maximum(turn, 0) + settings.colour_weight * contrast


def segment_graph(
    num_points: int, edges: np.ndarray, weights: np.ndarray, scale: float, least: int
) -> np.ndarray:
    """Segments 0, 1, ... of a graph's points, int [N], numbered by their first point.

    Two segments join over an edge that is not heavier than the heaviest edge inside either plus
    `scale` over its size; then segments with fewer than `least` points join their nearest
    neighbour.
    """
    order = np.argsort(weights, kind="stable")
    edges, weights = edges[order], weights[order]
    parent = list(range(num_points))
    size = [1] * num_points
    limit = [scale] * num_points
    # Finding roots is written out twice: calls would take most of the time.
    for one, other, weight in zip(edges[:, 0].tolist(), edges[:, 1].tolist(), weights.tolist()):
        while parent[one] != one:
            parent[one] = one = parent[parent[one]]
        while parent[other] != other:
            parent[other] = other = parent[parent[other]]
        if one != other and weight <= limit[one] and weight <= limit[other]:
            parent[other] = one
            size[one] += size[other]
            limit[one] = weight + scale / size[one]
    segments = _numbered(_roots(np.array(parent)))
    return _without_small_ones(segments, edges, least)


def _roots(parent: np.ndarray) -> np.ndarray:
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return parent


def _numbered(roots: np.ndarray) -> np.ndarray:
    """0, 1, ... in the order in which segments first come."""
    _, first, segment = np.unique(roots, return_index=True, return_inverse=True)
    rank = np.empty(len(first), int)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[segment]


def _without_small_ones(segments: np.ndarray, edges: np.ndarray, least: int) -> np.ndarray:
    """Segments after those with fewer than `least` points joined a neighbour, over the lightest
    edge first. edges: [E, 2], ascending in weight.
    """
    size = np.bincount(segments).tolist()
    parent = list(range(len(size)))
    ends = segments[edges]
    is_small = np.bincount(segments)[ends] < least
    ends = ends[(ends[:, 0] != ends[:, 1]) & is_small.any(axis=1)]
    for one, other in ends.tolist():
        while parent[one] != one:
            one = parent[one]
        while parent[other] != other:
            other = parent[other]
        if one != other and (size[one] < least or size[other] < least):
            parent[other] = one
            size[one] += size[other]
    return _numbered(_roots(np.array(parent))[segments])
