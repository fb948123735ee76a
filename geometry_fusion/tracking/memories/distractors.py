"""`dam`: memory with anchors that tell an object from its distractors.

The idea and the numbers are those of DAM4SAM (Videnovic et al., arXiv 2411.17576). The memory has
two parts: recent frames, and anchors. An anchor is a frame on which the mask was sure and another
candidate of the decoder lay elsewhere: it shows both the object and what it could be confused with.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label

from geometry_fusion.tracking.memories.object_memory import (
    Seen,
    SinglePathway,
    prompt_memories,
    sam2_pointers,
)
from geometry_fusion.tracking.memories.records import (
    Answer,
    Bank,
    Candidates,
    Memory,
    Pointer,
    box_iou,
    box_of,
)

EIGHT_NEIGHBOURS = np.ones((3, 3), int)


@dataclass(frozen=True)
class DamSettings:
    """The published numbers."""

    most_anchors: int = 4  # memories with the prompts' time code, prompts included
    stride: int = 5  # between recent memories, after the newest
    least_iou: float = 0.8  # predicted, of an anchor; must be exceeded
    least_gap: int = 5  # frames between anchors; must be exceeded
    area_low: float = 0.8  # of an anchor's area to the median of recent ones
    area_high: float = 1.2
    median_of: int = 10  # areas, of visible frames
    areas_kept: int = 300  # frames in which these are looked for
    box_iou: float = 0.7  # at most this, with another candidate added


class DistractorMemory(SinglePathway):
    """Recent frames and anchors. See `DamSettings`, and docs/memory.md for what is read."""

    settings = DamSettings()

    def __init__(self, bank: Bank, start: int):
        super().__init__(bank, start)
        self.anchors: list[int] = []
        self._areas: deque[int] = deque(maxlen=self.settings.areas_kept)
        self._candidates: Candidates | None = None  # of the frame that is tracked now

    def restart(self) -> None:
        super().restart()
        self.anchors.clear()
        self._areas.clear()

    def pick(self, time: int, candidates: Candidates) -> int:
        self._candidates = candidates
        return candidates.best

    def note(self, time: int, answer: Answer) -> Seen:
        candidates, self._candidates = self._candidates, None
        self._areas.append(answer.area)
        if candidates is not None and self.is_anchor(time, answer, candidates):
            self.anchors.append(time)
            if self.prunes:
                # One more than a read can use, because the latest frame may be read again.
                self.anchors = self.anchors[-(self.settings.most_anchors + 1) :]
        return super().note(time, answer)

    def is_anchor(self, time: int, answer: Answer, candidates: Candidates) -> bool:
        """Whether a tracked frame, whose area is noted already, becomes an anchor."""
        s = self.settings
        if not (max(candidates.ious) > s.least_iou and answer.area >= 1):
            return False
        if self.anchors and time - self.anchors[-1] <= s.least_gap:
            return False
        if len(self._areas) < 2:
            return False
        visible = [area for area in self._areas if area][-s.median_of :]
        share = answer.area / float(np.median(visible))
        if not s.area_low <= share <= s.area_high:
            return False
        return shows_distractor(answer.mask, candidates.masks, s.box_iou)

    def marked(self, time: int, prompts: Iterable[int]) -> list[int]:
        """Times that are read with the prompts' time code: the latest anchor, the prompts, then
        further anchors by nearness. The frame before is never among the anchors.
        """
        most = self.settings.most_anchors
        anchors = [t for t in self.anchors if t < time - 1]
        prompts = sorted(prompts, key=lambda t: abs(time - t))
        chosen = anchors[-1:]
        # The first prompt is never dropped, the others go by nearness.
        others = [t for t in prompts if t != min(prompts)]
        chosen += [min(prompts), *others[: most - len(chosen) - 1]]
        further = sorted(anchors[:-1], key=lambda t: abs(time - t))
        return chosen + further[: most - len(chosen)]

    def recent(self, time: int, marked: Iterable[int]) -> list[int]:
        """Times of recent memories, newest first: the frame before, then multiples of the stride.

        Where the object is not visible, or the frame is read already, the next older frame takes
        its place.
        """
        stride = self.settings.stride
        read_already = set(marked)
        usable = {t for t, s in self.seen.items() if s.area >= 1 and t not in read_already}
        slots = self.bank.size - len(read_already)
        oldest = max(self.start, min(usable, default=time) - 1)
        times: list[int] = []
        step, at = 1, time - 1
        while len(times) < slots and at > oldest:
            if at in usable:
                times.append(at)
                step = stride
                at = (at - 1) // stride * stride
            else:
                at -= step
        return times

    def memories(self, time: int, prompts: Mapping[int, float]) -> list[Memory]:
        marked = self.marked(time, prompts)
        recent = self.recent(time, marked)
        # Numbered by rank, without gaps.
        compact = [Memory(t, code) for code, t in enumerate(recent)]
        return prompt_memories(self.bank, marked) + compact[::-1]

    def pointers(self, time: int, prompts: Iterable[int]) -> list[Pointer]:
        read = [t for t in self.marked(time, prompts) if t in set(prompts)]
        visible = [t for t, seen in self.seen.items() if seen.area >= 1]
        pointers = sam2_pointers(self.bank, time, read, visible)
        return [Pointer(p.time, abs(p.age)) for p in pointers]

    def kept_memories(self) -> set[int]:
        s = self.settings
        visible = sorted((t for t, seen in self.seen.items() if seen.area >= 1), reverse=True)
        # The newest of each kind that a read can need, and one more for reading the latest again.
        newest = visible[: s.most_anchors + 2]
        strided = [t for t in visible if t % s.stride == 0][: self.bank.size + s.most_anchors]
        anchors = self.anchors[-(s.most_anchors + 1) :]
        return {*newest, *strided, *anchors, self.newest} & (self.seen.keys() | set(anchors))

    def snapshot(self) -> dict:
        return {
            **super().snapshot(),
            "anchors": list(self.anchors),
            "areas": list(self._areas),
        }

    def restore(self, snapshot: dict) -> None:
        super().restore(snapshot)
        self.anchors = list(snapshot["anchors"])
        self._areas.extend(snapshot["areas"])


def shows_distractor(chosen: np.ndarray, candidates: np.ndarray, most: float) -> bool:
    """Whether another candidate adds something elsewhere.

    chosen: [h, w] bool; candidates: [K, h, w] bool. Of each candidate the largest part outside the
    chosen mask is added to it; the box of both overlaps that of the chosen mask by at most `most`.
    """
    box = box_of(chosen)
    overlaps = []
    for candidate in candidates:
        part = largest_part(candidate & ~chosen)
        if part.any():
            overlaps.append(box_iou(box_of(chosen | part), box))
    return bool(overlaps) and min(overlaps) <= most


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest part [h, w] of a mask whose cells touch each other, also at corners."""
    parts, count = label(mask, EIGHT_NEIGHBOURS)
    if count <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()
