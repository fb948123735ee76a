"""The first steps of tracking: prompts in, masks and memories of the prompted frames out."""

import torch
from torch.nn.functional import interpolate

from geometry_fusion.tracking.small_masks import keep_small_parts, resized_mask
from geometry_fusion.tracking.state import TrackState
from geometry_fusion.tracking.strategy_step import StrategyTracking


class Prompting(StrategyTracking):
    """As StrategyTracking, plus: prompts choose their object's lane (lanes.py), small masks do not
    vanish (small_masks.py), and an object's place begins where it is prompted.
    """

    @torch.inference_mode()
    def propagate_in_video_preflight(self, inference_state: TrackState) -> None:
        """As SAM2VideoPredictor.propagate_in_video_preflight, plus: the memory of a prompt is
        encoded from the features of its object's lane.
        """
        if len(inference_state.lanes) > 1:
            for obj_idx in inference_state.outputs:
                inference_state.use_lane_of(obj_idx)
                self._remember_prompts(inference_state, obj_idx)
        super().propagate_in_video_preflight(inference_state)

    def _remember_prompts(self, state: TrackState, obj_idx: int) -> None:
        """Encode the memories of an object's prompts that have none, as SAM2's preflight does."""
        side = self.image_size
        for outputs in state["temp_output_dict_per_obj"][obj_idx].values():
            for frame_idx, output in outputs.items():
                if output["maskmem_features"] is not None:
                    continue
                masks = output["pred_masks"].to(self.device)
                large = interpolate(masks, (side, side), mode="bilinear", align_corners=False)
                memory, positions = self._run_memory_encoder(
                    state, frame_idx, 1, large, output["object_score_logits"], True
                )
                output["maskmem_features"], output["maskmem_pos_enc"] = memory, positions

    @torch.inference_mode()
    def remember_again(self, state: TrackState, frame_idx: int) -> None:
        """After `TrackState.rewind`: encode a frame's memory of prompts from its new features."""
        state.encode_memory_again(frame_idx)
        self.propagate_in_video_preflight(state)

    @torch.inference_mode()
    def add_new_mask(self, inference_state: TrackState, frame_idx: int, obj_id: int, mask):
        """As SAM2VideoPredictor.add_new_mask, plus: masks that are small at the model's size do not
        vanish (small_masks.py). mask: [H, W], not 0 = object.
        """
        if not self.upstream:
            mask = resized_mask(torch.as_tensor(mask, dtype=torch.bool), self.image_size)
        inference_state.lanes.begin(obj_id, frame_idx)
        answer = super().add_new_mask(inference_state, frame_idx, obj_id, mask)
        inference_state.note_prompt(obj_id, frame_idx)
        return answer

    @torch.inference_mode()
    def add_new_points_or_box(
        self, inference_state: TrackState, frame_idx: int, obj_id: int, **prompt
    ):
        """As SAM2VideoPredictor.add_new_points_or_box, plus: the object's place begins there."""
        inference_state.lanes.begin(obj_id, frame_idx)
        answer = super().add_new_points_or_box(inference_state, frame_idx, obj_id, **prompt)
        inference_state.note_prompt(obj_id, frame_idx)
        return answer

    def _use_mask_as_output(self, backbone_features, high_res_features, mask_inputs):
        """As SAM2Base._use_mask_as_output, plus: small masks do not vanish (small_masks.py)."""
        outputs = super()._use_mask_as_output(backbone_features, high_res_features, mask_inputs)
        if self.upstream:
            return outputs
        _, high_res, ious, low_res, *rest = outputs
        low_res = keep_small_parts(low_res, mask_inputs)
        return low_res, high_res, ious, low_res, *rest
