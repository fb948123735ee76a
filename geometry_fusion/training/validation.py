"""Validation of a fusion by tracking, as a user tracks.

A new predictor gets the weights that a checkpoint would hold, and follows objects through whole
videos (geometry_fusion.tracking.track). A run therefore reports of its weights what `ab_iou.py`
reports of the saved file.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from tqdm import tqdm

from geometry_fusion.data.own_video import Split
from geometry_fusion.data.scenes import Scene
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.mask_writer import innermost_point
from geometry_fusion.measure.masks import iou
from geometry_fusion.tracking.clip_session import track
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.training.geometry_cache import CachedSequence, GeometryCache
from geometry_fusion.training.validation_sequences import ObjectSequence
from geometry_fusion.types import Prompt

# (weights of a checkpoint, maker of a geometry source) -> the predictor that a user would get.
PredictorMaker = Callable[[dict[str, Tensor], Callable[[], GeometrySource]], GeometryVideoPredictor]


@dataclass(frozen=True)
class ObjectIoU:
    """One object in one annotated frame."""

    object_id: int
    frame: int
    iou: float
    present: bool  # whether the ground truth shows it


@dataclass(frozen=True)
class VideoValidation:
    """Tracks all objects of one video at once and scores the frames that are held out.

    make_source: geometry as a user gets it. precision: of the predictor: auto, fp32 or bf16.
    """

    split: Split
    make_source: Callable[[], GeometrySource]
    precision: str

    geometry_needed = ()  # nothing from disk: it is streamed anew, as for a user

    @property
    def notes(self) -> list[str]:
        """Lines for the log before the first step."""
        return [self.split.describe()]

    def measure(self, weights: dict[str, Tensor], predictor_of: PredictorMaker) -> dict[str, float]:
        """Means over objects of their mean IoU, and numbers of frames as sums over objects.

        `positive_iou`: held-out frames that show the object. `after_absence_iou`: of these, those
        after an absence. `held_out_iou`: all held-out frames. `annotated_positive_iou`: all
        annotated frames that show the object, training frames included, as `ab_iou.py` scores the
        file with the same masks. `score` is the lower one of `positive_iou` and
        `annotated_positive_iou`: the few held-out frames alone may miss that an object is lost.
        """
        results = list(self._track(predictor_of(weights, self.make_source)))
        held_out, returned = self.split.val.annotated, self.split.returned
        subsets = {
            "positive": [r for r in results if held_out[r.frame] and r.present],
            "after_absence": [r for r in results if r.frame in returned[r.object_id]],
            "held_out": [r for r in results if held_out[r.frame]],
            "annotated_positive": [r for r in results if r.present],
        }
        measures = {}
        for name, subset in subsets.items():
            by_object: dict[int, list[float]] = {}
            for result in subset:
                by_object.setdefault(result.object_id, []).append(result.iou)
            if by_object:
                measures[f"{name}_iou"] = float(np.mean([np.mean(v) for v in by_object.values()]))
                measures[f"{name}_frames"] = len(subset)
        lower = min(measures["positive_iou"], measures["annotated_positive_iou"])
        return {"score": lower, **measures}

    def _track(self, predictor: GeometryVideoPredictor) -> Iterator[ObjectIoU]:
        """The IoU of every object in every annotated frame, in tracking order."""
        train, val, prompted = self.split.train, self.split.val, self.split.prompts
        prompts = [
            Prompt(frame, object_id, mask=train.instance(frame) == object_id)
            for object_id, frame in prompted.items()
        ]
        tracked = track(predictor, train.frames, prompts, self.precision, progress=False)
        bar = {"total": len(train), "desc": "validation", "unit": "frame"}
        for frame in tqdm(tracked, **bar, leave=False, disable=None):
            index = frame.index
            if not (val.annotated[index] or train.annotated[index]):
                continue
            truth = (val if val.annotated[index] else train).instance(index)
            for object_id in prompted:
                mask = truth == object_id
                value = iou(frame.ids == object_id, mask)
                yield ObjectIoU(object_id, index, value, present=bool(mask.any()))


class SequenceValidation:
    """Tracks objects of scenes, each on its own, through every few frames of their sequence.

    sequences: as `sequences_to_validate`; tracking starts at the largest view. The geometry is that
    of the whole sequence, from the cache.
    """

    notes = ()  # no lines for the log

    def __init__(self, sequences: Sequence[ObjectSequence], cache: GeometryCache, precision: str):
        self._sequences = list(sequences)
        self._cache = cache
        self._precision = precision

    @property
    def geometry_needed(self) -> list[tuple[GeometryCache, Scene, int]]:
        """(cache, scene, reference) of the geometry that is read from disk."""
        return [(self._cache, scene, frames[0]) for scene, frames, _ in self._sequences]

    def measure(self, weights: dict[str, Tensor], predictor_of: PredictorMaker) -> dict[str, float]:
        """Mean IoU over frames that show the object, from a click and from a mask.

        `score` is that from a mask.
        """
        ious = {"click": [], "mask": []}
        sources: list[GeometrySource | None] = [None]  # the one of the current sequence
        predictor = predictor_of(weights, lambda: sources[0])
        bar = tqdm(self._sequences, desc="validation", unit="object", leave=False, disable=None)
        for scene, frames, object_id in bar:
            video = SceneFrames(scene, sorted(frames))
            truth = [scene.instance(frame) == object_id for frame in video.chosen]
            start = video.chosen.index(frames[0])
            x, y = innermost_point(truth[start])
            click = Prompt(start, points=((float(x), float(y)),))
            mask = Prompt(start, mask=truth[start])
            for kind, prompt in (("click", click), ("mask", mask)):
                sources[0] = CachedSequence(self._cache, scene, frames[0], video.chosen)
                tracked = track(predictor, video, [prompt], self._precision, progress=False)
                values = [iou(f.ids > 0, truth[f.index]) for f in tracked if truth[f.index].any()]
                ious[kind].append(float(np.mean(values)))
        measures = {f"{kind}_positive_iou": float(np.mean(values)) for kind, values in ious.items()}
        return {"score": measures["mask_positive_iou"], **measures}


class SceneFrames:
    """Chosen frames of a scene as a video (`Frames`). chosen: their indices in the scene."""

    def __init__(self, scene: Scene, chosen: Sequence[int]):
        self._scene = scene
        self.chosen = list(chosen)
        self.size = scene.size  # (width, height)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> np.ndarray:
        """RGB uint8 [H, W, 3]."""
        return self._scene.rgb(self.chosen[index])
