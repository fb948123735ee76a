"""Memory policies: which earlier frames tracking reads, and which outputs can be dropped.

`MemoryPolicy` is the interface. `Sam2Memory` ("fifo") is SAM2's rule, corrected for several
prompts. `StrategyMemory` leaves the choice to a strategy per object (memories/, docs/memory.md).
Because a policy drops outputs that are no longer read, a video of any length needs constant memory.

SAM2 (1.1.0, `SAM2Base._prepare_memory_conditioned_features`) reads from earlier frames:

* all prompted frames,
* the spatial memory of the last `num_maskmem - 1` frames; with a temporal stride above 1, of every
  `stride`-th frame and of the previous one (num_maskmem 7: stride 1 reads t-1 ... t-6; stride 2
  reads t-1 and the five even frames before it),
* the object pointers of the last `max_obj_ptrs - 1` frames.

Tracking backwards reads the same on the other side of the frame.

SAM2 reads these frames whatever they were tracked from: frames tracked before a correction, frames
of the forward pass while it tracks backwards, prompts that tracking has not reached yet.
`Sam2Memory` trusts prompts more than tracked masks:

* forwards, an object reads its prompts up to the current frame, and the frames tracked since the
  latest of them;
* backwards, it reads all its prompts, and the frames tracked backwards from the nearest later one;
* a frame between two prompts takes its mask from the nearer one (`answered_backwards`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial

from geometry_fusion.errors import InputError
from geometry_fusion.tracking.memories.coverage import CoverageMemory
from geometry_fusion.tracking.memories.distractors import DistractorMemory
from geometry_fusion.tracking.memories.motion import MotionMemory
from geometry_fusion.tracking.memories.object_memory import ObjectMemory
from geometry_fusion.tracking.memories.tree import TreeMemory
from geometry_fusion.tracking.memory_bank import part_of
from geometry_fusion.tracking.state import PROMPTED, TRACKED, TrackState


def answered_backwards(prompted: Iterable[int], frame_idx: int) -> bool:
    """Whether a frame takes its mask from tracking backwards: its nearest prompt is a later one."""
    later = min((t - frame_idx for t in prompted if t > frame_idx), default=None)
    earlier = min((frame_idx - t for t in prompted if t < frame_idx), default=None)
    return later is not None and (earlier is None or later <= earlier)


class MemoryPolicy(ABC):
    """Decides which outputs of earlier frames tracking reads.

    In all methods frames are numbers, and `reverse` means tracking backwards. strategy: of each
    object, which then decides among the frames tracked since a prompt; None: `select` decides all.
    """

    strategy: type[ObjectMemory] | None = None

    @abstractmethod
    def readable(self, frame_idx: int, reverse: bool = False) -> range:
        """The tracked frames that tracking into `frame_idx` may read.

        Objects that have outputs on the same of these frames, and the same prompted frames, are
        tracked as one batch.
        """

    @abstractmethod
    def select(
        self, outputs: dict[str, dict], frame_idx: int, reverse: bool = False
    ) -> dict[str, dict]:
        """The outputs of one object that tracking into `frame_idx` reads.

        outputs: `PROMPTED` or `TRACKED` -> frame -> output; the result has the same form.
        """

    @abstractmethod
    def drop(self, state: TrackState, frame_idx: int, reverse: bool = False) -> None:
        """Drop from a state all outputs that tracking from `frame_idx` onwards cannot read.

        A click may correct the latest frame, so its mask and the outputs that tracking into it read
        stay. Masks of the frames in `state.answered_later` stay until tracking backwards has passed
        them.
        """


class Sam2Memory(MemoryPolicy):
    """SAM2's memory rule, corrected for several prompts; see the module.

    num_maskmem, stride, max_obj_ptrs: SAM2's num_maskmem, memory_temporal_stride_for_eval and
    max_obj_ptrs_in_encoder. upstream: SAM2's rule without the corrections.
    """

    def __init__(self, num_maskmem: int, stride: int, max_obj_ptrs: int, upstream: bool = False):
        # Largest distance in frames at which a spatial memory, and an object pointer, may be read.
        # With a stride, SAM2 reads frames whose numbers are its multiples: the nearest of them may
        # be stride - 1 frames farther away.
        self.memory = max(1, (num_maskmem - 2) * stride + 1 if stride > 1 else num_maskmem - 1)
        self.pointer = max_obj_ptrs - 1
        self.upstream = upstream

    def readable(self, frame_idx: int, reverse: bool = False) -> range:
        """The frames within the larger of the two distances."""
        far = max(self.memory, self.pointer)
        if reverse:
            return range(frame_idx + 1, frame_idx + far + 1)
        return range(frame_idx - far, frame_idx)

    def select(
        self, outputs: dict[str, dict], frame_idx: int, reverse: bool = False
    ) -> dict[str, dict]:
        """The outputs by the rules in the module's docstring; all of them with `upstream`."""
        if self.upstream:
            return outputs
        prompted, tracked = outputs[PROMPTED], outputs[TRACKED]
        if reverse:
            beyond = frame_idx + self.pointer + 1
            until = min((t for t in prompted if t > frame_idx), default=beyond)
            since = frame_idx
        else:
            since = max((t for t in prompted if t < frame_idx), default=-1)
            until = frame_idx
            # Without an earlier prompt only later ones can be read.
            prompted = {t: out for t, out in prompted.items() if t <= frame_idx} or prompted
        near = self.readable(frame_idx, reverse)
        recent = {t: tracked[t] for t in near if since < t < until and t in tracked}
        return {PROMPTED: prompted, TRACKED: recent}

    def drop(self, state: TrackState, frame_idx: int, reverse: bool = False) -> None:
        """Drop outputs beyond both distances, and the spatial memory beyond its own."""
        for obj_idx, outputs in state.outputs.items():
            tracked = outputs[TRACKED]
            kept_of = self._kept_by(state, obj_idx, frame_idx, reverse)
            for frame in [t for t in tracked if t != frame_idx]:
                kept = kept_of(frame, tracked[frame])
                if frame in state.answered_later and not (reverse and frame > frame_idx):
                    mask = tracked[frame]["pred_masks"]
                    kept["pred_masks"] = None if mask is None else mask.cpu()
                if kept:
                    tracked[frame] = kept
                else:
                    del tracked[frame]
            state.drop_tracked_marks(obj_idx, frame_idx)

    def _kept_by(
        self, state: TrackState, obj_idx: int, frame_idx: int, reverse: bool
    ) -> Callable[[int, dict], dict]:
        """(frame, output) -> the part of it that may be read from `frame_idx` onwards, without its
        mask.
        """

        def kept(frame: int, output: dict) -> dict:
            distance = frame - frame_idx if reverse else frame_idx - frame
            if distance < 0:
                return {}
            return part_of(output, distance <= self.memory, distance <= self.pointer, mask=False)

        return kept


class StrategyMemory(Sam2Memory):
    """A strategy per object decides what is read, which candidate becomes the mask, and what is
    kept. Prompts are read as by `Sam2Memory`. Raises ValueError with `upstream`.
    """

    def __init__(self, strategy: type[ObjectMemory], *sizes: int, upstream: bool = False):
        if upstream:
            raise ValueError("strategies need the corrections for several prompts")
        super().__init__(*sizes)
        self.strategy = strategy

    def _kept_by(
        self, state: TrackState, obj_idx: int, frame_idx: int, reverse: bool
    ) -> Callable[[int, dict], dict]:
        held = state.memories.get(state.object_id(obj_idx))
        kept = None if held is None or held.branches else held.memory.kept()

        def kept_part(frame: int, output: dict) -> dict:
            if kept is None or reverse != held.reverse:
                return {}  # pathways have outputs of their own
            time = -frame if reverse else frame
            return part_of(output, time in kept.memories, time in kept.pointers, mask=False)

        return kept_part


MEMORY_RULES = 1  # increased when a change of strategies makes earlier results invalid
# name -> the strategy of each object
STRATEGIES: dict[str, type[ObjectMemory]] = {
    "dam": DistractorMemory,
    "tree": TreeMemory,
    "motion": MotionMemory,
    "coverage": CoverageMemory,
}
# name -> maker of a policy, called with SAM2's three settings and `upstream`
MEMORIES: dict[str, Callable[..., MemoryPolicy]] = {
    "fifo": Sam2Memory,
    **{name: partial(StrategyMemory, strategy) for name, strategy in STRATEGIES.items()},
}


def memory_policy(name: str) -> Callable[..., MemoryPolicy]:
    """The maker of a named policy. Raises InputError for unknown names."""
    if name not in MEMORIES:
        raise InputError(f"memory {name}: unknown; choose one of {', '.join(MEMORIES)}")
    return MEMORIES[name]
