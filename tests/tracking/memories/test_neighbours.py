"""The policy `neighbours`: what a photo reads depends on overlaps alone."""

import numpy as np
import pytest

from geometry_fusion.tracking.memories.neighbours import NeighbourMemory, NeighbourSettings
from geometry_fusion.tracking.memories.records import Answer, Bank

BANK = Bank()
MASK = np.ones((4, 4), bool)
PROMPT = {0: 5.0}


def line_of(count: int) -> np.ndarray:
    """Photos on a line: the overlap falls by 0.1 a step."""
    at = np.arange(count)
    return np.clip(1 - 0.1 * np.abs(np.subtract.outer(at, at)), 0, 1) - 0.05 * ~np.eye(
        count, dtype=bool
    )


def memory_of(order, kind="neighbours", count=10, iou=0.8, score=3.0, overlaps=None):
    overlaps = line_of(count) if overlaps is None else overlaps
    memory = NeighbourMemory(BANK, overlaps, NeighbourSettings(kind=kind))
    for photo in order:
        memory.add(photo, [Answer(iou, score, MASK)])
    return memory


def reading(memory, photo, prompts=PROMPT):
    read = memory.read(photo, prompts)[0]
    codes = {m.time: m.code for m in read.memories}
    return codes, {p.time: p.age for p in read.pointers}


def test_the_most_similar_photo_has_code_0_and_prompts_their_own():
    codes, ages = reading(memory_of([1, 2, 3, 4, 5, 6, 7, 8]), 9)
    assert codes == {0: BANK.of_prompts, 8: 0, 7: 1, 6: 2, 5: 3, 4: 4, 3: 5}
    assert ages == {8: 1, 7: 2, 6: 3, 5: 4, 4: 5, 3: 6, 0: 7}


def test_the_order_of_processing_does_not_enter():
    one = memory_of([1, 2, 3, 4, 5])
    other = memory_of([1, 4, 3, 2, 5])
    assert one.read(6, PROMPT) == other.read(6, PROMPT)
    # fifo, for comparison, reads what came last.
    one, other = memory_of([1, 2, 3], "fifo"), memory_of([3, 2, 1], "fifo")
    assert one.read(6, PROMPT) != other.read(6, PROMPT)
    assert reading(one, 6)[0] == {0: BANK.of_prompts, 3: 0, 2: 1, 1: 2}


@pytest.mark.parametrize("iou, score", [(0.3, 3.0), (0.8, 0.0)])
def test_unsure_photos_and_photos_without_the_object_are_not_read(iou, score):
    assert reading(memory_of([1, 2], iou=iou, score=score), 3)[0] == {0: BANK.of_prompts}


def test_a_photo_that_contradicts_geometry_is_not_read():
    memory = memory_of([1, 2, 3])
    memory.barred.add(3)
    assert reading(memory, 4)[0] == {0: BANK.of_prompts, 2: 0, 1: 1}


def test_of_two_photos_that_show_the_same_one_is_read():
    overlaps = line_of(4)
    overlaps[1, 2] = overlaps[2, 1] = 0.95
    assert reading(memory_of([1, 2], overlaps=overlaps), 3)[0] == {0: BANK.of_prompts, 2: 0}


def test_a_photo_does_not_read_itself_nor_a_prompt_twice():
    codes, ages = reading(memory_of([1, 2, 3]), 2)
    assert codes == {0: BANK.of_prompts, 1: 0, 3: 1}
    assert sorted(ages) == [0, 1, 3]
    codes, _ = reading(memory_of([1, 2, 3]), 2, prompts={0: 5.0, 3: 5.0})
    assert codes == {0: BANK.of_prompts, 3: BANK.of_prompts, 1: 0}


def test_variants_for_comparison():
    assert reading(memory_of([1, 2], "prompt_only"), 3) == ({0: 6}, {0: 1})
    assert set(reading(memory_of([1, 2], "all_conditioning"), 3)[0].values()) == {6}


def test_a_restored_memory_reads_the_same():
    memory = memory_of([3, 1, 2])
    memory.barred.add(1)
    other = NeighbourMemory(BANK, line_of(10))
    other.restore(memory.snapshot())
    assert other.read(5, PROMPT) == memory.read(5, PROMPT)
