"""Arms side by side: each frame is decoded and encoded once, and nobody's masks change by it."""

import numpy as np
import pytest

import sam2_model
from geometry_fusion.frame_folder import FrameFolder
from geometry_fusion.segment import track, track_together
from geometry_fusion.types import Prompt
from geometry_fusion.video import extract_frames
from tests.conftest import ROOT


class Counting(FrameFolder):
    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Counting:
    folder = tmp_path_factory.mktemp("sharing") / "frames"
    extract_frames(ROOT / "videos/samples/return/video.mp4", folder, every=6, size="keep")
    return Counting(folder)


def test_arms_in_step_share_decoding_and_encoding_and_keep_their_masks(frames):
    prompts = [Prompt(3, 1, points=((158.0, 97.0),))]
    predictors = [sam2_model.build_predictor("tiny", device="cpu") for _ in range(2)]
    alone = dict(track(predictors[0], frames, prompts, progress=False))
    calls, encoders = [], [predictor.image_encoder for predictor in predictors]
    for encoder in encoders:
        encoder.register_forward_hook(lambda *_: calls.append(1))
    frames.reads = 0
    steps = list(track_together(predictors, frames, prompts))
    # Backwards the prompted frame is passed once more.
    assert len(calls) <= len(frames) + 1 and frames.reads <= len(frames) + 1
    assert [index for index, *_ in steps] == list(alone)
    for index, found, seconds in steps:
        assert all(np.array_equal(ids, alone[index]) for ids in found)
        assert len(seconds) == 2 and min(seconds) > 0
    assert [predictor.image_encoder for predictor in predictors] == encoders
