"""One frame by a memory strategy: read, decode all pathways, choose, encode what lives on.

The counterpart of SAM2's `track_step` for policies of memory.py that have a strategy per object.
Paths of all objects that read equally many memories are decoded as one batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sam2.utils.misc import fill_holes_in_mask_scores
from torch import Tensor

from geometry_fusion.devices import free_memory
from geometry_fusion.tracking.candidates import Decoded, chosen_outputs, decode, raw_answers
from geometry_fusion.tracking.memories.records import Answer, Bank
from geometry_fusion.tracking.memories.views import View, view_of
from geometry_fusion.tracking.memory_bank import Held
from geometry_fusion.tracking.memory_tokens import ReadOutputs, conditioned
from geometry_fusion.tracking.object_batches import item_of
from geometry_fusion.tracking.places_decoder import Judge, PlacesDecoder
from geometry_fusion.tracking.state import PROMPTED, TRACKED, TrackState

READING = "reading"  # the key of `ReadOutputs` among the outputs that SAM2 passes through


@dataclass(frozen=True)
class Path:
    """One pathway of one object, in one frame."""

    obj_idx: int
    reading: ReadOutputs


@dataclass(frozen=True)
class Survivor:
    """A candidate that lives on. rank: 0 is the object's answer."""

    obj_idx: int
    rank: int
    decoded: Decoded
    candidate: int


class StrategyTracking(PlacesDecoder):
    """As PlacesDecoder, plus: objects tracked by memory strategies."""

    def bank(self, num_frames: int) -> Bank:
        """The sizes of this model's memory, for a video of a length."""
        return Bank(
            size=self.num_maskmem,
            pointers=min(num_frames, self.max_obj_ptrs_in_encoder) - 1,
            stride=self.memory_temporal_stride_for_eval,
            most_prompts=self.max_cond_frames_in_attn,
            past_pointers=self.only_obj_ptrs_in_the_past_for_eval,
            signed=self.use_signed_tpos_enc_to_obj_ptrs,
        )

    @property
    def _presence(self) -> float:
        """Object score above which masks are not blanked."""
        return 0.0 if self.memory.strategy is None else self.memory.strategy.presence

    def _track_by_strategy(
        self, state: TrackState, frame_idx: int, memories: Mapping[int, dict], reverse: bool
    ) -> dict[int, Tensor]:
        """Track objects into a frame; returns mask logits [1, 1, h, w] by object index.

        memories: object index -> its outputs, with the prompts that it may read.
        """
        time = -frame_idx if reverse else frame_idx
        self._get_image_feature(state, frame_idx, 1)  # encodes the frame where that is still due
        paths, held = self._paths(state, frame_idx, memories, reverse)
        decoded = self._decoded(state, frame_idx, paths)
        survivors = []
        for obj_idx, its in held.items():
            offered = [d for path, d in zip(paths, decoded) if path.obj_idx == obj_idx]
            choices = its.memory.choose(time, [d.candidates() for d in offered])
            survivors += [
                Survivor(obj_idx, rank, offered[choice.pathway], choice.candidate)
                for rank, choice in enumerate(choices)
            ]
        outputs, answers, masks = self._encoded(state, frame_idx, survivors, reverse)
        for obj_idx, its in held.items():
            nodes = its.memory.add(time, answers[obj_idx])
            state.outputs[obj_idx][TRACKED][frame_idx] = outputs[obj_idx][0]
            its.branches.update(zip(nodes, outputs[obj_idx]))
            its.tidy(ahead=not state.memories.delayed)
        return masks

    def _paths(
        self, state: TrackState, frame_idx: int, memories: Mapping[int, dict], reverse: bool
    ) -> tuple[list[Path], dict[int, Held]]:
        """What every pathway reads, and what is held of every object."""
        sign = -1 if reverse else 1
        time = sign * frame_idx
        paths, held = [], {}
        view: View | None = None
        state.memories.keep_only(state.object_ids)
        for obj_idx, outputs in memories.items():
            passed = [sign * t for t in outputs[PROMPTED] if sign * t < time]
            since = max(passed, default=time - 1)
            tracked = state.outputs[obj_idx][TRACKED]
            its = state.memories.of(state.object_id(obj_idx), reverse, since, tracked)
            held[obj_idx] = its
            if its.memory.needs_views:
                view = view or self._view(state, frame_idx)
                its.memory.look(time, view)
            paths += [
                Path(obj_idx, reading) for reading in self._readings(its, time, outputs, tracked)
            ]
        return paths, held

    @staticmethod
    def _readings(held: Held, time: int, outputs: dict, tracked: dict) -> list[ReadOutputs]:
        """What the pathways of one object read. outputs: with the prompts that may be read."""
        sign = -1 if held.reverse else 1
        prompts = {
            sign * t: float(output["object_score_logits"])
            for t, output in outputs[PROMPTED].items()
        }
        readable = {PROMPTED: outputs[PROMPTED], TRACKED: tracked}
        return [held.outputs_of(reading, readable) for reading in held.memory.read(time, prompts)]

    @staticmethod
    def _view(state: TrackState, frame_idx: int) -> View | None:
        """A frame's geometry for strategies, once the source's coordinates are final."""
        return view_of(state.geometry_of(frame_idx)) if state.geometry_settled else None

    def _decoded(self, state: TrackState, frame_idx: int, paths: list[Path]) -> list[Decoded]:
        """The candidates of all paths, in their order."""
        groups: dict[tuple, list[int]] = {}
        for at, path in enumerate(paths):
            groups.setdefault(path.reading.shape, []).append(at)
        decoded: dict[int, Decoded] = {}
        for group in groups.values():
            for chunk in self._chunks(state, group):
                readings = [paths[at].reading for at in chunk]
                decoded |= zip(chunk, self._decode_batch(state, frame_idx, readings))
        return [decoded[at] for at in range(len(paths))]

    def _chunks(self, state: TrackState, items: list) -> list[list]:
        """Items in batches. With this option of SAM2 the masks of a batch would exclude others."""
        size = 1 if self.non_overlap_masks_for_mem_enc else state.batches.limit
        return [items[start : start + size] for start in range(0, len(items), size)]

    def _decode_batch(
        self, state: TrackState, frame_idx: int, readings: list[ReadOutputs]
    ) -> list[Decoded]:
        """Out of memory, the batch is halved until it fits."""
        try:
            _, _, features, positions, grids = self._get_image_feature(
                state, frame_idx, len(readings)
            )
            feature = conditioned(
                self, readings, features[-1:], positions[-1:], grids, state.num_frames
            )
            levels = high_res_levels(features, grids)
            return decode(self, feature, levels, self._presence)
        except torch.OutOfMemoryError:
            halves = state.batches.halved(readings)  # raises InputError where there is one
            free_memory(self.device)
            return [d for half in halves for d in self._decode_batch(state, frame_idx, half)]

    def _encoded(
        self, state: TrackState, frame_idx: int, survivors: list[Survivor], reverse: bool
    ) -> tuple[dict[int, list[dict]], dict[int, list[Answer]], dict[int, Tensor]]:
        """Of every object: outputs and answers of its survivors by rank, and mask logits
        [1, 1, h, w] of the first.
        """
        outputs: dict[int, list[dict]] = {}
        answers: dict[int, list[Answer]] = {}
        masks: dict[int, Tensor] = {}
        for chunk in self._chunks(state, survivors):
            _, _, features, _, grids = self._get_image_feature(state, frame_idx, len(chunk))
            decoded = [s.decoded for s in chunk]
            candidates = [s.candidate for s in chunk]
            sam_outputs = chosen_outputs(self, decoded, candidates, self._presence)
            if state.places is not None:
                members = [s.obj_idx for s in chunk]
                judge = Judge(state, frame_idx, members, reverse)
                read = torch.stack([d.conditioned for d in decoded])
                own = self.own_feature(features[-1], read.shape)
                levels = high_res_levels(features, grids)
                unprompted = partial(raw_answers, self, decoded)
                sam_outputs = judge.judged(self, sam_outputs, unprompted, own, read, levels)
                judge.commit({at for at, s in enumerate(chunk) if s.rank == 0})
            whole, shown = self._with_memory(state, features, grids, sam_outputs)
            ious = sam_outputs[2][:, 0].float().tolist()
            scores = sam_outputs[6][:, 0].float().tolist()
            cells = (sam_outputs[3][:, 0] > 0).cpu().numpy()
            for at, survivor in enumerate(chunk):
                obj_idx = survivor.obj_idx
                outputs.setdefault(obj_idx, []).append(apart(whole, at, len(chunk)))
                answer = Answer(ious[at], scores[at], np.array(cells[at]))
                answers.setdefault(obj_idx, []).append(answer)
                if survivor.rank == 0:
                    masks[obj_idx] = shown[at : at + 1]
        return outputs, answers, masks

    def _with_memory(
        self, state: TrackState, features: list[Tensor], grids: list, sam_outputs: tuple
    ) -> tuple[dict, Tensor]:
        """As the second half of SAM2VideoPredictor._run_single_frame_inference: the output of a
        batch with its memory, as the state keeps it, and its mask logits on the device.
        """
        *_, low_res, high_res, pointer, scores = sam_outputs
        encoded: dict = {}
        self._encode_memory_in_output(features, grids, None, True, high_res, scores, encoded)
        memory = encoded["maskmem_features"].to(torch.bfloat16)
        storage = state["storage_device"]
        if self.fill_hole_area > 0:
            low_res = fill_holes_in_mask_scores(low_res, self.fill_hole_area)
        output = {
            "maskmem_features": memory.to(storage, non_blocking=True),
            "maskmem_pos_enc": self._get_maskmem_pos_enc(state, encoded),
            "pred_masks": low_res.to(storage, non_blocking=True),
            "obj_ptr": pointer,
            "object_score_logits": scores,
        }
        return output, low_res

    def _run_single_frame_inference(
        self, inference_state, output_dict, frame_idx, batch_size, is_init_cond_frame, **others
    ):
        """As SAM2VideoPredictor._run_single_frame_inference, plus: a click that corrects a tracked
        frame reads what the object's strategy reads.
        """
        if not is_init_cond_frame and inference_state.memories is not None:
            outputs = inference_state.outputs
            obj_idx = next(i for i, held in outputs.items() if held is output_dict)
            reading = self._reading_again(inference_state, obj_idx, frame_idx, others["reverse"])
            output_dict = output_dict if reading is None else {**output_dict, READING: reading}
        return super()._run_single_frame_inference(
            inference_state, output_dict, frame_idx, batch_size, is_init_cond_frame, **others
        )

    def _reading_again(
        self, state: TrackState, obj_idx: int, frame_idx: int, reverse: bool
    ) -> ReadOutputs | None:
        """What an object's first pathway reads for a frame that was tracked; None: it has none."""
        held = state.memories.get(state.object_id(obj_idx))
        if held is None or held.reverse != reverse:
            return None
        outputs = self.memory.select(state.outputs[obj_idx], frame_idx, reverse)
        tracked = state.outputs[obj_idx][TRACKED]
        time = -frame_idx if reverse else frame_idx
        return self._readings(held, time, outputs, tracked)[0]


def high_res_levels(features: list[Tensor], grids: list) -> list[Tensor] | None:
    """SAM2's features at strides 4 and 8, from [hw, B, C] to [B, C, h, w]; None without them."""
    if len(features) == 1:
        return None
    return [
        level.permute(1, 2, 0).view(level.size(1), level.size(2), *grid)
        for level, grid in zip(features[:-1], grids[:-1])
    ]


def apart(whole: dict, at: int, batch: int) -> dict:
    """One item of a batch's output. Copied where there are several: they are dropped apart."""
    if batch == 1:
        return whole
    item = {key: item_of(value, at) for key, value in whole.items()}
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in item.items()}
