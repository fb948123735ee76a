"""Validation by tracking, as the product tracks: a fresh predictor gets the weights that a
checkpoint would hold and follows objects through whole videos (geometry_fusion.segment.track).
What a run says of its weights is what `ab_iou.py` says of the saved file.
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
        """Means over objects of their mean IoU; the numbers of frames are sums over objects.

        `positive_iou`: held-out frames that show the object; `after_absence_iou`: those of them
        after an absence; `held_out_iou`: all held-out frames; `annotated_positive_iou`: all
        annotated frames that show the object, those that are trained on among them, as `ab_iou.py`
        scores the file with the same masks. `score` is the lower one of `positive_iou` and
        `annotated_positive_iou`: the few held-out frames alone may miss that an object is lost.
        """
        ious = self._ious(predictor_of(weights, self.make_source))
        held, returned = self.split.val.annotated, self.split.returned
        chosen = {
            "positive": lambda i, frame, present: held[frame] and present,
            "after_absence": lambda i, frame, present: frame in returned[i],
            "held_out": lambda i, frame, present: held[frame],
            "annotated_positive": lambda i, frame, present: present,
        }
        result = {}
        for name, counts in chosen.items():
            values: dict[int, list[float]] = {}
            for i, frame, iou, present in ious:
                if counts(i, frame, present):
                    values.setdefault(i, []).append(iou)
            if values:
                result[f"{name}_iou"] = float(np.mean([np.mean(of) for of in values.values()]))
                result[f"{name}_frames"] = sum(map(len, values.values()))
        lower = min(result["positive_iou"], result["annotated_positive_iou"])
        return {"score": lower, **result}

    def _ious(self, predictor) -> list[tuple[int, int, float, bool]]:
        """Object id, annotated frame, IoU there, and whether the object is in view."""
        train, val, prompts = self.split.train, self.split.val, self.split.prompts
        asked = [Prompt(frame, i, mask=train.instance(frame) == i) for i, frame in prompts.items()]
        steps = track(predictor, train.frames, asked, self.precision, progress=False)
        bar = {"total": len(train), "desc": "validation", "unit": "frame"}
        ious = []
        for frame, ids in tqdm(steps, **bar, leave=False, disable=None):
            if val.annotated[frame] or train.annotated[frame]:
                truth = (val if val.annotated[frame] else train).instance(frame)
                for i in prompts:
                    present = bool((truth == i).any())
                    ious.append((i, frame, mask_iou(ids == i, truth == i), present))
        return ious


class WalkValidation:
    """Tracks objects of scenes, each on its own, through every few frames of its walk, from its
    largest view.

    walks: (scene, frames, [object]), the largest view first. The geometry is that of the whole
    walk, from the cache.
    """

    notes = ()

    def __init__(
        self,
        walks: Iterable[tuple[Scene, list[int], list[int]]],
        cache: GeometryCache,
        precision: str,
    ):
        self._walks, self._cache, self._precision = list(walks), cache, precision

    @property
    def geometry_needed(self) -> list[tuple[GeometryCache, Scene, int]]:
        return [(self._cache, scene, frames[0]) for scene, frames, _ in self._walks]

    def measure(self, weights: dict[str, Tensor], predictor_of: PredictorMaker) -> dict[str, float]:
        """Mean IoU over frames that show the object, from a click and from a mask; `score` is the
        mask's."""
        ious = {"click": [], "mask": []}
        sources = [None]  # of the walk at hand
        predictor = predictor_of(weights, lambda: sources[0])
        bar = tqdm(self._walks, desc="validation", unit="walk", leave=False, disable=None)
        for scene, frames, (object_id,) in bar:
            walk = SomeFrames(scene, sorted(frames))
            truth = [scene.instance(frame) == object_id for frame in walk.chosen]
            start = walk.chosen.index(frames[0])
            point = tuple(map(float, innermost_point(truth[start])))
            for kind, given in (("click", {"points": (point,)}), ("mask", {"mask": truth[start]})):
                sources[0] = CachedWalk(self._cache, scene, frames[0], walk.chosen)
                steps = track(predictor, walk, [Prompt(start, **given)], self._precision, False)
                shown = ((ids > 0, truth[i]) for i, ids in steps if truth[i].any())
                ious[kind].append(float(np.mean([mask_iou(*pair) for pair in shown])))
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
