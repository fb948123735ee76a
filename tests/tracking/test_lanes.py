"""Objects that are first prompted on different frames do not change each other's geometry."""

import io
from itertools import islice

import pytest
import torch

from geometry_fusion import load
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.source import NoGeometry
from geometry_fusion.io.stream import open_source
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.tracking.clip_session import ClipSession
from geometry_fusion.tracking.lanes import MOST_LANES, Lane, Lanes
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Prompt
from tests.conftest import ROOT, Clip

VIDEO = ROOT / "videos/samples/return/video.mp4"
FIRST = Prompt(1, points=((158.0, 97.0),))
LATE = Prompt(5, object_id=2, points=((60.0, 60.0),))
CORRECTION = Prompt(9, object_id=2, points=((60.0, 62.0),))


@pytest.fixture(scope="module")
def images() -> Clip:
    return Clip(islice(VideoFile(VIDEO), 14))


@pytest.fixture(scope="module")
def predictor():
    return load("tiny", mode="merger", device="cpu").predictor


@pytest.fixture(scope="module")
def places():
    return load("tiny", mode="places", device="cpu").predictor


def by_object(frames) -> dict[int, dict]:
    """Object id -> frame -> its logits [1, H, W], as far as the object is known."""
    answers: dict[int, dict] = {}
    for frame in frames:
        for place, object_id in enumerate(frame.object_ids):
            answers.setdefault(object_id, {})[frame.index] = frame.logits[place]
    return answers


def with_prompts(session, *prompts):
    for prompt in prompts:
        session.add(prompt)
    return session


def lanes_of(session) -> list[int | None]:
    return [lane.first for lane in session._state.lanes]


@pytest.mark.parametrize("kind", ["all", "reachable", "stream"])
def test_an_object_is_tracked_as_if_it_were_alone(predictor, images, kind):
    """Bit for bit, also backwards and with a correction."""

    def run(*prompts) -> dict:
        if kind == "stream":
            return by_object(with_prompts(StreamSession(predictor), *prompts).track(iter(images)))
        return by_object(with_prompts(ClipSession(predictor, keep=kind), *prompts).track(images))

    together = run(FIRST, LATE, CORRECTION)
    for object_id, prompts in ((1, (FIRST,)), (2, (LATE, CORRECTION))):
        alone = run(*prompts)[object_id]
        assert alone.keys() <= together[object_id].keys() and len(alone) >= 9
        for index, logits in alone.items():
            assert torch.equal(together[object_id][index], logits), (object_id, index)


def test_a_second_run_from_the_same_prompts_gives_the_same_masks(predictor, images):
    session = with_prompts(ClipSession(predictor), FIRST, LATE)
    first, again = by_object(session.track(images)), by_object(session.track(images))
    assert lanes_of(session) == [1, 5]
    for object_id, answers in first.items():
        assert all(torch.equal(again[object_id][i], answers[i]) for i in answers)


def test_an_earlier_prompt_moves_the_beginning_of_its_object(predictor, images):
    session = with_prompts(ClipSession(predictor), FIRST, LATE)
    list(session.track(images))
    earlier = Prompt(3, object_id=2, points=((60.0, 60.0),))
    session.add(earlier)
    list(session.track(images))
    assert lanes_of(session) == [1, 3]


def test_a_stream_resumes_with_all_lanes(predictor, images, threads):
    threads(1)  # nothing is encoded ahead: a snapshot can be taken after every batch
    wanted = by_object(with_prompts(StreamSession(predictor), FIRST, LATE).track(iter(images)))
    session = with_prompts(StreamSession(predictor), FIRST, LATE)
    for frame in session.track(iter(images)):
        if frame.index >= 6 and session.settled:
            break
    file = io.BytesIO()
    torch.save(session.snapshot(), file)
    file.seek(0)
    with pytest.raises(InputError, match="another version"):
        StreamSession(predictor).restore({**session.snapshot(), "format": 3})
    later = StreamSession(predictor)
    later.restore(torch.load(file, weights_only=True))
    assert lanes_of(later) == [1, 5]
    first = frame.index + 1
    answers = by_object(later.track(open_source(images, start=first)))
    for object_id in (1, 2):
        for index in range(first, len(images)):
            assert torch.equal(answers[object_id][index], wanted[object_id][index])


def test_the_lane_of_a_removed_object_ends(predictor, images):
    wanted = by_object(with_prompts(StreamSession(predictor), FIRST).track(iter(images)))[1]
    session = with_prompts(StreamSession(predictor), FIRST, LATE)
    answers = {}
    for frame in session.track(iter(images)):
        if frame.logits is not None:
            answers[frame.index] = frame.logits[0]
        if frame.index == 9:
            session.remove(2)
    assert lanes_of(session) == [1]
    assert all(torch.equal(answers[index], wanted[index]) for index in wanted)


def test_places_too_have_geometry_of_their_own(places, images):
    """Every decision and mask is as if the object were alone."""
    frames = list(with_prompts(StreamSession(places), FIRST, LATE).track(iter(images)))
    alone = list(with_prompts(StreamSession(places), LATE).track(iter(images)))
    for one, other in zip(frames[5:], alone[5:], strict=True):
        assert torch.equal(one.logits[1], other.logits[0])
        assert one.decisions.get(2) == other.decisions.get(2)
    assert set(frames[4].decisions) == {1} and set(frames[-1].decisions) == {1, 2}


def test_without_geometry_there_is_one_lane(images):
    predictor = load("tiny", mode="off", device="cpu").predictor
    session = with_prompts(StreamSession(predictor), FIRST, LATE)
    list(session.track(iter(images)))
    assert lanes_of(session) == [1]


class Numbers(list):
    size = (4, 4)


def test_objects_beyond_the_last_lane_share_the_nearest_one():
    lanes = Lanes(Lane(NoGeometry()), lambda: Lane(NoGeometry()), Numbers(), MOST_LANES)
    for object_id, frame in enumerate((0, 10, 20, 30, 13, 100, 20), start=1):
        lanes.begin(object_id, frame)
        assert lanes.current is lanes.of(object_id)
    assert len(lanes) == MOST_LANES == 4
    assert [lanes.of(i).first for i in range(1, 8)] == [0, 10, 20, 30, 10, 30, 20]
    lanes.begin(1, 55)  # a correction stays where its object is
    assert lanes.current.first == 0
    lanes.keep_only([1, 4])
    assert [lane.first for lane in lanes] == [0, 30]


def test_other_frames_do_not_get_the_features_that_lanes_shared():
    lanes = Lanes(Lane(NoGeometry()), lambda: Lane(NoGeometry()), Numbers(), MOST_LANES)
    lanes.begin(1, 0)
    assert lanes.shared is None
    lanes.begin(2, 5)
    encodings = ({"number": torch.tensor(number)} for number in range(9))
    answers = [lanes.shared.encoded([8], lambda: next(encodings)) for _ in range(2)]
    assert [answer["number"] for answer in answers] == [0, 0]  # for both lanes
    lanes.drop_features()
    assert lanes.shared.encoded([8], lambda: next(encodings))["number"] == 1
    lanes.keep_only([1])
    assert lanes.shared is None
