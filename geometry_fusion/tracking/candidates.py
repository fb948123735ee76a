"""The mask decoder's candidates, all of them: SAM2 itself keeps only the best.

As SAM2Base._forward_sam_heads (sam2 1.1.0) for frames without a prompt, in two steps, between which
a memory strategy chooses.
"""

from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor
from torch.nn.functional import interpolate

from geometry_fusion.tracking.asked_decoder import Answers, pointers, unprompted
from geometry_fusion.tracking.memories.records import Candidates


@dataclass(frozen=True)
class Decoded:
    """What the decoder offers for one item of a batch."""

    masks: Tensor  # [K, h, w] logits, NO_OBJ_SCORE where the object is absent
    ious: Tensor  # [K] predicted
    tokens: Tensor  # [K, C] or [1, C] output tokens of the masks
    score: Tensor  # [1] object score, a logit
    conditioned: Tensor  # [C, h, w] the feature that was decoded
    raw: Tensor  # [K, h, w] the mask logits, whatever the object score

    def candidates(self) -> Candidates:
        """As memory strategies see them."""
        return Candidates(
            tuple(self.ious.float().tolist()),
            float(self.score),
            lambda: (self.masks > 0).cpu().numpy(),
        )


def decode(
    model: SAM2Base,
    conditioned: Tensor,  # [B, C, h, w]
    high_res: list[Tensor] | None,  # [B, c, ...] at strides 4 and 8
    presence: float,  # object score above which an object is there; SAM2's is 0
) -> list[Decoded]:
    """The candidates of a batch, without a prompt."""
    batch, device = len(conditioned), conditioned.device
    no_click = torch.zeros(batch, 1, 2, device=device)
    padding = -torch.ones(batch, 1, dtype=torch.int32, device=device)
    sparse, dense = model.sam_prompt_encoder(points=(no_click, padding), boxes=None, masks=None)
    masks, ious, tokens, scores = model.sam_mask_decoder(
        image_embeddings=conditioned,
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=model._use_multimask(False, None),
        repeat_image=False,
        high_res_features=high_res,
    )
    raw = masks.float()
    if model.pred_obj_scores:
        masks = torch.where((scores > presence)[:, None, None], masks, NO_OBJ_SCORE)
    masks = masks.float()
    return [Decoded(*row) for row in zip(masks, ious, tokens, scores, conditioned, raw)]


def raw_answers(model: SAM2Base, decoded: list[Decoded]) -> Answers:
    """The candidates of a batch, whatever their object scores, as places see SAM2's answers."""
    parts = ([getattr(d, name) for d in decoded] for name in ("raw", "ious", "tokens", "score"))
    return unprompted(model, *(torch.stack(part) for part in parts))


def chosen_outputs(
    model: SAM2Base, decoded: list[Decoded], chosen: list[int], presence: float
) -> tuple:
    """SAM2's seven outputs for a batch with one chosen candidate per item, as if the decoder had
    offered only that.
    """
    low_res = torch.stack([d.masks[k : k + 1] for d, k in zip(decoded, chosen)])
    # All candidates, as SAM2 enlarges them: a single channel is rounded otherwise.
    large = interpolate(
        torch.stack([d.masks for d in decoded]),
        size=(model.image_size, model.image_size),
        mode="bilinear",
        align_corners=False,
    )
    high_res = torch.stack([masks[k : k + 1] for masks, k in zip(large, chosen)])
    ious = torch.stack([d.ious[k : k + 1] for d, k in zip(decoded, chosen)])
    tokens = torch.stack([d.tokens[min(k, len(d.tokens) - 1)] for d, k in zip(decoded, chosen)])
    scores = torch.stack([d.score for d in decoded])
    pointer = pointers(model, tokens, scores - presence)
    return low_res, high_res, ious, low_res, high_res, pointer, scores
