"""Where rays first meet solids, on any device.

Solids are given by the map from the world into their own frame, in which they span -1..1. Ray
directions are not of length 1: a hit at t is the point origin + t * direction.
"""

import torch
from torch import Tensor

NOTHING = 1e6  # t of a ray that meets nothing
EPSILON = 1e-4


def _own(origin: Tensor, directions: Tensor, inverse: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """(origin, directions) in the solids' frames: three of [F, P, 1], three of [F, P, R].

    origin: [F, 3]. directions: [F, R, 3]. inverse: [F, P, 3, 4].
    """
    start = (inverse[..., :3] * origin[:, None, None]).sum(-1) + inverse[..., 3]
    # Written out, so that a compiler can fuse it with what follows: a matrix product would store
    # three numbers per solid and ray.
    x, y, z = (axis[:, None] for axis in directions.unbind(-1))
    along = []
    for row in inverse[..., :3].unbind(2):
        a, b, c = (factor[..., None] for factor in row.unbind(-1))
        along.append(a * x + b * y + c * z)
    return list(start[..., None].unbind(2)), along


def boxes(origin: Tensor, directions: Tensor, inverse: Tensor) -> Tensor:
    """t [F, P, R] at which rays enter boxes."""
    start, along = _own(origin, directions, inverse)
    enters, leaves = [], []
    for o, d in zip(start, along):
        d = torch.where(d.abs() < 1e-9, 1e-9, d)
        one, other = (-1 - o) / d, (1 - o) / d
        enters.append(torch.minimum(one, other))
        leaves.append(torch.maximum(one, other))
    enter = torch.maximum(torch.maximum(enters[0], enters[1]), enters[2])
    leave = torch.minimum(torch.minimum(leaves[0], leaves[1]), leaves[2])
    return torch.where((leave > enter) & (enter > EPSILON), enter, NOTHING)


def ellipsoids(origin: Tensor, directions: Tensor, inverse: Tensor) -> Tensor:
    """t [F, P, R] at which rays enter ellipsoids."""
    (ox, oy, oz), (dx, dy, dz) = _own(origin, directions, inverse)
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - 1
    inside = b * b - a * c
    t = (-b - inside.clamp(min=0).sqrt()) / a
    return torch.where((inside > 0) & (t > EPSILON), t, NOTHING)


def frustums(origin: Tensor, directions: Tensor, inverse: Tensor, taper: Tensor) -> Tensor:
    """t [F, P, R] at which rays enter frustums, whose radius goes from 1 at z = -1 to `taper` [F,
    P] at z = 1.
    """
    (ox, oy, oz), (dx, dy, dz) = _own(origin, directions, inverse)
    middle, slope = (1 + taper[..., None]) / 2, (taper[..., None] - 1) / 2
    radius = middle + slope * oz
    a = dx * dx + dy * dy - slope * slope * dz * dz
    b = ox * dx + oy * dy - slope * dz * radius
    c = ox * ox + oy * oy - radius * radius
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    inside = b * b - a * c
    root = inside.clamp(min=0).sqrt()
    best = torch.full_like(a, NOTHING)
    for t in ((-b - root) / a, (-b + root) / a):
        z = oz + t * dz
        on_side = (inside > 0) & (z.abs() <= 1) & (middle + slope * z >= 0) & (t > EPSILON)
        best = torch.where(on_side & (t < best), t, best)
    safe = torch.where(dz.abs() < 1e-9, 1e-9, dz)
    for z, limit in ((-1.0, torch.ones_like(taper)), (1.0, taper)):
        t = (z - oz) / safe
        x, y = ox + t * dx, oy + t * dy
        on_cap = (x * x + y * y <= limit[..., None] ** 2) & (t > EPSILON)
        best = torch.where(on_cap & (t < best), t, best)
    return best


def nearest(
    origin: Tensor,  # [F, 3]
    directions: Tensor,  # [F, R, 3]
    inverse: tuple[Tensor, Tensor, Tensor],  # of boxes, ellipsoids, frustums: [F, P_i, 3, 4]
    taper: Tensor,  # [F, P_2]
) -> tuple[Tensor, Tensor]:
    """(t [F, R], index [F, R] of the solid, counted over all three kinds); NOTHING where none."""
    t_box, i_box = boxes(origin, directions, inverse[0]).min(1)
    t_ball, i_ball = ellipsoids(origin, directions, inverse[1]).min(1)
    t_cone, i_cone = frustums(origin, directions, inverse[2], taper).min(1)
    first, second = inverse[0].shape[1], inverse[0].shape[1] + inverse[1].shape[1]
    t = torch.where(t_ball < t_box, t_ball, t_box)
    index = torch.where(t_ball < t_box, i_ball + first, i_box)
    return torch.minimum(t, t_cone), torch.where(t_cone < t, i_cone + second, index)
