"""The trackers of all arms of an evaluation, which share decoded frames, features and geometry."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from geometry_fusion.data.scenes import Scene
from geometry_fusion.devices import pick_device, uses_bf16
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.objects import Track
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.mask_writer import innermost_point
from geometry_fusion.models.tracker import Tracker, build_tracker
from geometry_fusion.tracking.clip_session import track
from geometry_fusion.tracking.features import FrameFeatures
from geometry_fusion.types import GeometryFrame, Prompt, TrackedFrame

CHECKPOINTS = {"control": "control", "3am": "fusion", "oracle": "oracle"}  # arm -> checkpoints key
TRACKING_RULES = 2  # increased when a change of tracking makes earlier records invalid


class SceneFrames:
    """The frames of a scene as `Frames`, which the predictor takes."""

    def __init__(self, scene: Scene):
        self._scene = scene
        self.stems = scene.stems
        self.size = scene.rgb(0).shape[1::-1]

    def __len__(self) -> int:
        return len(self._scene)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._scene.rgb(index)


def prompt_of(track: Track, kind: str) -> Prompt:
    """The prompt of an object on the frame that shows most of it.

    kind: "mask", its ground truth, or "click", one click as far inside it as possible.
    """
    mask = track.mask(track.prompt_frame)
    if kind == "mask":
        return Prompt(track.prompt_frame, mask=mask)
    return Prompt(track.prompt_frame, points=(tuple(map(float, innermost_point(mask))),))


class Replay(GeometrySource):
    """A geometry source that computes each frame once, for several prompts of one object.

    All of them track the same frames in the same order, so that the wrapped source would give the
    same results again.
    """

    def __init__(self, source: GeometrySource, device: torch.device):
        self._source, self._device = source, device
        self._answers: dict[int, GeometryFrame] = {}

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        """Geometry of an RGB uint8 frame [H, W, 3]; computed at the first call."""
        if frame_index not in self._answers:
            answer = self._source.push(frame_index, image)
            self._answers[frame_index] = answer.to(self._device)
        return self._answers[frame_index]

    def reset(self) -> None:
        """Nothing to forget: the next prompt starts at the same frame of the same video."""

    def trim(self, renders: bool = False) -> None:
        """Nothing to drop: the next prompt reads all frames again."""

    def snapshot(self) -> dict:
        """The snapshot of the wrapped source."""
        return self._source.snapshot()

    def restore(self, snapshot: dict) -> None:
        """Restore the wrapped source; frames are computed again."""
        self._answers.clear()
        self._source.restore(snapshot)


class ReplayedMerger(torch.nn.Module):
    """A merger that computes each GeometryFrame once; `Replay` returns the same one again."""

    def __init__(self, merger: torch.nn.Module):
        super().__init__()
        self.merger = merger
        # Frames are kept alive with their answers, so that an id stays that of one frame.
        self._answers: dict[int, tuple[GeometryFrame, torch.Tensor]] = {}

    def forward(self, appearance: torch.Tensor, frames: Sequence[GeometryFrame]) -> torch.Tensor:
        """Appearance [1, C, h, w] and one frame -> fused features [1, C, h, w]."""
        (frame,) = frames
        if id(frame) not in self._answers:
            self._answers[id(frame)] = (frame, self.merger(appearance, frame))
        return self._answers[id(frame)][1]


class EvaluatedArms:
    """The trackers of a config's arms.

    Objects of one scene share decoded frames and image features. Prompts of one object share
    geometry and merged features. Raises InputError for checkpoints of another arm or other
    backbones.
    """

    def __init__(self, config: DictConfig):
        self._config = config
        self._trackers = {arm: self._load(arm) for arm in config.arms}
        self._mergers = {
            arm: tracker.predictor.merger
            for arm, tracker in self._trackers.items()
            if arm in CHECKPOINTS
        }
        self._track: Track | None = None
        self._features: FrameFeatures | None = None

    def _load(self, arm: str) -> Tracker:
        config = self._config
        key = CHECKPOINTS.get(arm)
        tracker = build_tracker(
            config.sam2,
            sam2_file=config.sam2_checkpoint,
            checkpoint=Path(config.checkpoints[key]) if key else None,
            must3r=str(config.must3r),
            device=str(config.device),
            precision=config.precision,
            max_keyframes=config.max_keyframes,
            keyframe_interval=config.join_every,
            frames_at_once=1,  # ReplayedMerger merges frame by frame
        )
        if tracker.arm != arm:
            raise InputError(
                f"checkpoints.{key}={config.checkpoints[key]}: was trained as arm '{tracker.arm}'; "
                "choose another file"
            )
        return tracker

    def track(self, arm: str, track_: Track, prompt: Prompt) -> Iterator[TrackedFrame]:
        """Track an object through its scene from one prompt; yields every frame."""
        if self._track is None or self._track.scene is not track_.scene:
            self._features = FrameFeatures(SceneFrames(track_.scene))
        if self._track is not track_:
            self._track = track_
            self._share_geometry(track_)
        predictor = self._trackers[arm].predictor
        yield from track(predictor, self._features, [prompt], self._config.precision, False)

    def _share_geometry(self, track_: Track) -> None:
        """Make one geometry source per arm, for all prompts of an object."""
        for arm, merger in self._mergers.items():
            tracker = self._trackers[arm]
            device = tracker.predictor.device
            source = Replay(tracker.make_source(scene=track_.scene), device)

            def same_source(source: GeometrySource = source) -> GeometrySource:
                return source

            tracker.predictor.fuse(ReplayedMerger(merger), same_source)

    def identity(self, arm: str) -> str:
        """Everything but prompt and object that an arm's results depend on, as JSON text."""
        config, identity = self._config, self._trackers[arm].identity
        files = [
            identity.weights[role] for role in ("sam2", "checkpoint") if role in identity.weights
        ]
        device = pick_device(str(config.device))
        computed = [device.type, uses_bf16(device, config.precision)]
        if config.max_keyframes is not None:
            computed.append(config.max_keyframes)
        if arm == "3am":
            computed.append(f"join_every={config.join_every}")
        computed.append(f"rules={TRACKING_RULES}")
        place = Path(config.data.scenes or config.data.root).resolve()
        return json.dumps([[file.sha256[:12] for file in files], str(place), computed])
