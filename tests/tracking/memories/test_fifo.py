"""SAM2's rule, case by case."""

import pytest

from geometry_fusion.tracking.memories.fifo import FifoMemory, nearest_prompts, recent_times
from geometry_fusion.tracking.memories.records import Bank
from tests.tracking.memories.walks import new, pointer_ages, read, step


@pytest.mark.parametrize(
    "stride, times",
    [(1, [14, 15, 16, 17, 18, 19]), (5, [-5, 0, 5, 10, 15, 19]), (2, [10, 12, 14, 16, 18, 19])],
)
def test_the_frame_before_and_multiples_of_the_stride_are_read(stride, times):
    assert recent_times(Bank(stride=stride), 20) == list(zip(times, range(5, -1, -1)))


def test_a_mirrored_time_gives_the_frames_of_reverse_tracking():
    """Backwards SAM2 reads ceil((t + 2) / r) r, and further multiples of r."""
    assert [-t for t, _ in recent_times(Bank(stride=5), -31)] == [55, 50, 45, 40, 35, 32]
    assert [-t for t, _ in recent_times(Bank(stride=1), -31)] == [37, 36, 35, 34, 33, 32]


def test_frames_without_an_output_leave_gaps():
    memory = new(FifoMemory)
    for time in (1, 2, 4):
        step(memory, time)
    assert read(memory, 5) == {0: 6, 1: 3, 2: 2, 4: 0}
    assert pointer_ages(memory, 5) == [(0, 5), (4, 1), (2, 3), (1, 4)]


def test_prompts_beyond_a_cap_are_chosen_by_nearness():
    bank = Bank(most_prompts=2)
    assert nearest_prompts(bank, 20, [0, 15, 22, 40]) == [15, 22]
    assert nearest_prompts(Bank(most_prompts=3), 20, [0, 15, 22, 40]) == [15, 22, 0]
    assert nearest_prompts(bank, 20, [3, 1]) == [3, 1]
    # A prompt that was not chosen is read as a tracked frame where it is recent.
    memory = FifoMemory(bank, 0)
    assert read(memory, 20, {0: 1.0, 15: 1.0, 18: 1.0, 19: 1.0}) == {19: 6, 18: 6, 15: 4}


def test_pointers_of_prompts_that_are_not_reached_are_not_read():
    memory = new(FifoMemory)
    assert pointer_ages(memory, 5, {0: 1.0, 9: 1.0}) == [(0, 5)]
    every = FifoMemory(Bank(past_pointers=False), 0)
    assert pointer_ages(every, 5, {0: 1.0, 9: 1.0}) == [(0, 5), (9, -4)]
    unsigned = FifoMemory(Bank(past_pointers=False, signed=False), 0)
    assert pointer_ages(unsigned, 5, {9: 1.0}) == [(9, 4)]
