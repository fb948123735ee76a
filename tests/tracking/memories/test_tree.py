"""Cases of `tree`, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from geometry_fusion.tracking.memories.records import Answer
from geometry_fusion.tracking.memories.tree import Pathway, TreeMemory, key_weights
from tests.tracking.memories.walks import PROMPTS, mask_of, new, offer, square


def tree(pathways: int = 2, totals=(0.0,), **settings) -> TreeMemory:
    memory = new(TreeMemory)
    memory.settings = replace(TreeMemory.settings, pathways=pathways, **settings)
    memory.pathways = [Pathway(total) for total in totals]
    return memory


def chosen(memory: TreeMemory, *offers) -> list[tuple[int, int]]:
    return [(c.pathway, c.candidate) for c in memory.choose(1, list(offers))]


def totals(memory: TreeMemory) -> list[float]:
    return [round(total, 3) for _, total in memory._chosen]


def follow(memory: TreeMemory, time: int, *offers) -> None:
    """One frame; of each survivor its own IoU and the score of its offer."""
    choices = memory.choose(time, list(offers))
    answers = [
        Answer(offers[c.pathway].ious[c.candidate], offers[c.pathway].score, square(9))
        for c in choices
    ]
    memory.add(time, answers)


def test_certain_frames_keep_the_largest_totals():
    memory = tree(totals=(0, -0.1))
    assert chosen(memory, offer(0.90, 0.50, 0.30), offer(0.95, 0.93, 0.20)) == [(0, 0), (1, 0)]
    assert totals(memory) == [-0.105, -0.151]


@pytest.mark.parametrize(
    "second, survivors, expected",
    [
        ((0.999, 0.896, 0.20), [(0, 0), (1, 0)], [-0.101, -0.201]),
        ((0.896, 0.70, 0.20), [(0, 0), (1, 1)], [-0.101, -0.557]),
    ],
)
def test_uncertain_frames_keep_distinct_predicted_ious(second, survivors, expected):
    memory = tree(totals=(0, -0.2))
    first = offer(0.904, 0.50, 0.30, score=0.5)
    assert chosen(memory, first, offer(*second, score=0.5)) == survivors
    assert totals(memory) == expected


@pytest.mark.parametrize("score, survivors", [(2.0, 1), (-3.0, 1), (1.9, 0)])
def test_one_sure_pathway_makes_a_frame_certain(score, survivors):
    memory = tree(totals=(0, -0.2))
    offers = offer(0.904, 0.5, 0.3, score=0.5), offer(0.896, 0.7, 0.2, score=score)
    assert chosen(memory, *offers)[1] == ((1, 0) if survivors else (1, 1))


def test_where_too_few_ious_differ_the_best_of_the_rest_live_on():
    memory = tree(pathways=3)
    assert chosen(memory, offer(0.5, 0.5, 0.5, score=0)) == [(0, 0), (0, 1), (0, 2)]


def test_equal_masks_count_once_where_that_is_asked_for():
    empty = [mask_of(side=4)] * 3
    for collapse, count in ((False, 3), (True, 1)):
        memory = tree(pathways=3, collapse_empty=collapse)
        offered = offer(0.5, 0.7, 0.9, score=-5, masks=empty)
        assert len(chosen(memory, offered)) == count
    assert chosen(tree(collapse_empty=True), offered) == [(0, 2)]


def test_a_late_decision_rewrites_the_early_frames():
    memory = tree()
    follow(memory, 1, offer(0.7, 0.6))
    first = memory.decided()[1]
    for time in range(2, 6):
        ious = [0.7 if i == 0 else 0.6 for i in range(2)]
        follow(memory, time, *[offer(iou, 0.01) for iou in ious])
    assert memory.decided()[1] == first
    behind = memory.pathways[1]
    follow(memory, 6, offer(0.3, 0.01), offer(0.95, 0.01))
    history = dict(memory.history(behind.node))
    assert set(memory.decided().values()) > set(history)
    assert memory.decided()[1] != first and sorted(memory.decided()) == [1, 2, 3, 4, 5, 6]


def test_dead_branches_are_forgotten_and_change_nothing():
    memory = tree(pathways=2)
    follow(memory, 1, offer(0.9, 0.8))
    dead = memory.pathways[1].node
    for time in (2, 3):
        follow(memory, time, offer(0.9, 0.85), *[offer(0.01, 0.01)] * (len(memory.pathways) - 1))
    assert dead not in memory.nodes
    assert all(m.node != dead for reading in memory.read(4, PROMPTS) for m in reading.memories)
    assert memory.committed == 1  # the pathways before the latest frame count too


def test_sure_frames_of_its_own_history_are_read():
    memory = tree(pathways=1)
    for time, (iou, score) in enumerate([(0.9, 5), (0.29, 5), (0.9, -1), (0.31, 0.1)], 1):
        follow(memory, time, offer(iou, score=score))
    (reading,) = memory.read(5, PROMPTS)
    assert [(m.time, m.code) for m in reading.memories] == [(0, 6), (1, 1), (4, 0)]
    assert [p.time for p in reading.pointers] == [0, 4, 3, 2, 1]


def test_the_most_certain_memory_has_the_highest_weight():
    assert key_weights([10, 1, 5], 0.95, 1.05) == pytest.approx([1.05, 0.95, 1.0])
    assert key_weights([3], 0.95, 1.05) == [1.0]
    memory = tree(pathways=1)
    follow(memory, 1, offer(0.9, score=1))
    follow(memory, 2, offer(0.9, score=5))
    (reading,) = memory.read(3, PROMPTS)
    assert [round(m.weight, 3) for m in reading.memories] == [1.05, 0.95, 1.0]


def test_scaling_all_ious_changes_no_certain_decision():
    rng = np.random.default_rng(0)
    for scale in (0.9, 0.5):
        ours, theirs = tree(pathways=3, epsilon=0), tree(pathways=3, epsilon=0)
        for time in range(1, 30):
            ious = rng.uniform(0.2, 1, (len(ours.pathways), 3))
            for memory, factor in ((ours, 1), (theirs, scale)):
                follow(memory, time, *[offer(*row, score=5) for row in ious * factor])
            assert [p.node for p in ours.pathways] == [p.node for p in theirs.pathways]
        assert theirs.pathways[0].total == pytest.approx(
            ours.pathways[0].total + 29 * math.log(scale)
        )


def test_a_model_with_one_candidate_has_one_pathway():
    memory = new(TreeMemory)
    for time in range(1, 5):
        follow(memory, time, offer(0.9))
    assert len(memory.pathways) == 1 and list(memory.decided()) == [4, 3, 2, 1]
