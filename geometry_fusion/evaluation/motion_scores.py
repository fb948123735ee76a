"""How well motion is detected: curves over all objects and rates at the chosen thresholds."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geometry_fusion.evaluation.motion_objects import MotionObject
from geometry_fusion.evaluation.objects import VISIBLE_MOTION
from geometry_fusion.motion.decision import decision_of, other_score, part_score, whole_score
from geometry_fusion.motion.settings import MotionSettings

SEARCH = {  # values that a calibration tries, all combinations
    "z": (1.0, 1.5, 2.0, 2.5, 3.0, 4.0),
    "rho": (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1),
    "share": (0.15, 0.2, 0.3, 0.4, 0.5, 0.6),
    "part_share": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0),
}
FAST = 0.1  # object sizes per second, from which motion should be found
FALSE_COST = 5  # of a false fallback, in missed ones
FALSE_SHARE = 0.01  # of false fallbacks, at which recall is given


def auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Chance that a moving object scores higher than a still one; ties count half."""
    higher = (positives[:, None] > negatives).mean()
    return float(higher + 0.5 * (positives[:, None] == negatives).mean())


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Mean over moving objects of the precision at their score."""
    right = [(positives >= score).sum() for score in positives]
    wrong = [(negatives >= score).sum() for score in positives]
    return float(np.mean(np.array(right) / (np.array(right) + wrong)))


def recall_at(positives: np.ndarray, negatives: np.ndarray, share: float) -> float:
    """Largest recall while at most this share of the still objects is taken for moving."""
    allowed = int(np.floor(share * len(negatives) + 1e-9))
    limit = np.sort(negatives)[::-1][allowed] if allowed < len(negatives) else -np.inf
    return float((positives > limit).mean())


def is_fast(item: MotionObject) -> bool:
    """Whether an object moves at `FAST` or faster; carried ones do."""
    return item.speed is None or item.speed >= FAST


def summary(objects: Sequence[MotionObject], settings: MotionSettings) -> dict:
    """All measures of a list of objects; None where no object counts. Counts as (hits, of)."""
    decisions = [decision_of(1, item.pairs, settings) for item in objects]
    visible = np.array([item.subset == "dyn_visible" for item in objects])
    still = np.array([item.subset == "static" for item in objects])
    scores = np.array([decision.score for decision in decisions])
    fires = np.array([decision.dynamic for decision in decisions])

    def rate(chosen) -> tuple[int, int]:
        return int(fires[chosen].sum()), int(np.sum(chosen))

    def where(test) -> np.ndarray:
        return np.array([bool(test(item)) for item in objects])

    curves = dict.fromkeys(("auroc", "average_precision", "recall_at_1_percent"))
    if visible.any() and still.any():
        positives, negatives = scores[visible], scores[still]
        curves["auroc"] = auroc(positives, negatives)
        curves["average_precision"] = average_precision(positives, negatives)
        curves["recall_at_1_percent"] = recall_at(positives, negatives, FALSE_SHARE)
    rates = {
        "dyn_visible": rate(visible),
        "dyn_visible fast": rate(visible & where(is_fast)),
        "dyn_visible fast, around the prompt": rate(
            visible & where(is_fast) & where(lambda o: o.prompted_motion >= VISIBLE_MOTION)
        ),
        "static": rate(still),
        "static twins": rate(still & where(lambda o: "twins" in o.track_subsets)),
        "static reappear": rate(still & where(lambda o: "reappear" in o.track_subsets)),
        "distractor_moves": rate(still & where(lambda o: o.beside_mover)),
        "dyn_unseen": rate(where(lambda o: o.subset == "dyn_unseen")),
    }
    for kind in sorted({o.kind for o in objects if o.subset == "dyn_visible"}):
        rates[f"dyn_visible {kind}"] = rate(visible & where(lambda o, kind=kind: o.kind == kind))
    curves |= {f"background_px_{gap}": _background(objects, gap) for gap in settings.gaps}
    unknown = sum(decision.status == "unknown" for decision in decisions)
    return {**curves, "rates": rates, "unknown": unknown, "cost": cost(objects, settings)}


def _background(objects: Sequence[MotionObject], gap: int) -> float | None:
    """Median over the pairs of a gap of what the rigid model leaves of the background's flow."""
    left = [pair.background_px for item in objects for pair in item.pairs if pair.gap == gap]
    left = [pixels for pixels in left if np.isfinite(pixels)]
    return float(np.median(left)) if left else None


def cost(objects: Sequence[MotionObject], settings: MotionSettings) -> float:
    """Mean of the shares of missed moving objects and, five times, of false fallbacks.

    Only motion at `FAST` or faster counts as missed: slower motion is within the noise.
    """
    fires = np.array([decision_of(1, item.pairs, settings).dynamic for item in objects])
    return _cost(fires, *_truth(objects))


def _truth(objects: Sequence[MotionObject]) -> tuple[np.ndarray, np.ndarray]:
    """Which objects should be found and which should not, bool [N] each."""
    should = np.array([o.subset == "dyn_visible" and is_fast(o) for o in objects])
    return should, np.array([o.subset == "static" for o in objects])


def _cost(fires: np.ndarray, should: np.ndarray, still: np.ndarray) -> float:
    missed = 1 - fires[should].mean() if should.any() else 0.0
    false = fires[still].mean() if still.any() else 0.0
    return float((missed + FALSE_COST * false) / (1 + FALSE_COST))


def calibrated(objects: Sequence[MotionObject], settings: MotionSettings) -> MotionSettings:
    """The thresholds of `SEARCH` of least cost; of equals the largest, which fire least."""
    best, least = settings, np.inf
    should, still = _truth(objects)

    def fires(score, chosen: MotionSettings) -> np.ndarray:
        return np.array([score(item.pairs, chosen) >= 1 for item in objects])

    for z, rho in itertools.product(SEARCH["z"], SEARCH["rho"]):
        at = replace(settings, z=z, rho=rho)
        by_whole = {s: fires(whole_score, replace(at, share=s)) for s in SEARCH["share"]}
        by_part = {s: fires(part_score, replace(at, part_share=s)) for s in SEARCH["part_share"]}
        otherwise = fires(other_score, at)
        for share, part_share in itertools.product(by_whole, by_part):
            cost = _cost(by_whole[share] | by_part[part_share] | otherwise, should, still)
            if cost <= least + 1e-12:
                best, least = replace(at, share=share, part_share=part_share), cost
    return best
