"""`coverage`: memories that saw, from a similar side, what the camera sees now.

Our own. SAM2 reads what is recent. Where the camera returns to an object after a while, frames that
showed it from this side tell more. Every sure frame keeps the 3D points of its mask; how many of
these the current frame would show decides what is read. Without usable geometry: SAM2's rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from geometry_fusion.tracking.memories.fifo import FifoMemory
from geometry_fusion.tracking.memories.object_memory import Seen, by_rank, prompt_memories
from geometry_fusion.tracking.memories.records import Answer, Bank, Memory
from geometry_fusion.tracking.memories.views import View

VOXEL = 0.02  # of the scene's scale: points in one voxel are the same


@dataclass(frozen=True)
class CoverageSettings:
    """Chosen without tuning."""

    least_iou: float = 0.3  # predicted, of a frame that keeps its points; must be exceeded
    least_score: float = 0.0
    overlap_weight: float = 0.5
    candidates: int = 24  # frames that keep their points
    points: int = 256  # of each of them


class CoverageMemory(FifoMemory):
    """The prompts, the frame before, and the frames that cover the current view best."""

    settings = CoverageSettings()
    needs_views = True

    def __init__(self, bank: Bank, start: int):
        super().__init__(bank, start)
        self._view: View | None = None  # of the frame that is tracked now
        self._viewed: int | None = None
        self._points: dict[int, np.ndarray] = {}  # time -> [N, 3] world
        self._voxels: dict[int, frozenset] = {}
        self._overlaps: dict[tuple[int, int], float] = {}  # of two candidates, the older one first
        self._voxel: float | None = None  # side, in the unit of the points
        # What was chosen for the latest frame. It can be read again, though a candidate may have
        # been dropped since.
        self._chosen: tuple[int, list[int]] | None = None

    def restart(self) -> None:
        super().restart()
        self._points.clear()
        self._voxels.clear()
        self._overlaps.clear()
        self._chosen = None

    def look(self, time: int, view: View | None) -> None:
        self._view, self._viewed = view, time

    def note(self, time: int, answer: Answer) -> Seen:
        s, view = self.settings, self._view
        sure = answer.iou > s.least_iou and answer.score > s.least_score
        if sure and view is not None and self._viewed == time:
            points = view.points_of(answer.mask, s.points)
            if len(points):
                self.put(time, points, view.cells.scale)
        return super().note(time, answer)

    def put(self, time: int, points: np.ndarray, scale: float) -> None:
        """Make a frame a candidate with its points [N, 3]; too many candidates lose one."""
        self._voxel = self._voxel or VOXEL * scale
        self._points[time] = points
        self._voxels[time] = frozenset(map(tuple, np.floor(points / self._voxel).astype(int)))
        for other in self._points.keys() - {time}:
            self._overlaps[min(other, time), max(other, time)] = self._shared(other, time)
        if len(self._points) > self.settings.candidates:
            # The one that is most like another; of two that are alike, the older one.
            last = max(
                self._points,
                key=lambda t: (max(self.overlap(t, o) for o in self._points if o != t), -t),
            )
            del self._points[last], self._voxels[last]
            self._overlaps = {pair: s for pair, s in self._overlaps.items() if last not in pair}

    def overlap(self, a: int, b: int) -> float:
        """Share of the smaller candidate's voxels that the other has too."""
        return self._overlaps[min(a, b), max(a, b)]

    def _shared(self, a: int, b: int) -> float:
        ours, theirs = self._voxels[a], self._voxels[b]
        return len(ours & theirs) / min(len(ours), len(theirs))

    def memories(self, time: int, prompts: Mapping[int, float]) -> list[Memory]:
        if self._view is None or self._viewed != time:
            return super().memories(time, prompts)
        if self._chosen is None or self._chosen[0] != time:
            self._chosen = (time, self.covering(time))
        chosen = self._chosen[1]
        return prompt_memories(self.bank, prompts) + by_rank(chosen)

    def covering(self, time: int) -> list[int]:
        """The frame before, and those chosen one by one: most seen now, least like those before.

        Where too few show anything of the current view, the newest candidates take their place.
        """
        chosen = [time - 1] if time - 1 in self.seen else []
        seen = {
            t: self._view.shows(points)
            for t, points in self._points.items()
            if t < time and t not in chosen
        }
        candidates = {t for t, share in seen.items() if share > 0}
        while candidates and len(chosen) < self.bank.size - 1:
            best = max(candidates, key=lambda t: (seen[t] - self._penalty(t, chosen), t))
            candidates.remove(best)
            chosen.append(best)
        others = sorted((t for t in seen if t not in chosen), reverse=True)
        return chosen + others[: self.bank.size - 1 - len(chosen)]

    def _penalty(self, time: int, chosen: list[int]) -> float:
        known = [t for t in chosen if t in self._points]
        overlaps = [self.overlap(time, t) for t in known]
        return self.settings.overlap_weight * max(overlaps, default=0.0)

    def kept_memories(self) -> set[int]:
        chosen = self._chosen[1] if self._chosen else []
        return {*super().kept_memories(), *self._points, *chosen}

    def snapshot(self) -> dict:
        points = {t: torch.from_numpy(points) for t, points in self._points.items()}
        chosen = None if self._chosen is None else [self._chosen[0], list(self._chosen[1])]
        return {**super().snapshot(), "points": points, "voxel": self._voxel, "chosen": chosen}

    def restore(self, snapshot: dict) -> None:
        super().restore(snapshot)
        self._voxel = snapshot["voxel"]
        chosen = snapshot["chosen"]
        self._chosen = None if chosen is None else (chosen[0], list(chosen[1]))
        for time, points in snapshot["points"].items():
            self.put(time, points.cpu().numpy(), 1.0)
