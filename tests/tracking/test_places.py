"""Places in sessions: when SAM2's answer stays, what is asked, prompts, resuming, objects."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geometry_fusion import Prompt, load
from geometry_fusion.choices import OBJECTS_AT_ONCE
from geometry_fusion.evaluation.sources import ZeroGeometry
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedDepth, PosedView
from geometry_fusion.geometry.source import NoGeometry
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.sam2 import build_predictor
from geometry_fusion.tracking.asked_decoder import QUESTIONS, Prompts, SeenDecoder, ask
from geometry_fusion.tracking.clip_session import ClipSession, clip_session
from geometry_fusion.tracking.encoder import FRAMES_AT_ONCE
from geometry_fusion.tracking.places import ABSENT, ASKED, DECISIONS, VETOED, PlaceSettings
from geometry_fusion.tracking.places_decoder import on_grid
from geometry_fusion.tracking.stream_session import StreamSession
from tests.conftest import ROOT, Clip, ids_of

CLIP = ROOT / "videos/samples/twins/video.mp4"
VASE = Prompt(2, points=((20.0, 147.0),))
SECOND = Prompt(3, object_id=2, points=((100.0, 100.0),))
NEVER = PlaceSettings(precision=2.0, veto=0.0, trim=False)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return list(VideoFile(CLIP))[:12]


@pytest.fixture(scope="module")
def tracker():
    return load("tiny", mode="places", device="cpu")


@pytest.fixture
def predictor(tracker):
    """The tracker's predictor, with its settings restored after the test."""
    yield tracker.predictor
    tracker.predictor.fuse(None, tracker.make_source, PlaceSettings())


def streamed(predictor, images, *prompts) -> list:
    session = StreamSession(predictor)
    for prompt in prompts:
        session.add(prompt)
    return list(session.track(iter(images)))


def same(a: list, b: list) -> bool:
    """Whether two runs gave the same logits, bit for bit."""
    pairs = [(x.logits, y.logits) for x, y in zip(a, b, strict=True)]
    return all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def baseline(images):
    return streamed(build_predictor("tiny", device="cpu"), images, VASE, SECOND)


def test_switched_on_but_never_deciding_masks_are_those_of_sam2(
    predictor, tracker, images, baseline
):
    """Bit for bit; where objects are prompted on different frames, in SAM2's own batches of one."""
    together = replace(SECOND, frame=VASE.frame)
    plain = build_predictor("tiny", device="cpu")
    wanted = streamed(plain, images, VASE, together)
    predictor.fuse(None, tracker.make_source, NEVER)
    assert same(streamed(predictor, images, VASE, together), wanted)
    plain.objects_at_once = plain.frames_at_once = 1
    predictor.objects_at_once = predictor.frames_at_once = 1
    one_by_one = streamed(plain, images, VASE, SECOND)
    assert same(streamed(predictor, images, VASE, SECOND), one_by_one)
    predictor.objects_at_once, predictor.frames_at_once = OBJECTS_AT_ONCE, FRAMES_AT_ONCE
    for make in (NoGeometry, lambda: ZeroGeometry(tracker.make_source())):
        predictor.fuse(None, make, PlaceSettings())
        assert same(streamed(predictor, images, VASE, SECOND), baseline)


def test_decisions_are_reported_for_every_object_from_its_prompt_on(predictor, images, baseline):
    frames = streamed(predictor, images, VASE, SECOND)
    assert not same(frames, baseline)
    assert frames[2].decisions == {} and set(frames[3].decisions) == {1}
    for frame in frames[4:]:
        assert set(frame.decisions) == {1, 2} and set(frame.decisions.values()) <= set(DECISIONS)
        for object_id, decision in frame.decisions.items():
            shown = bool((frame.logits[object_id - 1] > 0).any())
            assert shown == (decision in ("own", ASKED)), (frame.index, decision)


def test_a_resumed_stream_gives_the_same_masks(predictor, images):
    """Also where the prompt's points wait for the second frame, whose arrival moves them."""
    predictor.frames_at_once = 1
    try:
        whole = streamed(predictor, images, VASE)
        for cut in (2, 3, 7):
            first, second = StreamSession(predictor), StreamSession(predictor)
            first.add(VASE)
            begun = [f.index for _, f in zip(range(cut + 1), first.track(iter(images)))]
            assert begun[-1] == first.frame_index == cut
            second.restore(first.snapshot())
            rest = list(second.track(iter(images[cut + 1 :])))
            assert same(rest, whole[cut + 1 :]), cut
    finally:
        predictor.frames_at_once = 8


def test_objects_of_one_batch_are_tracked_as_alone(predictor, images):
    second = Prompt(2, object_id=2, points=((100.0, 100.0),))
    together = streamed(predictor, images, VASE, second)
    alone = streamed(predictor, images, VASE), streamed(predictor, images, second)
    for number, runs in enumerate(alone):
        for frame, single in zip(together[2:], runs[2:]):
            a, b = frame.logits[number] > 0, single.logits[0] > 0
            assert (a != b).float().mean() < 0.002
            assert frame.decisions.get(number + 1) == single.decisions.get(number + 1)


def test_a_clip_tracked_again_starts_its_places_anew(predictor, images):
    clip = Clip(images)
    session = ClipSession(predictor)
    session.add(VASE)
    first = ids_of(session.track(clip))
    again = ids_of(session.track(clip))
    assert first.keys() == again.keys() == set(range(12))
    assert all(np.array_equal(first[i], again[i]) for i in first)


def test_a_cleared_prompt_leaves_no_points(predictor, images):
    """SAM2's own API: prompts on two frames, one of which is cleared before or after tracking."""
    click = {"points": np.array([[20, 147]], np.float32), "labels": [1]}
    states = []
    for cleared_first in (True, False):
        state = predictor.init_state(Clip(images))
        for frame in (2, 6):
            predictor.add_new_points_or_box(state, frame, 1, **click)
        if cleared_first:
            predictor.clear_all_prompts_in_frame(state, 6, 1, need_output=False)
        list(predictor.propagate_in_video(state, progress=False))
        states.append(state)
    before, after = states
    assert set(before.places.of(1).prompted) == {2}
    assert set(after.places.of(1).prompted) == {2, 6}
    predictor.clear_all_prompts_in_frame(after, 6, 1, need_output=False)
    list(predictor.propagate_in_video(after, progress=False))
    assert set(after.places.of(1).prompted) == {2}


def test_a_removed_object_leaves_no_place(predictor, images):
    session = clip_session(predictor, [VASE, SECOND])
    frames = []
    for frame in session.track(Clip(images)):
        frames.append(frame)
        if frame.index == 6:
            session.remove(2)
    assert set(frames[-1].decisions) == {1}
    assert session._state.places.of(2) is None and session._state.places.of(1)


def view_of(x: float) -> PosedView:
    """A wall, seen by a camera at x."""
    pose = np.eye(4)
    pose[0, 3] = x
    k = np.array([[200.0, 0, 127.5], [0, 200.0, 127.5], [0, 0, 1]])
    return PosedView(np.full((256, 256), 5.0, np.float32), pose, Lens(k))


def wall(far_from: int) -> PosedDepth:
    """Geometry of a still camera before a wall; from frame `far_from` on, of a place far away."""
    return PosedDepth(lambda index: view_of(100.0 if index >= far_from else 0.0))


AT_ONCE = Prompt(0, points=((20.0, 147.0),))


@pytest.fixture(scope="module")
def gap(images):
    """Six frames of the object, four of nothing, four of the object, as a baseline sees them."""
    clip = [images[2]] * 6 + [np.full_like(images[2], 128)] * 4 + [images[2]] * 4
    shown = [f.ids.any() for f in streamed(build_predictor("tiny", device="cpu"), clip, AT_ONCE)]
    assert all(shown[:6]) and not any(shown[7:10]) and any(shown[10:])
    return clip, shown


def test_a_look_alike_after_a_gap_is_vetoed(predictor, gap):
    """The geometry says that what comes back is somewhere else."""
    clip, shown = gap
    predictor.fuse(None, lambda: wall(far_from=10), PlaceSettings())
    frames = streamed(predictor, clip, AT_ONCE)
    assert all(frame.ids.any() for frame in frames[:6])
    assert not any(frame.ids.any() for frame in frames[7:])
    assert frames[shown.index(True, 10)].decisions == {1: VETOED}
    predictor.fuse(None, lambda: wall(far_from=99), PlaceSettings())
    assert any(frame.ids.any() for frame in streamed(predictor, clip, AT_ONCE)[10:])


def test_geometry_of_other_frames_decides_nothing(predictor, gap):
    """The camera that it claims jumps at every frame, the images stand still: bit for bit SAM2."""
    clip, _ = gap

    def jumping(index: int) -> PosedView:
        return view_of(100.0 * index)

    alone = streamed(build_predictor("tiny", device="cpu"), clip, AT_ONCE)
    predictor.fuse(None, lambda: PosedDepth(jumping), PlaceSettings())
    frames = streamed(predictor, clip, AT_ONCE)
    assert same(frames, alone)
    assert {frame.decisions[1] for frame in frames[1:]} <= {"own", ABSENT}


def high_resolution(predictor, batch: int, side: int) -> list:
    """Random features at strides 4 and 8 for the mask decoder."""
    decoder = predictor.sam_mask_decoder
    levels = ((decoder.conv_s0, 2), (decoder.conv_s1, 1))
    return [torch.randn(batch, c.out_channels, 2**n * side, 2**n * side) for c, n in levels]


def test_all_questions_about_a_frame_are_one_batch():
    """Against SAM2's own heads, question by question."""
    predictor = build_predictor("tiny", device="cpu")
    torch.manual_seed(0)
    side = predictor.sam_image_embedding_size
    own, conditioned = torch.randn(2, 2, predictor.hidden_dim, side, side)
    high = high_resolution(predictor, 2, side)
    clicks = torch.tensor([[[30.0, 40], [50, 60], [70, 20]], [[10, 11], [99, 98], [5, 200]]])
    maps = torch.randn(2, 1, 4 * side, 4 * side)
    used = {"click": 1, "clicks": 3, "mask": 0}  # the other clicks are padding, labelled -1
    with torch.inference_mode():
        answers = ask(predictor, own, conditioned, high, Prompts(clicks, maps), tuple(QUESTIONS))
        assert answers.masks.shape[:2] == (2, len(QUESTIONS))
        for kind, (by_memory, prompt) in enumerate(QUESTIONS.values()):
            labels = torch.where(torch.arange(3) < used[prompt], 1, -1).to(torch.int32)
            _, _, ious, low, _, _, score = predictor._forward_sam_heads(
                conditioned if by_memory else own,
                {"point_coords": clicks, "point_labels": labels.expand(2, -1)},
                maps if prompt == "mask" else None,
                high,
            )
            best = answers.ious[:, kind].argmax(1)
            mine = answers.masks[torch.arange(2), kind, best]
            present = (score > 0)[..., None]
            assert torch.allclose(torch.where(present, mine, low[:, 0]), low[:, 0], atol=1e-4)
            assert torch.allclose(answers.ious[torch.arange(2), kind, best], ious[:, 0], atol=1e-5)


@pytest.mark.parametrize("model", ("tiny", "tiny2"))
def test_sam2s_own_answer_is_seen_whatever_its_object_score(model):
    """Against the decoder itself; masks at their places, absent objects not blanked."""
    torch.manual_seed(0)
    predictor = build_predictor(model, random_weights=True, device="cpu")
    side = predictor.sam_image_embedding_size
    feature = torch.randn(2, predictor.hidden_dim, side, side)
    high = high_resolution(predictor, 2, side)
    several = predictor.multimask_output_for_tracking
    with torch.inference_mode():
        with SeenDecoder(predictor) as seen:
            outputs = predictor._forward_sam_heads(
                feature, high_res_features=high, multimask_output=several
            )
        answers = seen.answers()
        sparse, dense = predictor.sam_prompt_encoder(
            points=(torch.zeros(2, 1, 2), -torch.ones(2, 1, dtype=torch.int32)),
            boxes=None,
            masks=None,
        )
        masks, ious, tokens, scores = predictor.sam_mask_decoder.predict_masks(
            feature, predictor.sam_prompt_encoder.get_dense_pe(), sparse, dense, False, high
        )
    used = slice(1, None) if several else slice(0, 1)
    assert torch.isfinite(answers.ious[0, 0]).nonzero().flatten().tolist() == (
        [1, 2, 3] if several else [0]
    )
    assert torch.equal(answers.masks[:, 0, used], masks[:, used])
    assert torch.equal(answers.ious[:, 0, used], ious[:, used])
    assert torch.equal(answers.tokens[:, 0, used], tokens[:, used])
    assert torch.equal(answers.scores, scores.float()) and torch.equal(outputs[6], scores)
    with SeenDecoder(predictor) as unused:
        pass
    assert not predictor.sam_mask_decoder._forward_hooks and unused is not seen


def test_models_with_three_masks_offer_those_that_are_trained():
    predictor = build_predictor("tiny2", random_weights=True, device="cpu")
    side = predictor.sam_image_embedding_size
    own, conditioned = torch.randn(2, 1, predictor.hidden_dim, side, side)
    high = high_resolution(predictor, 1, side)
    prompts = Prompts(torch.full((1, 3, 2), 50.0), torch.zeros(1, 1, 4 * side, 4 * side))
    with torch.inference_mode():
        answers = ask(predictor, own, conditioned, high, prompts, tuple(QUESTIONS))
    usable = torch.isfinite(answers.ious[0])
    for kind, (_, prompt) in enumerate(QUESTIONS.values()):
        wanted = [True, False, False, False] if prompt == "clicks" else [False, True, True, True]
        assert usable[kind].tolist() == wanted, prompt
    if predictor.use_multimask_token_for_obj_ptr:
        assert not torch.equal(answers.tokens[0, 0, 1], answers.tokens[0, 0, 2])


def test_masks_of_published_size_are_judged_on_128_cells():
    logits = torch.full((1, 256, 256), -1.0)
    logits[0, 100:120, 60:80] = 1.0
    mask = on_grid(logits, 128).reshape(128, 128)
    assert mask.sum() == 100 and mask[50:60, 30:40].all()
