"""Keyframes: chosen by the overlap rule, limited by a cap, evicted by viewpoint."""

import torch
from torch import Tensor

from geometry_fusion.geometry.overlap import FrameView, OverlapRule


class Keyframes:
    """The keyframes of a video, which MUSt3R's memory holds, and the poses of the latest frames.

    A new frame becomes a keyframe if it shows something new by the overlap rule. Above the cap
    `most`, the later one of the two keyframes with the most similar viewpoints is evicted, never
    the first. So rare viewpoints stay, which a returning camera needs.
    """

    def __init__(self, rule: OverlapRule, most: int):
        self._rule, self._most = rule, most
        # Overlap score of every scored frame, in order. The frames of the initialisation appear
        # several times; at the cap, frames too similar to a keyframe are not scored.
        self.scores: list[float] = []
        self.reset()

    def reset(self) -> None:
        """Forget all frames; the scores stay."""
        self.labels: dict[int, int] = {}  # keyframe -> its label in the memory
        self.poses: dict[int, Tensor] = {}  # frame -> camera-to-world [4, 4]
        self.scale: Tensor | None = None  # [], the unit in which camera distances are compared
        self._rule.reset()

    def views_of(
        self, points: Tensor, confidence: Tensor, depth: Tensor, poses: Tensor
    ) -> list[FrameView]:
        """As `OverlapRule.views`: the rule's input for each of F frames."""
        return self._rule.views(points, confidence, depth, poses)

    def judge(self, frame_index: int, pose: Tensor, view: FrameView) -> bool:
        """Record a new frame and its pose [4, 4]; returns whether it becomes a keyframe."""
        first = not self.poses
        self.poses[frame_index] = pose
        full = len(self.labels) >= self._most
        if full and self._dispensable([*self.labels, frame_index]) == frame_index:
            # It would be evicted at once, so it does not join.
            return False
        self.scores.append(self._rule.score(view))
        is_keyframe = first or self._rule.is_new(self.scores[-1], view)
        if is_keyframe:
            self._rule.keep(frame_index, view)
        return is_keyframe

    def evict(self) -> int | None:
        """Above the cap, evict a keyframe; returns its label in the memory, else None."""
        if len(self.labels) <= self._most:
            return None
        evicted = self._dispensable(list(self.labels))
        self._rule.drop(evicted)
        return self.labels.pop(evicted)

    def _dispensable(self, frames: list[int]) -> int:
        """The later one of the two frames with the most similar viewpoints.

        Viewpoints differ by the distance of the cameras, in units of `scale`, plus the angle of the
        relative rotation in radians.
        """
        poses = torch.stack([self.poses[frame] for frame in frames])
        distance = torch.cdist(poses[:, :3, 3], poses[:, :3, 3]) / self.scale
        # The trace of the relative rotation is 1 + 2 cos(angle).
        trace = torch.einsum("aij,bij->ab", poses[:, :3, :3], poses[:, :3, :3])
        difference = distance + ((trace - 1) / 2).clamp(-1, 1).acos()
        # Each pair once: the row is the earlier frame, the column the later one.
        difference = difference + torch.full_like(difference, torch.inf).tril()
        return frames[int(difference.argmin()) % len(frames)]  # the column

    def trim(self) -> None:
        """Drop the poses of all frames but keyframes and the latest one."""
        if len(self.poses) > len(self.labels) + 1:
            latest = next(reversed(self.poses))
            self.poses = {
                frame: pose
                for frame, pose in self.poses.items()
                if frame in self.labels or frame == latest
            }

    def snapshot(self) -> dict:
        """Keyframes, poses, scores and the rule's points, as plain values and tensors."""
        return {
            "labels": self.labels,
            "poses": self.poses,
            "scale": self.scale,
            "scores": self.scores,
            "rule": self._rule.snapshot(),
        }

    def restore(self, snapshot: dict) -> None:
        """Continue from a `snapshot` of keyframes with an equal rule and cap."""
        self.labels = dict(snapshot["labels"])
        self.poses = dict(snapshot["poses"])
        self.scale = snapshot["scale"]
        self.scores = list(snapshot["scores"])
        self._rule.restore(snapshot["rule"])
