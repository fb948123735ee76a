"""Votes: which instance owns a superpoint. Majority by weight, so that instances are disjoint."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from geometry_fusion.instances.lifting import Lifted


def owners(
    superpoints: np.ndarray, groups: Sequence[Sequence[int]], lifted: Lifted, least: float
) -> np.ndarray:
    """The instance (place in `groups`) of every point, int [N], -1 for none.

    superpoints: [N], the superpoint of every point. groups: per instance the places of its tracks.
    A superpoint goes to the instance whose tracks covered its points with most weight, to the first
    of equals; to none where that is less than `least` of the weight with which it was seen.
    """
    count = int(superpoints.max(initial=-1)) + 1
    seen = np.bincount(superpoints, lifted.most_seen, count)
    rows = [np.zeros(0, int)]
    columns = [np.zeros(0, int)]
    weights = [np.zeros(0)]
    for instance, members in enumerate(groups):
        for track in members:
            rows.append(superpoints[lifted.points[track]])
            columns.append(np.full(len(lifted.points[track]), instance))
            weights.append(lifted.inside[track])
    entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    votes = csr_matrix(entries, shape=(count, max(1, len(groups)))).tocoo()
    order = np.lexsort([votes.col, -votes.data, votes.row])
    voted, first = np.unique(votes.row[order], return_index=True)
    winners, most = votes.col[order[first]], votes.data[order[first]]
    is_enough = (most > 0) & (most >= least * seen[voted])
    owner = np.full(count, -1)
    owner[voted[is_enough]] = winners[is_enough]
    return owner[superpoints]
