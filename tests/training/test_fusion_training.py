"""The loss on attention to memory: against loops, and against the memory that SAM2 really joins."""

import math
from types import SimpleNamespace

import pytest
import torch

import sam2_model
from geometry_fusion.models.geometry import source_maker
from geometry_fusion.models.spec import spec_of
from geometry_fusion.training.fusion_clips import FusionBatch
from geometry_fusion.training.fusion_model import FusionTracker, recognition_loss
from geometry_fusion.training.fusion_task import FusionTask
from geometry_fusion.training.sam2_task import Sam2Task


def by_loops(logits, here, remembered):
    on, beside = [], []
    for o in range(len(logits)):
        if not (remembered[o] > 0.1).any():
            continue
        for head in logits[o]:
            for row, cover in zip(head, here[o]):
                share = row.softmax(0)
                if cover > 0.3:
                    on.append(-math.log(share[remembered[o] > 0.1].sum()))
                elif cover == 0:
                    beside.append(-math.log(share[~(remembered[o] > 0.5)].sum()))
    return sum(sum(v) / max(len(v), 1) for v in (on, beside)) / 2


def test_recognition_loss_is_what_loops_say():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 16, 32)
    here, remembered = (torch.rand(3, n) * (torch.rand(3, n) > 0.5) for n in (16, 32))
    remembered[2] = 0  # nothing to recognise
    assert float(recognition_loss(logits, here, remembered)) == pytest.approx(
        by_loops(logits, here, remembered), 1e-5
    )
    assert float(recognition_loss(logits[2:], here[2:], remembered[2:])) == 0


def test_attention_that_finds_the_object_has_no_loss_and_to_its_twin_has_much():
    remembered = torch.tensor([[1.0, 0.0, 0.0, 0.0]])  # the object is in cell 0, its twin in cell 1
    here = torch.tensor([[0.0, 1.0]])
    right = torch.tensor([[[[0.0, 50.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0]]]])
    assert float(recognition_loss(right, here, remembered)) < 1e-6
    assert float(recognition_loss(right.flip(-2), here, remembered)) > 10


@pytest.mark.parametrize("prompt", ["click", "mask"])
def test_memory_cells_are_labelled_in_the_order_in_which_sam2_joins_them(prompt):
    torch.manual_seed(0)
    model = sam2_model.build_sam2(
        "tiny",
        target=FusionTracker,
        checkpoint=sam2_model.model_files("tiny")[1],
        num_correction_pt_per_frame=0,
        prob_to_use_pt_input_for_train=float(prompt == "click"),
        prob_to_use_box_input_for_train=0.0,
    )
    model.merger = spec_of("tiny", "control").build_merger()
    length, size = 9, model.image_size  # longer than the memory: old frames are forgotten
    masks = torch.zeros(length, 2, size, size, dtype=torch.bool)
    masks[:, 0, 40:120, 40:120] = masks[:, 1, 130:200, 100:220] = True
    images = torch.randn(length, 3, size, size)
    # Each memory says which frame it is of, in its first channel.
    encoded, joined = [], []
    encode = model._encode_new_memory

    def numbered(*args, **kwargs):
        features, positions = encode(*args, **kwargs)
        encoded.append(len(encoded))
        return torch.full_like(features, len(encoded)), positions

    model._encode_new_memory = numbered
    attention = model.memory_attention.layers[0].cross_attn_image

    def compare(module, args, kwargs):
        joined.append((kwargs["v"][0, : model._remembered.shape[1], 0], model._remembered.clone()))

    attention.register_forward_pre_hook(compare, with_kwargs=True)
    prepare = model._prepare_memory_conditioned_features

    def numbered_cover(frame_idx, *args, **kwargs):
        model._cover = torch.arange(1.0, length + 1)[:, None, None].expand(-1, 2, 256)
        return prepare(frame_idx, *args, **kwargs)

    model._prepare_memory_conditioned_features = numbered_cover
    batch = FusionBatch(images, torch.arange(length)[:, None].expand(-1, 2), masks, ["made up"])
    batch.geometry = source_maker(spec_of("tiny", "control"), None)().push(0, images[0].numpy())
    model.train()
    model(batch)
    assert len(joined) == length - 1 and joined[-1][0].shape == (7 * 256,)
    for read, labelled in joined:
        assert torch.equal(read, labelled[0]) and torch.equal(read, labelled[1])
    assert len(model.attention_losses) == 2 * (length - 1)


def test_a_clip_of_one_frame_has_nothing_to_recognise(monkeypatch):
    monkeypatch.setattr(Sam2Task, "losses", lambda *arguments: {"total": torch.tensor(2.0)})
    task = FusionTask.__new__(FusionTask)
    task.model, task._attention_weight = SimpleNamespace(attention_losses=[]), 0.5
    batch = SimpleNamespace(prompts=None)
    assert task.losses(None, batch, None) == {"total": 2.0, "attention": 0.0}
    task.model.attention_losses = [torch.tensor(1.0), torch.tensor(3.0)]
    assert task.losses(None, batch, None) == {"total": 3.0, "attention": 2.0}
