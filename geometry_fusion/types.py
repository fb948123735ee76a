"""Records and interfaces that all modules share: frames, prompts, geometry, tracked frames.

Points are x, y in pixels of the original frame, with pixel centres at integers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.errors import InputError
from geometry_fusion.fit import Fit
from geometry_fusion.io.mask_reader import LARGEST_ID


@runtime_checkable
class Frames(Protocol):
    """The frames of one video, readable in any order: a folder, a scene, a list with a size.

    Code that writes files also reads `stems` (list[str], one per frame) and `frame_rate` (frames
    per second), where the frames have them.
    """

    size: tuple[int, int]  # (width, height) in pixels, of every frame

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """A frame: RGB uint8 [H, W, 3], upright."""
        ...


@dataclass(frozen=True)
class Camera:
    """Focal length and pose of a frame's camera. OpenCV axes: x right, y down, z forward."""

    focal: float  # pixels of the original frame
    camera_to_world: Tensor  # [4, 4] in the reference frame


@dataclass(frozen=True)
class Tolerance:
    """How far a point may lie from an object's place and still belong to it."""

    radius: float  # in radii of the object
    scale: float  # at least this share of the scene's scale (`GeometryFrame.scale`)

    def of(self, radius: float, scale: float) -> float:
        """The tolerance of an object, in the unit of both arguments."""
        return max(self.radius * radius, self.scale * scale)


@dataclass(frozen=True)
class GeometryFrame:
    """The geometry of one frame. All its grids cover the fitted image, of `fit.size`."""

    levels: tuple[Tensor, ...]  # features [D_l, h, w]; empty where the source has none
    points: Tensor  # [3, H, W] in the reference frame; H, W a multiple of h, w
    rays: Tensor  # [3, H, W] unit viewing directions in the reference frame
    confidence: Tensor  # [H, W] in 0..1, 0 = unknown
    # []: median distance of the reference frame's points from its camera. Readers divide `points`
    # by it, since the unit of the geometry differs from source to source.
    scale: Tensor
    camera: Camera | None  # None where the source knows none
    fit: Fit
    carried: bool = False  # from an earlier frame, by optical flow (geometry/carried.py)

    def to(self, device: torch.device) -> "GeometryFrame":
        """This geometry on `device`; the object itself if it is there already."""
        if self.points.device == device:
            return self
        moved = {
            name: getattr(self, name).to(device)
            for name in ("points", "rays", "confidence", "scale")
        }
        return GeometryFrame(
            tuple(t.to(device) for t in self.levels),
            **moved,
            camera=self.camera,
            fit=self.fit,
            carried=self.carried,
        )


@dataclass(frozen=True)
class Prompt:
    """What marks one object on one frame: clicks, a box (with or without clicks), or a mask."""

    frame: int = 0
    object_id: int = 1  # 1..254, the index in palette PNGs, where 255 is void
    points: tuple[tuple[float, float], ...] = ()  # clicks on the object
    negatives: tuple[tuple[float, float], ...] = ()  # clicks outside the object
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1
    mask: np.ndarray | None = field(default=None, compare=False)  # [H, W] bool
    source: str = "prompt"  # the flag or file it came from, for error messages

    def check(self, size: tuple[int, int], num_frames: int) -> None:
        """Raise InputError if it does not fit `num_frames` frames of `size` (width, height)."""
        if not 0 <= self.frame < num_frames:
            raise InputError(
                f"{self.source}: frame {self.frame} does not exist; frames are 0..{num_frames - 1}"
            )
        if not 1 <= self.object_id <= LARGEST_ID:
            raise InputError(
                f"{self.source}: object id {self.object_id} is not in 1..{LARGEST_ID}; choose "
                "another"
            )
        self._check_coordinates(size)
        if self.mask is not None:
            self._check_mask(size)
        elif not self.points and self.box is None:
            raise InputError(
                f"{self.source}: nothing marks the object; give a positive point, a box or a mask"
            )

    def _check_coordinates(self, size: tuple[int, int]) -> None:
        width, height = size
        cure = f"frames are {width}x{height}, x is 0..{width - 1} and y 0..{height - 1}"
        for x, y in (*self.points, *self.negatives):
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                raise InputError(f"{self.source}: point {x:g},{y:g} is outside the image; {cure}")
        if self.box is None:
            return
        x0, y0, x1, y1 = self.box
        box = f"{self.source}: box {x0:g},{y0:g},{x1:g},{y1:g}"
        if not (x1 > x0 and y1 > y0):
            raise InputError(f"{box} has no area; give x0 < x1 and y0 < y1")
        # The edges of a box may lie on the outer edge of the last pixel.
        if not (x0 >= 0 and x1 <= width and y0 >= 0 and y1 <= height):
            raise InputError(f"{box} is outside the image; {cure}")

    def _check_mask(self, size: tuple[int, int]) -> None:
        if self.points or self.negatives or self.box is not None:
            raise InputError(
                f"{self.source}: a mask excludes points and a box for the same object and frame"
            )
        if self.mask.shape[::-1] != tuple(size):
            mask_size = f"{self.mask.shape[1]}x{self.mask.shape[0]}"
            raise InputError(
                f"{self.source}: mask is {mask_size}, frames are {size[0]}x{size[1]}; export it at "
                "frame size"
            )
        if not self.mask.any():
            raise InputError(f"{self.source}: mask is empty; paint the object in a non-zero value")


@dataclass(frozen=True)
class TrackedFrame:
    """The result of tracking for one frame."""

    index: int  # number of the frame in its video or source
    ids: np.ndarray  # [H, W] uint8: the object id of every pixel, 0 for none
    object_ids: tuple[int, ...] = ()  # all tracked objects, in the order of `logits`
    logits: Tensor | None = None  # [objects, 1, H, W], above 0 inside; None before the first prompt
    geometry: GeometryFrame | None = None  # None where no geometry was computed for this frame
    # Object id -> what its place decided in this frame (tracking/places.py); empty without places.
    decisions: Mapping[int, str] = field(default_factory=dict)
    # Object id -> SAM2's object score (a logit, above 0: in view); empty before tracking.
    scores: Mapping[int, float] = field(default_factory=dict)
    stem: str | None = None  # of a streamed frame: its file's stem, or its index with zeros
    image: np.ndarray | None = None  # of a streamed frame: RGB uint8 [H, W, 3]
