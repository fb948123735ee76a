"""How sure a tracker is of an object in a frame: what a person should look at first.

From the logits alone, so that every arm is judged alike:

* stability: IoU of the mask with its logits thresholded at +1 and at -1, as the stability score of
  SAM's automatic mask generator (Kirillov et al., 2023, section 5). A mask whose outline moves when
  the threshold moves is a guess.
* object score: SAM2's own logit of the object being in view, as a probability.

A mask has the smaller of the two as its confidence; an empty mask the probability of absence.
"""

import math
from dataclasses import dataclass

import torch

from geometry_fusion.types import TrackedFrame

OFFSET = 1.0  # of logits, for the stability score


@dataclass(frozen=True)
class Seen:
    """One object in one frame."""

    area: int  # pixels of its mask; 0 where it is absent
    confidence: float  # 0..1
    score: float | None  # SAM2's object score, a logit


def confidences(frame: TrackedFrame) -> dict[int, Seen]:
    """Object id -> how the object is seen in a tracked frame; empty before the first prompt."""
    if frame.logits is None:
        return {}
    logits = frame.logits[:, 0]
    surely = (logits > OFFSET).flatten(1).sum(1)
    maybe = (logits > -OFFSET).flatten(1).sum(1)
    stability = (surely / maybe.clamp(min=1)).cpu()
    ids = torch.from_numpy(frame.ids)
    areas = torch.bincount(ids.flatten().long(), minlength=256)
    seen = {}
    for place, object_id in enumerate(frame.object_ids):
        area = int(areas[object_id])
        score = frame.scores.get(object_id)
        in_view = 1.0 if score is None else probability(score)
        sure = min(in_view, float(stability[place])) if area else 1 - in_view
        if score is None and not area:
            sure = 1.0
        seen[object_id] = Seen(area, round(sure, 4), None if score is None else round(score, 3))
    return seen


def probability(logit: float) -> float:
    """The logistic function, without overflow."""
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))
