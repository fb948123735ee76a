"""Opening and following tracks, with a session that knows where things are."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from geometry_fusion.errors import InputError
from geometry_fusion.instances.propagate import propagate
from geometry_fusion.instances.proposals import Proposal
from geometry_fusion.instances.segments import SegmentStore
from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.tracks import decoded
from geometry_fusion.types import TrackedFrame

SIDE, FRAMES = 24, 8
SETTINGS = InstanceSettings()


def square(column: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[4:12, column : column + 8] = True
    return mask


class StillSession:
    """Answers every object with its prompted mask, for as long as `lost_at` does not say no."""

    def __init__(self, lost_at: dict[int, int] | None = None):
        self.objects: dict[int, np.ndarray] = {}
        self.lost_at = lost_at or {}
        self.prompted: list[tuple[int, int]] = []

    def add(self, prompt) -> None:
        assert prompt.frame == self.index
        self.objects[prompt.object_id] = prompt.mask
        self.prompted.append((prompt.frame, prompt.object_id))

    def track(self, source):
        for self.index in source:
            shown = [
                mask & (self.index < self.lost_at.get(number, FRAMES))
                for number, mask in self.objects.items()
            ]
            logits = torch.from_numpy(np.array(shown)[:, None] * 2.0 - 1) if shown else None
            ids = np.zeros((SIDE, SIDE), np.uint8)
            image = np.zeros((SIDE, SIDE, 3), np.uint8)
            yield TrackedFrame(self.index, ids, tuple(self.objects), logits, image=image)

    def snapshot(self) -> dict:
        return {"objects": {k: torch.from_numpy(v.copy()) for k, v in self.objects.items()}}

    def restore(self, snapshot: dict) -> None:
        self.objects = {k: v.numpy() for k, v in snapshot["objects"].items()}


class Frames(list):
    """Frame numbers as a source."""

    num_frames = FRAMES


def opened(start: int, lost=()):
    return nullcontext(Frames(t for t in range(start, FRAMES) if t not in lost))


def one_thing(frame: int, image: np.ndarray) -> list[Proposal]:
    return [Proposal(square(2), 0.9)]


def as_values(tracks) -> list:
    return [
        (t.id, t.start, t.stop, t.score, {k: decoded(m).tobytes() for k, m in t.masks.items()})
        for t in tracks
    ]


def test_a_thing_that_is_followed_opens_one_track():
    session = StillSession()
    tracks = propagate(session, opened, [0, 3, 6], one_thing, SETTINGS, SegmentStore())
    assert [(t.id, t.start, t.stop, t.score) for t in tracks] == [(1, 0, FRAMES, 0.9)]
    assert sorted(tracks[0].masks) == list(range(FRAMES))
    assert np.array_equal(decoded(tracks[0].masks[5]), square(2))


def test_a_thing_that_was_lost_opens_another_track_and_the_first_stays_open():
    session = StillSession(lost_at={1: 2})
    first, second = propagate(session, opened, [0, 3, 6], one_thing, SETTINGS, SegmentStore())
    assert (first.start, first.stop, sorted(first.masks)) == (0, FRAMES, [0, 1])
    assert (second.start, second.stop, sorted(second.masks)) == (3, FRAMES, [3, 4, 5, 6, 7])
    assert first.share_present == 0.25 and second.share_present == 1


def test_a_keyframe_that_cannot_be_read_is_the_next_frame():
    session = StillSession()
    tracks = propagate(
        session, lambda start: opened(start, {0, 1}), [0], one_thing, SETTINGS, SegmentStore()
    )
    assert [(t.start, t.stop) for t in tracks] == [(2, FRAMES)]
    assert session.prompted == [(2, 1)]


def test_frames_without_proposals_are_passed():
    tracks = propagate(StillSession(), opened, [0, 3], lambda *_: [], SETTINGS, SegmentStore())
    assert tracks == []


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop_at", (0, 3, 6))
def test_an_interrupted_run_continues_at_its_last_keyframe(tmp_path, stop_at):
    def things(frame: int, image=None) -> list[Proposal]:
        return [Proposal(square(2), 0.9), Proposal(square(12), 0.5 + frame / 100)]

    def failing(frame: int, image=None) -> list[Proposal]:
        if frame == stop_at:
            raise Stopped
        return things(frame)

    identity = {"video": "walk.mp4"}
    whole = propagate(
        StillSession({2: 2}), opened, [0, 3, 6], things, SETTINGS, SegmentStore(tmp_path / "a")
    )
    assert len(whole) == 3
    with pytest.raises(Stopped):
        store = SegmentStore(tmp_path / "b", identity)
        propagate(StillSession({2: 2}), opened, [0, 3, 6], failing, SETTINGS, store)
    begun = []

    def again(start: int):
        begun.append(start)
        return opened(start)

    store = SegmentStore(tmp_path / "b", identity)
    resumed = propagate(StillSession({2: 2}), again, [0, 3, 6], things, SETTINGS, store)
    assert begun == [stop_at] and as_values(resumed) == as_values(whole)
    # Complete: nothing is tracked again.
    store = SegmentStore(tmp_path / "b", identity)
    assert as_values(propagate(None, None, [], None, SETTINGS, store)) == as_values(whole)


def test_an_unfinished_run_with_other_facts_is_refused(tmp_path):
    propagate(StillSession(), opened, [0], one_thing, SETTINGS, SegmentStore(tmp_path, {"a": "1"}))
    with pytest.raises(InputError, match="left by a run with a 1, not 2"):
        SegmentStore(tmp_path, {"a": "2"})
    (tmp_path / "segment_000000.json").unlink()
    with pytest.raises(InputError, match=r"segment_000000.json: missing, but state.pt counts it"):
        SegmentStore(tmp_path, {"a": "1"})


def test_more_tracks_than_a_session_holds_are_refused():
    one = SimpleNamespace(mask=square(2), score=1.0)
    with pytest.raises(InputError, match="more than 254 tracks"):
        propagate(StillSession(), opened, [0], lambda *_: [one] * 255, SETTINGS, SegmentStore())
