"""The plausibility of a reconstruction without ground truth, from its own numbers.

The limits were measured with the tiny weights. Good: 21 runs over rendered rooms and the bundled
samples (all frames, every sixth, backwards, the first twelve, cropped to 4:3). Bad: 23 runs over
real clips (whole, cropped, turned, at several rates), noise, flat colours, moving patterns, and one
room without camera movement.

    measure of a run                                       good runs    limit   bad runs beyond it
    confidence: median over all points                     0.18..0.64   0.15     7
    poses: share of frames with a plausible pose           0.95..1.00   0.80     8
    relief: median over frames of the standard deviation
      of a frame's depths over their mean                  0.26..0.35   0.22    16
    movement: largest distance of the camera from its
      first place, over the scene's scale                  0.33..1.20   0.02     5

Two bad runs pass all limits, both of them crops of a real clip. A pose is plausible if three
conditions hold: the frame's points are in front of the camera; half of them, projected by the pose
and the clip's focal length, are within 0.12 of the image's long side of their own pixel (99% of the
frames in good runs, 15% in noise); and the previous or the next pose is nearer than 0.5 of the
scene's scale (99% of the frames).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geometry_fusion.types import GeometryFrame

LEAST_CONFIDENCE = 0.15
LEAST_PLAUSIBLE = 0.8
LEAST_RELIEF = 0.22
LEAST_MOVEMENT = 0.02
IN_FRONT = 0.95  # share of a frame's points
REPROJECTION = 0.12  # of the image's long side
JUMP = 0.5  # of the scene's scale


@dataclass(frozen=True)
class FrameFacts:
    """How well the points of one frame fit its pose."""

    confidence: float  # median, 0..1
    in_front: float  # share of points with positive depth
    # Median distance of projected points from their pixels, as a share of the image's long side.
    reprojection: float
    relief: float  # standard deviation of the depths over their mean
    centre: np.ndarray  # [3] of the camera, divided by the scene's scale


def frame_facts(answer: GeometryFrame) -> FrameFacts:
    """The facts of a frame; its geometry must have a camera."""
    pose = answer.camera.camera_to_world.cpu().numpy()
    points = answer.points.permute(1, 2, 0).cpu().numpy()
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    depth = local[..., 2]
    height, width = depth.shape
    focal = answer.camera.focal * answer.fit.scale[0]  # in pixels of the grid of points
    x, y = np.arange(width) - width / 2, np.arange(height)[:, None] - height / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.hypot(focal * local[..., 0] / depth - x, focal * local[..., 1] / depth - y)
        relief = depth.std() / depth.mean()
    error = np.where((depth > 0) & np.isfinite(error), error, np.inf)
    return FrameFacts(
        confidence=float(answer.confidence.median()),
        in_front=float((depth > 0).mean()),
        reprojection=float(np.median(error)) / max(height, width),
        relief=float(relief) if np.isfinite(relief) else 0.0,
        centre=pose[:3, 3] / float(answer.scale),
    )


@dataclass(frozen=True)
class Quality:
    """The measures of a whole reconstruction, as in the table of the module's description."""

    confidence: float  # 0..1
    plausible_poses: float  # 0..1
    relief: float  # share of the mean depth
    movement: float  # share of the scene's scale

    def __str__(self) -> str:
        return (
            f"median confidence {self.confidence:.2f}, camera pose plausible in "
            f"{self.plausible_poses:.0%} of frames"
        )

    def warnings(self) -> list[str]:
        """A phrase for each measure beyond its limit."""
        phrases = []
        if self.confidence < LEAST_CONFIDENCE:
            phrases.append(
                f"the median confidence is {self.confidence:.2f}, below {LEAST_CONFIDENCE:g}"
            )
        if self.plausible_poses < LEAST_PLAUSIBLE:
            phrases.append(f"only {self.plausible_poses:.0%} of the camera poses are plausible")
        if self.relief < LEAST_RELIEF:
            phrases.append(
                f"the points are nearly flat: their depth varies by {self.relief:.0%} only"
            )
        if self.movement < LEAST_MOVEMENT:
            phrases.append(
                "the camera does not move, so that depth is a guess from single pictures"
            )
        return phrases


def quality_of(frames: Sequence[FrameFacts]) -> Quality:
    """The quality of a reconstruction from the facts of its frames in order."""
    centres = np.stack([frame.centre for frame in frames])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    # The distance of each pose to the nearer one of its neighbours.
    nearest = np.minimum(np.r_[np.inf, steps], np.r_[steps, np.inf])
    if len(frames) == 1:
        nearest = np.zeros(1)
    plausible = [
        frame.in_front >= IN_FRONT and frame.reprojection <= REPROJECTION and step <= JUMP
        for frame, step in zip(frames, nearest)
    ]
    return Quality(
        confidence=float(np.median([frame.confidence for frame in frames])),
        plausible_poses=float(np.mean(plausible)),
        relief=float(np.median([frame.relief for frame in frames])),
        movement=float(np.linalg.norm(centres - centres[0], axis=1).max()),
    )
