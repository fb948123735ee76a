"""SAM2's mask decoder, asked several times about one frame in one batch.

Every object is asked with no prompt, one click, three clicks and a mask prompt. Clicks and the mask
come from its place (places.py). They are asked on two features: the one that memory attention
conditioned, and the frame's own, as SAM2 has it for a first frame.
"""

from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor
from torch.nn.functional import interpolate

CLICKS = 3  # of the prompt with several clicks
# Of each answer: whether it reads the memory-conditioned feature, and its prompt.
KINDS = (
    (True, "none"),
    (False, "click"),
    (False, "clicks"),
    (False, "mask"),
    (True, "click"),
    (True, "clicks"),
    (True, "mask"),
)
OWN = 0  # SAM2's own question: memory and no prompt
PRESENT = 1.0  # least object score of an answer that is accepted, as a logit


@dataclass(frozen=True)
class Questions:
    """What B objects are asked with, in pixels of SAM2's image."""

    clicks: Tensor  # [B, CLICKS, 2] x, y; the first is the single click
    maps: Tensor  # [B, 1, h, w] logits, above 0 where the object is expected


@dataclass(frozen=True)
class Answers:
    """The candidates for B objects. K = len(KINDS), M masks each; unused ones have IoU -inf."""

    masks: Tensor  # [B, K, M, h, w] logits, whatever the object score
    ious: Tensor  # [B, K, M] predicted IoU
    tokens: Tensor  # [B, K, M, C] output tokens of the masks
    scores: Tensor  # [B, K] object score, a logit


def ask(
    model: SAM2Base,
    own: Tensor,  # [B, C, h, w] the frame's own feature
    conditioned: Tensor,  # [B, C, h, w] the same after memory attention
    high_res: list[Tensor] | None,  # [B, c, ...] at strides 8 and 4
    questions: Questions,
) -> Answers:
    """Decode all kinds of questions for all objects in one batch."""
    batch, kinds = len(own), len(KINDS)
    sparse, dense = _prompts(model, questions)
    features = torch.stack([conditioned if by_memory else own for by_memory, _ in KINDS], 1)
    masks, ious, tokens, scores = model.sam_mask_decoder.predict_masks(
        image_embeddings=features.flatten(0, 1),
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=high_res and [level.repeat_interleave(kinds, 0) for level in high_res],
    )
    allowed = torch.tensor([_trained_masks(model, prompt) for _, prompt in KINDS])
    shape = (batch, kinds)
    ious = ious.float().unflatten(0, shape)
    ious = ious.masked_fill(~allowed.to(ious.device), -torch.inf)
    if not model.use_multimask_token_for_obj_ptr:
        tokens = tokens[:, :1].expand_as(tokens)
    return Answers(
        masks.float().unflatten(0, shape),
        ious,
        tokens.unflatten(0, shape),
        scores.float().reshape(shape),
    )


def _trained_masks(model: SAM2Base, prompt: str) -> list[bool]:
    """Which of the decoder's masks are trained for a prompt: the first, or the other three."""
    count = model.sam_mask_decoder.num_mask_tokens
    clicks = {"none": 0, "mask": 0, "click": 1, "clicks": CLICKS}[prompt]
    several = model.multimask_output_in_sam and (
        model.multimask_min_pt_num <= clicks <= model.multimask_max_pt_num
    )
    if clicks == 0:
        several = several and model.multimask_output_for_tracking
    return [(index > 0) == several for index in range(count)]


def _prompts(model: SAM2Base, questions: Questions) -> tuple[Tensor, Tensor]:
    """Embeddings of all prompts: sparse [B * K, P, C] and dense [B * K, C, h, w]."""
    encoder = model.sam_prompt_encoder
    clicks = questions.clicks
    batch, device = len(clicks), clicks.device
    used = torch.tensor([{"click": 1, "clicks": CLICKS}.get(p, 0) for _, p in KINDS])
    # Label -1 marks the padding of a shorter prompt.
    labels = torch.where(torch.arange(CLICKS) < used[:, None], 1, -1).to(torch.int32).to(device)
    coordinates = clicks[:, None].expand(-1, len(KINDS), -1, -1)
    labels = labels.expand(batch, -1, -1)
    points = (coordinates.flatten(0, 1), labels.flatten(0, 1))
    sparse, dense = encoder(points=points, boxes=None, masks=None)
    maps = questions.maps
    if maps.shape[-2:] != encoder.mask_input_size:
        maps = interpolate(maps, encoder.mask_input_size, mode="bilinear", align_corners=False)
    by_map = encoder.mask_downscaling(maps)
    dense = dense.unflatten(0, (batch, len(KINDS))).to(by_map.dtype)
    has_map = torch.tensor([prompt == "mask" for _, prompt in KINDS], device=device)
    dense = torch.where(has_map[None, :, None, None, None], by_map[:, None], dense)
    return sparse, dense.flatten(0, 1)


def pointers(model: SAM2Base, tokens: Tensor, scores: Tensor) -> Tensor:
    """Object pointers [B, C] of output tokens [B, C] and object scores [B, 1], as in
    SAM2Base._forward_sam_heads.
    """
    pointer = model.obj_ptr_proj(tokens)
    if not model.pred_obj_scores:
        return pointer
    present = scores.sigmoid() if model.soft_no_obj_ptr else (scores > 0).to(pointer.dtype)
    if model.fixed_no_obj_ptr:
        pointer = present * pointer
    return pointer + (1 - present) * model.no_obj_ptr


def absent(masks: Tensor) -> Tensor:
    """The mask logits of an absent object, in the shape of `masks`."""
    return torch.full_like(masks, NO_OBJ_SCORE)
