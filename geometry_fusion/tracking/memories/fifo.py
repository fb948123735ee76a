"""SAM2's own rule as a strategy: what is recent is read.

The policy `fifo` runs SAM2's code (memory.py). This is the same rule in the form of the others: the
reference for tests, and what `coverage` falls back to.
"""

from collections.abc import Iterable, Mapping

from geometry_fusion.tracking.memories.object_memory import (
    SinglePathway,
    prompt_memories,
    sam2_pointers,
)
from geometry_fusion.tracking.memories.records import Bank, Memory, Pointer


def recent_times(bank: Bank, time: int) -> list[tuple[int, int]]:
    """(time, number of the time code) of the frames that SAM2 reads, oldest first.

    The frame before, and with a stride above 1 the multiples of the stride before that one. Frames
    without an output are skipped by the caller, and the others keep their numbers.
    """
    stride = bank.stride
    nearest = (time - 2) // stride * stride
    older = [(nearest - (back - 2) * stride, back - 1) for back in range(bank.size - 1, 1, -1)]
    return [*older, *([(time - 1, 0)] if bank.size > 1 else [])]


def nearest_prompts(bank: Bank, time: int, prompts: Iterable[int]) -> list[int]:
    """The prompts that SAM2 reads: all, or with a cap the nearest before, the nearest at or after,
    then by distance.
    """
    times = list(prompts)
    if bank.most_prompts == -1 or len(times) <= bank.most_prompts:
        return times
    before = [t for t in times if t < time]
    after = [t for t in times if t >= time]
    chosen = ([max(before)] if before else []) + ([min(after)] if after else [])
    others = sorted((t for t in times if t not in chosen), key=lambda t: abs(t - time))
    return chosen + others[: bank.most_prompts - len(chosen)]


class FifoMemory(SinglePathway):
    """SAM2's memory."""

    def memories(self, time: int, prompts: Mapping[int, float]) -> list[Memory]:
        chosen = nearest_prompts(self.bank, time, prompts)
        # A prompt beyond the cap is read as a tracked frame where it is recent.
        known = self.seen.keys() | (prompts.keys() - set(chosen))
        recent = [Memory(t, code) for t, code in recent_times(self.bank, time) if t in known]
        return prompt_memories(self.bank, chosen) + recent

    def pointers(self, time: int, prompts: Iterable[int]) -> list[Pointer]:
        chosen = nearest_prompts(self.bank, time, prompts)
        known = self.seen.keys() | (set(prompts) - set(chosen))
        return sam2_pointers(self.bank, time, chosen, known)

    def kept_memories(self) -> set[int]:
        reach = (self.bank.size - 2) * self.bank.stride + 1
        return {t for t in self.seen if self.newest - t <= max(reach, 1)}
