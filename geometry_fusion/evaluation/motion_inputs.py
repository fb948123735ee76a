"""What the motion decision is measured on: masks of the baseline and geometry, kept on disk.

Both take minutes to compute and do not change while thresholds are calibrated.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from geometry_fusion.choices import KEYFRAME_INTERVAL
from geometry_fusion.data.scenes import Scene
from geometry_fusion.evaluation.arms import SceneFrames, prompt_of
from geometry_fusion.evaluation.objects import Track
from geometry_fusion.geometry.posed_depth import posed_depth_of
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.models.geometry import SourceMaker, SourceOptions, source_maker
from geometry_fusion.models.must3r import model_file
from geometry_fusion.models.spec import merger_of, spec_of
from geometry_fusion.models.tracker import Tracker, build_tracker
from geometry_fusion.tracking.clip_session import track
from geometry_fusion.tracking.features import FrameFeatures
from geometry_fusion.types import Camera, GeometryFrame

TRUE_SIDE = 128  # cells per side of the grid of true points


class MotionInputs:
    """Masks of the baseline and MUSt3R's geometry, computed where the cache lacks them.

    Weights are loaded when they are first needed. sam2, must3r: names of models or weight files.
    """

    def __init__(self, cache: Path, sam2: str = "tiny", must3r: str = "tiny"):
        self._cache, self._sam2, self._must3r = cache, sam2, must3r
        self._tracker: Tracker | None = None
        self._make_source: SourceMaker | None = None

    def baseline_masks(self, scene: Scene, tracks: list[Track]) -> dict[int, np.ndarray]:
        """SAM2's masks, bool [T, H, W] by object id, each from a mask on the largest view."""
        file = self._cache / f"{scene.cache_name}_masks_{Path(self._sam2).stem}.npz"
        width, height = scene.size
        if not file.exists():
            features = FrameFeatures(SceneFrames(scene), images_kept=len(scene))
            masks = {str(t.object_id): np.packbits(self._tracked(t, features)) for t in tracks}
            _save(file, masks)
        with np.load(file) as stored:
            shape = (len(scene), height, width)
            return {int(i): unpacked(stored[i], shape) for i in stored.files}

    def _tracked(self, track_: Track, features: FrameFeatures) -> np.ndarray:
        if self._tracker is None:
            self._tracker = build_tracker(self._sam2, device="cpu")
        masks = [None] * len(track_.scene)
        prompt = prompt_of(track_, "mask")
        for frame in track(self._tracker.predictor, features, [prompt], "auto", False):
            masks[frame.index] = frame.ids > 0
        return np.array(masks)

    def geometry(self, scene: Scene) -> list[GeometryFrame]:
        """MUSt3R's points and cameras of every frame, without tokens and rays."""
        file = self._cache / f"{scene.cache_name}_geometry_{Path(self._must3r).stem}.npz"
        source = self._source()
        if not file.exists():
            frames = [source.push(i, scene.rgb(i)) for i in range(len(scene))]
            _save(file, _arrays_of(frames))
            fit = frames[0].fit
        else:
            fit = source.push(0, scene.rgb(0)).fit
        with np.load(file) as stored:
            return [
                GeometryFrame(
                    (),
                    torch.from_numpy(points.astype(np.float32)),
                    torch.zeros(3, 1, 1),
                    torch.from_numpy(confidence.astype(np.float32)),
                    torch.tensor(float(scale)),
                    Camera(float(focal), torch.from_numpy(pose)),
                    fit,
                )
                for points, confidence, scale, focal, pose in zip(
                    *(stored[k] for k in ("points", "confidence", "scale", "focal", "pose"))
                )
            ]

    def _source(self):
        if self._make_source is None:
            spec = spec_of(merger_of("auto", self._must3r))
            options = SourceOptions("cpu", keyframe_interval=KEYFRAME_INTERVAL)
            self._make_source = source_maker(spec, model_file(self._must3r), options)
        return self._make_source()


def unpacked(bits: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The bool array of this shape that `np.packbits` packed."""
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def true_masks(scene: Scene, tracks: Iterable[Track]) -> dict[int, np.ndarray]:
    """Ground truth masks, bool [T, H, W] by object id."""
    ids = np.array([scene.instance(i) for i in range(len(scene))])
    return {track.object_id: ids == track.object_id for track in tracks}


def true_geometry(scene: Scene) -> list[GeometryFrame]:
    """Geometry of every frame by the scene's depth and cameras."""
    source = posed_depth_of(scene, side=TRUE_SIDE)
    return [source.push(i, scene.rgb(i)) for i in range(len(scene))]


def _arrays_of(frames: list[GeometryFrame]) -> dict[str, np.ndarray]:
    return {
        "points": np.array([f.points.numpy() for f in frames], np.float32),
        "confidence": np.array([f.confidence.numpy() for f in frames], np.float16),
        "scale": np.array([float(f.scale) for f in frames]),
        "focal": np.array([f.camera.focal for f in frames]),
        "pose": np.array([f.camera.camera_to_world.numpy() for f in frames]),
    }


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(file) as fresh, open(fresh, "wb") as handle:
        np.savez(handle, **arrays)
