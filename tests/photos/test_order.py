"""Orders of photos, on matrices whose answers are worked out by hand."""

import itertools

import numpy as np
import pytest

from geometry_fusion.photos.order import (
    UNREACHABLE,
    WEAK,
    Propagation,
    around,
    components,
    connected_order,
    farthest_points,
    reference_of,
)
from geometry_fusion.photos.overlap import of_nodes


def graph(count: int, edges: dict[tuple[int, int], float]) -> np.ndarray:
    weights = np.eye(count)
    for (i, j), weight in edges.items():
        weights[i, j] = weights[j, i] = weight
    return weights


def walked(steps: Propagation, absent=()) -> list:
    """All steps; the object is found in every photo but those in `absent`."""
    taken = []
    while (step := steps.next()) is not None:
        taken.append(step)
        steps.done(step.photo, [] if step.photo in absent else [0])
    return taken


def visible(count: int, share: float = 1.0) -> np.ndarray:
    return np.full((1, count), share)


def test_farthest_points_start_at_the_prompt_and_equal_the_hand_result():
    places = np.array([0.0, 1.0, 2.0, 9.0, 10.0])
    distance = np.abs(np.subtract.outer(places, places)) / 10
    # From 1.0: 10.0 is farthest (0.9); then 0.0 and 2.0 are both 0.1 away and 9.0 is, too:
    # the smallest number is taken; then 2.0; then 9.0.
    assert farthest_points(distance, start=1, most=5) == [1, 4, 0, 2, 3]
    assert farthest_points(distance, start=1, most=2) == [1, 4]
    assert farthest_points(distance, start=1, most=5, stop=0.2) == [1, 4]


def test_a_chain_is_processed_from_the_prompt_outwards_by_weight():
    weights = graph(5, {(0, 1): 0.5, (1, 2): 0.4, (2, 3): 0.6, (3, 4): 0.3})
    steps = walked(Propagation(weights, visible(5), [{2}]))
    assert [step.photo for step in steps] == [2, 3, 1, 0, 4]
    assert [step.parent for step in steps] == [None, 2, 2, 1, 3]
    assert [step.edge for step in steps] == [1.0, 0.6, 0.4, 0.5, 0.3]
    assert not any(step.flag for step in steps)


def test_a_star_is_processed_by_weight_and_equal_weights_by_number():
    weights = graph(5, {(0, 1): 0.2, (0, 2): 0.7, (0, 3): 0.2, (0, 4): 0.4})
    steps = walked(Propagation(weights, visible(5), [{0}]))
    assert [step.photo for step in steps] == [0, 2, 4, 1, 3]


def test_edges_count_half_where_nothing_of_the_object_is_visible():
    weights = graph(3, {(0, 1): 0.5, (0, 2): 0.4})
    seen = np.array([[1.0, 0.0, 1.0]])
    steps = walked(Propagation(weights, seen, [{0}]))
    assert [(step.photo, step.edge) for step in steps] == [(0, 1.0), (2, 0.4), (1, 0.25)]


def test_photos_without_the_object_lead_nowhere_and_what_lies_behind_is_weak():
    weights = graph(4, {(0, 1): 0.5, (1, 2): 0.5, (0, 3): 0.2})
    steps = walked(Propagation(weights, visible(4), [{0}]), absent={1})
    assert [(step.photo, step.flag) for step in steps] == [
        (0, None),
        (1, None),
        (3, None),
        (2, WEAK),
    ]


def test_a_component_without_a_prompt_is_unreachable_and_comes_last():
    weights = graph(5, {(0, 1): 0.9, (2, 3): 0.4, (3, 4): 0.04})
    assert components(weights) == [0, 0, 2, 2, 4]
    steps = walked(Propagation(weights, visible(5), [{3}]))
    assert [(step.photo, step.flag) for step in steps] == [
        (3, None),
        (2, None),
        (4, UNREACHABLE),
        (0, UNREACHABLE),
        (1, UNREACHABLE),
    ]


def test_components_equal_those_of_brute_force():
    draw = np.random.default_rng(3)
    for _ in range(20):
        count = int(draw.integers(1, 9))
        weights = np.triu(draw.random((count, count)) < 0.2, 1)
        weights = (weights + weights.T + np.eye(count)).astype(float)
        reach = np.linalg.matrix_power(weights, count) > 0
        assert components(weights) == [int(np.flatnonzero(row)[0]) for row in reach]


def prim(weights, visible, prompted, absent) -> list[tuple[int, int | None]]:
    """(photo, parent) by looking at all edges before every step."""
    prompts = sorted(set().union(*prompted))
    photos_with = [set(), set()]
    order = []
    while len(order) < len(weights):
        left = [p for p in range(len(weights)) if p not in [photo for photo, _ in order]]
        edges = [
            (-weights[other, photo] * (0.5 + 0.5 * visible[place, photo]), photo, place, other)
            for photo in left
            for place in range(2)
            for other in photos_with[place]
        ]
        photo, parent = (prompts[len(order)], None) if len(order) < len(prompts) else (None, None)
        if photo is None:
            _, photo, _, parent = min(edges)
        order.append((photo, parent))
        for place in range(2):
            if (place, photo) not in absent:
                photos_with[place].add(photo)
    return order


def test_the_order_equals_that_of_all_edges_looked_at_before_every_step():
    draw = np.random.default_rng(3)
    for _ in range(20):
        weights = draw.integers(1, 6, (8, 8)) / 6  # many are equal
        weights = np.maximum(weights, weights.T)
        visible = draw.integers(0, 3, (2, 8)) / 2
        prompted = [{int(draw.integers(8))}, {int(draw.integers(8))}]
        first = set().union(*prompted)
        absent = {
            (p, i) for p in range(2) for i in range(8) if i not in first and draw.random() < 0.3
        }
        steps, taken = Propagation(weights, visible, prompted), []
        while (step := steps.next()) is not None:
            taken.append((step.photo, step.parent))
            steps.done(step.photo, [p for p in range(2) if (p, step.photo) not in absent])
        assert taken == prim(weights, visible, prompted, absent)


def test_near_duplicates_are_reached_through_each_other_and_not_flagged():
    """Photos 1, 2 and 3 are one picture; they share a node, so they have its edges."""
    weights = of_nodes(graph(5, {(0, 1): 0.5, (3, 4): 0.9}), standing=[0, 1, 1, 1, 4])
    steps = walked(Propagation(weights, visible(5), [{0}]))
    assert [(s.photo, s.parent, s.flag) for s in steps[:4]] == [
        (0, None, None),
        (1, 0, None),
        (2, 1, None),
        (3, 1, None),
    ]
    assert steps[4].flag == UNREACHABLE  # its only edge was to a photo that another stands for


def test_an_object_spreads_from_all_its_prompts_and_objects_share_the_order():
    weights = graph(4, {(0, 1): 0.5, (2, 3): 0.6})
    steps = Propagation(weights, np.ones((2, 4)), [{0}, {2}])
    order = []
    while (step := steps.next()) is not None:
        order.append(step.photo)
        steps.done(step.photo, [0] if step.photo < 2 else [1])
    assert order == [0, 2, 3, 1]


def test_the_order_does_not_depend_on_numbers_where_weights_differ():
    draw = np.random.default_rng(7)
    upper = np.triu(draw.random((6, 6)), 1)
    weights = upper + upper.T + np.eye(6)
    expected = [step.photo for step in walked(Propagation(weights, visible(6), [{0}]))]
    for changed in itertools.islice(itertools.permutations(range(6)), 0, 720, 97):
        moved = weights[np.ix_(changed, changed)]
        start = changed.index(0)
        steps = walked(Propagation(moved, visible(6), [{start}]))
        assert [changed[step.photo] for step in steps] == expected


def test_a_given_order_is_kept():
    weights = graph(4, {(0, 1): 0.9})
    steps = walked(Propagation(weights, visible(4), [{2}], fixed=around([3, 2, 0, 1], {2})))
    assert [step.photo for step in steps] == [2, 0, 1, 3]


def test_the_connected_order_takes_what_is_most_like_anything_before():
    similarity = graph(4, {(0, 1): 0.1, (0, 2): 0.3, (1, 2): 0.8, (0, 3): 0.2, (1, 3): 0.7})
    assert connected_order(similarity, [0, 1, 2, 3], 0) == [0, 2, 1, 3]
    assert connected_order(similarity, [0, 1, 3], 3) == [3, 1, 0]


@pytest.mark.parametrize("count, expected", [(9, 0), (10, 1)])
def test_a_hardly_connected_prompt_is_no_reference(count, expected):
    similarity = np.full((count, count), 0.5)
    similarity[0] = similarity[:, 0] = 0.1
    similarity[1] = similarity[:, 1] = 0.6
    similarity[0, 1] = similarity[1, 0] = 0.1
    np.fill_diagonal(similarity, 1)
    assert reference_of(similarity, 0) == expected
    assert reference_of(similarity, 2) == 2
