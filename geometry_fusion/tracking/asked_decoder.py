"""SAM2's mask decoder, asked several times about one frame in one batch.

Every object is asked with prompts that come from its place (places.py): one click, three clicks or
a mask. They are asked on two features: the one that memory attention conditioned, and the frame's
own, as SAM2 has it for a first frame. SAM2's own answer, without a prompt, is taken from its pass
through the decoder (`SeenDecoder`).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor
from torch.nn.functional import interpolate, pad

CLICKS = 3  # of the prompt with several clicks
# Questions by name: whether one reads the memory-conditioned feature, and its prompt.
QUESTIONS = {
    "click": (False, "click"),
    "clicks": (False, "clicks"),
    "mask": (False, "mask"),
    "remembered click": (True, "click"),
    "remembered clicks": (True, "clicks"),
    "remembered mask": (True, "mask"),
}
UNPROMPTED = 0  # the first kind of answer: SAM2's own
PRESENT = 1.0  # least object score of an answer that is accepted, as a logit


@dataclass(frozen=True)
class Prompts:
    """What B objects are asked with, in pixels of SAM2's image."""

    clicks: Tensor  # [B, CLICKS, 2] x, y; the first is the single click
    maps: Tensor  # [B, 1, h, w] logits, above 0 where the object is expected


@dataclass(frozen=True)
class Answers:
    """The candidates for B objects: K kinds with M masks each; unused ones have IoU -inf."""

    masks: Tensor  # [B, K, M, h, w] logits, whatever the object score
    ious: Tensor  # [B, K, M] predicted IoU
    tokens: Tensor  # [B, K, M, C] output tokens of the masks
    scores: Tensor  # [B, K] object score, a logit

    def of(self, numbers: Tensor) -> "Answers":
        """Those of some of the objects, by their numbers in the batch."""
        return Answers(*(part[numbers] for part in vars(self).values()))

    def joined(self, others: "Answers") -> "Answers":
        """With the kinds of others after these, for the same objects."""
        pairs = zip(vars(self).values(), vars(others).values())
        return Answers(*(torch.cat(pair, 1) for pair in pairs))


class SeenDecoder:
    """What SAM2's own pass through its mask decoder answered, before absent objects are blanked.

    A context around one pass: with SeenDecoder(model) as seen: ...; then seen.answers().
    """

    def __init__(self, model: SAM2Base):
        self._model, self._output = model, None

    def __enter__(self) -> "SeenDecoder":
        thread = threading.get_ident()  # another session may use the model at the same time

        def see(module, args, output):
            if threading.get_ident() == thread:
                self._output = output

        self._hook = self._model.sam_mask_decoder.register_forward_hook(see)
        return self

    def __exit__(self, *error) -> None:
        self._hook.remove()

    def answers(self) -> Answers:
        """The one kind of answer, in the form of `ask`."""
        return unprompted(self._model, *self._output)


def unprompted(
    model: SAM2Base,
    masks: Tensor,  # [B, M, h, w] logits, as the decoder returns them
    ious: Tensor,  # [B, M]
    tokens: Tensor,  # [B, M or 1, C]
    scores: Tensor,  # [B, 1]
) -> Answers:
    """SAM2's own answers in the form of `ask`: one kind, masks at their places among all."""
    count = model.sam_mask_decoder.num_mask_tokens
    # SAM2 returns either the first of the decoder's masks, or all others.
    first = 0 if masks.shape[1] == 1 else 1
    rest = count - first - masks.shape[1]
    tokens = pad(tokens.expand(-1, masks.shape[1], -1), (0, 0, first, rest))
    masks = pad(masks.float(), (0, 0, 0, 0, first, rest))
    ious = pad(ious.float(), (first, rest), value=-torch.inf)
    scores = scores.float().reshape(len(masks), 1)
    return Answers(masks[:, None], ious[:, None], tokens[:, None], scores)


def ask(
    model: SAM2Base,
    own: Tensor,  # [B, C, h, w] the frame's own feature
    conditioned: Tensor,  # [B, C, h, w] the same after memory attention
    high_res: list[Tensor] | None,  # [B, c, ...] at strides 8 and 4
    prompts: Prompts,
    questions: Sequence[str],  # of QUESTIONS
) -> Answers:
    """Decode all questions about all objects in one batch; the kinds are in their order."""
    asked = [QUESTIONS[name] for name in questions]
    batch, kinds = len(own), len(asked)
    sparse, dense = _embedded(model, prompts, [prompt for _, prompt in asked])
    features = torch.stack([conditioned if by_memory else own for by_memory, _ in asked], 1)
    masks, ious, tokens, scores = model.sam_mask_decoder.predict_masks(
        image_embeddings=features.flatten(0, 1),
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=high_res and [level.repeat_interleave(kinds, 0) for level in high_res],
    )
    allowed = torch.tensor([_trained_masks(model, prompt) for _, prompt in asked])
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
    clicks = {"mask": 0, "click": 1, "clicks": CLICKS}[prompt]
    several = model.multimask_output_in_sam and (
        model.multimask_min_pt_num <= clicks <= model.multimask_max_pt_num
    )
    if clicks == 0:
        several = several and model.multimask_output_for_tracking
    return [(index > 0) == several for index in range(count)]


def _embedded(model: SAM2Base, prompts: Prompts, kinds: list[str]) -> tuple[Tensor, Tensor]:
    """Embeddings of K kinds of prompts: sparse [B * K, P, C] and dense [B * K, C, h, w]."""
    encoder = model.sam_prompt_encoder
    clicks = prompts.clicks
    batch, device = len(clicks), clicks.device
    used = torch.tensor([{"click": 1, "clicks": CLICKS}.get(kind, 0) for kind in kinds])
    # Label -1 marks the padding of a shorter prompt.
    labels = torch.where(torch.arange(CLICKS) < used[:, None], 1, -1).to(torch.int32).to(device)
    coordinates = clicks[:, None].expand(-1, len(kinds), -1, -1)
    labels = labels.expand(batch, -1, -1)
    points = (coordinates.flatten(0, 1), labels.flatten(0, 1))
    sparse, dense = encoder(points=points, boxes=None, masks=None)
    if "mask" not in kinds:
        return sparse, dense
    maps = prompts.maps
    if maps.shape[-2:] != encoder.mask_input_size:
        maps = interpolate(maps, encoder.mask_input_size, mode="bilinear", align_corners=False)
    by_map = encoder.mask_downscaling(maps)
    dense = dense.unflatten(0, (batch, len(kinds))).to(by_map.dtype)
    has_map = torch.tensor([kind == "mask" for kind in kinds], device=device)
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
