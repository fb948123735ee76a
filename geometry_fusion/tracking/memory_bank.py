"""The memories of all objects of one video, for policies with a strategy per object (memories/)."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from torch import Tensor

from geometry_fusion.tracking.memories.object_memory import ObjectMemory
from geometry_fusion.tracking.memories.records import Reading
from geometry_fusion.tracking.memory_tokens import ReadOutputs
from geometry_fusion.tracking.object_batches import KINDS

PROMPTED, TRACKED = KINDS
Make = Callable[[int], ObjectMemory]  # called with the time of the prompt that it begins after


@dataclass
class Held:
    """The memory of one object since its latest prompt, in one direction."""

    reverse: bool
    since: int  # time of that prompt
    memory: ObjectMemory
    branches: dict[int, dict] = field(default_factory=dict)  # node -> output, of pathways

    def frame(self, time: int) -> int:
        """The frame of a time."""
        return -time if self.reverse else time

    def outputs_of(self, reading: Reading, outputs: dict[str, dict]) -> ReadOutputs:
        """The outputs that a reading names. outputs: of the object, by kind and frame."""

        def output(item) -> dict:
            if item.node is not None:
                return self.branches[item.node]
            frame = self.frame(item.time)
            prompted = outputs[PROMPTED].get(frame)
            return outputs[TRACKED][frame] if prompted is None else prompted

        return ReadOutputs(
            tuple((output(m), m.code, m.weight) for m in reading.memories),
            tuple((output(p), p.age) for p in reading.pointers),
        )

    def tidy(self, ahead: bool) -> None:
        """Drop what is not read any more from the outputs of pathways. ahead: masks too."""
        if not self.branches:
            return
        if ahead:
            self.memory.forget_before()
        kept, newest = self.memory.kept(), {path.node for path in self.memory.pathways}
        for node in list(self.branches):
            if node not in self.memory.nodes:
                del self.branches[node]
                continue
            if not ahead and "obj_ptr" not in self.branches[node]:
                continue  # only its mask is left
            has_mask = not ahead or node in newest
            self.branches[node] = part_of(
                self.branches[node], node in kept.memories, node in kept.pointers, has_mask
            )


def part_of(output: dict, memory: bool, pointer: bool, mask: bool) -> dict:
    """The part of an output that is still needed; a mask that is not newest goes to the CPU."""
    kept: dict = {}
    if "obj_ptr" in output:
        if memory and "maskmem_features" in output:
            kept = {**output, "pred_masks": None}
        elif memory or pointer:
            kept = {"obj_ptr": output["obj_ptr"]}
    if mask and output.get("pred_masks") is not None:
        kept["pred_masks"] = output["pred_masks"].cpu()
    return kept


class Memories:
    """By the user's object ids.

    make: a new memory. delayed: whether masks of earlier frames are still wanted, so that later
    frames can change them.
    """

    def __init__(self, make: Make, delayed: bool):
        self._make, self.delayed = make, delayed
        self._objects: dict[int, Held] = {}
        # Object id -> frame -> mask logits [1, 1, h, w] that replace what was answered at first.
        self.decided: dict[int, dict[int, Tensor]] = {}

    def clear(self) -> None:
        """Forget all objects."""
        self._objects.clear()
        self.decided.clear()

    def get(self, object_id: int) -> Held | None:
        """What is held of an object."""
        return self._objects.get(object_id)

    def of(self, object_id: int, reverse: bool, since: int, tracked: dict[int, dict]) -> Held:
        """The memory of an object that is tracked on from the prompt at time `since`.

        A new prompt, or the other direction, begins a new one. tracked: the object's outputs by
        frame, in which delayed decisions replace masks.
        """
        held = self._objects.get(object_id)
        if held is None or (held.reverse, held.since) != (reverse, since):
            self.decide(object_id, tracked)
            held = self._objects[object_id] = Held(reverse, since, self._make(since))
        return held

    def decide(self, object_id: int, tracked: dict[int, dict]) -> None:
        """Make the decisions that were delayed for an object."""
        held = self._objects.get(object_id)
        if held is None or not (self.delayed and held.branches):
            return
        for time, node in held.memory.decided().items():
            frame, mask = held.frame(time), held.branches[node].get("pred_masks")
            if mask is None:
                continue
            self.decided.setdefault(object_id, {})[frame] = mask
            if tracked.get(frame, {}).get("pred_masks") is not None:
                tracked[frame] = {**tracked[frame], "pred_masks": mask}

    def keep_only(self, object_ids: Collection[int]) -> None:
        """Forget objects that were removed."""
        for object_id in [i for i in self._objects if i not in object_ids]:
            del self._objects[object_id]

    def snapshot(self) -> dict:
        """All memories as plain values and tensors."""
        return {
            object_id: {
                "reverse": held.reverse,
                "since": held.since,
                "memory": held.memory.snapshot(),
                "branches": dict(held.branches),
            }
            for object_id, held in self._objects.items()
        }

    def restore(self, snapshot: dict) -> None:
        """Take over a `snapshot`."""
        self.clear()
        for object_id, kept in snapshot.items():
            memory = self._make(kept["since"])
            memory.restore(kept["memory"])
            branches = dict(kept["branches"])
            self._objects[object_id] = Held(kept["reverse"], kept["since"], memory, branches)
