"""Prompts on different frames: an object starts at its own prompt, a correction counts, memory
keeps to time.

The sample `twins`: the object is in view on frames 0 to 10 and again on frames 37 to 50.
"""

import io

import numpy as np
import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

import metrics
import sam2_model
from geometry_fusion import load
from geometry_fusion.errors import InputError
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.mask_writer import read_ids
from geometry_fusion.io.stream import open_source
from geometry_fusion.tracking.clip_session import track
from geometry_fusion.tracking.open_session import open_session
from geometry_fusion.tracking.session import Session
from geometry_fusion.types import Prompt
from tests.conftest import ROOT, ids_of, pairs

SAMPLE = ROOT / "videos/samples/twins"
FINE = ROOT / "checkpoints/fusion_tiny_fine.safetensors"


class Clip(list):
    size = (256, 256)


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> FrameFolder:
    folder = tmp_path_factory.mktemp("twins") / "frames"
    extract_frames(SAMPLE / "video.mp4", folder, every=1, size="keep")
    return FrameFolder(folder)


@pytest.fixture(scope="module")
def truth() -> list[np.ndarray]:
    return [read_ids(SAMPLE / "gt" / f"{index:04d}.png") > 0 for index in range(60)]


@pytest.fixture(scope="module")
def later(frames) -> Clip:
    """Frames 30 to 55."""
    return Clip(frames[index] for index in range(30, 56))


def build(arm: str, **options):
    if arm == "sam2":
        return load("tiny", geometry="none", device="cpu", **options).predictor
    return load("tiny", checkpoint=FINE, device="cpu", **options).predictor


# The rules of prompts are the same code for both arms; with geometry they take three times as long.
@pytest.fixture(scope="module", params=["sam2", pytest.param("3am", marks=pytest.mark.slow)])
def predictor(request):
    return build(request.param)


@pytest.fixture(scope="module")
def plain():
    return build("sam2")


def without_geometry(predictor) -> bool:
    return predictor.merger.__class__.__name__ == "KeepAppearance"


def session_of(predictor, mode: str, prompts: list[Prompt]) -> Session:
    session = open_session(predictor, mode)
    for prompt in prompts:
        session.add(prompt)
    return session


def ious(masks: dict, truth: list, wanted, object_id: int = 1) -> list[float]:
    return [float(metrics.iou(masks[index] == object_id, truth[index])) for index in wanted]


def assert_same(masks: dict, wanted: dict):
    assert masks.keys() == wanted.keys()
    assert all(np.array_equal(masks[index], wanted[index]) for index in wanted)


def wall_and_late_vase(truth, first: int) -> list[Prompt]:
    """For a clip that begins at frame `first`."""
    return [Prompt(0, 1, points=((30.0, 30.0),)), Prompt(46 - first, 2, mask=truth[46])]


def wrong_click() -> Prompt:
    return Prompt(2, 1, points=((128.0, 200.0),))


def test_an_object_starts_at_its_own_first_prompt(predictor, frames, later, truth):
    # Geometry has to see more of the room.
    clip, first = (later, 30) if without_geometry(predictor) else (Clip(frames), 0)
    prompts, start, end = wall_and_late_vase(truth, first), 46 - first, len(clip)
    near, truth = range(start - 1, start + 4), truth[first:]
    both = ids_of(track(predictor, clip, prompts, progress=False))
    assert sorted(both) == list(range(end))
    assert min(ious(both, truth, near, 2)) > 0.9
    alone = ids_of(track(predictor, clip, prompts[1:], progress=False))
    assert min(ious(alone, truth, near, 2)) > 0.9
    # The first object has its masks on the way to the other's prompt, which are put together later.
    wall = ids_of(track(predictor, clip, prompts[:1], progress=False))
    before = range(start)
    assert all(np.array_equal(both[i] == 1, (wall[i] == 1) & (both[i] != 2)) for i in before)
    assert any((both[i] == 1).any() for i in range(10))
    streamed = ids_of(session_of(predictor, "stream", prompts).track(iter(clip)))
    assert all(np.array_equal(streamed[i], both[i]) for i in range(start, end))
    assert not any((streamed[i] == 2).any() for i in before)
    assert_same(ids_of(session_of(predictor, "full", prompts).track(clip)), both)


def test_a_correction_changes_what_comes_after_it_and_what_came_before(
    predictor, frames, later, truth
):
    # Geometry has to see more of the room.
    clip, first = (later, 30) if without_geometry(predictor) else (Clip(frames), 0)
    at = (46 if first else 40) - first
    truth, end = truth[first:], at + 4
    prompts, half = [wrong_click(), Prompt(at, 1, mask=truth[at])], (2 + at) // 2
    session = session_of(predictor, "full", prompts[:1])
    wrong = ids_of(session.track(clip))
    assert max(ious(wrong, truth, range(at, end))) < 0.1
    known = ids_of(session_of(predictor, "full", prompts).track(clip))
    assert min(ious(known, truth, range(at + 1, end))) > 0.85
    # Backwards from it, half the way to the click.
    assert min(ious(known, truth, range(half, at))) > 0.85
    assert all(np.array_equal(known[i], wrong[i]) for i in range(2, half))
    # Added afterwards it does the same.
    session.add(prompts[1])
    added = ids_of(session.track(clip))
    assert all((added[i] != known[i]).mean() < 1e-3 for i in range(len(clip)))
    assert_same(ids_of(session.track(clip)), added)
    streamed = ids_of(session_of(predictor, "stream", prompts).track(iter(clip)))
    assert all(np.array_equal(streamed[i], known[i]) for i in range(at, len(clip)))
    assert all(np.array_equal(streamed[i], wrong[i]) for i in range(2, at))


def test_a_correction_in_the_middle_of_a_pass_counts_in_that_pass(plain, later, truth):
    click, mask = wrong_click(), Prompt(16, 1, mask=truth[46])
    session, masks = session_of(plain, "full", [click]), {}
    for index, ids in pairs(session.track(later)):
        is_first = index not in masks  # after the correction, earlier frames come again
        masks[index] = ids
        if index == 6 and is_first:
            assert session.add(mask) is None  # its frame is still to come
    assert min(ious(masks, truth[30:], range(9, 20))) > 0.85
    assert_same(masks, ids_of(session_of(plain, "full", [click, mask]).track(later)))


def test_a_prompt_beyond_the_video_is_refused_at_once_and_a_pass_may_be_left(plain, frames, truth):
    session = session_of(plain, "full", [Prompt(0, 1, mask=truth[0])])
    steps = session.track(frames)
    next(steps)
    with pytest.raises(InputError, match="frame 400 does not exist"):
        session.add(Prompt(400, 1, mask=truth[0]))
    steps.close()
    answer = session.add(
        Prompt(40, 1, mask=truth[40])
    )  # no pass is running: it is answered at once
    assert np.array_equal(answer == 1, truth[40])


def test_tracking_backwards_starts_from_the_prompt_alone(frames, truth):
    """It is tracking forwards through the clip played backwards."""
    predictor = build("sam2", frames_at_once=1)
    backwards = ids_of(track(predictor, frames, [Prompt(8, 1, mask=truth[8])], progress=False))
    # Longer than SAM2's memory of pointers, which it scales by the length of shorter videos.
    order = [*range(8, -1, -1), *range(9, 20)]
    reversed_clip = Clip(frames[index] for index in order)
    reversed_masks = ids_of(
        track(predictor, reversed_clip, [Prompt(0, 1, mask=truth[8])], progress=False)
    )
    assert min(ious(backwards, truth, range(9))) > 0.5
    for place, index in enumerate(order[:9]):
        assert np.array_equal(backwards[index], reversed_masks[place]), index


def test_every_pass_gives_the_same_masks(predictor, later, truth):
    session = session_of(predictor, "full", [Prompt(10, 1, mask=truth[40])])
    first = ids_of(session.track(later))
    assert_same(ids_of(session.track(later)), first)
    next(session.track(later))  # left in the middle
    assert_same(ids_of(session.track(later)), first)
    # Another object changes nothing of the first one.
    session.add(Prompt(0, 2, points=((30.0, 30.0),)))
    both = ids_of(session.track(later))
    session.remove(2)
    if without_geometry(predictor):  # geometry now starts at frame 0
        assert any((both[i] == 2).any() for i in both)
        assert_same(ids_of(session.track(later)), first)


@pytest.mark.slow
def test_a_streamed_run_with_several_prompts_is_resumed_bit_for_bit(predictor, frames, truth):
    prompts = [wrong_click(), Prompt(40, 1, mask=truth[40]), Prompt(46, 2, mask=truth[46])]
    whole = ids_of(session_of(predictor, "stream", prompts).track(frames.path))
    session, masks = session_of(predictor, "stream", prompts), {}
    for index, masks[index] in pairs(session.track(frames.path)):
        if index >= 45 and session.settled:
            break
    assert index == 47
    file = io.BytesIO()
    torch.save(session.snapshot(), file)
    file.seek(0)
    resumed = open_session(predictor)
    resumed.restore(torch.load(file, weights_only=True))
    masks |= ids_of(resumed.track(open_source(frames.path, start=48)))
    assert_same(masks, whole)


def test_nothing_to_track_is_an_error(plain, frames):
    with pytest.raises(InputError, match="nothing to track: no object was prompted"):
        next(open_session(plain, "full").track(frames))
    session = session_of(plain, "full", [Prompt(0, points=((30.0, 30.0),))])
    list(zip(range(3), session.track(frames)))
    session.remove(1)
    with pytest.raises(InputError, match="nothing to track"):
        next(session.track(frames))
    once = open_session(plain, "full", keep="reachable")
    once.add(Prompt(0, points=((30.0, 30.0),)))
    next(once.track(frames))
    with pytest.raises(InputError, match="keeps only what one pass over the video reads"):
        once.add(Prompt(3, points=((30.0, 30.0),)))


@torch.inference_mode()
def test_an_exact_predictor_tracks_several_prompts_as_sam2_does(frames, truth):
    """Also through a session: SAM2's rules of prompts and memory, bit for bit."""
    short = Clip(frames[i] for i in range(30, 50))
    theirs = sam2_model.build_sam2(
        "tiny", target=SAM2VideoPredictor, binarize_mask_from_pts_for_mem_enc=True
    )
    state = build("sam2", exact=True).init_state(short)  # frames that are decoded alike
    prompts = [Prompt(10, 1, mask=truth[40]), Prompt(14, 1, points=((30.0, 30.0),))]
    theirs.add_new_mask(state, 10, 1, truth[40])
    theirs.add_new_points_or_box(state, 14, 1, points=np.array([[30, 30]], np.float32), labels=[1])
    expected = {i: logits.clone() for i, _, logits in theirs.propagate_in_video(state)}
    expected |= {
        i: logits.clone()
        for i, _, logits in theirs.propagate_in_video(state, reverse=True)
        if i < 10
    }
    session = session_of(build("sam2", exact=True), "full", prompts)
    logits = {index: session.logits.clone() for index, _ in pairs(session.track(short))}
    assert logits.keys() == expected.keys()
    for index in set(expected) - {10}:
        assert torch.equal(logits[index], expected[index]), index


@pytest.mark.parametrize("mode", ["stream", "full"])
def test_a_mask_prompt_is_the_answer_on_its_frame(plain, later, truth, mode):
    def tracked(*prompts: Prompt) -> dict:
        clip = later if mode == "full" else iter(later)
        return ids_of(session_of(plain, mode, prompts).track(clip))

    masks = tracked(Prompt(10, 1, mask=truth[40]))
    assert np.array_equal(masks[10] == 1, truth[40])
    corner = np.zeros_like(truth[40])
    corner[5:7, 5:8] = True
    masks = tracked(Prompt(10, 7, mask=truth[40]), Prompt(10, 2, mask=corner))
    assert np.array_equal(masks[10] == 2, corner) and np.array_equal(masks[10] == 7, truth[40])
