"""Merging: agglomeration of fragments by average linkage, with pairs that must stay apart."""

import numpy as np


def agglomerate(affinity: np.ndarray, apart: np.ndarray, least: float) -> list[list[int]]:
    """Groups of members 0..K-1, each ascending, ordered by their smallest member.

    affinity: [K, K], symmetric. The two groups with the largest mean affinity of their pairs are
    joined, again and again, while it is at least `least`. Groups with a pair in `apart` [K, K] are
    not joined. Of equal affinities the pair with the smallest members comes first.
    """
    groups = {member: [member] for member in range(len(affinity))}
    sums = np.array(affinity, float)
    sizes = np.ones(len(affinity))
    blocked = np.array(apart, bool)
    below = np.tri(len(affinity), dtype=bool)  # each pair counts once
    while len(groups) > 1:
        means = np.where(blocked | below, -np.inf, sums / (sizes[:, None] * sizes))
        one, other = np.unravel_index(np.argmax(means), means.shape)
        if not means[one, other] >= least:
            break
        groups[one] = sorted(groups[one] + groups.pop(other))
        sums[one] += sums[other]
        sums[:, one] += sums[:, other]
        sizes[one] += sizes[other]
        blocked[one] |= blocked[other]
        blocked[:, one] |= blocked[:, other]
        blocked[other] = True
        blocked[:, other] = True
    return [groups[first] for first in sorted(groups)]
