"""Fine-tuning on a video of one's own: frames and masks in, a checkpoint that ab_iou.py uses out."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import train
from check_checkpoint_geometry import inspect
from geometry_fusion.data.own_video import split_by_time
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.geometry import NoGeometry
from geometry_fusion.mask_files import write_palette_mask, write_rgb
from geometry_fusion.prompts import masks_by_id
from geometry_fusion.training.fusion_task import FusionClips, whole_walks
from geometry_fusion.training.geometry_cache import GeometryCache
from tests.conftest import ROOT, error_line, run_script

ANNOTATED = (0, 1, 2, 3, 5, 6, 7)  # of 8 frames


@pytest.fixture(scope="module")
def video(rooms, tmp_path_factory) -> Path:
    """frames/0000.jpg ... and masks of all frames but one, of the two objects that are seen most."""
    folder, scene = tmp_path_factory.mktemp("own"), Scene(find_scenes(rooms)[1])
    for name in ("frames", "masks"):
        (folder / name).mkdir()
    always = scene.areas[[0, 2, 6, 7], 1:].min(0)  # pixels in the view in which an object is smallest
    largest = np.argsort(-always)[:2] + 1
    assert always[largest - 1].min() > 20
    for index in range(len(scene)):
        write_rgb(folder / "frames" / f"{index:04d}.jpg", scene.rgb(index))
        if index in ANNOTATED:
            ids = scene.instance(index)
            write_palette_mask(folder / "masks" / f"{index:04d}.png", (ids == largest[0]) + 2 * (ids == largest[1]))
    return folder


def test_the_last_annotated_frames_are_validation_and_no_frame_is_in_both_parts(video):
    training, validation = split_by_time(video / "frames", video / "masks", 0.3)
    assert training.stems == ["0000", "0001", "0002", "0003", "0004", "0005"]
    assert validation.stems == ["0006", "0007"]
    assert training.annotated.tolist() == [True, True, True, True, False, True]
    assert training.areas.shape == (6, 3) and not training.areas[4].any() and training.areas[0].sum() == 96 * 96
    assert np.array_equal(np.unique(training.instance(0)), [0, 1, 2])
    assert training.cache_name != validation.cache_name


def test_clips_and_validation_use_annotated_frames_and_geometry_sees_all(video, tmp_path):
    training, _ = split_by_time(video / "frames", video / "masks", 0.3)
    seen = []

    def recording(scene):
        source = NoGeometry()
        push = source.push
        source.push = lambda index, image: (seen.append(index), push(index, image))[1]
        return source

    options = {"min_area": 20, "references": 2, "twin_share": 0.5, "fov_share": 0.5, "tau": 0.25, "steps": (1, 2)}
    clips = FusionClips([training], GeometryCache(tmp_path, recording, {}), 64, sampling="random", **options)
    drawn = {frame for seed in range(20) for frame in clips._clip(np.random.default_rng(seed), 4, 2)[1]}
    assert drawn <= {0, 1, 2, 3, 5} and len(drawn) > 3
    walks = list(whole_walks(clips, 8, 1, 5, hard_only=False))
    assert [ids for _, _, ids in walks] == [[1], [2]] and all(4 not in frames for _, frames, _ in walks)
    clips.batch(np.random.default_rng(0), 1, 3, 2)
    assert set(seen) == set(range(6))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda d: shutil.rmtree(d / "masks"), "no such folder of masks; import them"),
        (lambda d: (d / "masks/0007.png").rename(d / "masks/frame7.png"), "no frame of .* is called frame7"),
        (lambda d: [(d / f"masks/{i:04d}.png").unlink() for i in ANNOTATED[:4]], "3 frames of .* have masks; training"),
        (
            lambda d: [write_palette_mask(d / f"masks/{i:04d}.png", np.zeros((96, 96))) for i in (6, 7)],
            "no object in frames 0006 to 0007",
        ),
        (lambda d: write_palette_mask(d / "masks/0001.png", np.zeros((50, 96))), "mask is 96x50, frames are 96x96"),
    ],
)
def test_what_cannot_be_trained_on_is_told_in_one_line(video, tmp_path, refuse, spoil, message):
    folder = tmp_path / "own"
    shutil.copytree(video, folder)
    spoil(folder)
    line = refuse(
        train,
        "experiment=my_video",
        f"data.frames={folder / 'frames'}",
        f"data.masks={folder / 'masks'}",
        f"trainer.run_dir={tmp_path / 'run'}",
    )
    assert re.search(message, line), line


def test_missing_paths_are_asked_for(refuse):
    assert "give data.frames=PATH" in refuse(train, "experiment=my_video")
    for wrong in ("arm=oracle", "sampling.sampling=fov"):
        line = refuse(train, "experiment=my_video", "data.frames=a", "data.masks=b", wrong)
        assert "oracle and fov need depth and poses" in line
    assert "own videos and mixtures train a fusion" in refuse(
        train, "experiment=tiny_sam2", "data=own_video", "data.frames=a", "data.masks=b"
    )
    assert "data.val_share=2" in refuse(
        train, "experiment=my_video", "data.frames=a", "data.masks=b", "data.val_share=2.0"
    )
    assert "a.mp4: is a file; extract its frames" in refuse(
        train, "experiment=my_video", f"data.frames={ROOT / 'videos/samples/walk/video.mp4'}", "data.masks=b"
    ).replace("video.mp4", "a.mp4")


def test_training_gives_a_checkpoint_that_the_other_scripts_take(video, tmp_path):
    command = [
        ROOT / "train.py",
        "experiment=my_video",
        f"data.frames={video / 'frames'}",
        f"data.masks={video / 'masks'}",
        "data.min_area=20",
        "batches.kinds.short.frames=7",
        "trainer.max_steps=5",
        "trainer.warmup_steps=1",
        "trainer.log_every=1",
        f"trainer.run_dir={tmp_path / 'run'}",
    ]
    done = run_script(*command)
    assert done.returncode == 0, done.stderr
    assert "clips 'short' have 5 frames instead of 7" in done.stdout
    log = (tmp_path / "run/logs/log.txt").read_text()
    assert "trains 3,730,469 of 7," in log and " s a step, about " in log and "peak memory so far" in log
    records = [json.loads(line) for line in (tmp_path / "run/logs/train_stats.json").read_text().splitlines()]
    assert [r["step"] for r in records if "val" in r] == [0, 5]
    checkpoint = tmp_path / "run/checkpoints/checkpoint_best.safetensors"
    found = inspect(checkpoint)
    assert found.merger_parameters == 1_598_592 and found.metadata["backbones"]["must3r"]["name"] == "tiny"
    compared = run_script(
        ROOT / "ab_iou.py",
        "--frames",
        video / "frames",
        "--mask",
        video / "masks/0000.png",
        "--gt",
        video / "masks",
        "--checkpoint",
        checkpoint,
        cwd=tmp_path,
    )
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "videos/ab_report/index.html").is_file() and "positive" in compared.stdout

    # Masks that changed are another training.
    mask = video / "masks/0001.png"
    before = mask.read_bytes()
    write_palette_mask(mask, np.ones((96, 96)))
    again = run_script(*command)
    mask.write_bytes(before)
    assert "was trained on other frames or masks than data.frames and data.masks hold now; choose" in error_line(again)


def test_void_is_no_object(video, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(video, folder)
    ids = np.zeros((96, 96), np.uint8)
    ids[:10], ids[10:20] = 255, 1
    write_palette_mask(folder / "masks/0000.png", ids)
    training, _ = split_by_time(folder / "frames", folder / "masks", 0.3)
    assert training.areas.shape == (6, 3) and training.areas[0].tolist() == [76 * 96, 10 * 96, 0]
    assert (training.instance(0)[:10] == -1).all()
    assert list(masks_by_id(folder / "masks/0000.png")) == [1]


def test_small_views_are_measured_at_the_size_of_the_model(video):
    training, _ = split_by_time(video / "frames", video / "masks", 0.3)
    options = {"references": 2, "twin_share": 0.5, "fov_share": 0.5, "tau": 0.25, "steps": (1, 2)}
    clips = FusionClips([training], None, 48, sampling="random", min_area=20, **options)
    np.testing.assert_allclose(clips.areas(training), training.areas / 4)  # 96 pixels a side become 48
