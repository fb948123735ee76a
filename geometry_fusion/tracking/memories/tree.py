"""`tree`: several hypotheses of an object are followed, and the choice between them is delayed.

Written from the text of SAM2Long (Ding et al., arXiv 2410.16268). A pathway is one history of
masks. In every frame each pathway offers candidates; those with the highest cumulative score live
on. The masks of the pathway that is best after the last frame are the answer.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import takewhile

import numpy as np

from geometry_fusion.tracking.memories.object_memory import (
    ObjectMemory,
    prompt_memories,
    sam2_pointers,
)
from geometry_fusion.tracking.memories.records import (
    Answer,
    Bank,
    Candidates,
    Choice,
    Kept,
    Memory,
    Pointer,
    Reading,
)


@dataclass(frozen=True)
class TreeSettings:
    """The published numbers."""

    pathways: int = 3
    sure_score: float = 2.0  # object score, plus or minus, from which a frame counts as certain
    least_iou: float = 0.3  # predicted, of a memory; must be exceeded
    least_score: float = 0.0  # object score of a memory; must be exceeded
    low_weight: float = 0.95  # of the keys of the least and of the most certain memory
    high_weight: float = 1.05
    epsilon: float = 1e-6
    collapse_empty: bool = False  # equal masks of one pathway count as one candidate


@dataclass(frozen=True)
class Node:
    """One frame of a pathway."""

    time: int
    parent: int | None
    iou: float
    score: float


@dataclass
class Pathway:
    """A history that lives."""

    total: float  # cumulative score
    node: int | None = None  # its newest; None before the first tracked frame


class TreeMemory(ObjectMemory):
    """See `TreeSettings`, and docs/memory.md."""

    settings = TreeSettings()
    delays = True

    def __init__(self, bank: Bank, start: int):
        super().__init__(bank, start)
        self._next = 0  # number of the next node; numbers are not used twice
        self._restart()

    def _restart(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.pathways = [Pathway(0.0)]
        # Those of the frame before, so that the latest frame can be read again.
        self._earlier = [Pathway(0.0)]
        self._chosen: list[tuple[Pathway, float]] = []  # parent and total of what lives on
        self._shared = self.start
        self.newest: int | None = None

    def history(self, node: int | None) -> Iterable[tuple[int, Node]]:
        """Nodes of a pathway, newest first, as far as they are known."""
        while node is not None and node in self.nodes:
            yield node, self.nodes[node]
            node = self.nodes[node].parent

    def passes(self, node: Node) -> bool:
        """Whether a frame may be read."""
        return node.iou > self.settings.least_iou and node.score > self.settings.least_score

    def _pathways_before(self, time: int) -> list[Pathway]:
        again = self.newest is not None and time <= self.newest
        return self._earlier if again else self.pathways

    def read(self, time: int, prompts: Mapping[int, float]) -> list[Reading]:
        return [self._reading(path, time, prompts) for path in self._pathways_before(time)]

    def _reading(self, path: Pathway, time: int, prompts: Mapping[int, float]) -> Reading:
        passing: list[tuple[int, Node]] = []
        node_at: dict[int, int] = {}
        for i, node in self.history(path.node):
            if len(passing) >= self.bank.size - 1 and node.time < time - self.bank.pointers:
                break
            if node.time < time:
                node_at[node.time] = i
                if self.passes(node) and len(passing) < self.bank.size - 1:
                    passing.append((i, node))
        tracked = [Memory(node.time, code, 1.0, i) for code, (i, node) in enumerate(passing)]
        memories = prompt_memories(self.bank, prompts) + tracked[::-1]
        scores = [prompts[m.time] if m.node is None else self.nodes[m.node].score for m in memories]
        weights = key_weights(scores, self.settings.low_weight, self.settings.high_weight)
        weighted = [Memory(m.time, m.code, weight, m.node) for m, weight in zip(memories, weights)]
        pointers = sam2_pointers(self.bank, time, prompts, node_at)
        return Reading(
            tuple(weighted),
            tuple(
                Pointer(p.time, p.age, None if p.time in prompts else node_at[p.time])
                for p in pointers
            ),
        )

    def choose(self, time: int, decoded: list[Candidates]) -> list[Choice]:
        if self.newest is not None and time <= self.newest:
            self._restart()  # tracking went back in time
        offers = []
        for number, (path, candidates) in enumerate(zip(self.pathways, decoded)):
            for k in self._distinct(candidates):
                iou = candidates.ious[k]
                total = path.total + math.log(iou + self.settings.epsilon)
                offers.append((total, number, k, iou))
        # Ties: the lower pathway, then the lower candidate.
        offers.sort(key=lambda offer: (-offer[0], offer[1], offer[2]))
        certain = max(abs(c.score) for c in decoded) >= self.settings.sure_score
        kept = offers if certain else _distinct_ious_first(offers)
        kept = kept[: self.settings.pathways]
        self._chosen = [(self.pathways[number], total) for total, number, _, _ in kept]
        return [Choice(number, k) for _, number, k, _ in kept]

    def _distinct(self, candidates: Candidates) -> list[int]:
        """The candidates that count."""
        numbers = range(len(candidates.ious))
        if not self.settings.collapse_empty:
            return list(numbers)
        by_mask: dict[bytes, int] = {}
        for k in sorted(numbers, key=lambda k: -candidates.ious[k]):
            by_mask.setdefault(np.packbits(candidates.masks[k]).tobytes(), k)
        return sorted(by_mask.values())

    def add(self, time: int, answers: list[Answer]) -> list[int]:
        self._earlier = self.pathways
        self.pathways, added = [], []
        for (parent, total), answer in zip(self._chosen, answers):
            node, self._next = self._next, self._next + 1
            self.nodes[node] = Node(time, parent.node, answer.iou, answer.score)
            self.pathways.append(Pathway(total, node))
            added.append(node)
        self.newest, self._chosen = time, []
        if self.prunes:
            self._forget()
        return added

    def _forget(self) -> None:
        """Drop nodes of dead pathways. Up to the time `_shared` there is only one history left."""
        live: set[int] = set()
        histories = []
        for path in (*self.pathways, *self._earlier):
            newer = takewhile(lambda item: item[1].time > self._shared, self.history(path.node))
            histories.append([i for i, _ in newer])
            live.update(histories[-1])
        self.nodes = {
            i: node for i, node in self.nodes.items() if node.time <= self._shared or i in live
        }
        shared = set(histories[0]).intersection(*histories[1:])
        self._shared = max((self.nodes[i].time for i in shared), default=self._shared)

    def forget_before(self) -> None:
        """Drop nodes that are not read any more, where nobody needs their masks."""
        kept = self.kept()
        read = kept.memories | kept.pointers
        self.nodes = {
            i: replace(
                node, parent=next((p for p, _ in self.history(node.parent) if p in read), None)
            )
            for i, node in self.nodes.items()
            if i in read
        }

    def kept(self) -> Kept:
        memories: set[int] = set()
        pointers: set[int] = set()
        oldest = (self.newest or 0) - self.bank.pointers
        for path in (*self.pathways, *self._earlier):
            passing: list[int] = []
            for number, (i, node) in enumerate(self.history(path.node)):
                if number == 0:
                    memories.add(i)
                if node.time >= oldest:
                    pointers.add(i)
                elif len(passing) >= self.bank.size - 1:
                    break
                if self.passes(node):
                    passing.append(i)
            memories.update(passing[: self.bank.size - 1])
        return Kept(frozenset(memories), frozenset(pointers))

    def decided(self) -> dict[int, int]:
        """Time -> node of the pathway that is best now."""
        return {node.time: i for i, node in self.history(self.pathways[0].node)}

    @property
    def committed(self) -> int:
        """The time up to which all pathways share one history; `start` where they share none."""
        return self._shared

    def snapshot(self) -> dict:
        return {
            "nodes": {i: asdict(node) for i, node in self.nodes.items()},
            "pathways": [asdict(path) for path in self.pathways],
            "earlier": [asdict(path) for path in self._earlier],
            "next": self._next,
            "newest": self.newest,
            "shared": self._shared,
        }

    def restore(self, snapshot: dict) -> None:
        self.nodes = {i: Node(**facts) for i, facts in snapshot["nodes"].items()}
        self.pathways = [Pathway(**facts) for facts in snapshot["pathways"]]
        self._earlier = [Pathway(**facts) for facts in snapshot["earlier"]]
        self._next, self.newest = snapshot["next"], snapshot["newest"]
        self._shared = snapshot["shared"]


def _distinct_ious_first(offers: list[tuple]) -> list[tuple]:
    """Offers, best first: those whose predicted IoU, rounded to two decimals, is new, and then the
    rest.
    """
    first, rest, known = [], [], set()
    for offer in offers:
        rounded = round(offer[3], 2)
        (rest if rounded in known else first).append(offer)
        known.add(rounded)
    return first + rest


def key_weights(scores: list[float], low: float, high: float) -> list[float]:
    """Weights of memories in their order: evenly from `low` for the lowest object score to `high`
    for the highest; 1 for a single memory.
    """
    if len(scores) < 2:
        return [1.0] * len(scores)
    weights = [1.0] * len(scores)
    for rank, at in enumerate(sorted(range(len(scores)), key=lambda i: scores[i])):
        weights[at] = low + rank / (len(scores) - 1) * (high - low)
    return weights
