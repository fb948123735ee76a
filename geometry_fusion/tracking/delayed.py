"""Decisions that later frames make: the frames of one pass are held back until its end.

With a policy whose strategy delays decisions (`tree`), the masks of earlier frames are final only
after the last one. Until then a frame is held by its low-resolution masks; its features and its
large masks are dropped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from geometry_fusion.tracking.state import TRACKED, TrackState
from geometry_fusion.types import TrackedFrame


@dataclass(frozen=True)
class HeldFrame:
    """One frame that waits, with the masks as they were answered at first."""

    frame: TrackedFrame  # without logits and features
    object_ids: Sequence[int]
    masks: list[Tensor]  # [1, 1, h, w] per object, on the CPU


def held_back(frames: Iterator[TrackedFrame], state: TrackState) -> list[HeldFrame]:
    """Track all frames of a pass."""
    held = []
    for frame in frames:
        geometry = frame.geometry and replace(frame.geometry, levels=())
        light = replace(frame, logits=None, geometry=geometry)
        masks = [mask.cpu() for mask in state.latest_masks]
        held.append(HeldFrame(light, list(frame.object_ids), masks))
    return held


def decide_all(state: TrackState) -> None:
    """Make all decisions that were delayed."""
    for obj_idx, outputs in state.outputs.items():
        state.memories.decide(state.object_id(obj_idx), outputs[TRACKED])


def final_masks(held: HeldFrame, state: TrackState) -> list[Tensor]:
    """The masks of a frame after all decisions, in the order of its objects."""
    decided = state.memories.decided
    return [
        decided.get(object_id, {}).get(held.frame.index, mask)
        for object_id, mask in zip(held.object_ids, held.masks)
    ]
