"""Sessions: streamed and full video give the same masks, nothing grows with the video, dropped
frames are reported.
"""

import gc
import io
from itertools import islice

import numpy as np
import pytest
import torch

from geometry_fusion import load
from geometry_fusion.errors import InputError
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.stream import open_source
from geometry_fusion.must3r import MUSt3R
from geometry_fusion.tracking.open_session import open_session
from geometry_fusion.tracking.session import Session
from geometry_fusion.types import Prompt
from tests.conftest import ROOT, ids_of, pairs

PROMPTS = [Prompt(3, 1, points=((158.0, 97.0),)), Prompt(3, 7, box=(20.0, 120.0, 90.0, 200.0))]


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> FrameFolder:
    folder = tmp_path_factory.mktemp("session") / "frames"
    extract_frames(ROOT / "videos/samples/return/video.mp4", folder, every=2, size="keep")
    return FrameFolder(folder)


@pytest.fixture(autouse=True)
def one_thread(threads):
    """With more, frames are encoded ahead (test_ahead.py), and snapshots come at other times."""
    threads(1)


def predictor_of(arm: str, **options):
    geometry = "must3r" if arm == "3am" else "none"
    return load("tiny", geometry=geometry, device="cpu", **options).predictor


@pytest.fixture(scope="module", params=["sam2", "3am"])
def predictor(request):
    return predictor_of(request.param)


@pytest.fixture(scope="module")
def plain():
    return predictor_of("sam2")


def session_of(predictor, *arguments, prompts=PROMPTS, **options) -> Session:
    session = open_session(predictor, *arguments, **options)
    for prompt in prompts:
        session.add(prompt)
    return session


def assert_same(found: dict, wanted: dict):
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[i], wanted[i]) for i in wanted)


def test_streamed_and_full_video_give_the_same_masks(predictor, frames):
    full = ids_of(session_of(predictor, "full").track(frames))
    assert sorted(full) == list(range(len(frames))) and any(ids.any() for ids in full.values())
    assert_same(ids_of(session_of(predictor, "full", keep="reachable").track(frames)), full)
    streamed = ids_of(session_of(predictor).track(frames.path))
    assert not any(
        streamed.pop(i).any() for i in range(3)
    )  # nothing is tracked before the first prompt
    assert_same(streamed, {i: ids for i, ids in full.items() if i >= 3})
    arrays = ids_of(session_of(predictor).track(iter(frames)))
    assert_same({i: arrays[i] for i in streamed}, streamed)


def test_clips_shorter_than_sam2s_pointer_memory_are_streamed_alike(plain, frames):
    """SAM2 scales the age of pointers by the length of short videos; a stream does not state its
    length.
    """
    short, prompt = [frames[i] for i in range(0, 18, 2)], Prompt(points=((158.0, 97.0),))

    class Clip(list):
        size = frames.size

    full = ids_of(session_of(plain, "full", prompts=[prompt]).track(Clip(short)))
    assert_same(ids_of(session_of(plain, prompts=[prompt]).track(iter(short))), full)


def test_an_interrupted_session_goes_on_bit_for_bit(predictor, frames):
    whole = ids_of(session_of(predictor).track(frames.path))
    session, settled, found = session_of(predictor), [], {}
    for index, found[index] in pairs(session.track(frames.path)):
        settled += [index] * session.settled
        if index == 10:
            with pytest.raises(ValueError, match="see settled"):
                session.snapshot()
        if index == 15:
            break
    assert settled == [
        0,
        1,
        2,
        3,
        7,
        15,
    ]  # nothing is encoded before the prompted frame 3, then eight at once
    file = io.BytesIO()
    torch.save(session.snapshot(), file)
    file.seek(0)
    later = open_session(predictor)
    later.restore(torch.load(file, weights_only=True))
    with pytest.raises(InputError, match="was dropped"):
        later.add(Prompt(10, 1, points=((1.0, 1.0),)))
    found |= ids_of(later.track(open_source(frames.path, start=16)))
    assert_same(found, whole)


@pytest.mark.parametrize("at", [4, 7, 8])
def test_a_prompt_amid_frames_encoded_at_once_costs_no_masks(predictor, frames, at):
    """The prompted frame is encoded alone, those after it together up to the end of a batch, in
    both modes.
    """
    prompts = [Prompt(at, 1, points=((158.0, 97.0),))]
    full = ids_of(session_of(predictor, "full", prompts=prompts).track(frames))
    streamed = ids_of(session_of(predictor, prompts=prompts).track(frames.path))
    assert_same(
        {i: streamed[i] for i in range(at, len(frames))},
        {i: full[i] for i in range(at, len(frames))},
    )


def test_frames_encoded_at_once_give_the_masks_of_one_by_one(frames):
    """Within rounding, as objects do."""
    answers, batches = [], []
    for at_once in (1, 4):
        session = session_of(
            predictor := predictor_of("3am", frames_at_once=at_once), prompts=PROMPTS[:1]
        )
        sizes = []
        predictor.image_encoder.register_forward_hook(
            lambda module, inputs, output, sizes=sizes: sizes.append(len(inputs[0]))
        )
        answers.append(
            {index: session.logits for index, _ in pairs(islice(session.track(frames.path), 14))}
        )
        batches.append(sizes)
    assert batches == [
        [1] * 11,
        [1, 4, 4, 4],
    ]  # the prompted frame 3, 4 to 7, ... and 12 to 15, of which 13 is the last
    for index in range(3, 14):
        a, b = answers[0][index], answers[1][index]
        assert ((a > 0) != (b > 0)).float().mean() < 1e-3
        torch.testing.assert_close(a, b, rtol=1e-2, atol=5e-2)


@pytest.mark.slow
def test_batches_can_be_filled_to_one_size_for_compiled_encoders(frames):
    answers, sizes = [], []
    for fill in (False, True):
        predictor = predictor_of("3am")
        predictor.fill_batches = fill
        hook = predictor.image_encoder.register_forward_hook(
            lambda module, inputs, output, sizes=sizes: sizes.append(len(inputs[0]))
        )
        answers.append(ids_of(session_of(predictor).track(frames.path)))
        hook.remove()
    last = len(frames) % 8
    assert 1 < last < 8 and sizes[len(sizes) // 2 :] == [1, *[8] * (len(frames) // 8 + 1)]
    assert sizes[: len(sizes) // 2] == [1, 4, *[8] * (len(frames) // 8 - 1), last]
    assert all((answers[0][i] != answers[1][i]).mean() < 1e-3 for i in answers[0])


@pytest.mark.parametrize(
    "options, groups", [({}, [1, 4, 4, 3]), ({"keyframe_interval": 1}, [1] * 12)]
)
def test_tracking_reads_groups_of_frames_unless_told(frames, monkeypatch, options, groups):
    predictor = load("tiny", geometry="must3r", device="cpu", **options).predictor
    read = []
    read_apart = MUSt3R.read_apart
    monkeypatch.setattr(
        MUSt3R, "read_apart", lambda self, t, *a: read.append(t.shape[1]) or read_apart(self, t, *a)
    )
    session = session_of(predictor, prompts=[Prompt(1, 1, points=((158.0, 97.0),))])
    assert len(list(session.track(islice(frames, 15)))) == 15
    assert (
        read == groups
    )  # frame 1 is prompted, 1 and 2 are the initialisation, then 3, 4 to 7, ...


def test_streams_give_freed_memory_back_now_and_then(plain, frames, monkeypatch):
    tidied = []
    monkeypatch.setattr("geometry_fusion.tracking.predictor.TIDY_EVERY", 5)
    monkeypatch.setattr("geometry_fusion.tracking.predictor.give_back_freed_memory", tidied.append)
    list(session_of(plain).track(frames.path))
    assert len(tidied) == len([i for i in range(3, len(frames)) if i % 5 == 4]) > 3
    del tidied[:]
    list(session_of(plain, "full").track(frames))
    assert not tidied


def test_frames_before_an_error_are_tracked(plain, frames):
    def failing():
        yield from (frames[i] for i in range(18))
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        for index, _ in pairs(session_of(plain).track(failing())):
            found.append(index)
    assert found == list(range(18))


def test_too_little_memory_for_several_frames_at_once_is_said_and_one_is_taken(
    frames, monkeypatch, capsys
):
    predictor = predictor_of("3am")
    wanted = ids_of(islice(session_of(predictor).track(frames.path), 10))
    encode = predictor.forward_image

    def too_much(images):
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images)

    monkeypatch.setattr(predictor, "forward_image", too_much)
    found = ids_of(islice(session_of(predictor).track(frames.path), 10))
    assert "out of memory with 4 frames at once: continuing with one" in capsys.readouterr().out
    assert all((found[i] != wanted[i]).mean() < 1e-3 for i in range(10))


def held_bytes(session: Session) -> int:
    """Bytes of every storage that the session's state refers to, each counted once."""
    seen = {}

    def visit(value):
        if isinstance(value, torch.Tensor):
            seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            for inner in value.values():
                visit(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                visit(inner)
        elif hasattr(value, "__dict__"):
            visit(vars(value))

    state = session._state
    kinds = ("output_dict_per_obj", "temp_output_dict_per_obj", "frames_tracked_per_obj")
    visit([*(state[kind] for kind in kinds), state.batches])
    return sum(seen.values())


def test_what_a_streamed_session_holds_does_not_grow(plain, frames):
    prompts = [Prompt(points=((158.0, 97.0),)), Prompt(object_id=2, points=((60.0, 150.0),))]
    session, sizes, entries = session_of(plain, prompts=prompts), [], []
    images = [frames[i] for i in range(4)]
    for index, _ in pairs(session.track(images[i % 4] for i in range(60))):
        if index in (25, 59):
            gc.collect()
            sizes.append(held_bytes(session))
            entries.append(
                (
                    len(session._state["frames_tracked_per_obj"][0]),
                    len(session._state.batches._joined),
                )
            )
    assert sizes[0] == sizes[1] and entries[0] == entries[1]
    # Of two objects seven memories, 32 channels of 16 x 16 in bf16. Beside them pointers, two
    # masks, and of the prompted frame the parts of which the joined memory is a copy.
    memories, masks = 2 * 7 * 32 * 16 * 16 * 2, 2 * 2 * 64 * 64 * 4
    assert memories < sizes[1] < 2 * memories + masks


def test_geometry_holds_nothing_of_single_frames():
    predictor = predictor_of("3am")
    images = np.random.default_rng(0).integers(0, 255, (3, 96, 128, 3), dtype=np.uint8)
    session = session_of(predictor, prompts=[Prompt(points=((60.0, 50.0),))])
    for _ in session.track(images[i % 3] for i in range(40)):
        pass
    source = session._state.geometry
    assert (
        len(source.poses) <= len(source.keyframes) + 1
        and len(source.scores) == 1
        and not source._first_inputs
    )


def test_objects_are_added_corrected_and_removed_while_tracking(plain, frames):
    session, seen = session_of(plain, prompts=[Prompt(points=((158.0, 97.0),))]), {}
    for index, ids in pairs(session.track(frames.path)):
        if index == 5:
            answered = session.add(Prompt(5, 2, points=((60.0, 150.0),)))
            assert answered.shape == ids.shape and session.object_ids == [1, 2]
        if index == 8:
            before = ids == 1
            x, y = np.argwhere(before)[0][::-1].tolist() if before.any() else (158, 97)
            corrected = session.add(
                Prompt(8, 1, points=((158.0, 97.0),), negatives=((float(x), float(y)),))
            )
            assert not np.array_equal(corrected == 1, before)
        # Before the removal: these ids were answered while object 1 was still tracked.
        seen[index] = (session.object_ids, set(np.unique(ids)) - {0})
        if index == 12:
            session.remove(1)
        if index == 16:
            break
    assert seen[4][0] == [1] and seen[7][0] == [1, 2] and seen[16][0] == [2]
    assert all(found <= set(ids) for ids, found in seen.values())
    with pytest.raises(InputError, match="object 1: is not tracked; tracked are"):
        session.remove(1)


def test_a_later_prompt_waits_for_its_frame(plain, frames):
    session = session_of(
        plain, prompts=[Prompt(points=((158.0, 97.0),)), Prompt(6, 2, points=((60.0, 150.0),))]
    )
    counts = {
        index: len(session.object_ids) for index, _ in pairs(islice(session.track(frames.path), 9))
    }
    assert [counts[i] for i in (0, 5, 6, 8)] == [1, 1, 2, 2]


def test_full_video_may_be_prompted_again_anywhere(plain, frames):
    session = session_of(plain, "full")
    first = ids_of(session.track(frames))
    session.add(Prompt(20, 1, points=((40.0, 40.0),)))
    again = ids_of(session.track(frames))
    assert again.keys() == first.keys() and any(
        not np.array_equal(again[i], first[i]) for i in first
    )


def test_what_a_streamed_session_cannot_do_is_reported(plain, frames):
    session = session_of(plain)
    list(islice(session.track(frames.path), 12))
    with pytest.raises(
        InputError,
        match=r"frame 2 was dropped; .* current frame, 11, and later ones; the mode 'full'",
    ):
        session.add(Prompt(2, 1, points=((1.0, 1.0),)))
    with pytest.raises(
        InputError, match=r"frame 3: was dropped; a streamed session holds only 8, 9, .*, 15"
    ):
        plain.add_new_points_or_box(session._state, 3, 1, points=[[5.0, 5.0]], labels=[1])
    with pytest.raises(InputError, match=r"return/video\.mp4: is a file, not a folder of frames"):
        session_of(plain, "full").track(ROOT / "videos/samples/return/video.mp4")
    with pytest.raises(InputError, match="mode sideways: unknown; choose one of stream, full"):
        open_session(plain, "sideways")
    with pytest.raises(InputError, match="point 999,5 is outside"):
        list(session_of(plain, prompts=[Prompt(points=((999.0, 5.0),))]).track(frames.path))
    with pytest.raises(InputError, match="frame 400 did not come"):
        list(
            session_of(plain, prompts=[Prompt(400, points=((9.0, 5.0),))]).track(
                iter([frames[0]] * 3)
            )
        )
    with pytest.raises(InputError, match="began with 320x240"):
        list(session.track(np.zeros((3, 20, 30, 3), np.uint8)))


def test_batched_objects_give_the_masks_of_one_by_one(frames):
    """Within rounding: logits to 1e-3, and no more than a few pixels on an edge."""
    prompts = [Prompt(0, i + 1, points=((30.0 + 40 * i, 60.0 + 20 * i),)) for i in range(5)]
    answers = []
    for at_once in (1, 16):
        session = session_of(predictor_of("sam2", objects_at_once=at_once), prompts=prompts)
        answers.append(
            {index: session.logits for index, _ in pairs(islice(session.track(frames.path), 5))}
        )
    for index, logits in answers[0].items():
        other = answers[1][index]
        assert ((logits > 0) != (other > 0)).float().mean() < 1e-3
        torch.testing.assert_close(logits, other, rtol=1e-3, atol=2e-2)
