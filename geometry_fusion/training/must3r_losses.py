"""Losses of the MUSt3R training: pointmaps, matches and attention; must3r_task.py explains them.

Shapes: B clips of T frames, N tokens per frame (row-major, S/patch a side), P sampled pixels.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from geometry_fusion.must3r.postprocess import Pointmaps
from geometry_fusion.training.posed_clips import PosedBatch, project


def scale_of(points: Tensor, valid: Tensor) -> Tensor:
    """Mean distance of points [B, ..., 3] from the reference camera, over valid ones: [B]."""
    distance = points.norm(dim=-1) * valid
    return (distance.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)).clamp(min=1e-6)


def regression(
    predicted: Pointmaps,  # of [B, T, P] pixels
    points: Tensor,  # [B, T, P, 3] true, in the reference camera
    local: Tensor,  # [B, T, P, 3] true, in each frame's own camera
    valid: Tensor,  # [B, T, P] bool
    alpha: float,  # weight of the reward for confidence
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(losses, errors) of "points" and "local".

    Errors are relative to the clip's mean distance; losses weigh them by confidence (DUSt3R, arXiv
    2312.14132, equation 4).
    """
    expand = (slice(None), None, None, None)
    predicted_scale = scale_of(predicted.points, valid)
    true_scale = scale_of(points, valid)
    confidence = predicted.confidence
    count = valid.sum().clamp(min=1)
    losses, errors = {}, {}
    pairs = (("points", predicted.points, points), ("local", predicted.local, local))
    for name, estimate, truth in pairs:
        gap = estimate / predicted_scale[expand] - truth / true_scale[expand]
        error = gap.norm(dim=-1)
        weighted = confidence * error - alpha * confidence.log()
        losses[name] = (weighted * valid).sum() / count
        errors[f"{name}_error"] = (error * valid).sum().detach() / count
    return losses, errors


def matching_loss(
    descriptors: Tensor,  # [B, T, N, D] of length 1
    batch: PosedBatch,
    points: Tensor,  # [B, T, S, S, 3] true, in the world
    patch: int,  # pixels of a side of a token
    temperature: float,
) -> Tensor:
    """InfoNCE of tokens over consecutive frames, in both directions; zero without matches.

    A token matches the token of the other frame that sees the point at its middle.
    """
    middle = points[:, :, patch // 2 :: patch, patch // 2 :: patch].flatten(2, 3)  # [B, T, N, 3]
    columns = points.shape[3] // patch
    logits, targets = [], []
    for a, b in ((slice(0, -1), slice(1, None)), (slice(1, None), slice(0, -1))):
        pixels, seen = project(
            middle[:, a].flatten(0, 1),
            batch.depth[:, b].flatten(0, 1),
            batch.camera_to_world[:, b].flatten(0, 1),
            batch.intrinsics[:, b].flatten(0, 1),
        )
        cell = ((pixels + 0.5) / patch).long()
        queries = descriptors[:, a].flatten(0, 1)
        keys = descriptors[:, b].flatten(0, 1)
        similarity = queries @ keys.transpose(1, 2)
        logits.append(similarity[seen] / temperature)
        targets.append((cell[..., 1] * columns + cell[..., 0])[seen])
    logits, targets = torch.cat(logits), torch.cat(targets)
    # Times zero: data parallelism needs a gradient for every parameter.
    return cross_entropy(logits, targets) if len(targets) else descriptors.sum() * 0


def attention_loss(
    attention: list[Tensor],  # per frame [B, heads, N, M] before the softmax
    batch: PosedBatch,
    points: Tensor,  # [B, T, H, W, 3] true, in the world
    patch: int,  # pixels of a side of a token
) -> Tensor:
    """Mean of -log(share of a token's attention that goes to memory tokens of the same point).

    Tokens without a match in memory do not count; zero if no token has one.
    """
    middle = points[:, :, patch // 2 :: patch, patch // 2 :: patch]
    rows, columns = middle.shape[2:4]
    middle = middle.flatten(2, 3)  # [B, T, N, 3]
    losses = []
    for t, logits in enumerate(attention):
        matches = []
        for s in frames_read(t):
            pixels, seen = project(
                middle[:, t], batch.depth[:, s], batch.camera_to_world[:, s], batch.intrinsics[:, s]
            )
            # Unseen points may lie anywhere; they are clamped here and masked by `seen`.
            cell = ((pixels + 0.5) / patch).long().clamp(min=0)
            row, column = cell[..., 1].clamp(max=rows - 1), cell[..., 0].clamp(max=columns - 1)
            target = row * columns + column
            matches.append(one_hot(target, rows * columns).bool() & seen[..., None])
        matches = torch.cat(matches, -1)[:, None]  # [B, 1, N, M]
        on_matches = logits.float().masked_fill(~matches, -torch.inf).logsumexp(-1)
        loss = logits.float().logsumexp(-1) - on_matches
        losses.append(loss[matches.any(-1).expand_as(loss)])
    losses = torch.cat(losses)
    return losses.mean() if len(losses) else points.sum() * 0


def frames_read(t: int) -> list[int]:
    """The frames whose tokens frame `t` of a clip attends to, in the order of memory.

    The first two frames are decoded together and attend to each other.
    """
    return [1] if t == 0 else list(range(t))
