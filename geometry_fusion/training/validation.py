"""Validation by tracking, as the product tracks: a fresh predictor gets the weights that a checkpoint would hold and
follows objects through whole videos (geometry_fusion.segment.track). What a run says of its weights is so what
`ab_iou.py` says of the saved file.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from tqdm import tqdm

from geometry_fusion.data.own_video import Split
from geometry_fusion.data.scenes import Scene
from geometry_fusion.geometry import GeometrySource
from geometry_fusion.mask_files import innermost_point
from geometry_fusion.segment import track
from geometry_fusion.training.geometry_cache import CachedWalk, GeometryCache
from geometry_fusion.types import Prompt

# Weights of a checkpoint and what makes a geometry source -> a predictor of the product.
PredictorMaker = Callable[[dict[str, Tensor], Callable[[], GeometrySource]], object]


def mask_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """IoU of two masks [H, W] bool; 1 where both are empty."""
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


@dataclass(frozen=True)
class VideoValidation:
    """Tracks all objects of one video at once and scores the frames that are held out.

    make_source: geometry as in the product. precision: auto, fp32 or bf16, of the predictor.
    """

    split: Split
    make_source: Callable[[], GeometrySource]
    precision: str

    geometry_needed = ()  # it is streamed anew, as the product does

    @property
    def notes(self) -> list[str]:
        return [self.split.describe()]

    def measure(self, weights: dict[str, Tensor], predictor_of: PredictorMaker) -> dict[str, float]:
        """`score` is `positive_iou`, over frames that show an object; `after_absence_iou` is over those of them after
        an absence; `held_out_iou` over all that are held out. Means over objects; the numbers of frames are sums."""
        video, prompts = self.split.train, self.split.prompts
        asked = [Prompt(frame, i, mask=video.instance(frame) == i) for i, frame in prompts.items()]
        held = np.flatnonzero(self.split.val.annotated).tolist()
        predictor = predictor_of(weights, self.make_source)
        steps = track(predictor, video.frames, asked, self.precision, progress=False)
        bar = tqdm(steps, total=len(video), desc="validation", unit="frame", leave=False, disable=None)
        predicted = {index: ids for index, ids in bar if index in held}
        ious = {"held_out": {}, "positive": {}, "after_absence": {}}
        for frame in held:
            truth = self.split.val.instance(frame)
            for object_id in prompts:
                value = mask_iou(predicted[frame] == object_id, truth == object_id)
                ious["held_out"].setdefault(object_id, []).append(value)
                if (truth == object_id).any():
                    ious["positive"].setdefault(object_id, []).append(value)
                if frame in self.split.returned[object_id]:
                    ious["after_absence"].setdefault(object_id, []).append(value)
        result = {"held_out_iou": mean_over_objects(ious["held_out"])}
        for name in ("positive", "after_absence"):
            if ious[name]:
                result[f"{name}_iou"] = mean_over_objects(ious[name])
                result[f"{name}_frames"] = sum(map(len, ious[name].values()))
        return {"score": result["positive_iou"], **result}


def mean_over_objects(ious: dict[int, list[float]]) -> float:
    return float(np.mean([np.mean(values) for values in ious.values()]))


class WalkValidation:
    """Tracks objects of scenes, each on its own, through every few frames of its walk, from its largest view.

    walks: of `whole_walks`. The geometry is that of the whole walk, from the cache.
    """

    notes = ()

    def __init__(self, walks: Iterable[tuple[Scene, list[int], list[int]]], cache: GeometryCache, precision: str):
        self._walks, self._cache, self._precision = list(walks), cache, precision

    @property
    def geometry_needed(self) -> list[tuple[GeometryCache, Scene, int]]:
        return [(self._cache, scene, frames[0]) for scene, frames, _ in self._walks]

    def measure(self, weights: dict[str, Tensor], predictor_of: PredictorMaker) -> dict[str, float]:
        """Mean IoU over frames that show the object, from a click and from a mask; `score` is the mask's."""
        ious = {"click": [], "mask": []}
        sources = [None]  # of the walk at hand
        predictor = predictor_of(weights, lambda: sources[0])
        for scene, frames, (object_id,) in tqdm(self._walks, desc="validation", leave=False, disable=None):
            walk = SomeFrames(scene, sorted(frames))
            truth = [scene.instance(frame) == object_id for frame in walk.chosen]
            start = walk.chosen.index(frames[0])
            point = tuple(map(float, innermost_point(truth[start])))
            for kind, given in (("click", {"points": (point,)}), ("mask", {"mask": truth[start]})):
                sources[0] = CachedWalk(self._cache, scene, frames[0], walk.chosen)
                found = dict(track(predictor, walk, [Prompt(start, **given)], self._precision, progress=False))
                values = [mask_iou(found[i] > 0, mask) for i, mask in enumerate(truth) if mask.any()]
                ious[kind].append(float(np.mean(values)))
        result = {f"{kind}_positive_iou": float(np.mean(values)) for kind, values in ious.items()}
        return {"score": result["mask_positive_iou"], **result}


class SomeFrames:
    """Some frames of a scene as a video of their own: `chosen` are their numbers in the scene."""

    def __init__(self, scene: Scene, chosen: Sequence[int]):
        self._scene, self.chosen, self.size = scene, list(chosen), scene.size

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._scene.rgb(self.chosen[index])
