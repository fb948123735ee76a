"""From MUSt3R's raw maps to geometry: activations, focal length, pose (SPEC sections 4.9 and 9)."""

from typing import NamedTuple

import torch
from torch import Tensor


def lengths(vectors: Tensor) -> Tensor:
    """Lengths [..., 1] of vectors [..., D].

    `norm` is many times slower where D is small, but has a gradient at 0, so training uses it.
    """
    if vectors.requires_grad:
        return vectors.norm(dim=-1, keepdim=True)
    return sum(component.square() for component in vectors.split(1, -1)).sqrt()


def norm_exp(vectors: Tensor) -> Tensor:
    """Vectors [..., 3] in the same directions, with the length exp(length) - 1."""
    length = lengths(vectors)
    return vectors / length.clamp(min=1e-8) * torch.expm1(length)


ACTIVATIONS = {"norm_exp": norm_exp, "linear": lambda vectors: vectors}


class Pointmaps(NamedTuple):
    """Pointmaps of one image or of many."""

    points: Tensor  # [..., H, W, 3] in the reference frame (pts3d)
    local: Tensor  # [..., H, W, 3] in the image's camera: x right, y down, z forward (pts3d_local)
    confidence: Tensor  # [..., H, W] in 1..inf, larger = surer


def pointmaps(raw: Tensor, activation: str = "norm_exp") -> Pointmaps:
    """Raw maps [..., H, W, 7] -> points and confidence, in fp32. activation: of `ACTIVATIONS`."""
    raw, activate = raw.float(), ACTIVATIONS[activation]
    return Pointmaps(activate(raw[..., 0:3]), activate(raw[..., 3:6]), 1 + raw[..., 6].exp())


def focal_length(
    local: Tensor,  # [..., H, W, 3] points in the camera's frame
    iterations: int = 10,
) -> Tensor:  # [...] pixels
    """The focal length that fits a pointmap best, by Weiszfeld's algorithm.

    The principal point is assumed in the centre, and pixels square. 0 where none can be computed.
    """
    height, width = local.shape[-3:-1]
    u = torch.arange(width, device=local.device) - width / 2
    v = (torch.arange(height, device=local.device) - height / 2)[:, None]
    # x and y as separate planes: as two components of a last dimension they take twice the time.
    x, y, z = local.unbind(-1)
    x, y = (x / z).nan_to_num(0, 0, 0), (y / z).nan_to_num(0, 0, 0)
    along, square = x * u + y * v, x.square() + y.square()
    focal = along.mean((-2, -1)) / square.mean((-2, -1))
    for _ in range(iterations):
        f = focal[..., None, None]
        weights = ((u - f * x).square() + (v - f * y).square()).sqrt().clamp(min=1e-8).reciprocal()
        focal = (weights * along).mean((-2, -1)) / (weights * square).mean((-2, -1))
    return focal.nan_to_num(0, 0, 0).clamp(min=0)


def camera_to_world(
    local: Tensor,  # [..., H, W, 3] points in the camera's frame
    points: Tensor,  # [..., H, W, 3] the same points in the reference frame
    confidence: Tensor,  # [..., H, W] 1..inf
) -> Tensor:  # [..., 4, 4]
    """Camera-to-world pose: the rigid motion that best maps `local` to `points`.

    Kabsch's algorithm without scale, with points weighted by confidence - 1.
    """
    x, y = local.flatten(-3, -2), points.flatten(-3, -2)
    # The small constant gives all points of a frame without confidence the same weight.
    weights = (confidence - 1).flatten(-2) + 1e-8
    weights = (weights / weights.sum(-1, keepdim=True))[..., None]
    x_mean, y_mean = (weights * x).sum(-2, keepdim=True), (weights * y).sum(-2, keepdim=True)
    covariance = (weights * (y - y_mean)).transpose(-2, -1) @ (x - x_mean)
    u, _, vh = torch.linalg.svd(covariance)
    # A negative determinant would be a reflection: flip the axis of the smallest singular value.
    flip = torch.ones_like(u[..., 0])
    flip[..., 2] = torch.linalg.det(u) * torch.linalg.det(vh)
    rotation = (u * flip[..., None, :]) @ vh
    pose = torch.eye(4, dtype=x.dtype, device=x.device).expand(*rotation.shape[:-2], 4, 4).clone()
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = (y_mean.transpose(-2, -1) - rotation @ x_mean.transpose(-2, -1))[..., 0]
    return pose
