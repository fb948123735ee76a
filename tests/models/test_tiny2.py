"""The second tiny SAM2 as it ships: it follows an object, and offers three masks."""

import json

import numpy as np
import pytest
import torch

from geometry_fusion import Prompt, load
from geometry_fusion.io.mask_writer import read_ids
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.measure.masks import iou
from geometry_fusion.models.footage import note_on_sam2
from tests.conftest import ROOT

SAMPLE = ROOT / "videos/samples/walk"
FRAMES = 12


@pytest.fixture(scope="module")
def tracker():
    return load("tiny2", geometry="none", device="cpu")


def test_it_follows_a_clicked_object(tracker):
    assert tracker.arm == "sam2"
    sample = json.loads((SAMPLE / "sample.json").read_text())
    point = tuple(int(value) for value in sample["point"].split(","))
    prompt = Prompt(points=(point,), frame=sample["prompt_frame"])
    scores = []
    for frame in tracker.track(SAMPLE / "video.mp4", prompt):
        if frame.index < prompt.frame:
            continue
        truth = read_ids(SAMPLE / "gt" / f"{frame.index:04d}.png") > 0
        scores.append(iou(frame.ids > 0, truth))
        if len(scores) == FRAMES:
            break
    assert len(scores) == FRAMES and np.mean(scores) > 0.6


@torch.no_grad()
def test_it_offers_three_masks_with_predicted_ious(tracker):
    predictor = tracker.predictor
    features = torch.randn(1, 128, 16, 16)
    fine = [torch.randn(1, 16, 64, 64), torch.randn(1, 32, 32, 32)]
    click = {"point_coords": torch.tensor([[[9.0, 9.0]]]), "point_labels": torch.tensor([[1]])}
    masks, _, ious, *_ = predictor._forward_sam_heads(
        features, click, high_res_features=fine, multimask_output=True
    )
    assert masks.shape == (1, 3, 64, 64) and ious.shape == (1, 3)
    assert ious.min() >= 0 and ious.max() <= 1  # through a sigmoid
    assert not torch.equal(masks[0, 0], masks[0, 1]) and not torch.equal(masks[0, 1], masks[0, 2])


def test_its_geometry_is_that_of_the_tiny_must3r_and_needs_no_merger():
    tracker = load("tiny2", device="cpu")
    assert tracker.arm == "places"
    assert "no merger weights for sam2 'tiny2'" in tracker.without_merger


def test_its_users_learn_what_to_expect_of_it_on_other_footage():
    image = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    note = note_on_sam2("tiny2", None, image, "walk.mp4")
    assert "walk.mp4 is other footage" in note and "python main.py weights --sam2 l" in note
    assert "--sam2 tiny2 does better" in note_on_sam2("tiny", None, image, "walk.mp4")
    assert note_on_sam2("l", None, image, "walk.mp4") == ""
    room = next(iter(VideoFile(SAMPLE / "video.mp4")))
    assert note_on_sam2("tiny2", None, room, "walk.mp4") == ""
