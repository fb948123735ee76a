"""A frame as the motion decision compares it: grey, masks and depth at the working size."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from geometry_fusion.motion.flow import pixel_grid, sampled
from geometry_fusion.types import GeometryFrame


@dataclass(frozen=True)
class FrameDepth:
    """What geometry knows of a frame, at the working size."""

    points: np.ndarray  # [H, W, 3] in the camera's axes, in the unit of the geometry
    known: np.ndarray  # [H, W] bool: in front of the camera and sure enough
    focal: float  # pixels
    camera_to_world: np.ndarray  # [4, 4]


@dataclass(frozen=True)
class MotionView:
    """One frame at the working size."""

    index: int
    grey: np.ndarray  # [H, W] uint8
    ids: np.ndarray  # [H, W] uint8, 0 = no object
    depth: FrameDepth | None  # None without usable geometry

    @property
    def centre(self) -> np.ndarray:
        """The principal point [2], in pixels: the centre of the image."""
        height, width = self.grey.shape
        return np.array([(width - 1) / 2, (height - 1) / 2], np.float32)


def view_of(
    index: int,
    image: np.ndarray,  # [H, W, 3] RGB uint8
    ids: np.ndarray,  # [H, W] uint8
    geometry: GeometryFrame | None,
    side: int,  # pixels of the long side
    min_confidence: float,
) -> MotionView:
    """A frame, shrunk to the working size, where it is larger."""
    assert image.shape[:2] == ids.shape, (image.shape, ids.shape)
    height, width = ids.shape
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    # Nearest only: anything else would invent ids between two objects.
    small_ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
    depth = None
    if geometry is not None and geometry.camera is not None:
        depth = _depth_of(geometry, size, (width, height), min_confidence)
    return MotionView(index, grey, small_ids, depth)


def _depth_of(
    geometry: GeometryFrame,
    size: tuple[int, int],  # (width, height) at the working size
    original: tuple[int, int],  # (width, height) of the frame
    min_confidence: float,
) -> FrameDepth:
    """Depth along the rays of the pixels.

    Of a network's points only the depth is taken: their directions are less exact than those of the
    pixels, and an error of direction would look like motion even between equal frames.
    """
    scale = np.array(size) / original
    pixels = (pixel_grid(size[1], size[0]) + 0.5) / scale - 0.5  # in the original frame
    points = geometry.points.cpu().numpy()
    grid = points.shape[:0:-1]  # (width, height)
    # Where each pixel lies in the grid of points, which covers the fitted image.
    at = (geometry.fit.points_to(pixels) + 0.5) * np.array(grid) / geometry.fit.size - 0.5
    pose = geometry.camera.camera_to_world.cpu().double().numpy()
    z = np.einsum("i,ihw->hw", pose[:3, 2], points - pose[:3, 3, None, None])
    z = sampled(np.nan_to_num(z, nan=0, posinf=0, neginf=0).astype(np.float32), at)
    confidence = sampled(geometry.confidence.cpu().numpy().astype(np.float32), at, nearest=True)
    focal = float(geometry.camera.focal * scale[0])
    known = (confidence > min_confidence) & (z > 1e-3 * float(geometry.scale))
    offsets = pixel_grid(size[1], size[0]) - (np.array(size, np.float32) - 1) / 2
    rays = np.concatenate([offsets / focal, np.ones((*offsets.shape[:2], 1))], -1)
    return FrameDepth((rays * z[..., None]).astype(np.float32), known, focal, pose)


def packed(view: MotionView) -> dict:
    """A view as plain values and tensors, for snapshots."""
    arrays = {"grey": view.grey, "ids": view.ids}
    values = {"index": view.index}
    if view.depth is not None:
        depth = view.depth
        arrays |= {"points": depth.points, "known": depth.known, "pose": depth.camera_to_world}
        values["focal"] = depth.focal
    # Copies: an array may be a view of a larger one.
    return values | {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def unpacked(values: dict) -> MotionView:
    """The inverse of `packed`."""
    arrays = {k: v.cpu().numpy() for k, v in values.items() if isinstance(v, torch.Tensor)}
    depth = None
    if "points" in arrays:
        depth = FrameDepth(arrays["points"], arrays["known"], values["focal"], arrays["pose"])
    return MotionView(values["index"], arrays["grey"], arrays["ids"], depth)
