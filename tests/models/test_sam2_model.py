"""Wiring of SAM2: the same masks as SAM2's own predictor, strict loading, independence of folder
and Hydra.
"""

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.utils.misc import load_video_frames

import main
import sam2_model
from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.tracking.clip_session import track
from geometry_fusion.tracking.pixels import square
from geometry_fusion.tracking.session import id_image
from geometry_fusion.types import Prompt
from tests.conftest import ROOT, run_script


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames") / "frames"
    main.getFrames(ROOT / "videos/samples/walk/video.mp4", folder, every=3)
    return folder


@torch.inference_mode()
def logits_of(predictor, video, prompt_frame=2):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(
        state, prompt_frame, 1, points=np.array([[130, 117]], np.float32), labels=[1]
    )
    predictor.add_new_points_or_box(
        state, prompt_frame, 2, box=np.array([30, 60, 90, 150], np.float32)
    )
    result = {i: logits.clone() for i, _, logits in predictor.propagate_in_video(state)}
    result |= {
        i: logits.clone() for i, _, logits in predictor.propagate_in_video(state, reverse=True)
    }
    return result


def test_masks_are_bitwise_those_of_sam2s_own_predictor(frames):
    ours = sam2_model.build_predictor("tiny", device="cpu", exact=True)
    theirs = sam2_model.build_sam2(
        "tiny", target=SAM2VideoPredictor, binarize_mask_from_pts_for_mem_enc=True
    )
    expected, found = logits_of(theirs, str(frames)), logits_of(ours, FrameFolder(frames))
    assert sorted(expected) == sorted(found) == list(range(10))
    assert all(torch.equal(expected[i], found[i]) for i in expected)
    assert any((expected[i] > 0).any() for i in expected)


def test_frames_are_resized_and_normalised_bitwise_as_by_sam2(frames):
    theirs, height, width = load_video_frames(str(frames), 256, True, compute_device="cpu")
    ours = FrameFolder(frames)
    assert ours.size == (width, height) and len(ours) == len(theirs)
    for image, wanted in zip(ours, theirs):
        assert torch.equal(square(image, 256), wanted)


def test_sam2s_own_ways_of_opening_a_video_still_work(frames):
    predictor = sam2_model.build_predictor("tiny", device="cpu", exact=True)
    by_path, by_frames = (
        logits_of(predictor, str(frames)),
        logits_of(predictor, FrameFolder(frames)),
    )
    assert all(torch.equal(by_path[i], by_frames[i]) for i in by_path)
    state = predictor.init_state(FrameFolder(frames))
    predictor.add_new_mask(state, 0, 5, np.ones((240, 320), bool))
    predictor.add_new_points_or_box(state, 0, 6, points=[[5.0, 5.0]], labels=[1])
    assert predictor.remove_object(state, 5)[0] == [6]
    predictor.reset_state(state)
    assert state["obj_ids"] == []


def test_official_models_build_as_sam2_builds_them(tmp_path, frames):
    """Random weights in the official file layout: both builders load them and answer alike, bit for
    bit.
    """
    torch.manual_seed(0)
    weights = sam2_model.build_sam2("t", random_weights=True).state_dict()
    torch.save({"model": weights}, tmp_path / "t.pt")
    ours = sam2_model.build_predictor(
        "t", tmp_path / "t.pt", device="cpu", exact=True, fill_hole_area=8
    )
    theirs = build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml", str(tmp_path / "t.pt"), device="cpu"
    )
    switches = (
        "binarize_mask_from_pts_for_mem_enc",
        "fill_hole_area",
        "non_overlap_masks",
        "num_maskmem",
        "image_size",
    )
    assert [getattr(ours, s) for s in switches] == [getattr(theirs, s) for s in switches]
    one = tmp_path / "one"
    main.getFrames(ROOT / "videos/samples/walk/video.mp4", one, every=30)
    answers = []
    for predictor, video in ((ours, FrameFolder(one)), (theirs, str(one))):
        state = predictor.init_state(video)
        answers.append(
            predictor.add_new_points_or_box(state, 0, 1, points=[[130.0, 117.0]], labels=[1])[2]
        )
    assert torch.equal(*answers)
    at_once = [
        sam2_model.build_predictor("t", tmp_path / "t.pt", device="cpu", **options).frames_at_once
        for options in ({}, {"frames_at_once": 3}, {"exact": True})
    ]
    assert at_once == [1, 3, 1]  # of 1024 pixels, on a CPU
    assert sam2_model.build_predictor("tiny", device="cpu").frames_at_once == 8


@pytest.mark.parametrize("name", ["s", "b+", "l"])
def test_every_official_config_exists(name):
    config, checkpoint = sam2_model.model_files(name)
    assert config.is_file() and checkpoint.name.startswith("sam2.1_hiera_")


def test_building_works_from_any_folder_and_inside_hydra_main(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import hydra
@hydra.main(version_base=None, config_path=None)
def run(cfg):
    from geometry_fusion.models import sam2 as sam2_model
    from geometry_fusion.commands.config import compose_config
    from pathlib import Path
    compose_config(Path({str(ROOT / "configs")!r}), "train", ["experiment=tiny_sam2"])
    print(type(sam2_model.build_predictor("tiny", device="cpu")).__name__)
run()
"""
    (tmp_path / "nested.py").write_text(script)
    done = run_script("nested.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("GeometryVideoPredictor")


def test_missing_and_unknown_models_are_explained():
    with pytest.raises(InputError, match="choose one of tiny, tiny2, t, s"):
        sam2_model.build_sam2("xxl")
    if not sam2_model.model_files("l")[1].exists():
        with pytest.raises(InputError, match=r"main\.py weights --sam2 l"):
            sam2_model.build_sam2("l")


def test_loading_is_strict_and_names_what_does_not_fit(tmp_path):
    good = sam2_model.build_sam2("tiny", random_weights=True).state_dict()
    cases = {
        "missing": {k: v for k, v in good.items() if k != "no_mem_embed"},
        "unexpected": {**good, "extra.weight": torch.zeros(1)},
        "other shape": {**good, "no_mem_embed": torch.zeros(1, 1, 7)},
    }
    for title, tensors in cases.items():
        torch.save(tensors, tmp_path / "x.pt")
        with pytest.raises(InputError, match=title) as caught:
            sam2_model.build_sam2("tiny", checkpoint=tmp_path / "x.pt")
        assert "x.pt" in str(caught.value) and (
            "no_mem_embed" in str(caught.value) or "extra" in str(caught.value)
        )


def test_track_visits_every_frame_once_and_reads_frames_lazily(frames):
    class Counting(FrameFolder):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    predictor = sam2_model.build_predictor("tiny", device="cpu")
    video = Counting(frames)
    prompt = Prompt(frame=4, points=((130.0, 117.0),))
    steps = track(predictor, video, [prompt])
    first = next(steps)
    # At most the first frame and the prompted one were read so far.
    assert first.index == 4 and first.ids.shape == (240, 320) and video.reads <= 3
    assert sorted([first.index, *(frame.index for frame in steps)]) == list(range(10))


def test_id_image_gives_overlaps_to_the_most_confident():
    logits = torch.tensor([[[[3.0, -1.0, 1.0]]], [[[2.0, -2.0, 4.0]]]])
    assert id_image([5, 9], logits).tolist() == [[5, 0, 9]]
