"""When a second answer is kept."""

import numpy as np
import pytest

from geometry_fusion.photos.second_look import (
    ObjectCloud,
    SecondLookRule,
    distance_to,
    is_better,
)

RULE = SecondLookRule()


@pytest.mark.parametrize(
    "before, after, kept",
    [
        ((0.5, 0.2), (0.6, 0.1), True),
        ((0.5, 0.2), (0.6, 0.2), True),
        ((0.5, 0.2), (0.6, 0.3), False),  # surer, but farther from the object
        ((0.5, 0.2), (0.52, 0.1), False),  # log 0.52 - log 0.5 is 0.039
        ((0.5, np.inf), (0.6, 0.1), True),  # absent before
        ((0.5, 0.1), (0.9, np.inf), False),  # absent now
    ],
)
def test_a_second_answer_must_be_surer_and_not_farther(before, after, kept):
    assert is_better(before, after, RULE) is kept


def test_distances_are_medians_to_the_points_of_the_other_photos():
    cloud = ObjectCloud()
    cloud.put(0, np.array([[0.0, 0, 0], [10.0, 0, 0]]))
    cloud.put(1, np.array([[5.0, 0, 0]]))
    points = np.array([[0.0, 1, 0], [5.0, 2, 0], [10.0, 3, 0]])
    assert distance_to(points, cloud.others(2)) == 2.0
    assert distance_to(points, cloud.others(0)) == pytest.approx(np.sqrt(26))
    cloud.drop(1)
    assert len(cloud.others(0)) == 0
    assert distance_to(points, cloud.others(0)) == 0.0
    assert distance_to(np.empty((0, 3)), cloud.others(2)) == np.inf


def test_points_of_one_voxel_count_once():
    cloud = ObjectCloud()
    line = np.linspace(0, 1, 1001)[:, None] * [1.0, 0, 0]
    cloud.put(0, line)
    # The middle 90% are 0.9 long, a voxel is 2% of that.
    assert len(cloud.others(1)) == pytest.approx(1 / 0.018, abs=1)


def test_the_first_point_of_every_voxel_stays_on_all_sides_of_the_origin():
    points = np.random.default_rng(0).normal(size=(3000, 3))
    cloud = ObjectCloud()
    cloud.put(0, points)
    low, high = np.quantile(points, (0.05, 0.95), 0)
    seen, expected = set(), []
    for point in points:
        voxel = tuple(np.floor(point / (0.02 * (high - low).max())))
        if voxel not in seen:
            seen.add(voxel)
            expected.append(point)
    assert 1000 < len(expected) < 3000
    assert np.array_equal(cloud.others(1), expected)
