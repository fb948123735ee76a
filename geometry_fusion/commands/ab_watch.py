"""What `ab_iou.py` keeps of the frames while its arms track."""

import argparse
from pathlib import Path

from geometry_fusion.player.scene import SceneCloud
from geometry_fusion.report.geometry import SceneRecord
from geometry_fusion.tracking.confidence import confidences
from geometry_fusion.tracking.fallback import ClipFallback
from geometry_fusion.tracking.places import MOVING
from geometry_fusion.types import Frames, Prompt, TrackedFrame


class ArmWatch:
    """Looks at every frame while the arms track: the scene, what places decided, what moves."""

    def __init__(
        self, args: argparse.Namespace, with_geometry: bool, frames: Frames, prompts: list[Prompt]
    ):
        self.scene = SceneRecord(frames, prompts[0].object_id)
        self.cloud = SceneCloud()
        # Of every arm: object id -> how sure it is in every frame.
        self.confidences: list[dict[int, list[float | None]]] = [{}, {}]
        self._frames = frames
        self._decisions: dict[int, list[str | None]] = {
            prompt.object_id: [None] * len(frames) for prompt in prompts
        }
        self.fallback = None
        if with_geometry and args.fallback != "never":
            self.fallback = ClipFallback(frames, prompts, always=args.fallback == "always")

    def see(self, tracked: list[TrackedFrame]) -> None:
        """One frame, as each arm answers it: SAM2 alone first."""
        last = tracked[-1]
        self.scene.add(last)
        self.cloud.add(last, self._frames[last.index])
        for of_arm, frame in zip(self.confidences, tracked):
            for object_id, seen in confidences(frame).items():
                values = of_arm.setdefault(object_id, [None] * len(self._frames))
                values[frame.index] = seen.confidence
        if self.fallback:
            self.fallback.add(tracked[0], last)
        for object_id, decision in last.decisions.items():
            self._decisions[object_id][last.index] = decision

    def fall_back(self, masks: list[Path], write) -> None:
        """Replace the masks of objects that move; masks: a folder per arm."""
        if self.fallback:
            self.fallback.decide()
            self.fallback.replace(masks[0], masks[-1], self._frames.stems, write)

    @property
    def decisions(self) -> dict[int, list[str | None]] | None:
        """Object id -> what decided in every frame; None where nothing did."""
        moving = self.fallback.moving if self.fallback else set()
        moved = {object_id: [MOVING] * len(self._frames) for object_id in moving}
        decisions = {**self._decisions, **moved}
        return decisions if any(map(any, decisions.values())) else None
