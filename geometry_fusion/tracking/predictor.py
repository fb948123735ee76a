"""The video predictor: SAM2's own, with geometry fused into the features of every frame.

`GeometryVideoPredictor` keeps SAM2's public API (`init_state`, `add_new_points_or_box`,
`add_new_mask`, `propagate_in_video`, `reset_state`, `remove_object`). Without geometry, or with an
untrained merger, its masks of one object are SAM2's bit for bit: both arms of a comparison run this
one class.

What it adds for long videos and many objects:

* a few frames are encoded at once, ahead of tracking;
* objects whose memories hold the same frames are tracked as one batch (object_batches.py);
* a state may hold only what tracking can still read, in place of everything (memory.py).

What it changes where there are several prompts, unless it is built with `upstream=True`:

* every prompt conditions the frames after it;
* an object is tracked from its own prompts, in both directions, not from the first prompt of any
  object;
* geometry begins where an object is first prompted, for objects prompted elsewhere anew (lanes.py);
* memory is never read against the direction of tracking (memory.py).

A frame on its way: `track_frame` -> `_look_ahead` (encoder.py: encode it, and those after it)
-> `_track_members` (memory attention and mask decoder, one batch of objects), or with a memory
strategy `_track_by_strategy` (strategy_step.py) -> mask logits.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from functools import partial

import torch
from sam2.modeling.sam2_base import NO_OBJ_SCORE
from torch import Tensor
from tqdm import tqdm

from geometry_fusion.devices import free_memory, give_back_freed_memory
from geometry_fusion.tracking.memory import answered_backwards, memory_policy
from geometry_fusion.tracking.memory_bank import Memories
from geometry_fusion.tracking.memory_tokens import conditioned
from geometry_fusion.tracking.places_decoder import JUDGE, Judge
from geometry_fusion.tracking.prompting import Prompting
from geometry_fusion.tracking.state import PROMPTED, TRACKED, TrackState
from geometry_fusion.tracking.strategy_step import READING

TIDY_EVERY = 512  # frames of a long video; requesting the pages again costs 0.3% of their time


def _cast_memory_to_features(module, args, kwargs):
    """A forward pre-hook of memory attention: memory in the precision of the image features."""
    return args, {**kwargs, "memory": kwargs["memory"].to(kwargs["curr"][0].dtype)}


class GeometryVideoPredictor(Prompting):
    """As SAM2VideoPredictor (sam2 1.1.0), plus: geometry (see `FusingEncoder` and `PlacesDecoder`),
    batches of objects, memory strategies, and prompts that take effect in both directions of time.

    upstream: prompts and memory as in SAM2. memory: name of a memory policy (memory.py). `options`
    are those of `FusingEncoder` and SAM2. Raises InputError for an unknown policy.
    """

    def __init__(self, *args, upstream: bool = False, memory: str = "fifo", **options):
        super().__init__(*args, add_all_frames_to_correct_as_cond=not upstream, **options)
        # SAM2 stores memory in bf16; object pointers joined to it promote it to fp32. An object
        # that is prompted later than another has no pointers on earlier frames: its memory stays
        # bf16, and attention with fp32 features would fail.
        self.memory_attention.register_forward_pre_hook(_cast_memory_to_features, with_kwargs=True)
        self.upstream = upstream
        self.use_memory(memory)

    def use_memory(self, name: str) -> None:
        """From now on, use another memory policy. Raises InputError for an unknown one."""
        self.memory = memory_policy(name)(
            self.num_maskmem,
            self.memory_temporal_stride_for_eval,
            self.max_obj_ptrs_in_encoder,
            upstream=self.upstream,
        )

    def init_state(self, *args, **options) -> TrackState:
        """As `FusingEncoder.init_state`, with the memories of the policy."""
        state = super().init_state(*args, **options)
        strategy = self.memory.strategy
        if strategy is not None:
            bank, delayed = self.bank(state.num_frames), strategy.delays and state.keep != "ahead"
            state.memories = Memories(lambda since: strategy(bank, since), delayed)
        return state

    @torch.inference_mode()
    def propagate_in_video(
        self,
        inference_state: TrackState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        progress: bool = True,
    ) -> Iterator[tuple[int, list[int], Tensor]]:
        """As SAM2VideoPredictor.propagate_in_video, plus: objects are tracked in batches, and
        states that do not keep everything drop outputs on the way. progress: show a bar.

        Yields (frame number, object ids, mask logits [objects, 1, H, W]). Backwards, the default
        start is the last prompted frame. Forwards, an object has an empty mask before its first
        prompt; backwards, frames that are nearer to an earlier prompt keep their masks.
        """
        self.propagate_in_video_preflight(inference_state)
        if inference_state.keep == "reachable" and not reverse:
            inference_state.answered_later = range(max(inference_state.prompted_frames))
        order = self._tracking_order(
            inference_state, start_frame_idx, max_frame_num_to_track, reverse
        )
        bar = tqdm(order, desc="propagate in video", disable=not progress)
        for number, frame_idx in enumerate(bar, 1):
            logits = self.track_frame(inference_state, frame_idx, reverse, order[number:])
            yield frame_idx, inference_state.object_ids, logits

    def _tracking_order(
        self, state: TrackState, start: int | None, at_most: int | None, reverse: bool
    ) -> range:
        """Frame numbers in the order of SAM2VideoPredictor.propagate_in_video.

        The default start is the first prompted frame; backwards it is the last one.
        """
        if start is None:
            prompted = state.prompted_frames
            start = max(prompted) if reverse and not self.upstream else min(prompted)
        at_most = state.num_frames if at_most is None else at_most
        if not reverse:
            return range(start, min(start + at_most, state.num_frames - 1) + 1)
        return range(start, max(start - at_most, 0) - 1, -1) if start > 0 else range(0)

    @torch.inference_mode()
    def track_frame(
        self,
        state: TrackState,
        frame_idx: int,
        reverse: bool = False,
        upcoming: Sequence[int] = (),
        interruptions: Container[int] = (),
    ) -> Tensor:
        """Track all objects into one frame: mask logits [objects, 1, H, W] at the video's size.

        upcoming: the frames that will be tracked next, in order, as far as they are available.
        interruptions: those of them on which a prompt will take effect.
        Prompts must be consolidated before (`propagate_in_video_preflight`), as
        `propagate_in_video` does.
        """
        masks = {}  # by object index
        memories = {}
        for obj_idx, outputs in state.outputs.items():
            mask = self._mask_without_tracking(outputs, frame_idx, reverse)
            if mask is None:
                memories[obj_idx] = self.memory.select(outputs, frame_idx, reverse)
            else:
                masks[obj_idx] = mask.to(self.device, non_blocking=True)
        state.begin_frame()
        for members in state.by_lane(memories):
            is_tracked = partial(self._is_tracked, state, reverse=reverse)
            self._look_ahead(state, frame_idx, upcoming, interruptions, is_tracked)
            masks |= self._track_lane(state, frame_idx, members, reverse)
        state.mark_tracked(frame_idx, memories, reverse)
        self._drop(state, frame_idx, reverse)
        state.latest_masks = ordered = [masks[i] for i in range(len(masks))]
        joined = torch.cat(ordered) if len(ordered) > 1 else ordered[0]
        return self._get_orig_video_res_output(state, joined)[1]

    def _track_lane(
        self, state: TrackState, frame_idx: int, memories: dict[int, dict], reverse: bool
    ) -> dict[int, Tensor]:
        """Track the objects of the current lane; returns mask logits [1, 1, h, w] by object index.

        memories: object index -> what may be read.
        """
        if self.memory.strategy is not None:
            return self._track_by_strategy(state, frame_idx, memories, reverse)
        # With this option SAM2 makes the masks of a batch exclude each other in memory. It tracks
        # object by object, where nothing is excluded, so batches of one give the same masks.
        alone = self.non_overlap_masks_for_mem_enc
        readable = self.memory.readable(frame_idx, reverse)
        masks = {}
        for members in state.batches.groups(memories, readable, alone):
            masks |= self._track_members(state, frame_idx, members, memories, reverse)
        return masks

    def _is_tracked(self, state: TrackState, frame_idx: int, reverse: bool) -> bool:
        """Whether any object of the current lane has to be tracked into a frame."""
        return any(
            self._mask_without_tracking(state.outputs[obj_idx], frame_idx, reverse) is None
            for obj_idx in state.in_current_lane()
        )

    def _mask_without_tracking(
        self, outputs: Mapping[str, dict], frame_idx: int, reverse: bool
    ) -> Tensor | None:
        """Mask logits [1, 1, h, w] of an object that need not be tracked into a frame, else None.

        So it is on prompted frames, before the first prompt, and, backwards, on frames that are
        nearer to an earlier prompt.
        """
        prompted, tracked = outputs[PROMPTED], outputs[TRACKED]
        if frame_idx in prompted:
            return prompted[frame_idx]["pred_masks"]
        if self.upstream:
            return None
        if reverse:
            is_tracked_now = answered_backwards(prompted, frame_idx)
        else:
            is_tracked_now = any(t < frame_idx for t in prompted)
        if is_tracked_now:
            return None
        # A prompt in the other direction is nearer: the mask tracked from there is kept.
        mask = tracked.get(frame_idx, {}).get("pred_masks")
        if mask is None and not reverse:
            side = self.image_size // 4
            mask = torch.full((1, 1, side, side), NO_OBJ_SCORE)
        return mask

    def _drop(self, state: TrackState, frame_idx: int, reverse: bool) -> None:
        """After a frame is tracked: drop everything that this state does not keep."""
        if state.keep == "all":
            return
        self.memory.drop(state, frame_idx, reverse)
        state.batches.drop(state.outputs)
        if frame_idx % TIDY_EVERY == TIDY_EVERY - 1:
            give_back_freed_memory(self.device)

    def _prepare_memory_conditioned_features(
        self, frame_idx, *args, output_dict, track_in_reverse=False, **kwargs
    ):
        """As SAM2Base._prepare_memory_conditioned_features, plus: reads only the outputs that the
        memory policy selects. A `READING` among the outputs is read in their place.
        """
        if READING in output_dict:
            names = (
                "current_vision_feats",
                "current_vision_pos_embeds",
                "feat_sizes",
                "num_frames",
            )
            return conditioned(self, [output_dict[READING]], *(kwargs[name] for name in names))
        output_dict = self.memory.select(output_dict, frame_idx, track_in_reverse)
        return super()._prepare_memory_conditioned_features(
            frame_idx, *args, output_dict=output_dict, track_in_reverse=track_in_reverse, **kwargs
        )

    def _track_members(
        self,
        state: TrackState,
        frame_idx: int,
        members: list[int],
        memories: dict[int, dict],
        reverse: bool,
    ) -> dict[int, Tensor]:
        """Track one batch of objects; returns mask logits [1, 1, h, w] by object index.

        Out of memory, the batch is halved until it fits.
        """
        readable = self.memory.readable(frame_idx, reverse)
        outputs = state.batches.joined(memories, members, readable)
        judge = None
        if state.places is not None:
            judge = Judge(state, frame_idx, members, reverse)
            outputs = {**outputs, JUDGE: judge}
        try:
            joined, logits = self._run_single_frame_inference(
                inference_state=state,
                output_dict=outputs,
                frame_idx=frame_idx,
                batch_size=len(members),
                is_init_cond_frame=False,
                point_inputs=None,
                mask_inputs=None,
                reverse=reverse,
                run_mem_encoder=True,
            )
        except torch.OutOfMemoryError:
            halves = state.batches.halved(members)  # raises InputError where there is one object
            free_memory(self.device)
            masks = {}
            for half in halves:
                masks |= self._track_members(state, frame_idx, half, memories, reverse)
            return masks
        if judge is not None:
            judge.commit()
        for obj_idx, out in state.batches.split(frame_idx, members, joined).items():
            state.outputs[obj_idx][TRACKED][frame_idx] = out
        return {obj_idx: logits[i : i + 1] for i, obj_idx in enumerate(members)}
