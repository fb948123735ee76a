"""The model of the SAM2 training, its initial weights and its losses."""

import torch
from torch import Tensor
from training.loss_fns import MultiStepMultiMasksAndIous
from training.model.sam2 import SAM2Train


class ClickTracker(SAM2Train):
    """As SAM2Train (sam2 1.1.0), plus two things that training from random weights needs.

    * The number of correction clicks can be zero.
    * In training, an object that is in view keeps its mask where its score says absent. SAM2 would
      replace the mask logits by -1024, through which no gradient passes. The score itself is still
      trained on its own prediction.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # [O, 1] bool, whether the current frame shows each object; None outside training.
        self._present: Tensor | None = None
        self._scores: list[Tensor] = []  # of the current frame, one per call of the mask decoder
        self.sam_mask_decoder.register_forward_hook(self._keep_masks_of_present_objects)

    def prepare_prompt_inputs(self, backbone_out, input, start_frame_idx=0):
        """As SAM2Train's, plus: no frame gets correction clicks where their number is zero."""
        backbone_out = super().prepare_prompt_inputs(backbone_out, input, start_frame_idx)
        if self.num_correction_pt_per_frame == 0:
            backbone_out["frames_to_add_correction_pt"] = []
        return backbone_out

    def track_step(self, *args, mask_inputs=None, gt_masks=None, **kwargs):
        """As SAM2Train's, plus: output the scores as the decoder predicted them."""
        self._present = gt_masks.flatten(1).any(1, keepdim=True) if self.training else None
        self._scores = []
        output = super().track_step(*args, mask_inputs=mask_inputs, gt_masks=gt_masks, **kwargs)
        # On frames with a mask prompt SAM2 takes the score from the mask, not from the decoder.
        if self.training and mask_inputs is None:
            output["multistep_object_score_logits"] = self._scores
        return output

    def _keep_masks_of_present_objects(self, decoder, inputs, output):
        """A hook after the mask decoder: raise the scores of present objects above 0."""
        if self._present is None:
            return output
        masks, ious, tokens, scores = output
        self._scores.append(scores)
        return masks, ious, tokens, torch.where(self._present & (scores <= 0), 1.0, scores)


def start_object_scores(model: torch.nn.Module, bias: float = 3.0) -> None:
    """Let the object score of a random SAM2 start near the logit `bias`."""
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(bias)


def start_click_attention(model: torch.nn.Module, gain: float = 2.2) -> None:
    """Let the mask decoder's image-token cross attentions start as a match of position codes.

    SAM's code of a position x is [sin(2 pi g.x), cos(2 pi g.x)] over random frequencies g. A head
    that selects both halves of a few frequencies, in queries and keys alike, computes
    sum cos(2 pi g.(x - y)), which is largest where x equals y. gain: of the selected frequencies.
    """
    transformer = model.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:
        heads, per_head = attention.num_heads, attention.internal_dim // attention.num_heads
        half = attention.embedding_dim // 2
        # Each pair of rows selects the sine and the cosine of one frequency.
        weight = torch.zeros(attention.internal_dim, attention.embedding_dim)
        for head in range(heads):
            for pair in range(per_head // 2):
                frequency = (head * (per_head // 2) + pair) % half
                row = head * per_head + 2 * pair
                weight[row, frequency] = weight[row + 1, half + frequency] = gain
        noise = 0.02
        with torch.no_grad():
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight.copy_(weight + noise * torch.randn(weight.shape))
                projection.bias.zero_()


def start_memory(model: torch.nn.Module, locality: float = 1.5) -> None:
    """Let memory influence the output from the first step.

    With random weights, changing the remembered mask changes the features by less than one percent.
    Therefore the mask embedding, the memory and the values read from it start larger. Memory
    attention starts local: its queries and keys share a bias on the middle frequencies of their
    rotary code, so that each place first attends to a few cells around itself in remembered frames.
    locality: size of that bias.
    """
    with torch.no_grad():
        model.memory_encoder.mask_downsampler.encoder[-1].weight.mul_(6)
        model.memory_encoder.out_proj.weight.mul_(3**0.5)
        for layer in model.memory_attention.layers:
            attention = layer.cross_attn_image
            attention.v_proj.weight.mul_(2.5)
            attention.out_proj.weight.mul_(2.5)
            # sam2's axial rotary code: complex pairs, first half along x, second half along y.
            pairs = attention.internal_dim // 4
            frequency = 10000.0 ** (-torch.arange(pairs) / pairs)
            bias = torch.where((frequency > 0.12) & (frequency < 0.9), locality * 0.5**0.5, 0.0)
            bias = bias.repeat(2).repeat_interleave(2)
            attention.q_proj.bias.copy_(bias)
            attention.k_proj.bias.copy_(bias)


def sam2_losses(weights: dict[str, float]) -> MultiStepMultiMasksAndIous:
    """SAM2's own losses.

    weights: of loss_mask (focal), loss_dice, loss_iou (L1) and loss_class (object score).
    """
    return MultiStepMultiMasksAndIous(
        dict(weights),
        supervise_all_iou=True,
        iou_use_l1_loss=True,
        pred_obj_scores=True,
        focal_gamma_obj_score=0.0,
        focal_alpha_obj_score=-1.0,
    )


def mask_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """IoU of bool masks [..., H, W]: [...], 1 where both are empty.

    As measure.masks.iou, but of many masks at once and on their device.
    """
    union = (predicted | truth).flatten(-2).sum(-1)
    return torch.where(union > 0, (predicted & truth).flatten(-2).sum(-1) / union.clamp(min=1), 1.0)
