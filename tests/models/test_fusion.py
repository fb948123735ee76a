"""Geometry in the predictor, fusion training, checkpoints and evaluation, with the weights that
ship.
"""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ab_iou
import evaluate
import main
import must3r_loader
import sam2_model
import train
from geometry_fusion.assets import CONFIGS
from geometry_fusion.choices import KEYFRAME_INTERVAL
from geometry_fusion.commands.config import compose_config
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation import run as evaluation
from geometry_fusion.evaluation.arm_names import CHECKPOINTS
from geometry_fusion.evaluation.arms import EvaluatedArms, SceneFrames, prompt_of
from geometry_fusion.evaluation.objects import tracks_of
from geometry_fusion.geometry.posed_depth import posed_depth_of
from geometry_fusion.geometry.source import NoGeometry
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.mask_writer import read_rgb
from geometry_fusion.io.weights import read_weights
from geometry_fusion.measure.scores import score_masks
from geometry_fusion.models.checkpoint import continue_from, read_spec
from geometry_fusion.models.geometry import source_maker
from geometry_fusion.models.identity import WeightFile
from geometry_fusion.models.names import FUSION_CHECKPOINTS
from geometry_fusion.models.spec import FusionSpec, spec_of
from geometry_fusion.models.tracker import build_tracker
from geometry_fusion.tracking.clip_session import track
from geometry_fusion.training.build_fusion import build_fusion_model, build_fusion_task
from geometry_fusion.training.checks import choose_trainable
from geometry_fusion.training.fusion_clips import FusionClips
from geometry_fusion.training.geometry_cache import GeometryCache
from geometry_fusion.types import Prompt
from tests.conftest import ROOT, ids_of, run_script


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> FrameFolder:
    folder = tmp_path_factory.mktemp("frames") / "frames"
    extract_frames(ROOT / "videos/samples/walk/video.mp4", folder, every=6, size="keep")
    return FrameFolder(folder)


@pytest.fixture(scope="module")
def make_stream():
    return source_maker(spec_of("tiny"), must3r_loader.model_file("tiny"))


PROMPTS = [Prompt(2, 1, points=((130.0, 117.0),)), Prompt(2, 2, box=(20.0, 30.0, 90.0, 120.0))]


def masks(predictor, frames, prompts=PROMPTS):
    return ids_of(track(predictor, frames, prompts))


def trained(merger):
    """Any weights but the zeros at the end."""
    torch.manual_seed(0)
    torch.nn.init.normal_(merger.block[-1].weight, std=0.3)
    return merger


def test_untrained_merger_gives_exactly_sam2_masks(frames, make_stream):
    plain, fused = (sam2_model.build_predictor("tiny", device="cpu") for _ in range(2))
    fused.fuse(spec_of("tiny").build_merger(), make_stream)
    wanted, found = masks(plain, frames), masks(fused, frames)
    assert list(wanted) == list(found) and fused._make_source is make_stream
    assert all(np.array_equal(wanted[i], found[i]) for i in wanted)


def test_no_geometry_gives_exactly_sam2_masks_under_any_merger(frames):
    plain, fused = (sam2_model.build_predictor("tiny", device="cpu") for _ in range(2))
    fused.fuse(trained(spec_of("tiny").build_merger()), NoGeometry)
    wanted, found = masks(plain, frames), masks(fused, frames)
    assert all(np.array_equal(wanted[i], found[i]) for i in wanted)


def test_geometry_is_computed_once_per_frame_in_tracking_order(frames, make_stream):
    predictor = sam2_model.build_predictor("tiny", device="cpu")
    seen = []

    def recording():
        source = make_stream()
        push = source.push_all
        source.push_all = lambda frames: (seen.extend(frames), push(frames))[1]
        return source

    predictor.fuse(trained(spec_of("tiny").build_merger()), recording)
    masks(predictor, frames)  # two objects, prompted on frame 2
    assert seen == [2, 3, 4, 1, 0]


def test_merged_features_change_masks_and_reset_starts_anew(frames, make_stream):
    predictor = sam2_model.build_predictor("tiny", device="cpu")
    predictor.fuse(trained(spec_of("tiny").build_merger()), make_stream)
    first = masks(predictor, frames)
    plain = masks(sam2_model.build_predictor("tiny", device="cpu"), frames)
    assert any(not np.array_equal(first[i], plain[i]) for i in first)
    state = predictor.init_state(frames)
    predictor.add_new_points_or_box(state, 0, 1, points=[[60.0, 60.0]], labels=[1])
    predictor.reset_state(state)
    assert state.geometry.keyframes == [] and not state["cached_features"]
    second = masks(predictor, frames)
    assert all(np.array_equal(first[i], second[i]) for i in first)


def test_a_folder_given_as_text_is_fused_as_well(frames, make_stream):
    predictor = sam2_model.build_predictor("tiny", device="cpu")
    predictor.fuse(trained(spec_of("tiny").build_merger()), make_stream)
    answers = []
    for video in (frames, str(frames.path)):
        state = predictor.init_state(video)
        answers.append(
            predictor.add_new_points_or_box(state, 0, 1, points=[[130.0, 117.0]], labels=[1])[2]
        )
    assert torch.equal(*answers)
    with pytest.raises(InputError, match=r"extract them: python main\.py frames"):
        predictor.init_state(str(ROOT / "videos/samples/walk/video.mp4"))


def test_a_trained_merger_without_geometry_runs_on_folders_as_well(frames):
    predictor = sam2_model.build_predictor("tiny", device="cpu")
    predictor.fuse(trained(spec_of("tiny", "control").build_merger()), NoGeometry)
    calls = []
    predictor.merger.register_forward_hook(lambda *a: calls.append(1))
    state = predictor.init_state(str(frames.path), offload_state_to_cpu=True)
    predictor.add_new_points_or_box(state, 0, 1, points=[[130.0, 117.0]], labels=[1])
    assert calls == [1] and state["storage_device"] == torch.device("cpu")


SHORT_CLIPS = (
    "batches.kinds={short: {clips: 1, frames: 3, objects: 2}, long: {clips: 1, frames: "
    "2, objects: 2}}"
)


@pytest.fixture(scope="module")
def run(rooms, tmp_path_factory):
    """Three steps of tiny_fusion, memory attention and mask decoder trained as well; and of the
    control.
    """
    folder = tmp_path_factory.mktemp("fusion")
    for arm in ("3am", "control", "oracle"):
        done = run_script(
            ROOT / "train.py",
            "experiment=tiny_fusion",
            f"arm={arm}",
            f"data.scenes={rooms}",
            f"data.val_scenes={rooms}",
            "data.min_area=20",
            SHORT_CLIPS,
            "val_objects=2",
            f"geometry_cache={folder / 'geometry'}",
            "trainer.trainable=paper",
            "trainer.max_steps=3",
            "trainer.warmup_steps=1",
            "trainer.log_every=1",
            "trainer.eval_every=100",
            "trainer.device=cpu",
            f"trainer.run_dir={folder / arm}",
        )
        assert done.returncode == 0, done.stderr
    return folder


def checkpoint(run, arm="3am"):
    return run / arm / "checkpoints/checkpoint_last.safetensors"


def test_training_changes_what_it_names_and_nothing_else(run):
    before = load_file(sam2_model.model_files("tiny")[1])
    state = torch.load(run / "3am/checkpoints/resume.pt", weights_only=True)["model"]
    for name, value in before.items():
        same = torch.equal(value.float(), state[name].float())
        trained_part = name.split(".")[0] in ("memory_attention", "sam_mask_decoder")
        assert same or trained_part, name
    saved = load_file(checkpoint(run))
    assert {name.split(".")[0] for name in saved} == {
        "merger",
        "memory_attention",
        "sam_mask_decoder",
    }
    assert any(
        not torch.equal(saved[n], before[n].float())
        for n in saved
        if n.startswith("memory_attention")
    )
    assert saved["merger.block.3.weight"].abs().sum() > 0


def test_arms_have_equally_many_parameters_and_differ_only_in_geometry(run):
    sizes, specs = set(), {}
    for arm in ("3am", "control", "oracle"):
        saved = load_file(checkpoint(run, arm))
        sizes.add(sum(t.numel() for t in saved.values()))
        specs[arm], backbones = read_spec(checkpoint(run, arm))
        assert ("must3r" in backbones) == (arm == "3am")
    assert len(sizes) == 1
    assert [specs[a].source for a in ("3am", "control", "oracle")] == ["must3r", "none", "depth"]


def test_training_continues_from_a_checkpoint_of_its_own_arm_only(run, rooms, refuse, tmp_path):
    arguments = [
        "experiment=tiny_fusion",
        "arm=control",
        f"data.scenes={rooms}",
        f"data.val_scenes={rooms}",
        "data.min_area=20",
        "val_objects=1",
        "trainer.max_steps=0",
        "trainer.trainable=paper",
        "trainer.device=cpu",
        f"geometry_cache={tmp_path / 'geometry'}",
        f"trainer.run_dir={tmp_path / 'run'}",
    ]
    config = compose_config(
        CONFIGS, "train", [*arguments, f"fusion_from={checkpoint(run, 'control')}"]
    )
    choose_trainable(config)
    task = build_fusion_task(config)
    saved = load_file(checkpoint(run, "control"))
    assert all(torch.equal(saved[name], value) for name, value in task.weights().items())
    line = refuse(train, *arguments, f"fusion_from={checkpoint(run, 'oracle')}")
    assert "was trained with another arm" in line
    # How MUSt3R's memory is kept may differ; which levels are read may not.
    spec, _ = read_spec(checkpoint(run))
    files = {"sam2": WeightFile("tiny", sam2_model.model_files("tiny")[1])}

    def other(**geometry) -> FusionSpec:
        return FusionSpec(spec.arm, spec.merger, {**spec.geometry, **geometry})

    model = sam2_model.build_sam2("tiny", device="cpu")
    model.merger = spec.build_merger()
    continue_from(model, other(max_keyframes=5), checkpoint(run), files)
    assert torch.equal(
        model.merger.smooth.weight, load_file(checkpoint(run))["merger.smooth.weight"].float()
    )
    with pytest.raises(InputError, match="another levels"):
        continue_from(model, other(levels=[0, 1, 2, 3]), checkpoint(run), files)
    other = tmp_path / "other.safetensors"
    tensors = load_file(sam2_model.model_files("tiny")[1])
    save_file({**tensors, "no_mem_embed": tensors["no_mem_embed"] + 1}, other)
    line = refuse(
        train, *arguments, f"fusion_from={checkpoint(run, 'control')}", f"trainer.init_from={other}"
    )
    assert "was trained on sam2 'tiny'" in line


def test_a_merger_can_start_from_one_on_other_backbones():
    shipped = ROOT / "checkpoints/fusion_tiny.safetensors"
    arguments = ["experiment=tiny_fusion", "sam2=tiny2", f"merger_from={shipped}"]
    config = compose_config(CONFIGS, "train", arguments)
    choose_trainable(config)
    model = build_fusion_model(config).model
    saved = read_weights(shipped)
    names = [name for name in saved if name.startswith("merger.")]
    assert names and all(torch.equal(model.state_dict()[n], saved[n].float()) for n in names)
    own = read_weights(sam2_model.model_files("tiny2")[1])
    tuned = [name for name in saved if not name.startswith("merger.")]
    assert tuned and all(torch.equal(model.state_dict()[n], own[n].float()) for n in tuned)
    config.arm = "control"
    with pytest.raises(InputError, match="was trained with another arm"):
        build_fusion_model(config)


@pytest.mark.parametrize("arm", ["3am", "oracle"])
def test_a_narrower_run_keeps_what_it_started_from_and_its_file_scores_the_same(
    run, rooms, tmp_path, arm
):
    def validated(name: str, start, *more: str) -> dict:
        train.main(
            [
                "experiment=tiny_fusion",
                f"arm={arm}",
                f"data.scenes={rooms}",
                f"data.val_scenes={rooms}",
                "data.min_area=20",
                SHORT_CLIPS,
                "val_objects=2",
                f"geometry_cache={run / 'geometry'}",
                "trainer.warmup_steps=0",
                "trainer.device=cpu",
                f"fusion_from={start}",
                f"trainer.run_dir={tmp_path / name}",
                *more,
            ]
        )
        return json.loads((tmp_path / name / "logs/train_stats.json").read_text().splitlines()[-1])[
            "val"
        ]

    trained = validated(
        "narrower", checkpoint(run, arm), "trainer.trainable=merger", "trainer.max_steps=1"
    )
    file = tmp_path / "narrower/checkpoints/checkpoint_last.safetensors"
    before, after, backbone = map(
        load_file, (checkpoint(run, arm), file, sam2_model.model_files("tiny")[1])
    )
    tuned = [
        n
        for n in before
        if not n.startswith("merger.") and not torch.equal(before[n], backbone[n].float())
    ]
    assert tuned and all(torch.equal(before[name], after[name]) for name in tuned)
    assert not torch.equal(before["merger.smooth.weight"], after["merger.smooth.weight"])
    assert set(trained) == {"score", "click_positive_iou", "mask_positive_iou", "fallbacks"}
    measured = validated("again", file, "trainer.max_steps=0")
    assert {**measured, "fallbacks": 0} == {**trained, "fallbacks": 0}


def test_checkpoint_runs_in_the_ab_script(run, tmp_path, capsys):
    ab_iou.main(
        [
            "--sample",
            "walk",
            "--checkpoint",
            str(checkpoint(run)),
            "--out",
            str(tmp_path),
            "--device",
            "cpu",
        ]
    )
    said = capsys.readouterr().out
    assert "3AM" in said and "difference" in said
    scores = json.loads((tmp_path / "ab_report/metrics.json").read_text())["arms"]
    assert set(scores) == {"baseline", "geom"}
    page = (tmp_path / "ab_report/index.html").read_text()
    assert "Seen from above" in page and "What the features know" in page
    assert (tmp_path / "ab_report/side_by_side.mp4").stat().st_size > 1000
    assert len(list((tmp_path / "pred_masks_geom").glob("*.png"))) == 30


def test_without_ground_truth_the_arms_are_compared_with_each_other(run, frames, tmp_path, capsys):
    arguments = [
        "--point",
        "130,117",
        "--frames",
        str(frames.path),
        "--checkpoint",
        str(checkpoint(run)),
    ]
    ab_iou.main([*arguments, "--out", str(tmp_path), "--device", "cpu"])
    assert "the arms are compared with each other" in capsys.readouterr().out
    assert "Where the arms agree" in (tmp_path / "ab_report/index.html").read_text()
    assert (
        (tmp_path / "ab_report/per_frame.csv")
        .read_text()
        .startswith("stem,object_present,iou_baseline,iou_geom,agr")
    )


def test_other_backbones_are_refused_with_both_names(run, refuse, tmp_path, monkeypatch):
    other = tmp_path / "other.safetensors"
    tensors = load_file(sam2_model.model_files("tiny")[1])
    save_file({**tensors, "no_mem_embed": tensors["no_mem_embed"] + 1}, other)
    line = refuse(
        ab_iou,
        "--sample",
        "walk",
        "--sam2-checkpoint",
        other,
        "--checkpoint",
        checkpoint(run),
        "--out",
        tmp_path,
    )
    assert "was trained on sam2 'tiny'" in line and "other.safetensors" in line
    with safe_open(checkpoint(run), "pt") as handle:
        metadata, tensors = handle.metadata(), {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118
    broken = tmp_path / "broken.safetensors"
    save_file({k: v for k, v in tensors.items() if k != "merger.smooth.bias"}, broken, metadata)
    assert "merger.smooth.bias" in refuse(
        ab_iou, "--sample", "walk", "--checkpoint", broken, "--out", tmp_path
    )
    save_file(tensors, broken)
    assert "does not record its merger" in refuse(
        ab_iou, "--sample", "walk", "--checkpoint", broken, "--out", tmp_path
    )
    sam2 = sam2_model.model_files("tiny")[1]
    assert "no merger weights" in refuse(
        ab_iou, "--sample", "walk", "--checkpoint", sam2, "--out", tmp_path
    )


def test_the_oracle_needs_scenes(run, refuse, tmp_path):
    line = refuse(
        ab_iou, "--sample", "walk", "--checkpoint", checkpoint(run, "oracle"), "--out", tmp_path
    )
    assert "the oracle needs depth and poses" in line


@pytest.fixture(scope="module")
def evaluated(run, rooms, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    arguments = [
        f"data.scenes={rooms}",
        "data.min_area=60",
        "max_objects=2",
        f"out={out}",
        "device=cpu",
        *(f"checkpoints.{key}={checkpoint(run, arm)}" for arm, key in CHECKPOINTS.items()),
    ]
    evaluate.main(arguments)
    return out, arguments


def test_evaluation_reports_every_arm_subset_and_gain(evaluated):
    out, _ = evaluated
    results = json.loads((out / "results.json").read_text())
    assert list(results["arms"]) == ["sam2", "control", "3am", "oracle", "places"]
    row = results["arms"]["3am"]["all"]
    assert {
        "iou",
        "positive_iou",
        "accuracy",
        "success_rate",
        "jf",
        "n_objects",
        "n_frames",
    } <= set(row)
    assert row["n_objects"] == 2 and row["n_frames"] == 16
    gain = results["gains"]["3am-control"]["all"]["positive_iou"]
    assert gain["low"] <= gain["mean"] <= gain["high"]
    expected = row["positive_iou"] - results["arms"]["control"]["all"]["positive_iou"]
    assert gain["mean"] == pytest.approx(expected)
    assert set(results["by_prompt"]) == {"mask", "click"}
    counts = [n for _, n in results["by_prompt"]["mask"]["by_frames_out_of_view"]["3am"]]
    assert sum(counts) == sum(
        r["num_positive_frames"]
        for r in records(out)
        if r["arm"] == "3am" and r["prompt"] == "mask"
    )
    assert (out / "gains.png").stat().st_size > 5000 and "gain 3am-sam2" in (
        out / "table.txt"
    ).read_text()
    assert len((out / "objects.csv").read_text().splitlines()) == 1 + 2 * 2 * 5


def records(out):
    return [json.loads(line) for line in (out / "objects.jsonl").read_text().splitlines()]


def test_evaluation_streams_with_the_groups_it_is_told_and_mixes_no_records(evaluated):
    _, arguments = evaluated
    for given, wanted in ([], KEYFRAME_INTERVAL), (["join_every=2"], 2):
        config = compose_config(CONFIGS, "evaluate", [*arguments, *given])
        arms = EvaluatedArms(config)
        assert arms._trackers["3am"].make_source()._join_every == wanted
        assert f"join_every={wanted}" in arms.identity("3am")


def test_a_killed_evaluation_continues_where_it_stopped(evaluated, monkeypatch):
    out, arguments = evaluated
    before = (out / "results.json").read_text()
    lines = (out / "objects.jsonl").read_text().splitlines(keepends=True)
    (out / "objects.jsonl").write_text("".join(lines[:-2]) + lines[-2][:40])  # killed while writing
    calls = []
    score = evaluation.score
    monkeypatch.setattr(evaluation, "score", lambda *a: (calls.append(a), score(*a))[1])
    evaluate.main(arguments)
    assert len(calls) == 2
    assert (out / "results.json").read_text() == before


def test_an_evaluation_goes_over_odd_lines_and_measures_anew_what_they_held(
    evaluated, monkeypatch, capsys
):
    out, arguments = evaluated
    before, lines = (
        (out / "results.json").read_text(),
        (out / "objects.jsonl").read_bytes().splitlines(keepends=True),
    )
    spoiled = json.loads(lines[-1])
    spoiled["iou"] = "high"
    odd = [b"[]\n", b"null\n", b"\xff\xfe\n", json.dumps(spoiled).encode() + b"\n"]
    (out / "objects.jsonl").write_bytes(b"".join([*lines[:-1], *odd]))
    calls = []
    score = evaluation.score
    monkeypatch.setattr(evaluation, "score", lambda *a: (calls.append(a), score(*a))[1])
    evaluate.main(arguments)
    assert (
        len(calls) == 1
        and f"4 lines of {out / 'objects.jsonl'} are no records" in capsys.readouterr().out
    )
    assert (out / "results.json").read_text() == before


@pytest.mark.slow
def test_workers_measure_what_one_process_measures(evaluated, tmp_path):
    out, arguments = evaluated
    evaluate.main([*arguments, f"out={tmp_path}", "workers=2", "threads=1"])
    key = lambda r: (r["arm"], r["prompt"], r["object"])  # noqa: E731
    alone, shared = (sorted(records(folder), key=key) for folder in (out, tmp_path))
    assert [key(r) for r in alone] == [key(r) for r in shared]
    for one, other in zip(alone, shared):
        # Another number of threads adds in another order.
        assert one["frame_ious"] == pytest.approx(other["frame_ious"], abs=0.02)


def test_evaluation_refuses_what_it_cannot_do(refuse, tmp_path):
    assert "arms: sam3 is unknown; choose among sam2, control, 3am" in refuse(
        evaluate, "arms=[sam3]", f"out={tmp_path}"
    )
    for wrong in (
        "arms=sam2",
        "arms=null",
        "max_objects=-1",
        "threads=abc",
        "workers=0",
        "join_every=0",
        "geometry_every=0",
        "out=null",
    ):
        key, value = wrong.split("=")
        line = refuse(evaluate, "arms=[sam2]", f"out={tmp_path}", wrong)
        assert f"{key}=" in line and ("None" in line or value in line), line
    assert "only=far: unknown" in refuse(evaluate, "only=far", f"out={tmp_path}")
    assert "reappear.spans=0: must be" in refuse(evaluate, "reappear.spans=0", f"out={tmp_path}")
    line = refuse(
        evaluate, f"checkpoints.fusion={tmp_path}/none.safetensors", "arms=[3am]", f"out={tmp_path}"
    )
    assert "train it (python train.py experiment=tiny_fusion arm=3am)" in line
    assert "known are" in refuse(evaluate, "data=mars", f"out={tmp_path}")


def test_presets_of_trainable_parts_are_named(refuse, tmp_path):
    line = refuse(
        train,
        "experiment=tiny_fusion",
        "trainer.trainable=everything",
        f"trainer.run_dir={tmp_path}",
    )
    assert "trainer.trainable=everything: unknown; known are: merger, paper" in line
    for wrong, said in {
        "arm=4am": "arm=4am: unknown",
        "variant=sum": "variant 'sum': unknown",
        "sampling.sampling=sorted": "unknown; known are: fov, random, continuous",
        "sampling.steps=3": "must be [least, most]",
        "batches.kinds.long.frames=0": "batches.kinds.long.frames=0: must be a whole number of "
        "at least 1",
        "trainer.trainable={nose: 1e-3}": "nose",
        "sampling.references=0": "at least 1",
        "val_step=0": "at least 1",
        "merger=paper": "the merger is made for [1024",
    }.items():
        assert said in refuse(
            train, "experiment=tiny_fusion", f"trainer.run_dir={tmp_path}", wrong
        ), wrong


def test_a_run_of_another_arm_is_not_resumed(run, rooms, refuse, tmp_path):
    shutil.copytree(run / "control", tmp_path / "run")
    same = [
        "experiment=tiny_fusion",
        f"data.scenes={rooms}",
        f"data.val_scenes={rooms}",
        "data.min_area=20",
    ]
    same += [SHORT_CLIPS, "val_objects=2", "trainer.trainable=paper"]
    same += [
        f"trainer.run_dir={tmp_path / 'run'}",
        "trainer.max_steps=3",
        "trainer.warmup_steps=1",
        "trainer.device=cpu",
    ]
    line = refuse(train, *same, "arm=oracle")
    assert 'was trained with arm="control", this run has "oracle"' in line
    line = refuse(train, *same, "arm=control", "sampling.sampling=random")
    assert "sampling.sampling" in line


def test_a_checkpoint_cannot_call_what_it_names(run, refuse, tmp_path):
    with safe_open(checkpoint(run), "pt") as handle:
        metadata, tensors = handle.metadata(), {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118
    hostile = json.dumps({"_target_": "pathlib.Path.touch", "self": str(tmp_path / "touched")})
    save_file(tensors, tmp_path / "hostile.safetensors", {**metadata, "merger": hostile})
    line = refuse(
        ab_iou,
        "--sample",
        "walk",
        "--checkpoint",
        tmp_path / "hostile.safetensors",
        "--out",
        tmp_path,
    )
    assert "unknown class" in line and not (tmp_path / "touched").exists()
    reshaped = {**tensors, "merger.smooth.bias": torch.zeros(3)}
    save_file(reshaped, tmp_path / "reshaped.safetensors", metadata)
    line = refuse(
        ab_iou,
        "--sample",
        "walk",
        "--checkpoint",
        tmp_path / "reshaped.safetensors",
        "--out",
        tmp_path,
    )
    assert "merger.smooth.bias" in line


@pytest.mark.slow
def test_a_default_checkpoint_of_other_backbones_leaves_places(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(FUSION_CHECKPOINTS, ("tiny", "tiny"), checkpoint(run))
    other = tmp_path / "mine.safetensors"
    tensors = load_file(sam2_model.model_files("tiny")[1])
    save_file({**tensors, "no_mem_embed": tensors["no_mem_embed"] + 1}, other)
    ab_iou.main(
        [
            "--sample",
            "walk",
            "--sam2-checkpoint",
            str(other),
            "--out",
            str(tmp_path / "out"),
            "--device",
            "cpu",
        ]
    )
    said = capsys.readouterr().out
    assert "Geometry works by places, not by a merger" in said and "SAM2 + places" in said
    assert "was trained on sam2 'tiny'" in said


@pytest.mark.parametrize("source, rows", [("must3r", 96), ("must3r", 72), ("depth", 96)])
def test_the_merger_reads_the_same_from_the_cache_and_from_the_stream(
    rooms, tmp_path, make_stream, source, rows
):
    """Also of frames wider than high, and of points on another grid."""

    class Cut(Scene):
        def rgb(self, index):
            return super().rgb(index)[:rows]

        def _check_size(self, file, image):
            """Pictures on disk are higher than those of this scene."""

    scene = Cut(find_scenes(rooms)[0])
    make = make_stream if source == "must3r" else posed_depth_of
    arm = "3am" if source == "must3r" else "oracle"
    cache = GeometryCache(tmp_path, make, {"test": 1}, cells=32)
    cached = cache.clip(scene, 3, [3, 5, 1])
    live = make(scene)
    streamed = {i: live.push(i, scene.rgb(i)) for i in (3, 4, 5, 6, 7, 2, 1, 0)}
    merger = trained(spec_of("tiny", arm).build_merger()).eval()
    appearance = torch.randn(1, 128, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for index, frame in zip((3, 5, 1), cached):
            assert frame.fit == streamed[index].fit
            found, wanted = merger(appearance, frame), merger(appearance, streamed[index])
            assert float((found - wanted).abs().max()) < 0.02 * float(
                (wanted - appearance).abs().max()
            )


def test_scenes_of_one_name_are_cached_apart(rooms, tmp_path):
    first, second = find_scenes(rooms)
    for number, scene in enumerate((first, second)):
        shutil.copytree(scene, tmp_path / str(number) / "train" / "room")
    cache = GeometryCache(tmp_path / "cache", posed_depth_of, {}, cells=32)
    clips = [cache.clip(Scene(tmp_path / n / "train" / "room"), 0, [0])[0] for n in ("0", "1")]
    assert not torch.equal(clips[0].points, clips[1].points)


@pytest.mark.parametrize("sampling", ["fov", "random", "continuous"])
def test_fusion_batches_are_repeatable_and_start_with_the_reference(rooms, tmp_path, sampling):
    scenes = [Scene(path) for path in find_scenes(rooms)]
    cache = GeometryCache(tmp_path, lambda scene: NoGeometry(), {})
    options = {
        "min_area": 20,
        "references": 2,
        "twin_share": 0.5,
        "fov_share": 1.0,
        "tau": 0.25,
        "steps": (1, 2),
    }
    clips = FusionClips(scenes, cache, 64, sampling=sampling, **options)
    first = clips.batch(np.random.default_rng(1), 2, 4, 3)
    again = FusionClips(scenes, cache, 64, sampling=sampling, **options).batch(
        np.random.default_rng(1), 2, 4, 3
    )
    assert torch.equal(first.masks, again.masks) and first.sources == again.sources
    assert len(first.geometry) == len(first.flat_img_batch) == 8
    assert first.masks[0].flatten(1).any(1).all()  # every object is in its reference frame
    with pytest.raises(ValueError, match="sampling 'sorted': unknown"):
        FusionClips(scenes, cache, 64, sampling="sorted", **options)


def test_too_few_frames_in_view_fall_back_to_continuous_and_are_counted(rooms, tmp_path):
    scenes = [Scene(path) for path in find_scenes(rooms)]
    options = {
        "min_area": 20,
        "references": 1,
        "twin_share": 0.0,
        "fov_share": 1.0,
        "tau": 1.1,
        "steps": (1, 1),
    }
    clips = FusionClips(
        scenes, GeometryCache(tmp_path, lambda s: NoGeometry(), {}), 64, sampling="fov", **options
    )
    clips.batch(np.random.default_rng(0), 4, 8, 1)
    assert clips.fallbacks > 0


def test_other_names_are_listed():
    with pytest.raises(InputError, match=r"merger=huge: .* known are: paper, tiny"):
        spec_of("huge")


def test_reconstruct_writes_points_cameras_and_a_picture(frames, tmp_path, refuse, capsys):
    out = tmp_path / "scene"
    arguments = ["reconstruct", "--frames", str(frames.path), "--out", str(out), "--device", "cpu"]
    main.main([*arguments, "--min-confidence", "0"])
    head, body = (out / "points.ply").read_bytes().split(b"end_header\n", 1)
    count = int(head.split(b"element vertex ")[1].split()[0])
    assert count > 1000 and len(body) == 15 * count
    vertices = np.frombuffer(body, [("p", "<f4", 3), ("c", "u1", 3)])
    assert np.isfinite(vertices["p"]).all() and vertices["c"].std() > 5
    cameras = json.loads((out / "cameras.json").read_text())["frames"]
    assert [c["stem"] for c in cameras] == frames.stems
    rotations = np.array([c["camera_to_world"] for c in cameras])[:, :3, :3]
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-4)
    assert read_rgb(out / "overview.png").std() > 10
    quality = json.loads((out / "cameras.json").read_text())["quality"]
    assert set(quality) == {"confidence", "plausible_poses", "relief", "movement"}
    assert f"median confidence {quality['confidence']:.2f}" in capsys.readouterr().out
    assert "--min-confidence 2: must be in 0..1" in refuse(main, *arguments, "--min-confidence", 2)
    assert "must3r huge: unknown model" in refuse(main, *arguments, "--must3r", "huge")


def test_sharing_between_arms_and_prompts_changes_no_number(run, rooms):
    config = compose_config(
        CONFIGS,
        "evaluate",
        [
            "device=cpu",
            *(f"checkpoints.{key}={checkpoint(run, arm)}" for arm, key in CHECKPOINTS.items()),
        ],
    )
    shared = EvaluatedArms(config)
    exactly = partial(pytest.approx, abs=0, nan_ok=True)
    tracks = tracks_of([Scene(path) for path in find_scenes(rooms)], 60)[:2]
    for one in tracks:
        for arm in ("3am", "oracle"):
            # Frame by frame, as in evaluation: batches of other sizes round differently on some
            # processors.
            file = checkpoint(run, arm)
            alone = build_tracker("tiny", checkpoint=file, device="cpu", frames_at_once=1)
            make = partial(alone.make_source, scene=one.scene)
            alone.predictor.fuse(alone.predictor.merger, make)
            plain = alone.predictor
            for kind in ("mask", "click"):
                prompt = prompt_of(one, kind)
                scores, areas = evaluation.score(shared, arm, one, kind)
                frames = SceneFrames(one.scene)
                masks = ids_of(track(plain, frames, [prompt], progress=False))
                order = range(len(frames))
                wanted = score_masks([masks[i] for i in order], [one.mask(i) for i in order])
                assert list(scores.frame_ious) == exactly(list(wanted.frame_ious))
                assert list(areas) == [float((masks[i] > 0).mean()) for i in order]
