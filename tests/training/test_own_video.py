"""Fine-tuning on a video of one's own: frames and masks in, a checkpoint that ab_iou.py uses
out.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sam2_model
import train
from geometry_fusion import load
from geometry_fusion.data.own_video import split_video
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.geometry.source import NoGeometry
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.mask_writer import read_ids, write_palette_mask, write_rgb
from geometry_fusion.io.prompt_files import masks_by_id
from geometry_fusion.io.weights import read_metadata, read_weights
from geometry_fusion.models.checkpoint import is_tunable
from geometry_fusion.models.inspect import inspect
from geometry_fusion.tracking.clip_session import track
from geometry_fusion.training import validation
from geometry_fusion.training.fusion_clips import FusionClips
from geometry_fusion.training.geometry_cache import GeometryCache
from geometry_fusion.types import Prompt, TrackedFrame
from tests.conftest import ROOT, error_line, run_script

ANNOTATED = (0, 1, 2, 3, 5, 6, 7)  # of 8 frames


@pytest.fixture(scope="module")
def video(rooms, tmp_path_factory) -> Path:
    """frames/0000.jpg ... and masks of all frames but one, of the two objects that are seen
    most.
    """
    folder, scene = tmp_path_factory.mktemp("own"), Scene(find_scenes(rooms)[1])
    for name in ("frames", "masks"):
        (folder / name).mkdir()
    always = scene.areas[[0, 2, 6, 7], 1:].min(
        0
    )  # pixels in the view in which an object is smallest
    largest = np.argsort(-always)[:2] + 1
    assert always[largest - 1].min() > 20
    for index in range(len(scene)):
        write_rgb(folder / "frames" / f"{index:04d}.jpg", scene.rgb(index))
        if index in ANNOTATED:
            ids = scene.instance(index)
            write_palette_mask(
                folder / "masks" / f"{index:04d}.png", (ids == largest[0]) + 2 * (ids == largest[1])
            )
    return folder


def test_held_out_frames_are_spread_and_no_frame_is_in_both_parts(video):
    split = split_video(video / "frames", video / "masks", 0.3)
    assert split.train.annotated.tolist() == [True, True, True, True, False, False, True, False]
    assert split.val.annotated.tolist() == [False, False, False, False, False, True, False, True]
    assert split.prompts == {1: 0, 2: 0} and split.returned == {1: frozenset(), 2: frozenset()}
    assert split.train.areas.shape == (8, 3) and split.train.areas[0].sum() == 96 * 96
    assert not split.train.areas[[4, 5, 7]].any() and not split.val.areas[[0, 1, 2, 3, 4, 6]].any()
    assert np.array_equal(np.unique(split.train.instance(0)), [0, 1, 2])
    assert split.describe() == (
        "validation: 2 of 7 annotated frames are held out (0005, 0007), none of them after an "
        "absence, so that coming "
        "back is not validated; prompted by a mask that is trained on: object 1 on 0000, 2 on 0000"
    )
    with pytest.raises(KeyError):
        split.train.instance(5)  # there is no way to train on it


def test_a_return_is_validated_and_small_views_do_not_prompt(video, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(video, folder)
    ids = np.zeros((96, 96), np.uint8)
    ids[:4, :4] = 1  # too small to be prompted
    write_palette_mask(folder / "masks/0000.png", ids)
    for stem in ("0002", "0003"):
        write_palette_mask(folder / f"masks/{stem}.png", np.zeros((96, 96)))
    split = split_video(folder / "frames", folder / "masks", 0.3, min_area=20 / 96**2)
    assert split.prompts == {1: 1, 2: 1}
    held = np.flatnonzero(split.val.annotated)
    assert split.returned == {1: frozenset({6}), 2: frozenset({6})} and 6 in held
    assert (
        "1 of them after an absence; prompted by a mask that is trained on: object 1 on 0001, 2"
        in split.describe()
    )


def test_clips_use_training_frames_and_geometry_sees_all(video, tmp_path):
    training = split_video(video / "frames", video / "masks", 0.3).train
    seen = []

    def recording(scene):
        source = NoGeometry()
        push = source.push
        source.push = lambda index, image: (seen.append(index), push(index, image))[1]
        return source

    options = {
        "min_area": 20,
        "references": 2,
        "twin_share": 0.5,
        "fov_share": 0.5,
        "tau": 0.25,
        "steps": (1, 2),
    }
    clips = FusionClips(
        [training], GeometryCache(tmp_path, recording, {}), 64, sampling="random", **options
    )
    drawn = {
        frame for seed in range(40) for frame in clips._clip(np.random.default_rng(seed), 4, 2)[1]
    }
    assert drawn == {0, 1, 2, 3, 6}
    clips.batch(np.random.default_rng(0), 1, 3, 2)
    assert set(seen) == set(range(8))


def test_validation_tracks_once_and_scores_held_out_frames_those_after_an_absence_apart(
    video, monkeypatch
):
    split = split_video(video / "frames", video / "masks", 0.3)
    split = replace(split, returned={1: frozenset({7}), 2: frozenset()})
    truth = {frame: split.val.instance(frame) for frame in (5, 7)}
    found = {frame: np.zeros((96, 96), np.uint8) for frame in range(8)}
    found[5] = np.where(truth[5] == 1, 1, 0)  # object 2 is missed there
    half = truth[7].copy()
    half[:48][half[:48] == 1] = 0
    found[7] = half
    asked = []

    def tracked(predictor, frames, prompts, precision, progress):
        asked.append((predictor, len(frames), prompts))
        yield from (TrackedFrame(index, ids) for index, ids in found.items())

    monkeypatch.setattr(validation, "track", tracked)
    measure = validation.VideoValidation(split, NoGeometry, "fp32")
    result = measure.measure({"a": 1}, lambda weights, make_source: (weights, make_source))
    ((predictor, length, prompts),) = asked
    assert predictor == ({"a": 1}, NoGeometry) and length == 8
    assert [(p.frame, p.object_id) for p in prompts] == [(0, 1), (0, 2)]
    assert all(np.array_equal(p.mask, split.train.instance(0) == p.object_id) for p in prompts)
    kept = (half == 1).sum() / (truth[7] == 1).sum()
    assert 0 < kept < 1
    positive = ((1 + kept) / 2 + (0 + 1) / 2) / 2
    assert result["positive_iou"] == result["held_out_iou"] == pytest.approx(positive)
    assert result["positive_frames"] == 4
    assert (
        result["after_absence_iou"] == pytest.approx(kept) and result["after_absence_frames"] == 1
    )
    assert result["annotated_positive_iou"] == pytest.approx(
        ((1 + kept) / 7 + 1 / 7) / 2
    )  # of 7 frames each
    assert (
        result["score"] == result["annotated_positive_iou"]
    )  # an object that is lost elsewhere counts


def empty(folder: Path, frames) -> None:
    for index in frames:
        write_palette_mask(folder / f"masks/{index:04d}.png", np.zeros((96, 96)))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda d: shutil.rmtree(d / "masks"), "no such folder of masks; import them"),
        (
            lambda d: (d / "masks/0007.png").rename(d / "masks/frame7.png"),
            "no frame of .* is called frame7",
        ),
        (
            lambda d: [(d / f"masks/{i:04d}.png").unlink() for i in ANNOTATED[:4]],
            "3 frames of .* have masks; training",
        ),
        (lambda d: empty(d, ANNOTATED), "no object in any of 7 masks; annotate one"),
        (
            lambda d: empty(d, ANNOTATED[1:]),
            r"only the frames that prompt the objects show them \(0000\)",
        ),
        (
            lambda d: write_palette_mask(d / "masks/0001.png", np.zeros((50, 96))),
            "mask is 96x50, frames are 96x96",
        ),
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
        train,
        "experiment=my_video",
        f"data.frames={ROOT / 'videos/samples/walk/video.mp4'}",
        "data.masks=b",
    ).replace("video.mp4", "a.mp4")


@pytest.mark.slow
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
    assert (
        "trains 3,730,469 of 7," in log
        and " s a step, about " in log
        and "peak memory so far" in log
    )
    records = [
        json.loads(line)
        for line in (tmp_path / "run/logs/train_stats.json").read_text().splitlines()
    ]
    assert [r["step"] for r in records if "val" in r] == [0, 5]
    checkpoint = tmp_path / "run/checkpoints/checkpoint_best.safetensors"
    found = inspect(checkpoint)
    assert (
        found.merger_parameters == 1_598_592
        and found.metadata["backbones"]["must3r"]["name"] == "tiny"
    )
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
    scores = json.loads((tmp_path / "videos/ab_report/metrics.json").read_text())["arms"]["geom"][
        "scores"
    ]
    # What the log says of these weights is what the script says of the file.
    assert scores["positive_iou"] == pytest.approx(
        found.metadata["metrics"]["annotated_positive_iou"], abs=1e-6
    )

    # Masks that changed are another training.
    mask = video / "masks/0001.png"
    before = mask.read_bytes()
    write_palette_mask(mask, np.ones((96, 96)))
    again = run_script(*command)
    mask.write_bytes(before)
    assert (
        "was trained on other frames or masks than data.frames and data.masks hold now; choose"
        in error_line(again)
    )


def test_void_is_no_object(video, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(video, folder)
    ids = np.zeros((96, 96), np.uint8)
    ids[:10], ids[10:20] = 255, 1
    write_palette_mask(folder / "masks/0000.png", ids)
    training = split_video(folder / "frames", folder / "masks", 0.3).train
    assert training.areas.shape == (8, 3) and training.areas[0].tolist() == [76 * 96, 10 * 96, 0]
    assert (training.instance(0)[:10] == -1).all()
    assert list(masks_by_id(folder / "masks/0000.png")) == [1]


def test_small_views_are_measured_at_the_size_of_the_model(video):
    training = split_video(video / "frames", video / "masks", 0.3).train
    options = {"references": 2, "twin_share": 0.5, "fov_share": 0.5, "tau": 0.25, "steps": (1, 2)}
    clips = FusionClips([training], None, 48, sampling="random", min_area=20, **options)
    np.testing.assert_allclose(
        clips.areas(training), training.areas / 4
    )  # 96 pixels a side become 48


SMALL = [
    "experiment=my_video",
    "data.min_area=20",
    "batches.kinds={short: {clips: 1, frames: 3, objects: 1}, long: {clips: 1, frames: 3, "
    "objects: 1}}",
    "sampling.references=1",
    "trainer.device=cpu",
    "trainer.threads=1",
    "trainer.warmup_steps=0",
    "trainer.log_every=1",
    "trainer.eval_first=false",
]


@pytest.fixture(scope="module")
def other_sam2(tmp_path_factory) -> Path:
    """SAM2 weights that are not the shipped ones, as trainer.init_from takes them."""
    file = tmp_path_factory.mktemp("sam2") / "other.safetensors"
    tensors = load_file(sam2_model.model_files("tiny")[1])
    save_file({**tensors, "no_mem_embed": tensors["no_mem_embed"] + 0.01}, file)
    return file


def tune(video: Path, run_dir: Path, *more: str) -> None:
    given = [
        f"data.frames={video / 'frames'}",
        f"data.masks={video / 'masks'}",
        f"trainer.run_dir={run_dir}",
    ]
    given.append(f"geometry_cache={video / 'geometry'}")
    train.main([*SMALL, *given, "trainer.max_steps=2", *more])


def loaded(checkpoint: Path, sam2_file: Path | None = None):
    """The predictor that a user of a checkpoint gets."""
    return load("tiny", checkpoint=checkpoint, sam2_checkpoint=sam2_file, device="cpu").predictor


def positive_iou(predictor, video: Path) -> float:
    """Over the held-out frames, all objects prompted by their masks on the first frame."""
    split = split_video(video / "frames", video / "masks", 0.25)
    first = read_ids(video / "masks/0000.png")
    prompts = [Prompt(0, i, mask=first == i) for i in (1, 2)]
    tracked = track(predictor, FrameFolder(video / "frames"), prompts, progress=False)
    found = {frame.index: frame.ids for frame in tracked}
    means = []
    for i in (1, 2):
        pairs = [
            (found[f] == i, split.val.instance(f) == i) for f in np.flatnonzero(split.val.annotated)
        ]
        means.append(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs if b.any()]))
    return float(np.mean(means))


def validations(run_dir: Path) -> list[dict]:
    records = [
        json.loads(line) for line in (run_dir / "logs/train_stats.json").read_text().splitlines()
    ]
    return [record["val"] for record in records if "val" in record]


def check_file(run_dir: Path, video: Path, sam2_file: Path | None = None) -> None:
    """The saved file holds the whole model and scores what the validation said."""
    last = run_dir / "checkpoints/checkpoint_last.safetensors"
    predictor = loaded(last, sam2_file)
    trained = torch.load(run_dir / "checkpoints/resume.pt", weights_only=True)["model"]
    state = predictor.state_dict()
    different = [
        n for n, value in trained.items() if is_tunable(n) and not torch.equal(value, state[n])
    ]
    assert different == []
    said = validations(run_dir)[-1]["positive_iou"]
    assert positive_iou(predictor, video) == pytest.approx(said, abs=1e-6)


@pytest.mark.parametrize("preset", ["merger", "paper", "tiny"])
def test_the_saved_file_scores_what_validation_said_for_every_preset(video, tmp_path, preset):
    # The shipped fusion holds a tuned memory encoder, which only "tiny" trains.
    tune(video, tmp_path / "run", f"trainer.trainable={preset}")
    check_file(tmp_path / "run", video)


@pytest.mark.slow
def test_the_saved_file_scores_what_validation_said_for_every_start(video, other_sam2, tmp_path):
    named = ROOT / "checkpoints/fusion_tiny_control.safetensors"
    control = ["arm=control", "merger=tiny_fine", f"fusion_from={named}"]
    tune(video, tmp_path / "named", "trainer.trainable=merger", *control)
    check_file(tmp_path / "named", video)
    # No shipped fusion belongs to other weights of SAM2: "auto" starts untrained.
    tune(video, tmp_path / "other", f"trainer.init_from={other_sam2}")
    check_file(tmp_path / "other", video, other_sam2)
    tune(video, tmp_path / "none", "trainer.trainable=tiny", "fusion_from=null")
    check_file(tmp_path / "none", video)


def test_what_an_earlier_run_tuned_stays_in_the_files_of_a_resumed_run(video, tmp_path):
    for steps in (1, 2):
        tune(video, tmp_path / "run", "trainer.trainable=merger", f"trainer.max_steps={steps}")
    check_file(tmp_path / "run", video)
    saved = read_weights(tmp_path / "run/checkpoints/checkpoint_last.safetensors")
    assert any(name.startswith("memory_encoder.") for name in saved)


def test_the_best_file_is_the_start_where_training_spoils_it(video, tmp_path):
    spoiling = [
        "trainer.trainable={merger: 10.0}",
        "trainer.grad_clip=1000",
        "trainer.eval_first=true",
    ]
    tune(video, tmp_path / "run", *spoiling)
    before, after = validations(tmp_path / "run")
    best = tmp_path / "run/checkpoints/checkpoint_best.safetensors"
    assert json.loads(read_metadata(best)["metrics"]) == before and after["score"] < before["score"]
    assert positive_iou(loaded(best), video) == pytest.approx(before["positive_iou"], abs=1e-6)


def test_the_image_encoder_is_not_trained(video, tmp_path, refuse):
    given = [
        f"data.frames={video / 'frames'}",
        f"data.masks={video / 'masks'}",
        f"trainer.run_dir={tmp_path}",
    ]
    every = tmp_path / "every.yaml"
    every.write_text('trainer: {trainable: {"*": 1.0e-4}}')
    for trainable in (["trainer.trainable={image_encoder.neck: 1e-5}"], ["--config", every]):
        line = refuse(train, *SMALL, *given, *trainable)
        assert "SAM2's image encoder stays frozen in a fusion; name other modules" in line
