"""Bounded memory: what was dropped is never read, and restored memories go on alike."""

import io

import numpy as np
import pytest
import torch

from geometry_fusion.tracking.memories.coverage import CoverageMemory
from geometry_fusion.tracking.memories.distractors import DistractorMemory
from geometry_fusion.tracking.memories.fifo import FifoMemory
from geometry_fusion.tracking.memories.motion import MotionMemory
from geometry_fusion.tracking.memories.records import Answer
from geometry_fusion.tracking.memories.tree import TreeMemory
from tests.tracking.memories.test_coverage import sphere_view
from tests.tracking.memories.walks import new, offer

KINDS = [FifoMemory, DistractorMemory, MotionMemory, CoverageMemory, TreeMemory]
PROMPTS = {0: 10.0, -3: 2.0}
FRAMES = 150
VIEWS = [sphere_view(15 * k) for k in range(24)]


def random_frames(seed: int):
    """Views and candidates of a video in which an object comes and goes."""
    rng = np.random.default_rng(seed)
    present, x = True, 20.0
    for time in range(1, FRAMES + 1):
        present = present if rng.random() > 0.08 else not present
        x = float(np.clip(x + rng.normal(0, 1.5), 4, 50))
        masks = np.zeros((3, 64, 64), bool)
        for k in range(3):
            left = int(x) if k == 0 else int(rng.integers(0, 50))
            masks[k, 10 : 20 + k, left : left + 8 + int(rng.integers(0, 3))] = present
        score = rng.uniform(-0.9, 8) if present else rng.uniform(-8, -1.1)
        view = None if rng.random() < 0.2 else VIEWS[int(rng.integers(len(VIEWS)))]
        yield time, view, masks, float(score), rng.uniform(0.2, 1, (9, 3))


def advance(memory, time, view, masks, score, ious) -> list:
    memory.look(time, view)
    readings = memory.read(time, PROMPTS)
    offers = [offer(*map(float, row), score=score, masks=masks) for row in ious[: len(readings)]]
    choices = memory.choose(time, offers)
    answers = [
        Answer(float(ious[c.pathway][c.candidate]), score, masks[c.candidate]) for c in choices
    ]
    memory.add(time, answers)
    return readings


def keys(items) -> set[int]:
    return {i.time if i.node is None else i.node for i in items if i.time not in PROMPTS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 5])
def test_pruned_memories_read_what_unpruned_ones_do(kind, stride):
    pruned, whole = new(kind, stride=stride), new(kind, stride=stride)
    whole.prunes = False
    read_once = set()
    for frame in random_frames(stride):
        time, view = frame[:2]
        held = pruned.kept()
        readings = advance(pruned, *frame)
        assert readings == advance(whole, *frame), time
        for reading in readings:
            assert keys(reading.memories) <= held.memories, time
            assert keys(reading.pointers) <= held.pointers, time
            read_once |= keys(reading.memories)
        # A click may correct the latest frame: what tracking into it read is still there.
        pruned.look(time, view)
        assert pruned.read(time, PROMPTS) == readings
        if kind is TreeMemory:
            pruned.forget_before()
        assert len(pruned.kept().memories) <= 60 and len(pruned.kept().pointers) <= 16 * 6
    assert len(read_once) > 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_memory_goes_on_alike(kind):
    whole, later = new(kind), new(kind)
    for frame in random_frames(7):
        readings = advance(whole, *frame)
        if frame[0] > FRAMES // 2:
            assert advance(later, *frame) == readings, frame[0]
        elif frame[0] == FRAMES // 2:
            file = io.BytesIO()
            torch.save(whole.snapshot(), file)
            file.seek(0)
            later.restore(torch.load(file, weights_only=True))
    assert later.kept() == whole.kept()


@pytest.mark.parametrize("kind", KINDS)
def test_going_back_in_time_begins_anew(kind):
    memory, fresh = new(kind), new(kind)
    for frame in random_frames(3):
        advance(memory, *frame)
        if frame[0] == 40:
            break
    for frame in random_frames(4):
        if frame[0] == 1:
            advance(memory, *frame)
            advance(fresh, *frame)
            continue
        ours, theirs = advance(memory, *frame), advance(fresh, *frame)
        assert [[m.time for m in r.memories] for r in ours] == [
            [m.time for m in r.memories] for r in theirs
        ]
        if frame[0] == 40:
            break


def test_a_restarted_tree_uses_new_nodes():
    memory = new(TreeMemory)
    used = [node for frame in list(random_frames(3))[:5] for node in _nodes(memory, frame)]
    again = [node for frame in list(random_frames(3))[:2] for node in _nodes(memory, frame)]
    assert not set(used) & set(again)


def _nodes(memory, frame) -> list[int]:
    advance(memory, *frame)
    return [path.node for path in memory.pathways]
