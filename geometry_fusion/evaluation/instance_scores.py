"""Measures of 3D instances on rooms, with bootstrap intervals over rooms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geometry_fusion.data.scenes import Scene
from geometry_fusion.evaluation.objects import Track
from geometry_fusion.instances.average_precision import (
    THRESHOLDS,
    Matches,
    Prediction,
    average_precision,
    matches_of,
    table_of,
)
from geometry_fusion.instances.solve import Instance

TWIN_SHARE = 0.2  # of both twins in one instance, from which they count as merged
OWN_SHARE = 0.5  # of an instance's points on an object, from which it is a fragment of it
DRAWS = 1000


@dataclass(frozen=True)
class RoomScores:
    """What one room contributes."""

    constant: dict[float, Matches]  # by threshold, with confidence 1
    ranked: dict[float, Matches]
    twins: tuple[int, int]  # merged pairs, of all pairs
    fragments: tuple[int, int]  # instances that are part of an object, objects with any
    returned: tuple[int, int]  # objects that left and came back: found at IoU 0.5, of all


def scores_of(
    scene: Scene, labels: np.ndarray, instances: Sequence[Instance], least_points: int
) -> RoomScores:
    """Score the instances of a room. labels: object id of every point, 0 for none."""
    predictions = [Prediction(i.points, i.confidence) for i in instances]
    sizes = np.bincount(labels)
    counted = [number for number in range(1, len(sizes)) if sizes[number] >= least_points]
    covers = np.array([np.bincount(labels[i.points], minlength=len(sizes)) for i in instances])
    covers = covers.reshape(len(instances), len(sizes))
    areas = covers.sum(axis=1)
    fragments = [int((covers[:, o] >= OWN_SHARE * areas).sum()) for o in counted]
    ious = covers / np.maximum(areas[:, None] + sizes - covers, 1)
    returned = [o for o in counted if "reappear" in Track(scene, o).subsets]
    recalled = sum(bool(len(instances)) and bool(ious[:, o].max() > 0.5) for o in returned)
    pairs = _twin_pairs(scene, counted)
    merged = sum(
        bool(
            (
                (covers[:, a] >= TWIN_SHARE * sizes[a]) & (covers[:, b] >= TWIN_SHARE * sizes[b])
            ).any()
        )
        for a, b in pairs
    )
    return RoomScores(
        matches_of(labels, predictions, least_points, constant=True),
        matches_of(labels, predictions, least_points, constant=False),
        (merged, len(pairs)),
        (sum(fragments), sum(count > 0 for count in fragments)),
        (recalled, len(returned)),
    )


def _twin_pairs(scene: Scene, counted: list[int]) -> list[tuple[int, int]]:
    pairs = {tuple(sorted((o.id, o.twin_of))) for o in scene.objects if o.twin_of is not None}
    return sorted(pair for pair in pairs if set(pair) <= set(counted))


def measures(rooms: Sequence[RoomScores]) -> dict[str, float]:
    """All measures over rooms: AP with constant and with ranked confidences, and the shares."""
    values = table_of([room.constant for room in rooms])
    values |= {f"{k}_ranked": v for k, v in table_of([room.ranked for room in rooms]).items()}
    values["twins_merged"] = _share([room.twins for room in rooms])
    values["fragments"] = _share([room.fragments for room in rooms])
    values["returned"] = _share([room.returned for room in rooms])
    return values


def _share(counts: Sequence[tuple[int, int]]) -> float:
    part, whole = np.sum(counts, axis=0)
    return float(part / whole) if whole else float("nan")


def quick_measures(rooms: Sequence[RoomScores]) -> dict[str, float]:
    """The measures with intervals: constant AP over nine thresholds, AP50, merged twins."""
    at = [average_precision([room.constant[t] for room in rooms]) for t in THRESHOLDS[:9]]
    twins = _share([room.twins for room in rooms])
    return {"ap": float(np.mean(at)), "ap50": at[0], "twins_merged": twins}


def drawn_measures(rooms: Sequence[RoomScores], seed: int = 0) -> dict[str, np.ndarray]:
    """`quick_measures` of rooms drawn with replacement, [DRAWS] each.

    The same seed draws the same rooms, so that draws of two arms are paired.
    """
    rng = np.random.default_rng(seed)
    draws = [
        quick_measures([rooms[k] for k in rng.integers(len(rooms), size=len(rooms))])
        for _ in range(DRAWS)
    ]
    return {name: np.array([draw[name] for draw in draws]) for name in draws[0]}


def interval_of(values: np.ndarray) -> tuple[float, float]:
    """The middle 95% of drawn values; NaN where there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
