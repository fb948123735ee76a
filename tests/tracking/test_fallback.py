"""Falling back to SAM2 alone: masks of clips, and a stream that decides after its first frames."""

import numpy as np
import pytest
import torch

from geometry_fusion import Prompt, load
from geometry_fusion.io.mask_writer import write_mask, write_palette_mask
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.sam2 import build_predictor
from geometry_fusion.motion import Decision
from geometry_fusion.tracking import fallback
from geometry_fusion.tracking.asked_decoder import QUESTIONS
from geometry_fusion.tracking.fallback import ClipFallback, FallbackSession, without_geometry
from geometry_fusion.tracking.places import MOVING, PlaceSettings
from geometry_fusion.tracking.stream_session import StreamSession
from tests.conftest import ROOT

CLIP = ROOT / "videos/samples/twins/video.mp4"
VASE = Prompt(1, points=((20.0, 147.0),))
OTHER = Prompt(1, object_id=2, points=((100.0, 100.0),))
BURN_IN = 6


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return list(VideoFile(CLIP))[:16]


@pytest.fixture(scope="module")
def arms():
    # Asked in every frame, so that the arms differ where SAM2 is right too.
    settings = PlaceSettings(clear_iou=2.0, questions=tuple(QUESTIONS))
    geometry = load("tiny", mode="places", device="cpu", places=settings).predictor
    baseline = build_predictor("tiny", device="cpu")
    geometry.frames_at_once = baseline.frames_at_once = 1
    return geometry, baseline


@pytest.fixture
def decide(monkeypatch):
    """Let the watch decide what a test says: the ids of objects that move."""

    def as_told(*moving: int):
        def decisions(self) -> dict[int, Decision]:
            return {i: Decision(i, i in moving, float(i in moving), "told", (), 0) for i in (1, 2)}

        monkeypatch.setattr(fallback.MotionWatch, "decisions", decisions)

    return as_told


def session(arms) -> FallbackSession:
    geometry, baseline = (StreamSession(predictor) for predictor in arms)
    return FallbackSession(geometry, baseline, burn_in=BURN_IN)


def run(tracked, images, *prompts) -> list:
    for prompt in prompts:
        tracked.add(prompt)
    return list(tracked.track(iter(images)))


def alone(predictor, images, *prompts) -> list:
    return run(StreamSession(predictor), images, *prompts)


def same(a, b, row: int | None = None) -> bool:
    pick = (lambda t: t) if row is None else (lambda t: t[row])
    return all(torch.equal(pick(x.logits), pick(y.logits)) for x, y in zip(a, b, strict=True))


def test_a_moving_object_has_the_masks_of_sam2_alone_bit_for_bit(arms, images, decide):
    decide(1)
    geometry, baseline = alone(arms[0], images, VASE), alone(arms[1], images, VASE)
    tracked = session(arms)
    frames = run(tracked, images, VASE)
    decided = 1 + BURN_IN
    assert [f.index for f in frames] == list(range(16)) and tracked.decided_at == decided - 1
    assert same(frames[1:decided], geometry[1:decided])
    assert same(frames[decided:], baseline[decided:])
    assert not same(geometry[decided:], baseline[decided:])
    assert all(f.decisions == {1: MOVING} for f in frames[decided:])


def test_an_object_that_stands_still_keeps_geometry(arms, images, decide):
    decide()
    tracked = session(arms)
    frames = run(tracked, images, VASE)
    assert same(frames[1:], alone(arms[0], images, VASE)[1:])
    assert tracked._active == {"geometry"}  # SAM2 alone does not run any longer


def test_objects_are_decided_one_by_one(arms, images, decide):
    decide(2)
    frames = run(session(arms), images, VASE, OTHER)
    geometry = alone(arms[0], images, VASE, OTHER)
    baseline = alone(arms[1], images, VASE, OTHER)
    decided = 1 + BURN_IN
    assert same(frames[1:decided], geometry[1:decided])
    for frame, still, moving in zip(frames[decided:], geometry[decided:], baseline[decided:]):
        assert frame.object_ids == (1, 2)
        # Batches of other sizes round sums in another order.
        assert ((frame.logits[0] > 0) != (still.logits[0] > 0)).float().mean() < 0.002
        assert ((frame.logits[1] > 0) != (moving.logits[1] > 0)).float().mean() < 0.002


@pytest.mark.parametrize("moving", [(), pytest.param((1,), marks=pytest.mark.slow), (2,)])
def test_a_resumed_stream_gives_the_same_masks(arms, images, decide, moving):
    decide(*moving)
    whole = run(session(arms), images, VASE, OTHER)
    for cut in (3, 9):
        first, second = session(arms), session(arms)
        first.add(VASE)
        first.add(OTHER)
        for _ in zip(range(cut + 1), first.track(iter(images))):
            pass
        second.restore(first.snapshot())
        rest = list(second.track(iter(images[cut + 1 :])))
        assert same(rest, whole[cut + 1 :]), cut


def test_a_new_object_after_the_decision_keeps_geometry(arms, images, decide):
    decide(1)
    tracked = session(arms)
    tracked.add(VASE)
    shown = []
    for frame in tracked.track(iter(images)):
        shown.append(frame)
        if frame.index == 10:
            ids = tracked.add(Prompt(10, object_id=2, points=((100.0, 100.0),)))
            assert (ids == 2).any()
        if frame.index == 13:
            tracked.remove(1)
    assert shown[12].object_ids == (1, 2) and shown[15].object_ids == (2,)


def test_ids_of_two_arms_are_joined():
    geometry = np.array([[1, 1, 2, 0, 0]], np.uint8)
    baseline = np.array([[0, 2, 2, 2, 1]], np.uint8)
    assert without_geometry(geometry, baseline, {2}).tolist() == [[1, 1, 2, 2, 0]]
    assert without_geometry(geometry, baseline, set()).tolist() == geometry.tolist()
    assert without_geometry(geometry, baseline, {1, 2}).tolist() == baseline.tolist()


@pytest.mark.parametrize("several", [False, True])
def test_masks_of_a_clip_are_replaced_on_disk(tmp_path, several):
    folders = {}
    write = write_palette_mask if several else lambda file, ids: write_mask(file, ids > 0)
    for name, value in (("geometry", 0), ("baseline", 1)):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        ids = np.zeros((4, 4), np.uint8)
        ids[value] = 1
        write(folders[name] / "0000.png", ids)
    prompts = [VASE, OTHER] if several else [VASE]
    before = (folders["geometry"] / "0000.png").read_bytes()
    clip = ClipFallback([], prompts)
    clip.replace(folders["baseline"], folders["geometry"], ["0000"], write)
    assert (folders["geometry"] / "0000.png").read_bytes() == before
    clip = ClipFallback([], prompts, always=True)
    clip.replace(folders["baseline"], folders["geometry"], ["0000"], write)
    replaced, wanted = ((folders[name] / "0000.png").read_bytes() for name in folders)
    assert replaced == wanted != before
