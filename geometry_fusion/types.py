"""Records shared by all modules. Points are x, y in pixels of the original frame, pixel centres at
integers.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.errors import InputError
from geometry_fusion.fit import Fit
from geometry_fusion.mask_rule import LARGEST_ID


@dataclass(frozen=True)
class Camera:
    """Where a frame was taken from. OpenCV axes: x right, y down, z forward."""

    focal: float  # pixels of the original frame
    camera_to_world: Tensor  # [4, 4] in the reference frame


@dataclass(frozen=True)
class GeometryFrame:
    """What a geometry source knows of one frame. All grids cover the same area, `fit.size` of the
    fitted image.
    """

    levels: tuple[Tensor, ...]  # features [D_l, h, w]; empty where the source has none
    points: Tensor  # [3, H, W] in the reference frame; H, W a multiple of h, w
    rays: Tensor  # [3, H, W] unit viewing directions in the reference frame
    confidence: Tensor  # [H, W] in 0..1, 0 = unknown
    # []: median distance of the reference frame's points from its camera; divides `points`
    scale: Tensor
    camera: Camera | None  # None where the source knows none
    fit: Fit

    def to(self, device: torch.device) -> "GeometryFrame":
        """On `device`; the frame itself if it is there already."""
        if self.points.device == device:
            return self
        moved = {
            name: getattr(self, name).to(device)
            for name in ("points", "rays", "confidence", "scale")
        }
        return GeometryFrame(
            tuple(t.to(device) for t in self.levels), **moved, camera=self.camera, fit=self.fit
        )


@dataclass(frozen=True)
class Prompt:
    """What a user says about one object on one frame: clicks, a box (with or without clicks), or a
    mask.
    """

    frame: int = 0
    object_id: int = 1  # 1..254, the index in palette PNGs, where 255 is void
    points: tuple[tuple[float, float], ...] = ()  # on the object
    negatives: tuple[tuple[float, float], ...] = ()  # not on the object
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1
    mask: np.ndarray | None = field(default=None, compare=False)  # [H, W] bool
    source: str = "prompt"  # named in error messages: the flag or file it came from

    def check(self, size: tuple[int, int], num_frames: int) -> None:
        """Raise InputError when the prompt does not fit `num_frames` frames of `size` (width,
        height).
        """
        width, height = size
        if not 0 <= self.frame < num_frames:
            raise InputError(
                f"{self.source}: frame {self.frame} does not exist; frames are 0..{num_frames - 1}"
            )
        if not 1 <= self.object_id <= LARGEST_ID:
            raise InputError(
                f"{self.source}: object id {self.object_id} is not in 1..{LARGEST_ID}; choose "
                "another"
            )
        inside = f"frames are {width}x{height}, x is 0..{width - 1} and y 0..{height - 1}"
        for x, y in (*self.points, *self.negatives):
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                raise InputError(f"{self.source}: point {x:g},{y:g} is outside the image; {inside}")
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if not (x1 > x0 and y1 > y0):
                raise InputError(
                    f"{self.source}: box {x0:g},{y0:g},{x1:g},{y1:g} has no area; give x0 < x1 "
                    "and y0 < y1"
                )
            if not (x0 >= 0 and x1 <= width and y0 >= 0 and y1 <= height):
                raise InputError(
                    f"{self.source}: box {x0:g},{y0:g},{x1:g},{y1:g} is outside the image; {inside}"
                )
        if self.mask is not None:
            if self.points or self.negatives or self.box is not None:
                raise InputError(
                    f"{self.source}: a mask excludes points and a box for the same object and frame"
                )
            if self.mask.shape != (height, width):
                found = f"{self.mask.shape[1]}x{self.mask.shape[0]}"
                raise InputError(
                    f"{self.source}: mask is {found}, frames are {width}x{height}; export it at "
                    "frame size"
                )
            if not self.mask.any():
                raise InputError(
                    f"{self.source}: mask is empty; paint the object in a non-zero value"
                )
        elif not self.points and self.box is None:
            raise InputError(
                f"{self.source}: nothing marks the object; give a positive point, a box or a mask"
            )
