"""Cases of the anchors and recent frames of `dam`, by hand."""

import pytest

from geometry_fusion.tracking.memories.distractors import (
    DistractorMemory,
    largest_part,
    shows_distractor,
)
from tests.tracking.memories.walks import mask_of, new, pointer_ages, read, square, step

CHOSEN = mask_of((10, 10, 30, 30))
ELSEWHERE = mask_of((60, 10, 80, 30))


def tracked(until: int, anchors=(), hidden=()) -> DistractorMemory:
    memory = new(DistractorMemory)
    memory.prunes = False
    for time in range(1, until):
        step(memory, time, mask=square(0 if time in hidden else 100))
    memory.anchors = list(anchors)
    return memory


def test_recent_frames_are_numbered_without_gaps():
    assert read(tracked(20), 20) == {0: 6, 5: 3, 10: 2, 15: 1, 19: 0}


def test_anchors_take_the_place_of_recent_frames():
    memory = tracked(20, anchors=[7, 12])
    assert read(memory, 20) == {12: 6, 0: 6, 7: 6, 5: 3, 10: 2, 15: 1, 19: 0}


def test_the_prompt_and_the_newest_three_anchors_are_read():
    memory = tracked(70, anchors=[7, 12, 30, 44, 60])
    assert read(memory, 70) == {60: 6, 0: 6, 44: 6, 30: 6, 55: 2, 65: 1, 69: 0}


def test_frames_without_the_object_are_passed_over():
    memory = tracked(20, hidden=range(16, 20))
    assert read(memory, 20) == {0: 6, 5: 2, 10: 1, 15: 0}
    assert pointer_ages(memory, 20)[:3] == [(0, 20), (15, 5), (14, 6)]


def test_an_anchor_that_is_the_frame_before_is_a_recent_frame():
    memory = tracked(20, anchors=[19])
    assert read(memory, 20) == {0: 6, 5: 3, 10: 2, 15: 1, 19: 0}


def test_of_many_prompts_the_first_and_the_nearest_are_read():
    memory = tracked(20, anchors=[7])
    prompts = dict.fromkeys([0, 2, 4, 6, 8], 10.0)
    assert {t for t, code in read(memory, 20, prompts).items() if code == 6} == {0, 6, 7, 8}


@pytest.mark.parametrize(
    "other, anchor",
    [
        (ELSEWHERE, True),  # both together: 70 x 20, 400 of 1400
        (mask_of((12, 12, 28, 28)), False),  # inside: nothing is added
        (mask_of((10, 10, 38, 30)), False),  # 400 of 560: 0.714
        (mask_of((10, 10, 39, 30)), True),  # 400 of 580: 0.690
        (mask_of(), False),
    ],
)
def test_a_candidate_elsewhere_makes_an_anchor(other, anchor):
    assert shows_distractor(CHOSEN, [CHOSEN, other], 0.7) == anchor
    memory = new(DistractorMemory)
    for time in (1, 2):
        step(memory, time, mask=CHOSEN, others=[other, CHOSEN])
    assert memory.anchors == ([2] if anchor else [])  # the first tracked frame never is


def test_only_the_largest_part_counts_and_corners_join():
    parts = mask_of((0, 0, 2, 2), (2, 2, 4, 4), (50, 50, 52, 53))
    assert largest_part(parts).sum() == 8
    speck = mask_of((90, 90, 91, 91), (30, 10, 33, 30))
    assert not shows_distractor(CHOSEN, [speck], 0.7)  # 400 of 460; the speck is left out


@pytest.mark.parametrize(
    "areas, passes",
    [([400] * 10 + [480], True), ([400] * 10 + [481], False), ([400, 700], False), ([400], False)],
)
def test_the_area_must_be_near_the_median_of_recent_ones(areas, passes):
    memory = new(DistractorMemory)
    for time, area in enumerate(areas, 1):
        # The distractor comes with the last frame.
        others = [mask_of((0, 90, 100, 100))] if time == len(areas) else []
        step(memory, time, mask=square(area), others=others)
    assert bool(memory.anchors) == passes


def test_anchors_have_six_frames_between_them():
    memory = new(DistractorMemory)
    for time in range(1, 30):
        step(memory, time, mask=CHOSEN, others=[ELSEWHERE] if time >= 10 else [])
    assert memory.anchors == [10, 16, 22, 28]


def test_the_bound_of_the_predicted_iou_does_not_pass():
    for iou, anchors in ((0.8, []), (0.81, [2])):
        memory = new(DistractorMemory)
        for time in (1, 2):
            step(memory, time, iou=iou, mask=CHOSEN, others=[ELSEWHERE])
        assert memory.anchors == anchors


def test_a_model_with_one_candidate_has_no_anchors():
    memory = new(DistractorMemory)
    for time in range(1, 20):
        step(memory, time, mask=CHOSEN)
    assert memory.anchors == [] and read(memory, 20) == {0: 6, 5: 3, 10: 2, 15: 1, 19: 0}
