"""The trackers of all arms of an evaluation, which share decoded frames, features and geometry."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from geometry_fusion.data.scenes import Scene
from geometry_fusion.devices import pick_device, uses_bf16
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.arm_names import (
    ARMS,
    FIFO,
    SWITCHES,
    memory_of,
    parts_of,
    place_settings,
    with_memory,
    without_memory,
)
from geometry_fusion.evaluation.objects import Track
from geometry_fusion.evaluation.sources import (
    Replay,
    ShuffledGeometry,
    ZeroGeometry,
    another_scene,
)
from geometry_fusion.geometry.posed_depth import posed_depth_of
from geometry_fusion.io.mask_writer import innermost_point
from geometry_fusion.models.must3r import default_must3r
from geometry_fusion.models.tracker import Tracker, build_tracker
from geometry_fusion.motion import decide
from geometry_fusion.motion.settings import read_settings
from geometry_fusion.tracking.clip_session import track
from geometry_fusion.tracking.features import FrameFeatures
from geometry_fusion.tracking.memory import MEMORY_RULES, STRATEGIES
from geometry_fusion.tracking.places import PLACE_RULES
from geometry_fusion.types import GeometryFrame, Prompt, TrackedFrame

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
    geometry and merged features. Raises InputError for unknown arms, and for checkpoints of another
    arm or other backbones.
    """

    def __init__(self, config: DictConfig):
        self._config = config
        # By the arm's base name: controls and memory policies are settings of one tracker.
        self._trackers: dict[str, Tracker] = {}
        for arm in config.arms:
            base, end = parts_of(arm)
            needed = [base, "sam2"] if end in SWITCHES else [base]
            for name in needed:
                if name not in self._trackers:
                    self._trackers[name] = self._load(name)
        self._mergers = {base: t.predictor.merger for base, t in self._trackers.items()}
        self._has_switches = any(parts_of(arm)[1] in SWITCHES for arm in config.arms)
        self._track: Track | None = None
        self._features: FrameFeatures | None = None
        # Arm without its policy -> geometry source and merger of the object that is tracked now.
        self._geometry: dict[str, tuple[Replay, ReplayedMerger]] = {}
        # Arm and clicks -> what it answered for this object, where other arms choose between them.
        self._answers: dict[tuple[str, tuple], list[TrackedFrame]] = {}

    def _load(self, arm: str) -> Tracker:
        config = self._config
        key, mode = ARMS[arm]
        must3r = str(config.must3r)
        if must3r == "auto":
            must3r = default_must3r(str(config.sam2))
        tracker = build_tracker(
            config.sam2,
            sam2_file=config.sam2_checkpoint,
            checkpoint=Path(config.checkpoints[key]) if key else None,
            mode=mode,
            must3r=must3r,
            places=place_settings(config),
            device=str(config.device),
            precision=config.precision,
            max_keyframes=config.max_keyframes,
            keyframe_interval=config.join_every,
            geometry_every=config.geometry_every,
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
        base, end = parts_of(arm)
        if end not in SWITCHES:
            answers = self._answers_of if self._has_switches else self._track_arm
            yield from answers(arm, track_, prompt)
            return
        policy = memory_of(arm)
        alone = self._answers_of(with_memory("sam2", policy), track_, prompt)
        with_geometry = self._answers_of(with_memory(base, policy), track_, prompt)
        moves = track_.moves_in_view
        if end == "fallback":
            geometry = {frame.index: frame.geometry for frame in with_geometry}
            frames = ((f.index, self._features[f.index], f.ids, geometry[f.index]) for f in alone)
            decisions = decide(frames, prompted={prompt.object_id: [prompt.frame]})
            moves = prompt.object_id in decisions and decisions[prompt.object_id].dynamic
        yield from alone if moves else with_geometry

    def _answers_of(self, arm: str, track_: Track, prompt: Prompt) -> list[TrackedFrame]:
        """All frames by one arm, without logits; kept while the object is the same."""
        key = (arm, prompt.points)
        if self._track is not track_ or key not in self._answers:
            answers = self._track_arm(arm, track_, prompt)
            frames = [replace(frame, logits=None) for frame in answers]
            self._answers[key] = frames
        return self._answers[key]

    def _track_arm(self, arm: str, track_: Track, prompt: Prompt) -> Iterator[TrackedFrame]:
        if self._track is None or self._track.scene is not track_.scene:
            self._features = FrameFeatures(SceneFrames(track_.scene))
        if self._track is not track_:
            self._track = track_
            self._geometry.clear()
            self._answers.clear()
        base, _ = parts_of(arm)
        predictor = self._trackers[base].predictor
        predictor.use_memory(memory_of(arm))
        if base != "sam2":
            # Memory policies share an arm's geometry and merged features.
            key = without_memory(arm)
            if key not in self._geometry:
                self._geometry[key] = self._shared_geometry(arm, track_)
            source, merger = self._geometry[key]
            predictor.fuse(merger, lambda: source, predictor.place_settings)
        yield from track(predictor, self._features, [prompt], self._config.precision, False)

    def _shared_geometry(self, arm: str, track_: Track) -> tuple[Replay, ReplayedMerger]:
        """The geometry source of an arm, and its merger, for all prompts of an object."""
        base, control = parts_of(arm)
        tracker = self._trackers[base]
        if control == "true":
            source = posed_depth_of(track_.scene)
        else:
            source = tracker.make_source(scene=track_.scene)
        if control == "zero":
            source = ZeroGeometry(source)
        elif control == "shuffled":
            source = ShuffledGeometry(source, another_scene(track_.scene))
        return Replay(source, tracker.predictor.device), ReplayedMerger(self._mergers[base])

    def identity(self, arm: str) -> str:
        """Everything but prompt and object that an arm's results depend on, as JSON text."""
        base, control = parts_of(arm)
        config, identity = self._config, self._trackers[base].identity
        files = [
            identity.weights[role] for role in ("sam2", "checkpoint") if role in identity.weights
        ]
        device = pick_device(str(config.device))
        computed = [device.type, uses_bf16(device, config.precision)]
        if config.max_keyframes is not None:
            computed.append(config.max_keyframes)
        if base in ("3am", "places", "both"):
            computed.append(f"join_every={config.join_every}")
            if config.geometry_every != 1:
                computed.append(f"geometry_every={config.geometry_every}")
        computed.append(f"rules={TRACKING_RULES}")
        if "places" in identity.options:
            computed += [identity.options["places"], f"place rules={PLACE_RULES}"]
        if control:
            computed.append(control)
        policy = memory_of(arm)
        if policy != FIFO:
            settings = str(asdict(STRATEGIES[policy].settings))
            computed.append(f"memory={policy}, rules={MEMORY_RULES}, {settings}")
        if control == "fallback":
            computed.append(str(asdict(read_settings())))
        place = Path(config.data.scenes or config.data.root).resolve()
        return json.dumps([[file.sha256[:12] for file in files], str(place), computed])
