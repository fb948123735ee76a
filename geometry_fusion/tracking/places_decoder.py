"""The step between SAM2's mask decoder and its memory: objects judged by their places (places.py).

`PlacesDecoder` is SAM2 with that step. What it judges travels to it in the dictionary of outputs
that SAM2 passes through, because a predictor holds nothing of a video.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from geometry_fusion.io.mask_writer import innermost_point
from geometry_fusion.tracking import asked_decoder
from geometry_fusion.tracking.asked_decoder import CLICKS, PRESENT, Answers, Prompts, SeenDecoder
from geometry_fusion.tracking.encoder import FusingEncoder
from geometry_fusion.tracking.place import Cells, Place, Sight, cells_of, spread
from geometry_fusion.tracking.places import (
    ABSENT,
    ASKED,
    OWN,
    VETOED,
    best_answer,
    is_clear,
    is_expected,
    judging_side,
)
from geometry_fusion.tracking.state import PROMPTED, TrackState

JUDGE = "places"  # the key of a `Judge` among the outputs that SAM2 passes through
MAP_LOGIT = 10.0  # of the mask prompt, at the place itself
TRIMMED_LOGIT = -10.0


class PlacesDecoder(FusingEncoder):
    """As FusingEncoder, plus: the answers of SAM2's decoder are judged by the objects' places."""

    def _track_step(
        self,
        frame_idx,
        is_init_cond_frame,
        current_vision_feats,
        current_vision_pos_embeds,
        feat_sizes,
        point_inputs,
        mask_inputs,
        output_dict,
        *others,
    ):
        """As SAM2Base._track_step, plus: what a `Judge` among the outputs decides."""
        given = (
            frame_idx,
            is_init_cond_frame,
            current_vision_feats,
            current_vision_pos_embeds,
            feat_sizes,
            point_inputs,
            mask_inputs,
            output_dict,
            *others,
        )
        judge = output_dict.get(JUDGE)
        if judge is None:
            return super()._track_step(*given)
        with SeenDecoder(self) as seen:
            current_out, sam_outputs, high_res, conditioned = super()._track_step(*given)
        own = self.own_feature(current_vision_feats[-1], conditioned.shape)
        judged = judge.judged(self, sam_outputs, seen.answers, own, conditioned, high_res)
        return current_out, judged, high_res, conditioned

    def own_feature(self, feature: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A frame's own feature [hw, B, C] as SAM2 decodes it on a first frame, in `shape`
        [B, C, h, w].
        """
        if self.directly_add_no_mem_embed:
            feature = feature + self.no_mem_embed
        return feature.permute(1, 2, 0).reshape(shape)


@dataclass
class Case:
    """One object of a batch in one frame, while it is judged."""

    number: int  # in the batch
    object_id: int
    place: Place
    sight: Sight
    mask: np.ndarray  # [N] bool, empty if absent
    iou: float  # predicted
    decision: str = OWN
    logits: Tensor | None = None  # [h, w] where they differ from SAM2's answer
    token: Tensor | None = None  # [C] of an accepted answer
    score: float = PRESENT


class Judge:
    """Judges the objects of one batch in one frame. `commit` then records what was decided.

    members: SAM2's indices of the objects, in the order of the batch.
    """

    def __init__(self, state: TrackState, frame: int, members: list[int], reverse: bool):
        self._state, self._frame, self._reverse = state, frame, reverse
        self._object_ids = [state.object_id(index) for index in members]
        self._members = members
        self._cells: Cells | None = None
        self._cases: list[Case] = []
        self._absent: list[tuple[int, int]] = []  # number in the batch, object id

    def judged(
        self,
        model: PlacesDecoder,
        sam_outputs: tuple,
        unprompted: Callable[[], Answers],  # SAM2's own answers
        own: Tensor,  # [B, C, h, w] the frame's own feature
        conditioned: Tensor,  # [B, C, h, w] the same after memory attention
        high_res: list[Tensor] | None,
    ) -> tuple:
        """SAM2's outputs for B objects, with the answers that were replaced, in the same form."""
        low_res = sam_outputs[3]
        side = judging_side(low_res.shape[-1])
        self._look(side)
        self._lift(side)
        self._open_cases(sam_outputs, side)
        judged = self._cases if self._state.places.trust.suffices else []
        asked = [case for case in judged if self._is_asked(case, side)]
        if asked:
            numbers = torch.tensor([case.number for case in asked], device=low_res.device)
            chosen = [own[numbers], conditioned[numbers]]
            levels = high_res and [level[numbers] for level in high_res]
            prompts = prompts_of(asked, side, model.image_size, low_res)
            questions = self._state.places.settings.questions
            answers = asked_decoder.ask(model, *chosen, levels, prompts, questions)
            self._accept(asked, unprompted().of(numbers).joined(answers), side)
        self._veto_and_trim(judged, low_res)
        changed = [case for case in self._cases if case.logits is not None]
        return replaced(model, sam_outputs, changed) if changed else sam_outputs

    def _look(self, side: int) -> None:
        """Read the frame's geometry, and test whether it belongs to the frame."""
        state = self._state
        geometry = state.geometry_of(self._frame)
        if geometry is not None and state.geometry_settled:
            self._cells = cells_of(geometry, side)
            state.places.trust.see(self._frame, state.frames[self._frame], self._cells)

    def _lift(self, side: int) -> None:
        """Lift prompted masks that can be lifted now."""
        places, state = self._state.places, self._state
        if not state.geometry_settled:
            return
        if places.any_waiting:
            state.ahead.wait()  # the geometry source may be taking in the next frames
        rendered: dict[int, Cells] = {}
        for object_id, index in zip(self._object_ids, self._members):
            prompted = state.outputs[index][PROMPTED]
            places.keep_prompts(object_id, state.prompts_of(index))
            for frame in places.waiting_frames(object_id):
                if frame in prompted and (frame < self._frame or self._reverse):
                    mask = on_grid(prompted[frame]["pred_masks"][0, 0], side).reshape(side, side)
                    places.lift(object_id, frame, mask, rendered)

    def _open_cases(self, sam_outputs: tuple, side: int) -> None:
        low_res, ious = sam_outputs[3], sam_outputs[2]
        for number, object_id in enumerate(self._object_ids):
            mask = on_grid(low_res[number, 0], side)
            place = self._state.places.of(object_id)
            if place is None or self._cells is None:
                if not mask.any():
                    self._absent.append((number, object_id))
                continue
            sight = place.sight(self._cells)
            iou = float(ious[number].max())
            case = Case(number, object_id, place, sight, mask, iou)
            case.decision = OWN if mask.any() else ABSENT
            self._cases.append(case)

    def _is_asked(self, case: Case, side: int) -> bool:
        settings = self._state.places.settings
        return is_expected(case.sight, side, settings) and not is_clear(
            case.mask, case.iou, case.sight, settings
        )

    def _accept(self, asked: list[Case], answers: Answers, side: int) -> None:
        """Replace SAM2's answer of each asked case where another one is better."""
        settings = self._state.places.settings
        ious = answers.ious.cpu().numpy()
        masks = on_grid(answers.masks, side)
        for at, case in enumerate(asked):
            best = best_answer(case.mask, case.iou, masks[at], ious[at], case.sight, settings)
            if best is None:
                continue
            case.decision = ASKED
            case.mask, case.iou = masks[at][best], float(ious[at][best])
            case.logits, case.token = answers.masks[at][best], answers.tokens[at][best]
            case.score = max(float(answers.scores[at, best[0]]), PRESENT)

    def _veto_and_trim(self, cases: list[Case], low_res: Tensor) -> None:
        settings = self._state.places.settings
        for case in cases:
            if not case.mask.any():
                continue
            known = case.mask & case.sight.known
            if known.any() and case.sight.precision(case.mask) < settings.veto:
                case.decision, case.score = VETOED, -PRESENT
                case.mask = np.zeros_like(case.mask)
                case.logits = asked_decoder.absent(low_res[case.number, 0])
                continue
            far = known & ~np.isfinite(case.sight.distance)
            if settings.trim and far.any():
                logits = low_res[case.number, 0] if case.logits is None else case.logits
                case.logits = trimmed(logits, far, self._cells.side)
                case.mask = case.mask & ~far

    def commit(self, numbers: Container[int] | None = None) -> None:
        """Record the decisions, and let places grow by confident masks.

        numbers: of the items of the batch that count, where it holds several answers for an object.
        """
        places = self._state.places
        settings = places.settings
        for number, object_id in self._absent:
            if numbers is None or number in numbers:
                places.decisions[object_id] = ABSENT
        for case in self._cases:
            if numbers is not None and case.number not in numbers:
                continue
            places.decisions[case.object_id] = case.decision
            sure = case.iou >= settings.grow_iou and case.mask.any()
            may_grow = places.trust.suffices and sure
            if may_grow and case.sight.precision(case.mask) >= settings.grow_precision:
                case.place.grow(case.mask, self._cells, case.sight, settings.growth)


def on_grid(logits: Tensor, side: int) -> np.ndarray:
    """Mask logits [..., h, w] -> masks [..., side * side] bool, on the CPU."""
    factor = logits.shape[-1] // side
    if factor > 1:
        lead = logits.shape[:-2]
        logits = avg_pool2d(logits.float().reshape(-1, 1, *logits.shape[-2:]), factor)
        logits = logits.reshape(*lead, side, side)
    return (logits > 0).flatten(-2).cpu().numpy()


def prompts_of(cases: list[Case], side: int, image_size: int, like: Tensor) -> Prompts:
    """The prompts of expected objects, on the device of `like`."""
    clicks = np.stack([clicks_of(case.sight, side) for case in cases])
    clicks = (clicks + 0.5) * image_size / side - 0.5
    distances = np.stack([case.sight.distance for case in cases])
    maps = np.clip(MAP_LOGIT * (1 - distances), -MAP_LOGIT, MAP_LOGIT)
    maps = maps.reshape(len(cases), 1, side, side)
    return Prompts(
        torch.from_numpy(clicks.astype(np.float32)).to(like.device),
        torch.from_numpy(maps.astype(np.float32)).to(like.device),
    )


def clicks_of(sight: Sight, side: int) -> np.ndarray:
    """Clicks [CLICKS, 2] x, y in cells: the innermost core cell, and others far apart."""
    core = sight.core if sight.core.any() else sight.near
    core = core.reshape(side, side)
    first = np.array(innermost_point(core))
    rows, columns = np.nonzero(core)
    return spread(np.stack([columns, rows], 1), first, CLICKS)


def trimmed(logits: Tensor, far: np.ndarray, side: int) -> Tensor:
    """Mask logits [h, w] that are negative in the cells `far` [N] bool."""
    cells = torch.from_numpy(far.reshape(side, side)).to(logits.device)
    factor = logits.shape[-1] // side
    if factor > 1:
        cells = cells.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    return torch.where(cells, logits.clamp(max=TRIMMED_LOGIT), logits)


def replaced(model: PlacesDecoder, sam_outputs: tuple, cases: list[Case]) -> tuple:
    """SAM2's outputs with the masks, pointers and object scores of the cases; the rest stays."""
    low_multi, high_multi, ious, low_res, high_res, pointer, scores = sam_outputs
    low_res, high_res = low_res.clone(), high_res.clone()
    pointer, scores = pointer.clone(), scores.clone()
    for case in cases:
        at = case.number
        low_res[at, 0] = case.logits
        large = interpolate(
            low_res[at : at + 1],
            size=(model.image_size, model.image_size),
            mode="bilinear",
            align_corners=False,
        )
        high_res[at] = large[0]
        if case.decision == VETOED or case.token is not None:
            scores[at] = case.score
        if case.decision == VETOED:
            pointer[at] = model.no_obj_ptr[0]
        elif case.token is not None:
            token = case.token[None]
            pointer[at] = asked_decoder.pointers(model, token, scores[at : at + 1])[0]
    return low_multi, high_multi, ious, low_res, high_res, pointer, scores
