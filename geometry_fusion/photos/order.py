"""Orders of photos: which ones MUSt3R remembers, and in which order objects are propagated.

Photos are numbers; ties go to the smaller one. Everything here is plain numbers, without networks.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

MOST_REMEMBERED = 50
NEAR = 0.1  # distance to the chosen photos below which no more are chosen
LEAST_EDGE = 0.05  # weight below which photos are not connected
WEAK, UNREACHABLE = "weak", "unreachable"


def farthest_points(distance: np.ndarray, start: int, most: int, stop: float = NEAR) -> list[int]:
    """Farthest-point sampling of photos from their distances [n, n], from `start` on.

    Ends with `most` photos, or when every photo is nearer than `stop` to a chosen one.
    """
    chosen = [start]
    nearest = distance[start].copy()
    while len(chosen) < min(most, len(distance)):
        nearest[chosen] = -1
        following = int(nearest.argmax())
        if nearest[following] < stop:
            break
        chosen.append(following)
        nearest = np.minimum(nearest, distance[following])
    return chosen


def reference_of(similarity: np.ndarray, prompted: int) -> int:
    """The photo that MUSt3R sees first: the prompted one, or, where the prompted one is among the
    10% that are least similar to the others, the most connected one. similarity: [n, n].
    """
    sums = similarity.sum(1)
    rank = int((sums < sums[prompted]).sum())
    return int(sums.argmax()) if rank < len(sums) // 10 else prompted


def connected_order(similarity: np.ndarray, members: Collection[int], first: int) -> list[int]:
    """`first`, then repeatedly the member that is most similar to any before. Prim's algorithm."""
    order, left = [first], sorted(set(members) - {first})
    while left:
        following = max(left, key=lambda i: (similarity[i, order].max(), -i))
        order.append(following)
        left.remove(following)
    return order


def components(weights: np.ndarray, least: float = LEAST_EDGE) -> list[int]:
    """The component of each photo in the graph of edges [n, n] of at least this weight, named by
    its smallest member.
    """
    label = list(range(len(weights)))
    for start in range(len(weights)):
        if label[start] != start:
            continue
        waiting = [start]
        while waiting:
            photo = waiting.pop()
            for other in np.flatnonzero(weights[photo] >= least).tolist():
                if other > start and label[other] == other:
                    label[other] = start
                    waiting.append(other)
    return label


@dataclass(frozen=True)
class Step:
    """One photo of the order of propagation."""

    photo: int
    parent: int | None  # the processed photo with the strongest edge; None for prompted photos
    edge: float  # its weight, 0..1
    flag: str | None = None  # WEAK or UNREACHABLE


class Propagation:
    """The order in which objects spread from prompted photos: Prim's algorithm, which learns on the
    way where objects are.

    weights: [n, n] overlaps, symmetric. visible: [objects, n], the share of an object's points that
    each photo shows; an edge counts `w * (0.5 + 0.5 * visible)` for an object. prompted: photos by
    object. fixed: an order of all photos that is kept, instead of the strongest edge first.
    """

    def __init__(
        self,
        weights: np.ndarray,
        visible: np.ndarray,
        prompted: Sequence[Collection[int]],
        fixed: Sequence[int] | None = None,
    ):
        self._weights, self._visible, self._fixed = weights, visible, fixed
        self._prompts = sorted({photo for photos in prompted for photo in photos})
        self._first = list(self._prompts)
        self._left = np.array([i for i in range(len(weights)) if i not in self._prompts], int)
        # [objects, n]: the strongest edge to each photo from one in which the object was found (-1:
        # none yet), and that photo. Kept, so that n photos take n * n steps, not n * n * n.
        self._edges = np.full(np.shape(visible), -1.0)
        self._parents = np.full(np.shape(visible), self._prompts[0])
        label = components(weights)
        reached = {label[photo] for photo in self._prompts}
        self._reachable = np.array([name in reached for name in label])

    def done(self, photo: int, objects: Collection[int]) -> None:
        """A photo was processed, and these objects (by place in `visible`) are in it."""
        for place in objects:
            edges = self._weights[photo] * (0.5 + 0.5 * self._visible[place])
            best, parents = self._edges[place], self._parents[place]
            stronger = (edges > best) | ((edges == best) & (photo < parents))
            best[stronger], parents[stronger] = edges[stronger], photo

    def next(self) -> Step | None:
        """The photo that is processed next; None at the end. Unconnected photos come last: first
        the weak ones, then those that no prompt can reach.
        """
        if self._first:
            return Step(self._first.pop(0), None, 1.0)
        if not len(self._left):
            return None
        if self._fixed is not None:
            left = set(self._left.tolist())
            photo = next(i for i in self._fixed if i in left)
        else:
            reachable = self._left[self._reachable[self._left]]
            offered = reachable if len(reachable) else self._left
            strongest = np.maximum(self._edges[:, offered].max(0), 0)
            photo = int(offered[strongest.argmax()])  # of equal ones the smallest number
        self._left = self._left[self._left != photo]
        place = int(self._edges[:, photo].argmax())
        weight = max(float(self._edges[place, photo]), 0.0)
        flag = WEAK if weight < LEAST_EDGE else None
        if not self._reachable[photo]:
            flag = UNREACHABLE
        return Step(photo, int(self._parents[place, photo]), weight, flag)


def around(order: Sequence[int], prompted: Collection[int]) -> list[int]:
    """A given order as tracking takes it: from the last prompted photo on, then backwards."""
    last = max(order.index(photo) for photo in prompted)
    return [*order[last:], *order[:last][::-1]]
