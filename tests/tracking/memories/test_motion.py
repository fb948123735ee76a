"""Cases of `motion`, by hand."""

import pytest

from geometry_fusion.tracking.memories.kalman import BoxFilter
from geometry_fusion.tracking.memories.motion import MotionMemory
from geometry_fusion.tracking.memories.records import Answer
from tests.tracking.memories.walks import mask_of, new, offer, read, step

STILL = mask_of((40, 40, 60, 60))
# 38 of 42 columns are shared with STILL's 40: their box IoU is 0.9 within rounding.
BESIDE = mask_of((41, 40, 61, 60))
AWAY = mask_of((0, 0, 20, 20))


def stable(frames: int) -> MotionMemory:
    memory = new(MotionMemory)
    for time in range(1, frames + 1):
        step(memory, time, mask=STILL)
    return memory


@pytest.mark.parametrize("second, chosen", [(0.80, 1), (0.70, 0)])
def test_once_stable_a_mask_that_moves_on_wins(second, chosen):
    """0.15 * 0 + 0.85 * 0.90 = 0.765 against 0.15 * 0.9 + 0.85 * 0.8 = 0.815, or 0.73."""
    offered = offer(0.90, second, masks=[AWAY, BESIDE])
    assert stable(15).choose(16, [offered])[0].candidate == chosen
    assert stable(13).choose(14, [offered])[0].candidate == 0


def test_sure_frames_are_read_by_rank():
    memory = new(MotionMemory)
    for time in range(1, 12):
        step(memory, time, iou=0.4 if time in (9, 10) else 0.9)
    assert read(memory, 12) == {0: 6, 4: 5, 5: 4, 6: 3, 7: 2, 8: 1, 11: 0}


def test_the_frame_before_is_read_in_any_case():
    memory = new(MotionMemory)
    for time in range(1, 12):
        step(memory, time, iou=0.4 if time == 11 else 0.9)
    assert read(memory, 12) == {0: 6, 6: 5, 7: 4, 8: 3, 9: 2, 10: 1, 11: 0}


def test_the_filter_catches_up_with_a_moving_box():
    """A box of height 100 that moves by 5 a frame."""
    lags = {}
    moving = BoxFilter((0, 0, 50, 100))
    for number in range(1, 21):
        box = (5 * number, 0, 5 * number + 50, 100)
        expected = moving.predict()
        lags[number] = round((box[0] + box[2] - expected[0] - expected[2]) / 2, 2)
        moving.update(box)
    assert [lags[number] for number in (5, 10, 15, 20)] == [1.68, 0.56, 0.27, 0.14]


def test_a_doubtful_mask_restarts_the_filter():
    memory = stable(16)
    step(memory, 17, iou=0.2, mask=STILL)
    assert memory.stable == 0
    step(memory, 18, mask=AWAY)
    assert memory.stable == 1
    assert memory.choose(19, [offer(0.5, 0.9, masks=[AWAY, STILL])])[0].candidate == 1


def test_an_empty_mask_restarts_the_filter_too():
    memory = stable(16)
    step(memory, 17, mask=mask_of())
    assert memory.stable == 0
    step(memory, 18, mask=STILL)
    assert memory.stable == 1


def test_a_mask_a_little_below_presence_is_shown_and_not_read_later():
    assert MotionMemory.presence == -1
    memory = new(MotionMemory)
    for time, score in ((1, 5.0), (2, -0.5), (3, 5.0)):
        step(memory, time, score=score)
    assert read(memory, 4) == {0: 6, 1: 1, 3: 0}


def test_a_mask_that_meets_no_prediction_is_not_read_later():
    memory = stable(15)
    step(memory, 16, mask=AWAY)
    step(memory, 17, mask=STILL)
    assert 16 not in read(memory, 18) and 15 in read(memory, 18)


def test_the_filter_takes_in_what_places_made_of_the_mask():
    memory = stable(15)
    memory.choose(16, [offer(0.9, masks=[STILL])])
    memory.add(16, [Answer(0.9, -1.0, mask_of())])
    assert memory.stable == 0
