"""Mask prompts that are small at the model's size: they must not vanish when they are resized.

SAM2 resizes a mask prompt to its input size, keeps pixels that are covered by half, and reduces the
result by 4 for its answer and its memory. An object of 12 x 12 pixels in a frame of 1280 x 720
covers 2.4 x 4.3 pixels of a model of 256 pixels, and half a pixel of the reduced mask: nothing is
left of it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from geometry_fusion.types import Prompt

MASK_LOGIT = 10.0  # SAM2's logit of a pixel inside a mask prompt (SAM2Base._use_mask_as_output)
TRACKABLE_PIXELS = 64  # a quarter of one cell of SAM2's memory
REDUCTION = 4  # SAM2's mask logits have a quarter of the input's side


def resized_mask(mask: Tensor, side: int) -> Tensor:
    """Bool [H, W] -> bool [side, side] as SAM2 resizes mask prompts, but with at least the area
    that the mask has.

    Where less than half of the area would be left, the pixels that it covers most are taken
    instead.
    """
    if mask.shape == (side, side):
        return mask
    cover = interpolate(
        mask[None, None].float(),
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0, 0]
    resized = cover >= 0.5
    area = float(mask.float().mean()) * side**2
    if not mask.any() or resized.sum() >= area / 2:
        return resized
    count = max(1, round(area))
    least = cover.flatten().topk(count).values[-1]
    return (cover >= least) & (cover > 0)  # pixels that are covered alike all count


def keep_small_parts(logits: Tensor, masks: Tensor) -> Tensor:
    """Mask logits [B, 1, h, w] that SAM2 made of `masks` [B, 1, 4h, 4w] (0 and 1) by averaging;
    where averaging lost more than half of a mask, every cell that the mask touches counts
    instead."""
    left = (logits > 0).flatten(1).sum(1) * REDUCTION**2
    lost = left < masks.flatten(1).sum(1) / 2
    touched = max_pool2d(masks.to(logits), REDUCTION)
    return torch.where(lost[:, None, None, None], (2 * touched - 1) * MASK_LOGIT, logits)


def small_mask_warnings(prompts: Iterable[Prompt], side: int) -> list[str]:
    """A line for each mask prompt that a model of `side` pixels cannot track, since it is too small
    for it.

    Tried once with the tiny model, on 19 views in three validation rooms. Into the next three
    frames, masks below 64 pixels at the model's size were tracked with a mean IoU of 0.00 to 0.02,
    masks of 100 to 200 pixels with 0.68.
    """
    lines = []
    for prompt in prompts:
        if prompt.mask is None:
            continue
        pixels = float(prompt.mask.mean()) * side**2
        if pixels < TRACKABLE_PIXELS:
            lines.append(
                f"{prompt.source}: object {prompt.object_id} covers {pixels:.0f} pixels of the "
                f"{side}x{side} that the "
                f"model sees; below {TRACKABLE_PIXELS} tracking does not work: crop the video "
                "around the object, or "
                "take a model that sees more (--sam2 t, s, b+ and l see 1024x1024)"
            )
    return lines
