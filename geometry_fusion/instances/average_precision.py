"""Average precision of class-agnostic instances, as ScanNet's benchmark script computes it.

A match needs an IoU above the threshold. Thresholds of `ap` are 0.50, 0.55, ... 0.90: the script
leaves 0.95 out, although the benchmark's page names it; `ap_10` has it. What is not annotated
("void") and annotated instances that are too small count neither for nor against a prediction.

With one confidence for all predictions AP is r (1 + p) / 2, by precision p and recall r: compare
with class-agnostic results of the literature by constant confidences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # of ap_10; ap has nine
LEAST_POINTS = 100


@dataclass(frozen=True)
class Prediction:
    """A predicted instance."""

    points: np.ndarray  # ids of points, each once
    confidence: float = 1.0


@dataclass(frozen=True)
class Matches:
    """The outcome of one scene at one threshold."""

    scores: np.ndarray  # [M] confidences of the predictions that count
    is_true: np.ndarray  # [M] bool, whether each is a hit
    missed: int  # annotated instances without a hit
    has_truth: bool


def match(
    truth: np.ndarray,  # [N] id of the annotated instance of every point; 0 or less is void
    predictions: Sequence[Prediction],
    threshold: float,
    least_points: int = LEAST_POINTS,
    constant: bool = False,
) -> Matches:
    """Match the predictions of one scene. constant: with confidence 1 for all of them.

    Predictions with fewer than `least_points` points are dropped. Of several predictions that match
    one instance the surest is the hit, the others are false.
    """
    predictions = [p for p in predictions if len(p.points) >= least_points]
    sizes = np.bincount(np.maximum(truth, 0))
    counted = [i for i in range(1, len(sizes)) if sizes[i] >= least_points]
    covers = np.zeros((len(predictions), len(sizes)), int)
    for row, prediction in enumerate(predictions):
        labels = np.maximum(truth[prediction.points], 0)
        covers[row] = np.bincount(labels, minlength=len(sizes))
    areas = np.array([len(p.points) for p in predictions], int)
    confidences = np.array([1.0 if constant else p.confidence for p in predictions])
    ious = covers[:, counted] / (areas[:, None] + sizes[counted] - covers[:, counted])
    hits = ious > threshold
    scores, is_true = [], []
    missed, visited = 0, np.zeros(len(predictions), bool)
    for column in range(len(counted)):
        candidates = np.flatnonzero(hits[:, column] & ~visited)
        if not len(candidates):
            missed += 1
            continue
        visited[candidates[0]] = True  # the others may match another instance as well
        scores += np.sort(confidences[candidates])[::-1].tolist()
        is_true += [True] + [False] * (len(candidates) - 1)
    not_annotated = areas - covers[:, counted].sum(axis=1)
    is_false = ~hits.any(axis=1) & (not_annotated <= threshold * areas)
    scores += confidences[is_false].tolist()
    is_true += [False] * int(is_false.sum())
    return Matches(np.array(scores), np.array(is_true, bool), missed, bool(counted))


def average_precision(scenes: Sequence[Matches]) -> float:
    """AP, 0..1, over the matches of all scenes at one threshold; NaN where nothing is annotated."""
    if not any(scene.has_truth for scene in scenes):
        return float("nan")
    scores = np.concatenate([scene.scores for scene in scenes])
    is_true = np.concatenate([scene.is_true for scene in scenes]).astype(bool)
    missed = sum(scene.missed for scene in scenes)
    if not len(scores):
        return 0.0
    order = np.argsort(scores, kind="stable")
    _, first = np.unique(scores[order], return_index=True)
    hits_below = np.concatenate([[0], np.cumsum(is_true[order])])[first]
    hits = is_true.sum() - hits_below
    precision = np.append(hits / (len(scores) - first), 1.0)
    total = is_true.sum() + missed
    recall = np.append(hits / total if total else np.zeros(len(hits)), 0.0)
    steps = np.concatenate([recall[:1], recall, [0.0]])
    return float(np.dot(precision, (steps[:-2] - steps[2:]) / 2))


def precision_table(
    scenes: Sequence[tuple[np.ndarray, Sequence[Prediction]]],
    least_points: int = LEAST_POINTS,
    constant: bool = False,
) -> dict[str, float]:
    """`ap`, `ap_10`, `ap50` and `ap25` over scenes (truth, predictions), 0..1."""
    return table_of([matches_of(*scene, least_points, constant) for scene in scenes])


def matches_of(
    truth: np.ndarray, predictions: Sequence[Prediction], least_points: int, constant: bool
) -> dict[float, Matches]:
    """The matches of one scene at every threshold that `table_of` reads."""
    return {
        threshold: match(truth, predictions, threshold, least_points, constant)
        for threshold in (0.25, *THRESHOLDS)
    }


def table_of(scenes: Sequence[dict[float, Matches]]) -> dict[str, float]:
    """As `precision_table`, from the matches of scenes."""
    at = {t: average_precision([s[t] for s in scenes]) for t in (0.25, *THRESHOLDS)}
    return {
        "ap": float(np.mean([at[t] for t in THRESHOLDS[:9]])),
        "ap_10": float(np.mean([at[t] for t in THRESHOLDS])),
        "ap50": at[0.5],
        "ap25": at[0.25],
    }
