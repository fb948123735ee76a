"""Strategies driven without a network: what they are offered, and what they read."""

import numpy as np

from geometry_fusion.tracking.memories.object_memory import ObjectMemory
from geometry_fusion.tracking.memories.records import Answer, Bank, Candidates

PROMPTS = {0: 10.0}


def mask_of(*boxes, side: int = 100) -> np.ndarray:
    """A mask [side, side] with these boxes (left, top, right, bottom)."""
    mask = np.zeros((side, side), bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def square(area: int) -> np.ndarray:
    """A mask of `area` cells."""
    mask = np.zeros(10_000, bool)
    mask[:area] = True
    return mask.reshape(100, 100)


def offer(*ious: float, score: float = 5.0, masks=None) -> Candidates:
    """Candidates with these predicted IoUs."""
    masks = np.zeros((len(ious), 4, 4), bool) if masks is None else np.stack(masks)
    return Candidates(tuple(ious), score, lambda: masks)


def step(
    memory: ObjectMemory, time: int, iou: float = 0.9, score: float = 5.0, mask=None, others=()
) -> int:
    """One frame with a chosen mask and other candidates, all of lower IoU; returns the choice."""
    mask = square(100) if mask is None else mask
    ious = (iou, *(iou / 2 for _ in others))
    candidates = offer(*ious, score=score, masks=[mask, *others])
    (choice,) = memory.choose(time, [candidates])
    memory.add(time, [Answer(iou, score, mask)])
    return choice.candidate


def read(memory: ObjectMemory, time: int, prompts=PROMPTS) -> dict[int, int]:
    """Time -> number of the time code, of all memories that the first pathway reads."""
    return {m.time: m.code for m in memory.read(time, prompts)[0].memories}


def pointer_ages(memory: ObjectMemory, time: int, prompts=PROMPTS) -> list[tuple[int, int]]:
    """(time, age) of all pointers that the first pathway reads."""
    return [(p.time, p.age) for p in memory.read(time, prompts)[0].pointers]


def new(kind, **sizes) -> ObjectMemory:
    """A memory after a prompt on frame 0."""
    return kind(Bank(**sizes), 0)
