"""Validation of the MUSt3R training: errors of points and poses over clips."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.errors import InputError
from geometry_fusion.must3r import camera_to_world
from geometry_fusion.must3r.postprocess import Pointmaps
from geometry_fusion.training.must3r_losses import scale_of
from geometry_fusion.training.posed_clips import PosedBatch, PosedClips, clip, move, to_batch


def clip_errors(predicted: Pointmaps, batch: PosedBatch) -> dict[str, Tensor]:
    """Errors of points and poses by name, each per frame [B, T].

    Prediction and truth are divided by their own mean distance from the reference camera first.
    Points and centres therefore have errors in mean distances of the clip; `rotation_error` is in
    degrees.
    """
    local = batch.local_points()
    poses = batch.reference_from_camera()
    points = move(poses, local)
    valid = batch.depth > 0
    predicted_scale, true_scale = scale_of(predicted.points, valid), scale_of(points, valid)
    count = valid.flatten(2).sum(2).clamp(min=1)
    wide = (slice(None), None, None, None, None)
    result = {}
    compared = (
        ("points_error", predicted.points, points),
        ("local_error", predicted.local, local),
        # What `points_error` would be for a network that ignores the camera's movement.
        ("identity_error", predicted.local, points),
    )
    for name, estimate, truth in compared:
        gap = estimate / predicted_scale[wide] - truth / true_scale[wide]
        result[name] = (gap.norm(dim=-1) * valid).flatten(2).sum(2) / count
    estimated = camera_to_world(predicted.local, predicted.points, predicted.confidence)
    # As geometry.cameras.rotation_angle, but on tensors of any device.
    relative = estimated[..., :3, :3].transpose(-2, -1) @ poses[..., :3, :3]
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    result["rotation_error"] = torch.rad2deg(cosine.clamp(-1, 1).acos())
    centres = estimated[..., :3, 3] / predicted_scale[:, None, None]
    true_centres = poses[..., :3, 3] / true_scale[:, None, None]
    result["centre_error"] = (centres - true_centres).norm(dim=-1)
    return result


def validation_clips(
    clips: PosedClips, count: int, frames: int, per_batch: int = 8
) -> Iterable[PosedBatch]:
    """Batches of up to `per_batch` clips of one picture shape, `count` in all, spread evenly over
    scenes.

    A clip is `frames` consecutive frames, unaugmented. Raises InputError for shorter scenes.
    """
    most = len(clips.scenes)
    numbers = np.unique(np.linspace(0, most - 1, min(count, most)).astype(int))
    repeats = -(-count // len(numbers))  # clips per scene, rounded up
    drawn = []
    for repeat in range(repeats):
        for number in numbers:
            scene = clips.loaded(int(number))
            if len(scene.images) < frames:
                raise InputError(
                    f"{clips.scenes[number].folder}: has {len(scene.images)} frames, fewer than "
                    f"validation.val_frames={frames}; lower it"
                )
            start = repeat * (len(scene.images) - frames) // max(repeats - 1, 1)
            indices = list(range(start, start + frames))
            name = f"{clips.scenes[number].folder.name} frames {indices}"
            drawn.append((clip(scene, indices), name))
    by_shape: dict[tuple, list] = {}
    for arrays, name in drawn[:count]:
        by_shape.setdefault(arrays[0].shape, []).append((arrays, name))
    for same in by_shape.values():
        for start in range(0, len(same), per_batch):
            chunk = same[start : start + per_batch]
            yield to_batch([arrays for arrays, _ in chunk], [name for _, name in chunk])


def depths_of(predicted: Pointmaps, batch: PosedBatch, rows: int = 3) -> np.ndarray:
    """A picture of the first `rows` clips: images, true depth and predicted depth, RGB uint8."""
    lines = []
    for b in range(min(rows, len(batch.images))):
        images = ((batch.images[b].permute(0, 2, 3, 1) + 1) * 127.5).byte()
        depth = predicted.local[b, ..., 2]
        truth = _as_grey(batch.depth[b] / batch.depth[b].max())
        estimate = _as_grey(depth / depth.max().clamp(min=1e-6))
        lines += [torch.cat(list(frames), 1) for frames in (images, truth, estimate)]
    return torch.cat(lines).cpu().numpy()


def _as_grey(values: Tensor) -> Tensor:
    """[T, H, W] in 0..1 -> [T, H, W, 3] uint8."""
    return (values.clamp(0, 1) * 255).byte()[..., None].expand(-1, -1, -1, 3)
