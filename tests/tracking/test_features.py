"""Arms side by side: each frame is decoded and encoded once, and nobody's masks change by it."""

import numpy as np
import pytest

import sam2_model
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.tracking.clip_session import clip_session, track, track_together
from geometry_fusion.types import Prompt
from tests.conftest import ROOT, ids_of


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
    alone = ids_of(track(predictors[0], frames, prompts, progress=False))
    calls = []
    for predictor in predictors:
        predictor.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    frames.reads = 0
    sessions = [clip_session(predictor, prompts) for predictor in predictors]
    steps = list(track_together(sessions, frames))
    # Backwards the prompted frame is passed once more.
    assert len(calls) <= len(frames) + 1 and frames.reads <= len(frames) + 1
    assert [tracked[0].index for tracked, _ in steps] == list(alone)
    for tracked, seconds in steps:
        assert all(np.array_equal(frame.ids, alone[frame.index]) for frame in tracked)
        assert len(seconds) == 2 and min(seconds) > 0
