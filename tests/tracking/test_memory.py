"""What SAM2's memory can still read: the rule against SAM2's own code, and nothing more kept than
that.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sam2_model
from geometry_fusion.geometry.source import NoGeometry
from geometry_fusion.tracking.lanes import Lane, Lanes
from geometry_fusion.tracking.memory import Sam2Memory, answered_backwards
from geometry_fusion.tracking.object_batches import ObjectBatches
from geometry_fusion.tracking.state import TrackState


class Recording(dict):
    """Outputs by frame that remember which frames were asked for."""

    def __init__(self):
        super().__init__()
        self.asked: set[int] = set()

    def get(self, frame, default=None):
        self.asked.add(frame)
        return default


@pytest.fixture(scope="module")
def model():
    return sam2_model.build_sam2("tiny", random_weights=True, upstream=True)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("num_maskmem", [1, 2, 7])
@torch.inference_mode()
def test_the_frames_that_sam2_asks_for_are_those_in_reach(
    model, monkeypatch, num_maskmem, stride, reverse
):
    monkeypatch.setattr(model, "num_maskmem", num_maskmem)
    monkeypatch.setattr(model, "memory_temporal_stride_for_eval", stride)
    reach = Sam2Memory(num_maskmem, stride, model.max_obj_ptrs_in_encoder)
    feature, farthest = torch.zeros(256, 1, 128), 0
    conditioned = {
        "maskmem_features": torch.zeros(1, 32, 16, 16),
        "maskmem_pos_enc": [torch.zeros(1, 32, 16, 16)],
        "obj_ptr": torch.zeros(1, 128),
    }
    for frame in range(200, 212):
        recent = Recording()
        model._prepare_memory_conditioned_features(
            frame_idx=frame,
            is_init_cond_frame=False,
            current_vision_feats=[feature],
            current_vision_pos_embeds=[feature],
            feat_sizes=[(16, 16)],
            output_dict={
                "cond_frame_outputs": {frame: conditioned},
                "non_cond_frame_outputs": recent,
            },
            num_frames=1000,
            track_in_reverse=reverse,
        )
        assert recent.asked <= set(reach.readable(frame, reverse))
        farthest = max(farthest, *(abs(frame - asked) for asked in recent.asked))
    assert farthest == max(
        reach.memory if num_maskmem > 1 else 0, reach.pointer
    )  # and no farther than needed


def output(value: float) -> dict:
    return {
        "maskmem_features": torch.full((1, 2), value),
        "maskmem_pos_enc": [torch.zeros(1, 2)],
        "pred_masks": torch.zeros(1, 1, 4, 4),
        "obj_ptr": torch.full((1, 3), value),
        "object_score_logits": torch.zeros(1, 1),
    }


def tracked_from_10_to_30() -> tuple[TrackState, dict]:
    """State of one object that was prompted on frame 10 and tracked up to frame 30, and its tracked
    frames.
    """
    tracked = {frame: output(frame) for frame in range(11, 31)}
    outputs = {"cond_frame_outputs": {10: output(10)}, "non_cond_frame_outputs": tracked}
    seen = {frame: {"reverse": False} for frame in range(10, 31)}

    class Clip(list):
        size = (4, 4)

    frames = Clip([None] * 31)
    device = torch.device("cpu")
    state = TrackState(
        images=[],
        frames=frames,
        lanes=Lanes(Lane(NoGeometry()), lambda: Lane(NoGeometry()), frames),
        batches=ObjectBatches(),
        device=device,
        storage_device=device,
    )
    state["output_dict_per_obj"][0] = outputs
    state["frames_tracked_per_obj"][0] = seen
    return state, tracked


def test_what_cannot_be_read_any_more_is_dropped():
    reach = Sam2Memory(
        num_maskmem=3, stride=1, max_obj_ptrs=5
    )  # memories of 2 frames, pointers of 4
    state, tracked = tracked_from_10_to_30()
    reach.drop(state, 30)
    assert set(tracked) == {26, 27, 28, 29, 30}
    assert [frame for frame in tracked if "maskmem_features" in tracked[frame]] == [28, 29, 30]
    assert tracked[30]["pred_masks"] is not None and tracked[29]["pred_masks"] is None
    assert set(state["frames_tracked_per_obj"][0]) == {10, 30}


def test_masks_that_are_answered_later_are_kept_and_nothing_else_of_their_frames():
    reach = Sam2Memory(num_maskmem=3, stride=1, max_obj_ptrs=5)
    state, tracked = tracked_from_10_to_30()
    state.answered_later = range(29)
    reach.drop(state, 30)
    assert set(tracked) == set(range(11, 31))
    assert all(set(tracked[frame]) == {"pred_masks"} for frame in range(11, 26))
    assert tracked[28]["pred_masks"] is not None and tracked[29]["pred_masks"] is None
    reach.drop(state, 20, reverse=True)
    assert set(tracked) == {*range(11, 20), 20}  # on the way back, those that are still to come


def read(
    reach: Sam2Memory, prompted: list[int], tracked: range, frame: int, reverse: bool
) -> tuple[list, list]:
    outputs = {
        "cond_frame_outputs": {t: output(t) for t in prompted},
        "non_cond_frame_outputs": {t: output(t) for t in tracked if t not in prompted},
    }
    memory = reach.select(outputs, frame, reverse)
    return list(memory["cond_frame_outputs"]), list(memory["non_cond_frame_outputs"])


def test_memory_never_runs_against_time_nor_past_a_prompt():
    reach = Sam2Memory(num_maskmem=3, stride=1, max_obj_ptrs=5)
    # Forwards: prompts so far, and frames since the latest of them.
    assert read(reach, [2, 40], range(60), 20, False) == ([2], [16, 17, 18, 19])
    assert read(reach, [2, 40], range(60), 41, False) == ([2, 40], [])
    assert read(reach, [2, 40], range(60), 43, False) == ([2, 40], [41, 42])
    # Backwards: all prompts, and frames on the way from the nearest later prompt.
    assert read(reach, [2, 40], range(60), 39, True) == ([2, 40], [])
    assert read(reach, [2, 40], range(60), 37, True) == ([2, 40], [38, 39])
    assert read(reach, [2, 40], range(60), 1, True) == ([2, 40], [])
    upstream = Sam2Memory(num_maskmem=3, stride=1, max_obj_ptrs=5, upstream=True)
    assert read(upstream, [2, 40], range(60), 39, True)[1] == [
        t for t in range(60) if t not in (2, 40)
    ]


def test_a_frame_between_two_prompts_is_answered_from_the_nearer_one():
    answers = {t: answered_backwards([2, 40], t) for t in (0, 1, 3, 20, 21, 22, 39, 41, 59)}
    assert [t for t, backwards in answers.items() if backwards] == [0, 1, 21, 22, 39]
    assert not any(answered_backwards([0], t) for t in range(1, 9))


def test_objects_of_equal_memories_go_together_and_a_correction_is_seen():
    outputs = {
        i: {"cond_frame_outputs": {0: output(i)}, "non_cond_frame_outputs": {1: output(10 + i)}}
        for i in range(5)
    }
    outputs[4]["cond_frame_outputs"][3] = output(9)  # prompted once more
    batches = ObjectBatches(limit=3)
    assert batches.groups(outputs, range(2), alone=False) == [[0, 1, 2], [3], [4]]
    assert batches.groups(outputs, range(2), alone=True) == [[0], [1], [2], [3], [4]]
    joined = batches.joined(outputs, [0, 1, 2], range(2))
    assert joined["non_cond_frame_outputs"][1]["obj_ptr"][:, 0].tolist() == [10, 11, 12]
    assert (
        batches.joined(outputs, [0, 1, 2], range(2))["non_cond_frame_outputs"][1]
        is (joined["non_cond_frame_outputs"][1])
    )
    outputs[1]["non_cond_frame_outputs"][1] = output(77)
    again = batches.joined(outputs, [0, 1, 2], range(2))
    assert again["non_cond_frame_outputs"][1]["obj_ptr"][:, 0].tolist() == [10, 77, 12]
    assert batches.joined(outputs, [3], range(2)) is outputs[3]


def test_when_memory_runs_out_batches_shrink_until_one_object_is_too_much(capsys):
    from geometry_fusion.errors import InputError

    batches = ObjectBatches(limit=16)
    assert batches.halved([4, 5, 6, 7, 8]) == ([4, 5], [6, 7, 8]) and batches.limit == 2
    assert "at most 2" in capsys.readouterr().out
    with pytest.raises(InputError, match="choose smaller models"):
        batches.halved([4])


def test_an_exhausted_gpu_is_answered_by_smaller_batches(tmp_path, monkeypatch, capsys):
    """The device's error, raised here for batches of more than two objects."""
    predictor = sam2_model.build_predictor("tiny", device="cpu")
    frames = SimpleNamespace(size=(64, 48))
    images = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)

    class Frames(list):
        size = frames.size

    def masks():
        state = predictor.init_state(Frames(images))
        for number in range(5):
            predictor.add_new_points_or_box(
                state, 0, number + 1, points=[[10.0 * number, 20.0]], labels=[1]
            )
        return [logits.clone() for _, _, logits in predictor.propagate_in_video(state)]

    wanted, step = masks(), predictor.track_step

    def too_much(*args, **kwargs):
        if kwargs["current_vision_feats"][-1].shape[1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(*args, **kwargs)

    monkeypatch.setattr(predictor, "track_step", too_much)
    found = masks()
    assert "at most 2" in capsys.readouterr().out
    for a, b in zip(wanted, found):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_memory_attention_of_objects_is_sam2s_own_computed_once():
    predictor = sam2_model.build_predictor("tiny", device="cpu")
    shared = predictor.memory_attention
    image, position = (
        torch.randn(1, 128, 16, 16).expand(5, -1, -1, -1).flatten(2).permute(2, 0, 1)
        for _ in range(2)
    )
    memory, memory_pos = torch.randn(2, 520, 5, 32)
    arguments = {"memory": memory, "memory_pos": memory_pos, "num_obj_ptr_tokens": 8}
    found = shared(curr=[image], curr_pos=[position], **arguments)
    plain = super(type(shared), shared).forward([image], memory, [position], memory_pos, 8)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
    calls = []
    shared.layers[0].self_attn.register_forward_hook(
        lambda module, inputs, output: calls.append(len(output))
    )
    shared(curr=[image], curr_pos=[position], **arguments)
    assert calls == [1]
    # Different images of one batch are what they are.
    other = [image + torch.randn(256, 5, 128)]
    torch.testing.assert_close(
        shared(curr=other, curr_pos=[position], **arguments),
        super(type(shared), shared).forward(other, memory, [position], memory_pos, 8),
        rtol=0,
        atol=0,
    )
