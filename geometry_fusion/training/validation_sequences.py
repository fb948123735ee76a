"""Which objects of scenes validate a fusion, and through which frames they are tracked."""

import numpy as np

from geometry_fusion.data.sampling import tracking_order
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.training.fusion_clips import FusionClips, twins

ObjectSequence = tuple[Scene, list[int], int]  # scene, frames in tracking order, object id


def sequences_to_validate(
    clips: FusionClips, count: int, step: int, min_area: int, hard_only: bool = True
) -> list[ObjectSequence]:
    """Up to `count` objects, each tracked through every `step`-th frame from its largest view on.

    They are spread evenly over scenes. An object needs 3 * min_area pixels in its largest view, at
    the model's input size. With `hard_only` it must leave the view or have a twin, because the
    others are easy. Raises InputError where there is none.
    """
    sequences = []
    for scene in clips.scenes:
        areas = clips.areas(scene)
        for object_id in range(1, areas.shape[1]):
            start = int(areas[:, object_id].argmax())
            frames = [t for t in tracking_order(start, len(scene)) if scene.annotated[t]][::step]
            is_large = areas[start, object_id] >= 3 * min_area
            is_hard = _leaves(areas[frames, object_id], min_area) or object_id in twins(scene)
            if is_large and (is_hard or not hard_only):
                sequences.append((scene, frames, object_id))
    if not sequences:
        which = "leaves the view or has a twin" if hard_only else "counts"
        raise InputError(
            f"no object of the validation scenes {which} with views of {3 * min_area} pixels; "
            "lower data.min_area"
        )
    places = np.linspace(0, len(sequences) - 1, min(count, len(sequences)))
    return [sequences[i] for i in np.unique(places.astype(int))]


def _leaves(areas: np.ndarray, min_area: int) -> bool:
    """Whether an object with these areas [T] is out of view at times, and well in view at times."""
    return bool((areas == 0).any() and (areas >= min_area).sum() >= 3)
