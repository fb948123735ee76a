"""Where pixels went: optical flow in both directions, and where the two agree."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

# (first [H, W] uint8, second [H, W] uint8) -> flow [H, W, 2] in pixels: x, y
Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]

CONSISTENT_PX, CONSISTENT_SHARE = 1.0, 0.05  # error allowed: pixels + share of the flow's length


@cache
def pixel_grid(height: int, width: int) -> np.ndarray:
    """Pixel coordinates [H, W, 2] as float32: x, y. Read-only: all callers share it."""
    y, x = np.mgrid[:height, :width]
    grid = np.stack([x, y], -1).astype(np.float32)
    grid.flags.writeable = False
    return grid


def targets_of(flow: np.ndarray) -> np.ndarray:
    """Where each pixel went, [H, W, 2]."""
    return pixel_grid(*flow.shape[:2]) + flow


def sampled(values: np.ndarray, at: np.ndarray, nearest: bool = False) -> np.ndarray:
    """Values [H, W] or [H, W, C] read at positions [..., 2] (x, y); 0 outside the image."""
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    at = np.ascontiguousarray(at, np.float32)
    return cv2.remap(values, at, None, flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def inside(at: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which positions [..., 2] lie in the image, bool [...]."""
    x, y = at[..., 0], at[..., 1]
    return (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)


def consistent(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Pixels, bool [H, W], of the first frame that the flow `back` brings home.

    The error may be 1 px + 5% of the flow. Pixels that leave the image or get hidden fail.
    """
    at = targets_of(there)
    error = np.linalg.norm(there + sampled(back, at), axis=-1)
    allowed = CONSISTENT_PX + CONSISTENT_SHARE * np.linalg.norm(there, axis=-1)
    return inside(at, *there.shape[:2]) & (error <= allowed)


@dataclass(frozen=True)
class PairFlow:
    """The flow between two frames in one direction, and back."""

    back: np.ndarray  # [H, W, 2] from the second frame to the first
    targets: np.ndarray  # [H, W, 2] where each pixel of the first frame is in the second
    valid: np.ndarray  # [H, W] bool: pixels of the first frame that `back` brings home


def pair_flows(first: np.ndarray, second: np.ndarray, flow: Flow) -> tuple[PairFlow, PairFlow]:
    """The flow of two grey images [H, W]: from the first to the second, and the other way."""
    there, back = flow(first, second), flow(second, first)
    return (
        PairFlow(back, targets_of(there), consistent(there, back)),
        PairFlow(there, targets_of(back), consistent(back, there)),
    )
