"""`motion`: masks that move on smoothly in the image are preferred.

The idea and the numbers are those of SAMURAI (Yang et al., arXiv 2411.11922). The filter knows the
motion in the image, so that a turning camera misleads it: a baseline, not a recommendation. Here
every object has its own filter, which begins anew after every prompt and with the direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from geometry_fusion.tracking.memories.kalman import BoxFilter
from geometry_fusion.tracking.memories.object_memory import (
    Seen,
    SinglePathway,
    by_rank,
    prompt_memories,
)
from geometry_fusion.tracking.memories.records import (
    Answer,
    Bank,
    Candidates,
    Memory,
    box_iou,
    box_of,
)


@dataclass(frozen=True)
class MotionSettings:
    """The published numbers."""

    weight: float = 0.15  # of the motion in the choice of a mask
    stable_frames: int = 15  # from which the motion counts
    stable_iou: float = 0.3  # predicted IoU below which the filter begins anew
    presence: float = -1.0  # object score above which masks are not blanked
    least_iou: float = 0.5  # of a memory; must be exceeded
    least_score: float = 0.0
    least_motion: float = 0.0
    looked_back: int = 15  # memories that pass, after which the search ends


class MotionMemory(SinglePathway):
    """A choice by motion, and a memory of sure frames. See `MotionSettings`."""

    settings = MotionSettings()
    presence = settings.presence

    def __init__(self, bank: Bank, start: int):
        super().__init__(bank, start)
        self.stable = 0
        self._filter: BoxFilter | None = None
        self._motion: float | None = None  # of the mask that was picked last

    def restart(self) -> None:
        super().restart()
        self.stable, self._filter = 0, None

    def pick(self, time: int, candidates: Candidates) -> int:
        s = self.settings
        predicted = self._filter.predict() if self.stable and self._filter else None
        self._motion = None
        chosen = candidates.best
        if predicted is not None and self.stable >= s.stable_frames:
            overlaps = [box_iou(predicted, box_of(mask)) for mask in candidates.masks]
            scores = [
                s.weight * overlap + (1 - s.weight) * iou
                for overlap, iou in zip(overlaps, candidates.ious)
            ]
            chosen = int(np.argmax(scores))
            self._motion = overlaps[chosen]
        return chosen

    def note(self, time: int, answer: Answer) -> Seen:
        """The filter takes in the box of what was finally answered."""
        motion, self._motion = self._motion, None
        box = box_of(answer.mask)
        if box[2] <= box[0]:
            # An empty mask has no box that the filter could take in or begin with.
            self.stable, self._filter = 0, None
        elif self.stable == 0 or self._filter is None:
            self.stable, self._filter = 1, BoxFilter(box)
        elif self._goes_on(answer.iou):
            self.stable += 1
            self._filter.update(box)
        else:
            self.stable, self._filter = 0, None
        return Seen(answer.iou, answer.score, answer.area, motion)

    def _goes_on(self, iou: float) -> bool:
        least = self.settings.stable_iou
        # As published: the bound itself passes once the object is stable, and not before.
        return iou >= least if self.stable >= self.settings.stable_frames else iou > least

    def passes(self, seen: Seen) -> bool:
        """Whether a frame may be read."""
        s = self.settings
        moves_on = seen.motion is None or seen.motion > s.least_motion
        return seen.iou > s.least_iou and seen.score > s.least_score and moves_on

    def memories(self, time: int, prompts: Mapping[int, float]) -> list[Memory]:
        before = self.before(time)
        passing = [t for t in before if self.passes(self.seen[t])][: self.settings.looked_back]
        if time - 1 in self.seen and time - 1 not in passing:
            passing.insert(0, time - 1)
        return prompt_memories(self.bank, prompts) + by_rank(passing[: self.bank.size - 1])

    def kept_memories(self) -> set[int]:
        newest_first = self.before(self.newest + 1)
        passing = [t for t in newest_first if self.passes(self.seen[t])]
        return {*passing[: self.bank.size], *newest_first[:2]}

    def snapshot(self) -> dict:
        kalman = None
        if self._filter is not None:
            kalman = {
                "mean": torch.from_numpy(self._filter.mean),
                "covariance": torch.from_numpy(self._filter.covariance),
            }
        return {**super().snapshot(), "stable": self.stable, "filter": kalman}

    def restore(self, snapshot: dict) -> None:
        super().restore(snapshot)
        self.stable, self._filter = snapshot["stable"], None
        if snapshot["filter"] is not None:
            self._filter = BoxFilter((0, 0, 1, 1))
            self._filter.mean = snapshot["filter"]["mean"].cpu().numpy()
            self._filter.covariance = snapshot["filter"]["covariance"].cpu().numpy()
