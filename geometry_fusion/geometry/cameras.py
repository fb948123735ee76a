"""Camera mathematics: the one place that says where a pixel's centre is.

OpenCV axes (x right, y down, z forward). Pixel centres of original images are at integers. MUSt3R's
rays are an exception, as its specification has them: pixel (0, 0) looks along
(-width / 2, -height / 2).

torch is imported only where a function needs it: commands that convert and show data start without.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

IN_FRONT_M = 1e-6  # z-depth in metres above which a point counts as in front of a camera


def intrinsic_matrix(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """K [3, 3] of a pinhole camera from its focal lengths and principal point, all in pixels."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], float)


def resized_intrinsics(k: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """K [3, 3] of a picture that was resized by `scale` (x, y).

    Resizing scales distances from the image's corner, half a pixel beside the first centre.
    """
    half_pixel = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return (k + half_pixel) * np.array([*scale, 1])[:, None] - half_pixel


def directions_of(
    k: np.ndarray,  # [3, 3] intrinsics, pixels
    u: np.ndarray,  # [...] columns, pixels
    v: np.ndarray,  # [...] rows, pixels
) -> np.ndarray:
    """Directions [3, ...] from the camera through pixels, with z = 1, in camera axes."""
    return np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)])


def back_project(
    depth: np.ndarray,  # [...] metres along z; 0 gives the camera's own centre
    k: np.ndarray,  # [3, 3]
    camera_to_world: np.ndarray,  # [4, 4]
    u: np.ndarray,  # [...] columns of the depths, pixels
    v: np.ndarray,  # [...] rows, pixels
) -> np.ndarray:
    """World points [3, ...] of pixels with depth."""
    directions = directions_of(k, u, v)
    rotation, centre = camera_to_world[:3, :3], camera_to_world[:3, 3]
    shape = (3, *(1,) * np.ndim(depth))
    return np.einsum("ij,j...->i...", rotation, directions * depth) + centre.reshape(shape)


def project(
    points: np.ndarray,  # [3, N] metres, world
    k: np.ndarray,  # [3, 3]
    camera_to_world: np.ndarray,  # [4, 4]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels and depths (u, v, z), each [N], of world points.

    u and v have no meaning where z is not above `IN_FRONT_M`: those points are behind the camera.
    """
    world_to_camera = np.linalg.inv(camera_to_world)
    x, y, z = world_to_camera[:3, :3] @ points + world_to_camera[:3, 3:]
    divisor = np.where(z > IN_FRONT_M, z, 1.0)
    return k[0, 0] * x / divisor + k[0, 2], k[1, 1] * y / divisor + k[1, 2], z


def median_point(
    depth: np.ndarray,  # [N] metres along z
    k: np.ndarray,  # [3, 3]
    camera_to_world: np.ndarray,  # [4, 4]
    u: np.ndarray,  # [N] columns of the depths, pixels
    v: np.ndarray,  # [N] rows, pixels
) -> np.ndarray:
    """The median world point [3] of pixels with depth, coordinate by coordinate."""
    # By the inverse of K, not as `directions_of` does it: evaluate.py writes angles at this point
    # into its records, and these should not change in their last digits between versions.
    rays = np.linalg.inv(k) @ np.stack([u, v, np.ones_like(v)])
    rotated = camera_to_world[:3, :3] @ (rays * depth)
    return np.median(rotated, axis=1) + camera_to_world[:3, 3]


def angles_at(
    point: np.ndarray,  # [3] metres, world
    centres: np.ndarray,  # [T, 3] camera centres, metres, world
    reference: int,  # index of the camera that angles are measured from
) -> np.ndarray:
    """Angles [T] in radians at `point` between the directions to each camera and the reference."""
    directions = centres - point
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.arccos(np.clip(directions @ directions[reference], -1, 1))


def rotation_angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles [...] in radians between the rotations of poses [..., 3 or 4, 3 or 4]."""
    trace = np.einsum("...ij,...ij->...", a[..., :3, :3], b[..., :3, :3])
    return np.arccos(np.clip((trace - 1) / 2, -1, 1))


def rays_of(
    poses: "Tensor",  # [F, 4, 4] camera-to-world
    focals: "Tensor",  # [F] pixels of the image that the rays are for
    size: tuple[int, int],  # (width, height) of that image
) -> "Tensor":
    """Unit viewing directions [F, 3, H, W] in the reference frame, laid out as MUSt3R's maps."""
    import torch

    width, height = size
    focals = focals[:, None]
    x = (torch.arange(width, device=poses.device) - width / 2) / focals
    y = (torch.arange(height, device=poses.device) - height / 2) / focals
    x, y = x[:, None, None], y[:, None, :, None]  # [F, 1, H or 1, W or 1]
    right, down, forward = poses[:, :3, :3, None, None].unbind(2)  # camera axes, [F, 3, 1, 1]
    return (right * x + down * y + forward) / (x.square() + y.square() + 1).sqrt()
