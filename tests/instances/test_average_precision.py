"""Average precision against hand cases and against the benchmark's rules, written out."""

import numpy as np
import pytest

from geometry_fusion.instances.average_precision import (
    Prediction,
    average_precision,
    match,
    precision_table,
)

SIZE = 200  # points of an object in the hand cases


def truth_of(*ids: int) -> np.ndarray:
    """Ids of the points: SIZE of each."""
    return np.repeat(ids, SIZE)


def part(number: int, share: float = 1.0, confidence: float = 1.0) -> Prediction:
    """The first points of the object in place `number`: IoU `share`."""
    count = round(share * SIZE)
    return Prediction(np.arange(number * SIZE, number * SIZE + count), confidence)


def ap_at(threshold: float, truth, predictions, **options) -> float:
    return average_precision([match(truth, predictions, threshold, **options)])


def test_perfect_predictions_have_ap_1():
    table = precision_table([(truth_of(1, 2), [part(0), part(1)])])
    assert table == {"ap": 1, "ap_10": 1, "ap50": 1, "ap25": 1}


def test_one_false_positive_of_equal_confidence_beside_three_hits():
    truth = truth_of(1, 2, 3, 0)
    # The fourth prediction lies on no object, but half of it is annotated: it counts.
    wrong = Prediction(np.r_[np.arange(100), np.arange(250, 350), np.arange(450, 550)])
    assert ap_at(0.6, truth, [part(0), part(1), part(2), wrong]) == pytest.approx(0.875)


def test_one_confidence_gives_half_the_recall_times_one_plus_precision():
    truth = truth_of(1, 2)
    split = Prediction(np.r_[SIZE : SIZE + 100, 0:100])
    assert ap_at(0.5, truth, [part(0), split]) == pytest.approx(0.375)


def test_a_duplicate_below_every_hit_costs_nothing():
    predictions = [part(0, 1, 0.9), part(1, 1, 0.8), part(0, 0.9, 0.1)]
    assert ap_at(0.5, truth_of(1, 2), predictions) == pytest.approx(1.0)


@pytest.mark.parametrize("first", (0.9, 0.8))
def test_of_two_hits_of_one_object_the_less_sure_is_false(first):
    second = {0.9: 0.8, 0.8: 0.9}[first]
    predictions = [part(0, 1, first), part(0, 0.9, second), part(1, 1, 0.7)]
    assert ap_at(0.5, truth_of(1, 2), predictions) == pytest.approx(0.7916667, abs=1e-6)


def test_predictions_on_void_are_ignored():
    truth = truth_of(1, 0)
    assert ap_at(0.5, truth, [part(0), part(1)]) == 1
    assert ap_at(0.5, np.where(truth == 0, -1, truth), [part(0), part(1)]) == 1
    # The same prediction on an annotated object that another one has already is false.
    assert ap_at(0.5, truth_of(1, 2), [part(0)]) == pytest.approx(0.5)


def test_predictions_with_fewer_than_100_points_are_dropped():
    truth = np.repeat([1, 2], [120, 200])
    assert ap_at(0.5, truth, [Prediction(np.arange(99))]) == 0
    # One hit of two objects: r (1 + p) / 2.
    assert ap_at(0.5, truth, [Prediction(np.arange(100))]) == pytest.approx(0.5)
    on_both = Prediction(np.r_[0:40, 120:179])  # would be false, but has 99 points
    assert ap_at(0.5, truth, [Prediction(np.arange(100)), on_both]) == pytest.approx(0.5)


def test_objects_with_fewer_than_100_points_do_not_count():
    truth = np.repeat([1, 2], [99, 200])
    whole = Prediction(np.arange(99, 299))
    assert ap_at(0.5, truth, [whole]) == 1
    on_small = Prediction(np.r_[0:99, 99])
    assert ap_at(0.5, truth, [whole, on_small]) == 1


def test_an_iou_of_exactly_one_half_is_no_match_at_one_half():
    assert ap_at(0.5, truth_of(1), [part(0, 0.5)]) == 0
    assert ap_at(0.5, truth_of(1), [part(0, 0.505)]) == 1


def test_ap_has_nine_thresholds_and_ap_10_one_more():
    table = precision_table([(truth_of(1), [part(0, 0.92)])])
    assert table["ap"] == 1 and table["ap_10"] == pytest.approx(0.9)


def test_scenes_without_objects_are_ignored_and_without_predictions_missed():
    nothing = (truth_of(0), [])
    full = (truth_of(1), [part(0)])
    assert precision_table([nothing, full])["ap50"] == 1
    assert precision_table([(truth_of(1), [])])["ap50"] == 0
    assert np.isnan(precision_table([nothing])["ap50"])
    assert precision_table([full, (truth_of(1), [])])["ap50"] == pytest.approx(0.5)


def test_constant_confidence_hides_the_ranking():
    scene = (truth_of(1, 2), [part(0, 1, 0.9), part(1, 0.5, 0.1)])
    assert precision_table([scene])["ap50"] == pytest.approx(0.5)
    assert precision_table([scene], constant=True)["ap50"] == pytest.approx(0.375)


def brute_force(scenes, threshold: float, least: int) -> float:
    """The rules of the benchmark's script one by one, with sets and loops."""
    labels, scores, missed = [], [], 0
    any_truth = any_prediction = False
    for truth, predictions in scenes:
        ids = {int(i) for i in truth if i > 0}
        objects = {i: set(np.flatnonzero(truth == i).tolist()) for i in ids}
        counted = [i for i in sorted(ids) if len(objects[i]) >= least]
        ignored = set(np.flatnonzero(truth <= 0).tolist())
        for i in ids - set(counted):
            ignored |= objects[i]
        kept = [
            (set(p.points.tolist()), p.confidence) for p in predictions if len(p.points) >= least
        ]
        any_truth |= bool(counted)
        any_prediction |= bool(kept)
        visited = set()

        def iou(points, i, objects=objects):
            return len(points & objects[i]) / len(points | objects[i])

        for i in counted:
            current = None
            for place, (points, score) in enumerate(kept):
                if place in visited or not points & objects[i] or not iou(points, i) > threshold:
                    continue
                if current is None:
                    current = score
                    visited.add(place)
                else:
                    labels.append(0)
                    scores.append(min(current, score))
                    current = max(current, score)
            if current is None:
                missed += 1
            else:
                labels.append(1)
                scores.append(current)
        for points, score in kept:
            if any(iou(points, i) > threshold for i in ids):
                continue
            if len(points & ignored) / len(points) <= threshold:
                labels.append(0)
                scores.append(score)
    if not any_truth:
        return float("nan")
    if not any_prediction or not scores:
        return 0.0
    pairs = sorted(zip(scores, labels))
    precision, recall = [], []
    for cut in sorted(set(scores)):
        above = [label for score, label in pairs if score >= cut]
        hits = sum(above)
        lost = sum(labels) - hits
        precision.append(hits / len(above))
        recall.append(hits / (hits + lost + missed) if hits + lost + missed else 0.0)
    precision.append(1.0)
    recall.append(0.0)
    around = [recall[0], *recall, 0.0]
    return sum(p * (around[k] - around[k + 2]) / 2 for k, p in enumerate(precision))


def random_scene(rng: np.random.Generator):
    count = int(rng.integers(10, 60))
    truth = rng.integers(-1, 5, count)
    predictions = []
    for _ in range(rng.integers(0, 7)):
        about = truth == rng.integers(0, 5)
        chosen = np.where(rng.random(count) < 0.15, ~about, about)
        confidence = float(rng.choice([0.2, 0.5, 0.5, 0.9]))
        predictions.append(Prediction(np.flatnonzero(chosen), confidence))
    return truth, predictions


@pytest.mark.parametrize("seed", range(200))
def test_random_scenes_score_as_the_rules_written_out(seed):
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(rng.integers(1, 4))]
    least = int(rng.integers(1, 8))
    for threshold in (0.25, 0.5, 0.75):
        ours = average_precision([match(*scene, threshold, least) for scene in scenes])
        assert ours == pytest.approx(brute_force(scenes, threshold, least), nan_ok=True)
