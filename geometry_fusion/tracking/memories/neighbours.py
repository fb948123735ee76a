"""`neighbours`: memories of the photos that show most of what this one shows.

For sets of photos (geometry_fusion/photos): "times" are numbers of photos and say nothing about
when one was processed. What is read depends on the overlaps alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from geometry_fusion.tracking.memories.object_memory import SinglePathway, prompt_memories
from geometry_fusion.tracking.memories.records import (
    Answer,
    Bank,
    Candidates,
    Choice,
    Kept,
    Memory,
    Pointer,
)

KINDS = ("neighbours", "fifo", "prompt_only", "all_conditioning")


@dataclass(frozen=True)
class NeighbourSettings:
    """Chosen without tuning. kind: of `KINDS`; the others are for comparison. fifo: the photos that
    were processed last; prompt_only: no other photos; all_conditioning: neighbours with the time
    code of prompts.
    """

    kind: str = "neighbours"
    least_iou: float = 0.3  # predicted, of a photo that is read; must be exceeded
    least_score: float = 0.0
    most_alike: float = 0.9  # overlap with a chosen one above which a photo adds nothing


class NeighbourMemory(SinglePathway):
    """overlaps: [n, n] of all photos, 0..1, symmetric. barred: photos that are never read."""

    def __init__(self, bank: Bank, overlaps: np.ndarray, settings: NeighbourSettings | None = None):
        super().__init__(bank, start=0)
        self.overlaps, self.settings = overlaps, settings or NeighbourSettings()
        self.barred: set[int] = set()
        self.prunes = False  # any photo can be read again

    def neighbours(self, photo: int, prompts: Iterable[int]) -> list[int]:
        """The photos that are read beside prompts, the most similar first; ties by number."""
        s = self.settings
        if s.kind == "prompt_only":
            return []
        sure = [
            t
            for t, seen in self.seen.items()
            if seen.iou > s.least_iou and seen.score > s.least_score and t not in self.barred
        ]
        offered = [t for t in sure if t != photo and t not in set(prompts)]
        most = self.bank.size - 1
        if s.kind == "fifo":
            return offered[::-1][:most]
        chosen: list[int] = []
        for t in sorted(offered, key=lambda t: (-self.overlaps[photo, t], t)):
            if len(chosen) < most and all(self.overlaps[t, o] <= s.most_alike for o in chosen):
                chosen.append(t)
        return chosen

    def memories(self, time: int, prompts: Mapping[int, float]) -> list[Memory]:
        ranked = self.neighbours(time, prompts)
        of_prompts = self.bank.of_prompts
        alike = self.settings.kind == "all_conditioning"
        memories = [Memory(t, of_prompts if alike else code) for code, t in enumerate(ranked)]
        return prompt_memories(self.bank, sorted(prompts)) + memories[::-1]

    def pointers(self, time: int, prompts: Iterable[int]) -> list[Pointer]:
        """Ages are ranks; prompts follow the last neighbour."""
        ranked = self.neighbours(time, prompts)
        near = [Pointer(t, age) for age, t in enumerate(ranked, 1)]
        return [Pointer(t, len(ranked) + 1) for t in sorted(prompts)] + near

    def choose(self, time: int, decoded: list[Candidates]) -> list[Choice]:
        return [Choice(0, self.pick(time, decoded[0]))]

    def add(self, time: int, answers: list[Answer]) -> list[int]:
        self.seen.pop(time, None)  # a second answer counts as the newest
        return super().add(time, answers)

    def kept_memories(self) -> Iterable[int]:
        return self.seen.keys()

    def kept(self) -> Kept:
        return Kept(frozenset(self.seen), frozenset(self.seen))

    def snapshot(self) -> dict:
        return {**super().snapshot(), "barred": sorted(self.barred)}

    def restore(self, snapshot: dict) -> None:
        super().restore(snapshot)
        self.barred = set(snapshot["barred"])
