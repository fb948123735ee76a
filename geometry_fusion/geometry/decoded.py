"""From the output of MUSt3R's decoder to pointmaps, poses, focal lengths and `GeometryFrame`s."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geometry_fusion.fit import Fit
from geometry_fusion.geometry.cameras import rays_of
from geometry_fusion.must3r.postprocess import (
    Pointmaps,
    camera_to_world,
    focal_length,
    pointmaps,
)
from geometry_fusion.types import Camera, GeometryFrame


@dataclass
class DecodedFrames:
    """Geometry of F frames that were decoded together.

    Depth is rescaled to the mean focal length of the sequence, except in the reference frame.
    """

    maps: Pointmaps  # [F, H, W, ...]
    poses: Tensor  # [F, 4, 4] camera-to-world
    focals: list[float]  # the sequence's mean after each frame, in pixels of the fitted image
    features: list[Tensor]  # per feature level [F, N, D]

    def answers(
        self, levels: Sequence[int], scale: Tensor, fit: Fit, patch: int
    ) -> list[GeometryFrame]:
        """One GeometryFrame per frame.

        levels: numbers of the feature levels it carries; scale, fit: as in GeometryFrame; patch:
        pixels per side of a token.
        """
        count, height, width = self.maps.confidence.shape
        grid = (height // patch, width // patch)
        features = [
            self.features[level].transpose(1, 2).unflatten(2, grid).float() for level in levels
        ]
        rays = rays_of(self.poses, self.poses.new_tensor(self.focals), (width, height))
        points = self.maps.points.permute(0, 3, 1, 2)
        confidence = 1 - 1 / self.maps.confidence
        return [
            GeometryFrame(
                tuple(level[i] for level in features),
                points[i],
                rays[i],
                confidence[i],
                scale,
                Camera(self.focals[i] / fit.scale[0], self.poses[i]),
                fit,
            )
            for i in range(count)
        ]


class SequenceFocal:
    """Mean focal length of a sequence, weighted by each frame's mean confidence - 1."""

    def __init__(self):
        # Sum of focal length times weight, and sum of weights, over frames where both are positive.
        self.sums = [0.0, 0.0]

    def mean(self, unknown: float) -> float:
        """The mean in pixels of the fitted image; `unknown` before the first frame counts."""
        weighted, weights = self.sums
        return weighted / weights if weights else unknown

    def add(self, focal: float, weight: float) -> None:
        """Count a frame, if its focal length (fitted pixels) and its weight are positive."""
        if focal > 0 and weight > 0:
            self.sums = [self.sums[0] + focal * weight, self.sums[1] + weight]


def decoded(
    raw: Tensor,  # [F, H, W, 7], the decoder's raw maps of frames in their order
    features: list[Tensor],  # per level [F, N, D]
    activation: str,  # of the pointmaps, see `pointmaps`
    focal: SequenceFocal,
    unknown_focal: float,  # pixels of the fitted image; assumed before any is estimated
    *,
    record: bool = True,
    with_reference: bool = False,
) -> DecodedFrames:
    """Pointmaps, poses and focal lengths of F frames.

    record: count their focal lengths in `focal`; with_reference: the first frame is the reference
    frame.
    """
    maps = pointmaps(raw, activation)
    estimates = focal_length(maps.local)
    weights = maps.confidence.mean((1, 2)) - 1
    before = []  # the sequence's mean focal length before each frame, and after it
    after = []
    # One transfer from the device for all frames.
    for estimate, weight in torch.stack((estimates, weights), 1).tolist():
        before.append(focal.mean(unknown_focal))
        if record:
            focal.add(estimate, weight)
        after.append(focal.mean(unknown_focal))
    # A point keeps its pixel if its depth scales with the focal length.
    stretch = torch.where(estimates > 0, estimates.new_tensor(before) / estimates, 1.0)
    if with_reference:
        stretch[0] = 1
    maps.local[..., 2] *= stretch[:, None, None]
    poses = camera_to_world(maps.local, maps.points, maps.confidence)
    if with_reference:
        poses[0] = torch.eye(4)
    return DecodedFrames(maps, poses, after, features)
