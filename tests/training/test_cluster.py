"""Several workers: sharded caching and evaluation, mixtures, and jobs through Hydra's submitit
launcher.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

import cache_geometry
import evaluate
import train
from geometry_fusion.assets import CONFIGS
from geometry_fusion.commands.config import compose_config
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.geometry.posed_depth import posed_depth_of
from geometry_fusion.geometry.source import NoGeometry
from geometry_fusion.io.atomic import read_json_lines
from geometry_fusion.training.checkpoints import load_resume
from geometry_fusion.training.fusion_clips import FusionClips, MixedClips
from geometry_fusion.training.geometry_cache import GeometryCache, LiveGeometry
from geometry_fusion.training.loop import step_seed, units_of
from tests.conftest import ROOT, THREADS, run_script

OPTIONS = {"min_area": 20, "references": 1, "twin_share": 0.0, "tau": 0.25, "steps": (1, 1)}
SMALL = [
    "experiment=tiny_fusion",
    "arm=oracle",
    "data.min_area=20",
    "batches.kinds={short: {clips: 1, frames: 2, objects: 1}, long: {clips: 1, frames: 2, "
    "objects: 1}}",
    "val_objects=1",
    "trainer.device=cpu",
    "trainer.threads=1",
    "trainer.warmup_steps=1",
    "trainer.log_every=1",
    "trainer.eval_every=100",
]


def small(rooms, folder, *more):
    return [
        *SMALL,
        f"data.scenes={rooms}",
        f"data.val_scenes={rooms}",
        f"geometry_cache={folder / 'geometry'}",
        *more,
    ]


def test_a_mixture_draws_by_weight_and_brings_its_prompts(rooms, tmp_path):
    first, second = ([Scene(path)] for path in find_scenes(rooms))
    cache = GeometryCache(tmp_path, lambda scene: NoGeometry(), {})
    clips = [
        FusionClips(s, cache, 32, sampling="continuous", fov_share=0.0, **OPTIONS)
        for s in (first, second)
    ]
    mixed = MixedClips({"a": (clips[0], 3, (0.0, 0.0)), "b": (clips[1], 1, (0.5, 0.25))})
    batches = [mixed.batch(np.random.default_rng(seed), 1, 2, 1) for seed in range(80)]
    of_a = [b for b in batches if b.sources[0].startswith(f"a: {first[0].folder.name} ")]
    assert 50 <= len(of_a) <= 70  # 60 of 80 are expected
    assert {b.prompts for b in of_a} == {(0.0, 0.0)}
    assert {b.prompts for b in batches if b.sources[0].startswith("b: ")} == {(0.5, 0.25)}
    with pytest.raises(ValueError, match="must be positive"):
        MixedClips({"a": (clips[0], 0, (0.0, 0.0))})


def test_continuous_clips_may_stream_their_own_frames_and_keep_nothing(rooms, tmp_path):
    scenes = [Scene(path) for path in find_scenes(rooms)]
    cache, live = GeometryCache(tmp_path, posed_depth_of, {}), LiveGeometry(posed_depth_of)
    clips = FusionClips(scenes, cache, 32, sampling="random", fov_share=0.0, live=live, **OPTIONS)
    batch = clips.batch(np.random.default_rng(0), 1, 3, 1)
    assert len(batch.geometry) == 3 and not list(tmp_path.rglob("*.safetensors"))
    # The first frame is the origin of its clip.
    height, width = batch.geometry[0].rays.shape[1:]
    centre = batch.geometry[0].rays[:, height // 2, width // 2]
    torch.testing.assert_close(centre, torch.tensor([0.0, 0.0, 1.0]), atol=0.02, rtol=0)
    FusionClips(scenes, cache, 32, sampling="random", fov_share=1.0, live=live, **OPTIONS).batch(
        np.random.default_rng(0), 1, 3, 1
    )
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_only_what_is_read_is_cached(rooms, tmp_path):
    """A dataset whose clips are all continuous streams them live; its walks are not computed
    beforehand.
    """
    scenes = [Scene(path) for path in find_scenes(rooms)]
    cache, live = GeometryCache(tmp_path, posed_depth_of, {}), LiveGeometry(posed_depth_of)
    for sampling, share, reads in (
        ("continuous", 0.8, False),
        ("random", 0.0, False),
        ("fov", 0.8, True),
    ):
        clips = FusionClips(
            scenes, cache, 32, sampling=sampling, **{**OPTIONS, "fov_share": share}, live=live
        )
        assert clips.reads_cache == reads
    assert FusionClips(
        scenes, cache, 32, sampling="continuous", fov_share=0.0, **OPTIONS
    ).reads_cache


def test_shards_of_the_geometry_cache_share_the_work_and_leave_nothing_to_do(
    rooms, tmp_path, capsys
):
    for part in ("0/2", "1/2"):
        cache_geometry.main([*small(rooms, tmp_path), "--shard", part])
    halves = [int(line.split(": ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()]
    files = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.safetensors")}
    assert len(files) == sum(halves) and min(halves) >= 1
    files_before = dict(files)
    cache_geometry.main(small(rooms, tmp_path))
    assert "0 computed" in capsys.readouterr().out
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.safetensors")} == files_before


def test_wrong_shards_and_tasks_are_refused(rooms, tmp_path, refuse):
    for text in ("2/2", "a", "1/0"):
        assert "0/8" in refuse(cache_geometry, *small(rooms, tmp_path), "--shard", text)
    assert "only a fusion needs geometry" in refuse(cache_geometry, "experiment=tiny_sam2")


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ("{a: {scenes: ROOMS, sampling: sorted}}", "data.datasets.a.sampling=sorted"),
        ("{a: {scenes: ROOMS, point: 2}}", "data.datasets.a.point=2"),
        ("{a: {scenes: no_such}}", "no_such: holds no scene folders"),
        (
            "{a: {scenes: ROOMS, colour: red}}",
            "data.datasets.a.colour: unknown key; known are: scenes, sampling",
        ),
        ("{a: 5}", "data.datasets.a=5: must be {scenes: DIR}"),
        ("{a: {scenes: null}}", "data.datasets.a.scenes=None: must be a path"),
        ("{a: {scenes: ROOMS, weight: 0}}", "no dataset has a weight above 0"),
        ("{}", "no dataset has a weight above 0"),
        ("5", "data.datasets: 5 is not {name: {scenes: DIR"),
    ],
)
def test_datasets_of_a_mixture_are_checked(rooms, refuse, datasets, message):
    line = refuse(
        train, "experiment=paper", f"data.datasets={datasets.replace('ROOMS', str(rooms))}"
    )
    assert message in line


def test_the_paper_s_recipe_is_what_it_states():
    config = compose_config(CONFIGS, "train", ["experiment=paper"])
    assert (config.sam2, config.must3r, config.merger) == ("l", "512", "paper")
    assert config.trainer.max_steps == 1_000_000 and config.batches.kinds.long.frames == 8
    assert OmegaConf.to_container(config.trainable_presets.paper) == {
        "merger": 1e-5,
        "memory_attention": 5e-6,
        "sam_mask_decoder": 5e-6,
    }
    assert OmegaConf.to_container(config.loss_weights) == {
        "loss_mask": 20,
        "loss_dice": 1,
        "loss_iou": 1,
        "loss_class": 1,
    }
    assert (config.sampling.fov_share, config.sampling.tau, config.data.datasets.mose.sampling) == (
        0.8,
        0.25,
        "continuous",
    )


@pytest.mark.slow
def test_the_recipe_trains_on_a_mixture(rooms, tmp_path):
    """With the tiny backbones: one dataset with depth and field-of-view sampling, one as a plain
    video would be.
    """
    done = run_script(
        ROOT / "train.py",
        "experiment=paper",
        "sam2=tiny",
        "must3r=tiny",
        "merger=tiny",
        f"data.datasets={{rooms: {{scenes: {rooms}, sampling: fov, point: 0.0}}, "
        f"videos: {{scenes: {rooms}}}}}",
        f"data.val_scenes={rooms}",
        *SMALL[2:],
        "trainer.max_steps=3",
        f"trainer.run_dir={tmp_path / 'run'}",
        f"geometry_cache={tmp_path / 'geometry'}",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/checkpoints/checkpoint_last.safetensors").is_file()


def test_shards_of_an_evaluation_give_the_table_of_one_process(rooms, tmp_path, capsys):
    command = [
        "arms=[sam2]",
        "prompts=[mask]",
        f"data.scenes={rooms}",
        "data.min_area=60",
        "device=cpu",
        "max_objects=4",
    ]
    for part in ("0/2", "1/2"):
        evaluate.main([*command, f"out={tmp_path / 'shards'}", f"shard={part}"])
        assert "prints the tables" in capsys.readouterr().out
    lines = [
        f.read_text().count("\n") for f in sorted((tmp_path / "shards").glob("objects-*.jsonl"))
    ]
    assert len(lines) == 2 and min(lines) > 0 and not (tmp_path / "shards/results.json").exists()
    evaluate.main([*command, f"out={tmp_path / 'shards'}"])
    assert (tmp_path / "shards/objects.jsonl").read_text() == ""  # nothing was left to track
    evaluate.main([*command, f"out={tmp_path / 'one'}"])
    shards, one = (
        json.loads((tmp_path / n / "results.json").read_text())["arms"] for n in ("shards", "one")
    )
    assert shards == one
    # What reappears is decided anew, also of records that are there: one frame in view is enough
    # here.
    evaluate.main([*command, f"out={tmp_path / 'one'}", "reappear={spans: 1, frames: 1}"])
    other = json.loads((tmp_path / "one/results.json").read_text())["arms"]["sam2"]
    assert other["reappear"] == other["all"] != one["sam2"]["reappear"]


@pytest.mark.slow
def test_a_job_of_two_tasks_trains_as_one_process_that_accumulates_two(rooms, tmp_path):
    arguments = small(rooms, tmp_path, "trainer.max_steps=2")
    alone = run_script(
        ROOT / "train.py",
        *arguments,
        "trainer.accumulate=2",
        f"trainer.run_dir={tmp_path / 'alone'}",
    )
    assert alone.returncode == 0, alone.stderr
    quoted = " ".join(f"'{a}'" for a in [*arguments, f"trainer.run_dir={tmp_path / 'two'}"])
    job = run_script(
        ROOT / "launch.py",
        "--multirun",
        "hydra/launcher=submitit_local",
        "hydra.launcher.tasks_per_node=2",
        f"hydra.sweep.dir={tmp_path / 'launch'}",
        'args="' + quoted + '"',
    )
    assert job.returncode == 0, job.stderr + job.stdout
    first, second = (
        load_file(tmp_path / n / "checkpoints/checkpoint_last.safetensors")
        for n in ("alone", "two")
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=2e-3, atol=2e-5)
    assert first["merger.block.3.weight"].any()  # zero before training
    assert "2 process(es)" in (tmp_path / "two/logs/log.txt").read_text()


SIX_STEPS = ("trainer.max_steps=6", "trainer.save_every=2")


def train_in_two(arguments, run_dir) -> subprocess.Popen:
    """One training of two processes, as the README starts it; its standard error comes through a
    pipe.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, ROOT / "train.py", *arguments, f"trainer.run_dir={run_dir}"]
    environment = {**os.environ, "OMP_NUM_THREADS": THREADS, "PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, env=environment, **streams
    )


def losses_of(run_dir) -> dict[int, float]:
    records = read_json_lines(run_dir / "logs/train_stats.json")
    return {r["step"]: r["train"]["total"] for r in records if "train" in r}


@pytest.fixture(scope="module")
def whole_in_two(rooms, tmp_path_factory):
    """Six uninterrupted steps of two processes."""
    folder = tmp_path_factory.mktemp("two")
    job = train_in_two(small(rooms, folder, *SIX_STEPS), folder / "run")
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    return folder / "run"


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_which_continues_as_if_never_killed(
    rooms, tmp_path, whole_in_two
):
    """The weights depend on every micro-batch of both processes: equal bits tell that none came
    twice or never.
    """
    arguments = small(rooms, tmp_path, *SIX_STEPS)
    run, saved = tmp_path / "run", tmp_path / "run/checkpoints/resume.pt"
    job = train_in_two(arguments, run)
    deadline = time.time() + 120
    # Killed in the middle: a checkpoint exists, a later step has been logged and is lost.
    while (
        not (saved.exists() and len(losses_of(run)) >= 3)
        and job.poll() is None
        and time.time() < deadline
    ):
        time.sleep(0.02)
    {p.environ().get("RANK"): p for p in psutil.Process(job.pid).children()}["1"].kill()
    _, said = job.communicate(timeout=60)
    assert job.returncode and "SIGKILL" in said
    step = load_resume(saved)["step"]
    assert 2 <= step < 6
    again = train_in_two(arguments, run)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert f"2 process(es), steps {step} to 6" in (run / "logs/log.txt").read_text()
    assert losses_of(run) == losses_of(whole_in_two) and sorted(losses_of(run)) == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    first, second = (
        load_file(d / "checkpoints/checkpoint_last.safetensors") for d in (whole_in_two, run)
    )
    assert first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_other_processes_may_continue_only_what_they_draw_as_well(
    rooms, whole_in_two, refuse, capsys
):
    """One process alone would leave out half of every step; one that accumulates two draws the
    same.
    """
    arguments = [*small(rooms, whole_in_two.parent, *SIX_STEPS), f"trainer.run_dir={whole_in_two}"]
    line = refuse(train, *arguments)
    assert "trained with processes x trainer.accumulate=2, this run has 1;" in line
    train.main([*arguments, "trainer.accumulate=2"])
    assert "complete at step 6" in capsys.readouterr().out


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (1, 4), (2, 1), (2, 3), (8, 2)])
def test_every_micro_batch_of_every_step_is_drawn_by_exactly_one_process(processes, accumulate):
    drawn = [unit for rank in range(processes) for unit in units_of(rank, processes, accumulate)]
    assert sorted(drawn) == list(range(processes * accumulate))
    seeds = {step_seed(7, step, unit) for step in range(200) for unit in drawn}
    assert len(seeds) == 200 * len(drawn)


def test_a_failing_job_tells_its_exit_code(tmp_path):
    job = run_script(ROOT / "launch.py", "script=train", 'args="experiment=tiny_sam3"')
    assert job.returncode and "exit code 2" in job.stderr and "known are" in job.stderr
