"""The trainer: exact resume after a kill, frozen parts, several processes, and errors that help.

Runs use the shipped architecture on two small rooms with one clip of one object per step, so that a
step takes a fraction of a second.
"""

import itertools
import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sam2_model
import train
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import read_json_lines
from geometry_fusion.training.batches import SceneClips, augment, clip_arrays, draw_frames
from geometry_fusion.training.checkpoints import load_resume
from geometry_fusion.training.loop import set_modes, step_seed
from geometry_fusion.training.sam2_model import (
    ClickTracker,
    mask_iou,
    start_click_attention,
    start_memory,
)
from geometry_fusion.training.sam2_task import largest_view_windows
from geometry_fusion.training.schedule import lr_scale, parameter_groups
from tests.conftest import ROOT, error_line, run_script

SMALL = [
    "experiment=tiny_sam2",
    "data.min_area=20",
    "batches.kinds.image={clips: 1, frames: 1, objects: 1}",
    "batches.kinds.pair={clips: 1, frames: 2, objects: 1, steps: [0, 1]}",
    "batches.kinds.clip={clips: 1, frames: 2, objects: 1, steps: [1, 2]}",
    "val_objects=1",
    "val_frames=2",
    "trainer.device=cpu",
    "trainer.threads=1",
    "trainer.warmup_steps=2",
    "trainer.log_every=1",
    "trainer.eval_every=100",
    "trainer.save_every=2",
]


def arguments(rooms, run_dir, *extra):
    return [
        ROOT / "train.py",
        *SMALL,
        f"data.scenes={rooms}",
        f"data.val_scenes={rooms}",
        f"trainer.run_dir={run_dir}",
        *extra,
    ]


def curve(run_dir):
    records = read_json_lines(run_dir / "logs" / "train_stats.json")
    return {r["step"]: r["train"]["total"] for r in records if "train" in r}


@pytest.fixture(scope="module")
def whole_run(rooms, tmp_path_factory):
    """Eight uninterrupted steps."""
    run_dir = tmp_path_factory.mktemp("whole")
    done = run_script(*arguments(rooms, run_dir, "trainer.max_steps=8"))
    assert done.returncode == 0, done.stderr
    return run_dir


def test_a_run_leaves_what_the_readme_promises(whole_run):
    assert {f.name for f in (whole_run / "checkpoints").iterdir()} == {
        "checkpoint_last.safetensors",
        "checkpoint_best.safetensors",
        "resume.pt",
    }
    assert (whole_run / "config.yaml").read_text().count("max_steps: 8") == 1
    assert list((whole_run / "tensorboard").glob("events*"))
    assert "step 8" in (whole_run / "logs" / "log.txt").read_text()
    steps = curve(whole_run)
    assert sorted(steps) == list(range(1, 9)) and all(map(math.isfinite, steps.values()))
    val = [r["val"] for r in read_json_lines(whole_run / "logs" / "train_stats.json") if "val" in r]
    assert len(val) == 1 and 0 <= val[0]["click_iou"] <= 1


def test_resume_after_kill_repeats_the_uninterrupted_curve(rooms, whole_run, tmp_path):
    command = [sys.executable, *map(str, arguments(rooms, tmp_path, "trainer.max_steps=8"))]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 240
    # Killed in the middle: a checkpoint exists, later steps have been logged and are lost.
    while len(curve(tmp_path)) < 5 and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = load_resume(tmp_path / "checkpoints" / "resume.pt")["step"]
    assert 2 <= saved < 8
    done = run_script(*arguments(rooms, tmp_path, "trainer.max_steps=8"))
    assert done.returncode == 0, done.stderr
    assert f"steps {saved} to 8" in done.stdout
    assert curve(tmp_path) == curve(whole_run)
    first, second = (
        load_file(d / "checkpoints" / "checkpoint_last.safetensors") for d in (whole_run, tmp_path)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_only_named_parts_are_trained_and_the_rest_stays_bit_identical(rooms, whole_run, tmp_path):
    start = whole_run / "checkpoints" / "checkpoint_last.safetensors"
    trained = [
        "trainer.trainable={sam_mask_decoder: 1e-3, memory_encoder.fuser: 1e-4}",
        f"trainer.init_from={start}",
    ]
    done = run_script(*arguments(rooms, tmp_path, *trained, "trainer.max_steps=3"))
    assert done.returncode == 0, done.stderr
    before, after = (
        load_file(start),
        load_file(tmp_path / "checkpoints" / "checkpoint_last.safetensors"),
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(
        name.startswith(("sam_mask_decoder.", "memory_encoder.fuser.")) for name in changed
    )


@pytest.mark.slow
def test_two_processes_train_together(rooms, whole_run, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run_script(*launcher, *arguments(rooms, tmp_path, "trainer.max_steps=2"))
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stdout
    weights = load_file(tmp_path / "checkpoints" / "checkpoint_last.safetensors")
    alone = load_file(whole_run / "checkpoints" / "checkpoint_last.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values())
    assert sorted(curve(tmp_path)) == [1, 2]
    # The first process drew the same first batch as a run alone, so only averaged gradients make
    # the difference.
    assert curve(tmp_path)[1] == curve(whole_run)[1] and curve(tmp_path)[2] != curve(whole_run)[2]
    assert weights.keys() == alone.keys()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(rooms, whole_run, tmp_path):
    weights = load_file(whole_run / "checkpoints" / "checkpoint_last.safetensors")
    weights["sam_mask_decoder.iou_token.weight"][:] = (
        1e38  # finite, but nothing that is computed from it
    )
    save_file(weights, tmp_path / "broken.safetensors")
    done = run_script(
        *arguments(rooms, tmp_path / "run", f"trainer.init_from={tmp_path / 'broken.safetensors'}")
    )
    assert done.returncode == 2
    message = done.stderr.strip().splitlines()[-1]
    assert (
        message.startswith("error: loss is nan at step 0")
        and "room_00000" in message
        and "frames" in message
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainer.max_stepz=3"], "trainer.max_steps"),
        (["trainer.nonsense.deep=3"], "unknown key"),
        (["experiment=tiny_sam3"], "tiny_sam2"),
        (["trainer.device=tpu"], "tpu"),
        (["data.seeds=9:2", "data.scenes=null"], "9:2"),
        (["data.scenes=no_such_folder"], "no_such_folder"),
        (["trainer.trainable={nose: 1e-3}"], "nose"),
        (["trainer.trainable=5"], "5 is not {module: learning rate} or the name of a preset"),
        (["trainer.trainable=paper"], "trainer.trainable=paper: unknown"),
        (["trainer.init_from=missing.safetensors"], "missing.safetensors"),
        (["--config", "missing.yaml"], "tiny_sam2"),
        (["trainer=5"], "trainer"),
        (["trainer.max_steps=abc"], "abc"),
        (["trainer.max_steps=-5"], "-5"),
        (["trainer.log_every=0"], "log_every"),
        (["trainer.precision=fp8"], "fp8"),
        (["trainer.run_dir=null"], "run_dir"),
        (["task=foo"], "foo"),
        (["batches.kinds=5"], "batches.kinds"),
    ],
)
def test_wrong_configs_end_in_one_line_that_helps(refuse, rooms, tmp_path, overrides, expected):
    _, *given = arguments(rooms, tmp_path, "trainer.max_steps=1", *overrides)
    assert expected in refuse(train, *given)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_yaml_file_by_path_sets_keys_and_overrides_win(rooms, tmp_path):
    content = (
        "experiment: tiny_sam2\ntrainer: "
        f"{{max_steps: 5, run_dir: {tmp_path / 'run'}}}\ndata: {{scenes: {rooms}}}\n"
    )
    (tmp_path / "mine.yaml").write_text(content)
    small = [o for o in SMALL if not o.startswith("experiment")]
    options = [*small, f"data.val_scenes={rooms}", "trainer.max_steps=1"]
    done = run_script(ROOT / "train.py", "--config", "mine.yaml", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(curve(tmp_path / "run")) == [1]
    (tmp_path / "mine.yaml").write_text("trainer: {max_stepz: 5}\n")
    assert "mine.yaml" in error_line(
        run_script(ROOT / "train.py", "--config", "mine.yaml", cwd=tmp_path)
    )
    (tmp_path / "mine.yaml").write_text("a: [1\n")
    assert "not valid YAML" in error_line(
        run_script(ROOT / "train.py", "--config", "mine.yaml", cwd=tmp_path)
    )


def test_a_damaged_resume_file_is_refused_and_kept(rooms, tmp_path):
    file = tmp_path / "checkpoints" / "resume.pt"
    file.parent.mkdir()
    file.write_bytes(b"half a checkpoint")
    assert str(file) in error_line(run_script(*arguments(rooms, tmp_path, "trainer.max_steps=1")))
    assert file.read_bytes() == b"half a checkpoint"


def test_lr_scale_warms_up_and_decays():
    scales = [lr_scale(step, 100, 10, 0.1) for step in range(101)]
    assert scales[0] == pytest.approx(0.1) and scales[9] == 1 and scales[100] == pytest.approx(0.1)
    assert scales[55] == pytest.approx(0.55)
    assert all(a >= b for a, b in itertools.pairwise(scales[9:]))


def test_parameter_groups_take_the_longest_prefix_and_freeze_the_rest():
    model = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2), "bc": torch.nn.Linear(2, 2)}
    )
    groups = parameter_groups(model, {"a": 1e-3, "a.bias": 1e-2, "b": 1e-4}, weight_decay=0.1)
    rates = {
        name: g["lr"]
        for g in groups
        for name, p in model.named_parameters()
        if any(p is q for q in g["params"])
    }
    assert rates == {"a.weight": 1e-3, "a.bias": 1e-2, "b.weight": 1e-4, "b.bias": 1e-4}
    assert not model["bc"].weight.requires_grad
    assert all((g["weight_decay"] > 0) == (g["params"][0].ndim > 1) for g in groups)
    with pytest.raises(InputError, match="zzz"):
        parameter_groups(model, {"zzz": 1.0}, 0.0)


def test_frozen_norms_keep_their_statistics():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    model[0].requires_grad_(False)
    set_modes(model)
    before = model[0].running_mean.clone()
    model(torch.randn(8, 3) + 5)
    assert torch.equal(model[0].running_mean, before) and model[1].training


def test_every_step_has_its_own_seed():
    seeds = {step_seed(0, step, unit) for step in range(50) for unit in range(4)}
    assert len(seeds) == 200 and step_seed(0, 3, 1) == step_seed(0, 3, 1) != step_seed(1, 3, 1)


def test_augmentation_moves_images_and_masks_together(rooms):
    """A mirrored image has mirrored masks, all frames of a clip alike."""
    scene = Scene(rooms / "room_000005")
    ids = np.flatnonzero(scene.areas[0] >= 20)
    images, masks = clip_arrays(scene, [0, 1], ids[ids > 0].tolist(), 96)
    mirrored = 0
    for seed in range(8):
        changed, moved = augment(np.random.default_rng(seed), images, masks)
        mirrored += not np.array_equal(moved, masks)
        for before, after, mask, moved_mask in zip(images, changed, masks, moved):
            # Mirrored back, brightness (the mean over the permuted channels) follows the original
            # linearly.
            flip = slice(None, None, -1 if not np.array_equal(moved, masks) else 1)
            assert np.array_equal(moved_mask[..., flip], mask)
            grey = after[:, flip].mean(-1)
            assert np.corrcoef(grey.reshape(-1), before.mean(-1).reshape(-1))[0, 1] > 0.97
    assert 0 < mirrored < 8


def test_batches_pair_images_with_their_masks(rooms):
    """Areas of the masks are those of the scene's ids, and the same generator gives the same
    batch.
    """
    scenes = [Scene(rooms / "room_000005")]
    clips = SceneClips(scenes, size=96, min_area=20)
    batch = clips.batch(np.random.default_rng(3), clips=2, frames=3, objects=2)
    assert batch.num_frames == 3 and batch.flat_img_batch.shape == (6, 3, 96, 96)
    assert batch.masks.dtype == torch.bool and batch.masks.shape[0] == 3
    for t in range(3):
        rows = batch.flat_obj_to_img_idx[t]
        assert set(rows.tolist()) <= {
            t,
            3 + t,
        }  # frames of a clip are adjacent: clip v, time t is row 3 v + t
    again = clips.batch(np.random.default_rng(3), clips=2, frames=3, objects=2)
    assert torch.equal(batch.flat_img_batch, again.flat_img_batch) and torch.equal(
        batch.masks, again.masks
    )
    for source, first in zip(batch.sources, (0, 3)):
        frames, ids = (
            json.loads(part.split("]")[0] + "]")
            for part in (source.split("frames ")[1], source.split("objects ")[1])
        )
        areas = [scenes[0].areas[frame, i] for frame in frames[:1] for i in ids]
        masks = batch.masks[0][batch.flat_obj_to_img_idx[0] == first].flatten(1).sum(1).tolist()
        assert masks == areas and min(areas) >= 20


def test_draw_frames_stays_inside_and_respects_the_step():
    seen = set()
    for seed in range(200):
        frames = draw_frames(np.random.default_rng(seed), num_frames=11, length=4, steps=(0, 5))
        steps = set(np.diff(frames))
        assert len(steps) == 1 and min(frames) >= 0 and max(frames) <= 10
        seen |= {int(step) for step in steps}
    assert seen == {-3, -2, -1, 0, 1, 2, 3}  # eleven frames have no room for larger steps


def test_largest_view_windows_by_brute_force():
    areas = np.random.default_rng(0).integers(0, 60, (14, 6))
    found = {i: frames for i, frames in largest_view_windows(areas, length=3, min_area=15)}
    for object_id in range(1, 6):
        best = {}
        for start in range(14):
            for direction in (1, -1):
                frames = [start + direction * k for k in range(3)]
                if min(frames) >= 0 and max(frames) < 14 and (areas[frames, object_id] >= 15).all():
                    best.setdefault(areas[start, object_id], []).append(frames)
        assert (object_id in found) == bool(best)
        if best:
            assert found[object_id] in best[max(best)]


def test_mask_iou_known_values():
    a, b = torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    a[0, :2], b[0, 1:3] = True, True
    assert mask_iou(a, b).tolist() == [pytest.approx(1 / 3), 1.0]


def test_click_attention_starts_at_the_click():
    """At initialisation a click attends to image tokens around it: attention falls off with
    distance.
    """
    torch.manual_seed(0)
    model = sam2_model.build_sam2("tiny", target=ClickTracker, random_weights=True)
    start_click_attention(model)
    encoder, layer = model.sam_prompt_encoder, model.sam_mask_decoder.transformer.layers[0]
    attention = layer.cross_attn_token_to_image
    places = encoder.get_dense_pe().flatten(2).transpose(1, 2)  # [1, 256, 128]
    click = encoder.pe_layer.forward_with_coords(
        torch.tensor([[[88.0, 168.0]]]), (256, 256)
    )  # cell x 5, y 10
    q, k = (
        attention._separate_heads(attention.q_proj(click), 8),
        attention._separate_heads(attention.k_proj(places), 8),
    )
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1).mean(1).reshape(16, 16)
    near = weights[8:13, 3:8].sum()  # 25 of 256 cells
    assert weights.argmax() in (10 * 16 + 5, 10 * 16 + 4, 9 * 16 + 5, 9 * 16 + 4)
    assert near > 0.4


def test_memory_is_heard_from_the_first_step():
    """What was masked in a remembered frame changes the features of the next one, most at the same
    place.
    """
    torch.manual_seed(0)
    model = sam2_model.build_sam2("tiny", target=ClickTracker, random_weights=True)
    start_memory(model)
    image = torch.randn(1, 3, 256, 256)
    masks = torch.full((2, 1, 256, 256), -10.0)
    masks[0, :, 32:96, 128:192] = 10.0  # cells y 2..5, x 8..11
    with torch.no_grad():
        _, features, codes, sizes = model._prepare_backbone_features(model.forward_image(image))
        conditioned = []
        for mask in masks[:, None]:
            memory, code = model._encode_new_memory(features, sizes, mask, torch.ones(1, 1), False)
            tokens = [x.flatten(2).permute(2, 0, 1) for x in (memory, code[0])]
            conditioned.append(
                model.memory_attention(
                    curr=features[-1:], curr_pos=codes[-1:], memory=tokens[0], memory_pos=tokens[1]
                )
            )
    change = (conditioned[0] - conditioned[1])[:, 0].norm(dim=-1).reshape(16, 16)
    size = conditioned[0][:, 0].norm(dim=-1).mean()
    inside, outside = change[2:6, 8:12].mean(), change[10:].mean()
    assert inside > 0.05 * size and inside > 1.3 * outside
