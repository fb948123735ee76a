"""Frames encoded ahead on other threads: the same masks bit for bit, errors at their place, nothing
left behind.
"""

import io
from itertools import islice
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
import torch
from PIL import Image

from geometry_fusion import load
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.source import NoGeometry
from geometry_fusion.io.stream import open_source
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.threads import share_cores
from geometry_fusion.tracking.ahead import EncodingAhead
from geometry_fusion.tracking.clip_session import ClipSession, clip_session, track_together
from geometry_fusion.tracking.fallback import FallbackSession
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Prompt
from tests.conftest import ROOT, Clip

VIDEO = ROOT / "videos/samples/return/video.mp4"
# Prompts before, on and inside the batches of eight frames, of new objects and corrections.
PROMPTS = [
    Prompt(1, points=((158.0, 97.0),)),
    Prompt(8, object_id=2, points=((60.0, 60.0),)),
    Prompt(19, object_id=1, points=((161.0, 99.0),)),
    Prompt(24, object_id=3, points=((200.0, 150.0),)),
]


@pytest.fixture(scope="module")
def images() -> Clip:
    return Clip(islice(VideoFile(VIDEO), 34))


@pytest.fixture(
    scope="module", params=["off", "merger", pytest.param("places", marks=pytest.mark.slow)]
)
def predictor(request):
    return load("tiny", mode=request.param, device="cpu").predictor


@pytest.fixture
def begun(monkeypatch) -> list:
    """The batches that were begun ahead."""
    batches = []
    begin = EncodingAhead.begin

    def noted(self, indices, *others):
        batches.append(list(indices))
        begin(self, indices, *others)

    monkeypatch.setattr(EncodingAhead, "begin", noted)
    return batches


def logits_of(frames) -> dict:
    return {frame.index: frame.logits for frame in frames}


def assert_same(answers: dict, wanted: dict) -> None:
    assert answers.keys() == wanted.keys()
    for index, logits in wanted.items():
        other = answers[index]
        assert (other is None and logits is None) or torch.equal(other, logits), index


def prompted(session, prompts=PROMPTS):
    for prompt in prompts:
        session.add(prompt)
    return session


@pytest.mark.parametrize("kind", ["stream", "reachable"])
def test_masks_are_those_of_a_run_without_threads(predictor, images, threads, begun, kind):
    def run() -> dict:
        if kind == "stream":
            return logits_of(prompted(StreamSession(predictor)).track(iter(images[:28])))
        # Both ways; the first prompts suffice.
        session = prompted(ClipSession(predictor, keep=kind), PROMPTS[:3])
        return logits_of(session.track(Clip(images[:22])))

    threads(1)
    alone = run()
    assert not begun
    threads(2)
    ahead = run()
    assert torch.get_num_threads() == 2
    assert begun and all(len(batch) <= 8 for batch in begun)
    # A prompt on the first frame of a batch is encoded alone, before the batch.
    assert not any(batch[0] in (8, 24) for batch in begun if batch[0] < batch[-1])
    assert_same(ahead, alone)


def test_two_sessions_in_step_are_as_each_alone(images, threads):
    images, prompts = Clip(images[:20]), PROMPTS[:2]
    trackers = [load("tiny", mode=mode, device="cpu") for mode in ("off", "merger")]
    threads(1)
    alone = [
        logits_of(clip_session(tracker.predictor, prompts).track(images)) for tracker in trackers
    ]
    threads(2)
    sessions = [clip_session(tracker.predictor, prompts) for tracker in trackers]
    together = [{}, {}]
    seconds = np.zeros(2)
    for tracked, spent in track_together(sessions, images):
        seconds += spent
        for answers, frame in zip(together, tracked):
            answers[frame.index] = frame.logits
    for answers, wanted in zip(together, alone):
        assert_same(answers, wanted)
    assert torch.get_num_threads() == 2
    assert 0 < seconds[0] < seconds[1]  # both are charged for the image encoder that they share


def test_a_run_resumes_from_a_snapshot_that_was_waited_for(
    predictor, images, threads, begun, tmp_path
):
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(frames / f"{index:03d}.png")
    threads(2)
    wanted = logits_of(prompted(StreamSession(predictor)).track(frames))
    session, settled = prompted(StreamSession(predictor)), []
    for frame in session.track(frames):
        if frame.index >= 10 and session.settled:  # asked from frame 10 on
            settled.append(frame.index)
            break
    assert settled == [23]  # the batch 16..23 was being encoded; none was begun after it
    file = io.BytesIO()
    torch.save(session.snapshot(), file)
    file.seek(0)
    later = StreamSession(predictor)
    later.restore(torch.load(file, weights_only=True))
    for prompt in PROMPTS:
        if prompt.frame > 23:
            later.add(prompt)
    before = len(begun)
    answers = logits_of(later.track(open_source(frames, start=24)))
    assert len(begun) > before
    assert_same(answers, {i: logits for i, logits in wanted.items() if i >= 24})


def test_no_snapshot_forgets_what_geometry_has_seen(images, threads):
    """A batch that was begun when the caller left is dropped, but its geometry was taken in."""
    predictor = load("tiny", mode="merger", device="cpu").predictor
    threads(2)
    session = StreamSession(predictor)
    session.add(PROMPTS[0])
    for frame in session.track(iter(images)):
        if frame.index == 7:
            break
    with pytest.raises(ValueError, match="no snapshot now"):
        session.snapshot()
    for tracked, _ in enumerate(session.track(iter(images[8:])), start=8):
        if tracked >= 10 and session.settled:
            break
    assert tracked == 15
    session.snapshot()


def test_a_session_continues_with_other_frames_than_it_had_encoded(images, threads):
    predictor = load("tiny", mode="off", device="cpu").predictor
    threads(1)
    masks = {}
    for name, skipped in (("same", 0), ("other", 9)):
        session = StreamSession(predictor)
        session.add(PROMPTS[0])
        for frame in session.track(iter(images)):
            if frame.index == 11:
                break
        later = session.track(iter(images[12 + skipped :]))
        masks[name] = [(frame.image, frame.logits) for frame in later]
    whole = StreamSession(predictor)
    whole.add(PROMPTS[0])
    frames = list(whole.track(iter(images)))[12:]
    assert all(torch.equal(a, b.logits) for (_, a), b in zip(masks["same"], frames))
    skipping = StreamSession(predictor)
    skipping.add(PROMPTS[0])
    frames = list(skipping.track(iter(images[:12] + images[21:])))[12:]
    for (image, logits), wanted in zip(masks["other"], frames):
        assert np.array_equal(image, wanted.image)
        assert torch.allclose(logits, wanted.logits, atol=1e-3)


@pytest.mark.slow
def test_a_session_that_may_fall_back_settles_with_both_arms_and_resumes(
    images, threads, begun, tmp_path
):
    """Both arms encode ahead; a snapshot needs a moment in which neither does."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, image in enumerate(images[:28]):
        Image.fromarray(image).save(frames / f"{index:03d}.png")
    arms = [load("tiny", mode=mode, device="cpu").predictor for mode in ("merger", "off")]

    def session() -> FallbackSession:
        return FallbackSession(*(StreamSession(predictor) for predictor in arms), burn_in=99)

    threads(1)
    wanted = logits_of(prompted(session()).track(frames))
    threads(2)
    first, answers = prompted(session()), {}
    for frame in first.track(frames):
        answers[frame.index] = frame.logits
        if frame.index >= 10 and first.settled:
            break
    assert begun and frame.index < 27
    later = session()
    later.restore(first.snapshot())
    for prompt in PROMPTS:
        if prompt.frame > frame.index:
            later.add(prompt)
    answers |= logits_of(later.track(open_source(frames, start=frame.index + 1)))
    assert_same(answers, wanted)


class Broken(NoGeometry):
    """Fails when it meets a frame."""

    def __init__(self, at: int):
        self._at = at

    def push(self, frame_index, image):
        if frame_index == self._at:
            raise InputError(f"frame {frame_index}: no geometry")
        return super().push(frame_index, image)


def test_errors_come_when_their_batch_would_be_tracked(images, threads):
    predictor = load("tiny", mode="off", device="cpu").predictor
    predictor.fuse(None, lambda: Broken(at=20))
    indices = {}
    for count in (1, 2):
        threads(count)
        session = StreamSession(predictor)
        session.add(PROMPTS[0])
        indices[count] = []
        with pytest.raises(InputError, match="frame 20"):
            for frame in session.track(iter(images)):
                indices[count].append(frame.index)
        assert torch.get_num_threads() == count
    assert indices[1] == indices[2] == list(range(16))


def test_frames_before_an_error_of_the_source_are_tracked(images, threads):
    predictor = load("tiny", mode="off", device="cpu").predictor

    def frames():
        yield from images[:13]
        raise OSError("the disk is gone")

    for count in (1, 2):
        threads(count)
        session = StreamSession(predictor)
        session.add(PROMPTS[0])
        seen = []
        with pytest.raises(OSError, match="disk"):
            for frame in session.track(frames()):
                seen.append(frame.index)
        assert seen == list(range(13))


def test_a_run_that_is_left_early_gives_the_cores_back_and_can_begin_anew(images, threads):
    predictor = load("tiny", mode="places", device="cpu").predictor
    threads(2)
    images, prompts = Clip(images[:20]), PROMPTS[:2]
    session = prompted(ClipSession(predictor, keep="all"), prompts)
    run = session.track(images)
    for _ in range(5):
        next(run)
    assert torch.get_num_threads() == 1
    run.close()
    assert torch.get_num_threads() == 2
    assert not any(thread.name.startswith("encoding-ahead") for thread in enumerate_threads())
    again = logits_of(session.track(images))
    other = prompted(ClipSession(predictor, keep="all"), prompts)
    assert_same(again, logits_of(other.track(images)))


def test_cores_are_shared_until_the_last_of_several_runs_ends(threads):
    threads(4)
    with share_cores(True) as first:
        assert first and torch.get_num_threads() == 2
        with share_cores(True) as second:
            assert second and torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4
    with share_cores(False) as unwanted:
        assert not unwanted and torch.get_num_threads() == 4
    threads(1)
    with share_cores(True) as alone:
        assert not alone
