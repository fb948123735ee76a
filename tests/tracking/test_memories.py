"""Memory policies with a network: a model of three candidates in the layout of the published ones.

The tiny weights have the three other masks of SAM2's decoder too, untrained: their predicted IoUs
and masks are as good as random.
"""

import io
import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from geometry_fusion import load
from geometry_fusion.errors import InputError
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.stream import open_source
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.sam2 import build_predictor
from geometry_fusion.tracking.candidates import NO_OBJ_SCORE, decode
from geometry_fusion.tracking.memories.fifo import FifoMemory
from geometry_fusion.tracking.memories.tree import TreeMemory
from geometry_fusion.tracking.memory import MEMORIES, STRATEGIES, StrategyMemory
from geometry_fusion.tracking.open_session import open_session
from geometry_fusion.types import Prompt
from tests.conftest import ROOT, ids_of, pairs

PROMPTS = [Prompt(2, 1, points=((79.0, 48.0),)), Prompt(2, 2, box=(10.0, 60.0, 45.0, 100.0))]
TWICE = [PROMPTS[0], Prompt(6, 1, points=((79.0, 48.0),))]
THREE_CANDIDATES = {
    "multimask_output_in_sam": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> FrameFolder:
    folder = tmp_path_factory.mktemp("clip") / "frames"
    extract_frames(ROOT / "videos/samples/return/video.mp4", folder, every=6, size=(160, 120))
    return FrameFolder(folder)


@pytest.fixture(scope="module")
def predictor():
    return build_predictor(
        "tiny", device="cpu", objects_at_once=1, frames_at_once=1, **THREE_CANDIDATES
    )


def with_strategy(predictor, strategy):
    predictor.memory = StrategyMemory(
        strategy,
        predictor.num_maskmem,
        predictor.memory_temporal_stride_for_eval,
        predictor.max_obj_ptrs_in_encoder,
    )
    return predictor


def session_of(predictor, mode="stream", prompts=PROMPTS, **options):
    session = open_session(predictor, mode, **options)
    for prompt in prompts:
        session.add(prompt)
    return session


def logits_of(session, source) -> dict[int, torch.Tensor]:
    return {
        index: session.logits.clone()
        for index, _ in pairs(session.track(source))
        if session.logits is not None
    }


class OnePathway(TreeMemory):
    settings = replace(
        TreeMemory.settings,
        pathways=1,
        least_iou=-1,
        least_score=-np.inf,
        low_weight=1,
        high_weight=1,
    )


@pytest.fixture(scope="module")
def by_fifo(predictor, frames) -> dict[str, dict[int, torch.Tensor]]:
    """What SAM2's own code answers, in both modes."""
    predictor.use_memory("fifo")
    return {
        mode: logits_of(session_of(predictor, mode, TWICE), source)
        for mode, source in (("stream", frames.path), ("full", frames))
    }


@pytest.mark.parametrize("strategy", [FifoMemory, OnePathway])
def test_sam2s_rule_as_a_strategy_gives_sam2s_masks_bit_for_bit(
    predictor, frames, by_fifo, strategy
):
    """So does one pathway without gates and weights: SAM2Long's paper says so."""
    with_strategy(predictor, strategy)
    answers = logits_of(session_of(predictor, "stream", TWICE), frames.path)
    assert all(torch.equal(answers[i], by_fifo["stream"][i]) for i in by_fifo["stream"])
    answers = {}
    for frame in session_of(predictor, "full", TWICE).track(frames):
        answers[frame.index] = frame.logits
    assert sorted(answers) == list(range(len(frames)))
    assert all(torch.equal(answers[i], by_fifo["full"][i]) for i in answers)
    assert any((logits > 0).any() for logits in answers.values())


def test_with_a_stride_between_memories_too(predictor, frames, by_fifo, monkeypatch):
    monkeypatch.setattr(predictor, "memory_temporal_stride_for_eval", 5)
    predictor.use_memory("fifo")
    expected = logits_of(session_of(predictor, "full", TWICE), frames)
    with_strategy(predictor, FifoMemory)
    answers = logits_of(session_of(predictor, "full", TWICE), frames)
    assert sorted(answers) == list(range(len(frames)))
    assert all(torch.equal(answers[i], expected[i]) for i in answers)
    assert any(not torch.equal(answers[i], by_fifo["full"][i]) for i in answers)


def test_masks_are_blanked_where_the_score_does_not_exceed_the_presence_of_the_policy(predictor):
    side, width = predictor.sam_image_embedding_size, predictor.hidden_dim
    image = torch.randn(1, width, side, side, generator=torch.Generator().manual_seed(0))
    levels = [torch.zeros(1, width // (2 * k), k * side, k * side) for k in (4, 2)]
    (shown,) = decode(predictor, image, levels, -math.inf)
    score = float(shown.score)
    (below,) = decode(predictor, image, levels, score - 0.5)
    (above,) = decode(predictor, image, levels, score + 0.5)
    assert torch.equal(below.masks, shown.masks) and torch.equal(above.raw, shown.masks)
    assert (above.masks == NO_OBJ_SCORE).all() and not (shown.masks == NO_OBJ_SCORE).any()
    for name, presence in (("motion", -1.0), ("dam", 0.0)):
        predictor.use_memory(name)
        assert predictor._presence == presence


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_policy_keeps_bounded_memory_and_resumes_bit_for_bit(predictor, frames, name):
    predictor.use_memory(name)
    whole = logits_of(session_of(predictor), frames.path)
    if name != "tree":  # whose masks of a whole clip are decided at its end
        full = islice(session_of(predictor, "full").track(frames), len(frames) - 2)
        assert all(torch.equal(frame.logits, whole[frame.index]) for frame in full)
    session, answers = session_of(predictor), {}
    for index, _ in pairs(session.track(frames.path)):
        if session.logits is not None:
            answers[index] = session.logits.clone()
        if index == 5:
            break
    file = io.BytesIO()
    torch.save(session.snapshot(), file)
    file.seek(0)
    later = open_session(predictor)
    later.restore(torch.load(file, weights_only=True))
    answers |= logits_of(later, open_source(frames.path, start=6))
    assert answers.keys() == whole.keys()
    assert all(torch.equal(answers[i], whole[i]) for i in whole)


def test_policies_differ_from_sam2s_rule_where_there_are_candidates(predictor, frames):
    answers = {}
    for name in MEMORIES:
        predictor.use_memory(name)
        answers[name] = logits_of(session_of(predictor, prompts=PROMPTS[:1]), frames.path)
    for name in ("dam", "tree"):  # `motion` may have no doubt in so few frames
        assert any(not torch.equal(answers[name][i], answers["fifo"][i]) for i in answers[name])
    # Without geometry there is nothing to cover.
    assert all(torch.equal(answers["coverage"][i], answers["fifo"][i]) for i in answers["fifo"])


def test_objects_in_batches_read_what_each_of_them_reads(frames):
    """Within rounding, the second object prompted later than the first."""
    prompts = [PROMPTS[0], replace_frame(PROMPTS[1], 4)]
    answers = []
    for at_once in (1, 16):
        predictor = build_predictor(
            "tiny", device="cpu", objects_at_once=at_once, memory="dam", **THREE_CANDIDATES
        )
        answers.append(ids_of(session_of(predictor, prompts=prompts).track(frames.path)))
    assert all((answers[0][i] != answers[1][i]).mean() < 2e-3 for i in answers[0])


def replace_frame(prompt: Prompt, frame: int) -> Prompt:
    return Prompt(frame, prompt.object_id, prompt.points, box=prompt.box)


def test_whole_clips_get_the_masks_of_the_pathway_that_wins(predictor, frames):
    """What the tree says at the end of the pass is what is yielded, forwards and backwards."""
    predictor.use_memory("tree")
    session = session_of(predictor, "full", [PROMPTS[0]])
    answers = {frame.index: frame.ids for frame in session.track(frames)}
    assert sorted(answers) == list(range(len(frames)))
    decided = session._state.memories.decided[1]
    assert set(decided) == set(range(len(frames))) - {2}
    for index, mask in decided.items():
        logits = predictor._get_orig_video_res_output(session._state, mask)[1]
        assert np.array_equal(answers[index] > 0, (logits[0, 0] > 0).numpy())
    live = ids_of(session_of(predictor, "stream", [PROMPTS[0]]).track(frames.path))
    last = len(frames) - 1
    assert np.array_equal(live[last], answers[last])
    again = {frame.index: frame.ids for frame in session.track(frames)}
    assert all(np.array_equal(again[i], answers[i]) for i in answers)


@pytest.mark.parametrize("name", STRATEGIES)
def test_objects_are_corrected_added_and_removed_under_every_policy(predictor, frames, name):
    predictor.use_memory(name)
    session = session_of(predictor, prompts=[PROMPTS[0]])
    for index, _ in pairs(session.track(frames.path)):
        if index == 4:
            session.add(replace_frame(PROMPTS[1], 4))
        if index == 6:
            before = session.logits.clone()
            session.add(Prompt(6, 1, points=((79.0, 48.0),), negatives=((20.0, 20.0),)))
            assert not torch.equal(session.logits, before)
        if index == 7:
            session.remove(1)
    assert session.object_ids == [2] and len(session._state.memories._objects) == 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_policy_runs_with_one_candidate_and_geometry(with_geometry, name):
    predictor = with_geometry.predictor
    predictor.use_memory(name)
    prompts = [Prompt(1, 1, points=((158.0, 97.0),)), Prompt(2, 2, box=(20.0, 120.0, 90.0, 200.0))]
    session = session_of(predictor, prompts=prompts)
    # Neighbouring frames, of whose geometry MUSt3R is sure.
    images = islice(VideoFile(ROOT / "videos/samples/return/video.mp4"), 14)
    assert any([frame.ids.any() for frame in session.track(images)])
    memories = [held.memory for held in session._state.memories._objects.values()]
    assert len(memories) == 2
    if name == "coverage":
        assert any(memory._points for memory in memories)


@pytest.fixture(scope="module")
def with_geometry():
    tracker = load("tiny", geometry="must3r", mode="both", device="cpu", memory="dam")
    assert tracker.identity.options["memory"] == "dam"
    assert "memory" not in load("tiny", geometry="none", memory="fifo").identity.options
    return tracker


def test_policies_are_not_combined_with_exact():
    with pytest.raises(InputError, match="memory dam: exact is SAM2's own rule"):
        build_predictor("tiny", device="cpu", exact=True, memory="dam")
