"""Geometry sources: what each frame shows of the scene, in the coordinates of the first frame.

`GeometrySource` is the interface. Implementations: `Must3rStream` (from RGB alone, by a frozen
MUSt3R with its multi-view memory), `PosedDepth` (from depth maps and camera poses) and
`NoGeometry` (the baseline arm, so that both arms run the same code). Names and makers are in
geometry_fusion/models/geometry.py.

Frames are pushed in tracking order. A frame that was pushed before (tracking backwards passes the
prompted frame again) is answered from the memory as it is now.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch

from geometry_fusion.fit import fit_to_square
from geometry_fusion.types import GeometryFrame, Tolerance


class GeometrySource(ABC):
    """Geometry of the frames of one video. The first frame that is pushed is the reference: its
    camera is the coordinate system. Until `reset`, a frame's index stands for one image.
    """

    levels: tuple[int, ...] = ()  # which features its GeometryFrames carry
    # How far its points may lie from where they were in earlier frames (tracking/place.py).
    tolerance = Tolerance(radius=1.0, scale=0.05)
    origin = "Geometry"  # for readers: where it comes from
    # Whether its points get worse away from the first frame: the choice of that one matters.
    anchored = False
    settled = True  # whether later frames leave the points of earlier ones where they are

    @abstractmethod
    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of one RGB uint8 frame [H, W, 3]."""

    def push_all(self, frames: Mapping[int, np.ndarray]) -> list[GeometryFrame]:
        """As `push` of one frame after another, in their order; sources may be faster with
        several.
        """
        return [self.push(index, image) for index, image in frames.items()]

    def render(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """A frame as the source sees it now, without taking anything in."""
        return self.push(frame_index, image)

    @property
    def keyframes(self) -> list[int]:
        """Frames that the source remembers, in order."""
        return []

    @abstractmethod
    def reset(self) -> None:
        """Forget all frames: the next one is the reference."""

    @abstractmethod
    def trim(self, renders: bool = False) -> None:
        """Drop per-frame data of all frames except keyframes and the latest one.

        renders: earlier frames may come again, by `push` or `render`; keep what that needs.
        """

    @abstractmethod
    def snapshot(self) -> dict:
        """Everything the source knows, as plain values and tensors, so that an interrupted run can
        be resumed.
        """

    @abstractmethod
    def restore(self, snapshot: dict) -> None:
        """Take over the `snapshot` of a source of the same kind and options."""


class NoGeometry(GeometrySource):
    """Knows nothing: no levels, confidence 0 everywhere."""

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        empty = torch.zeros(3, 1, 1)
        fit = fit_to_square(image.shape[1::-1], 1)
        return GeometryFrame((), empty, empty, empty[0], torch.ones(()), None, fit)

    def reset(self) -> None:
        pass

    def trim(self, renders: bool = False) -> None:
        pass

    def snapshot(self) -> dict:
        return {}

    def restore(self, snapshot: dict) -> None:
        pass
