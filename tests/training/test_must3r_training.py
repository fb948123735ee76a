"""Posed clips and the training of MUSt3R: geometry that agrees with itself, losses with known
values, a short run.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import must3r_loader
from geometry_fusion.assets import CONFIGS
from geometry_fusion.commands.config import compose_config
from geometry_fusion.data.rooms import write_rooms
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.io.weights import read_weights
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R
from geometry_fusion.must3r.postprocess import Pointmaps
from geometry_fusion.training.build import build_must3r_task
from geometry_fusion.training.must3r_losses import (
    attention_loss,
    frames_read,
    matching_loss,
    regression,
)
from geometry_fusion.training.must3r_task import StreamedClips
from geometry_fusion.training.must3r_validation import clip_errors, validation_clips
from geometry_fusion.training.posed_clips import (
    PosedClips,
    augmented,
    clip,
    cut,
    draw_overlapping,
    load_scene,
    move,
    project,
    to_batch,
)
from tests.conftest import ROOT, run_script


@pytest.fixture(scope="module")
def scene(rooms):
    return load_scene(Scene(find_scenes(rooms)[0]), 48)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A room of 4:3, whose scene folder is read as MUSt3R's input is."""
    folder = tmp_path_factory.mktemp("wide")
    write_rooms(range(5, 6), folder, workers=1, frames=8, width=128, height=96)
    return Scene(find_scenes(folder)[0])


def batch_of(scene, indices=(0, 2, 4), transform=lambda *arrays: arrays):
    return to_batch([transform(*clip(scene, list(indices)))], ["test"])


def mirrored(*arrays):
    class Mirror:
        def random(self):
            return 0.0

        def permutation(self, n):
            return np.arange(n)

        def uniform(self, low, high):
            return 1.0 if low > 0 else 0.0

    return augmented(Mirror(), *arrays)


@pytest.mark.parametrize("transform", [lambda *a: a, mirrored, lambda *a: cut(32, *a)])
def test_frames_of_a_clip_lie_in_one_world(scene, transform):
    """What one frame sees falls on the same depths in a neighbouring one: mirrored, cut or as it
    is.
    """
    batch = batch_of(scene, (2, 3), transform)
    world = move(batch.camera_to_world, batch.local_points())
    pixels, seen = project(
        world[0, :1], batch.depth[0, 1:], batch.camera_to_world[0, 1:], batch.intrinsics[0, 1:]
    )
    height, width = batch.depth.shape[-2:]
    inside = ((pixels > -0.5) & (pixels < torch.tensor([width - 0.5, height - 0.5]))).all(-1)
    assert inside.float().mean() > 0.4
    # Outlines of objects hide a little from one of the two.
    assert seen[inside].float().mean() > 0.85
    back, own = project(
        world[0, :1], batch.depth[0, :1], batch.camera_to_world[0, :1], batch.intrinsics[0, :1]
    )
    v, u = np.mgrid[:height, :width]
    torch.testing.assert_close(
        back[0], torch.from_numpy(np.stack([u, v], -1)).float(), atol=1e-2, rtol=0
    )
    assert own.float().mean() > 0.999


def test_pictures_keep_their_shape(wide):
    loaded = load_scene(wide, 70)  # 70x52 pixels, cut to multiples of 16
    assert loaded.images.shape == (8, 48, 64, 3) and loaded.depth_mm.shape == (8, 48, 64)
    # A resize by 70 / 128 and a crop of 3 columns and 2 rows, around pixel centres at integers.
    _, k = wide.camera(0)
    assert loaded.intrinsics[0, 0, 0] == pytest.approx(k[0, 0] * 70 / 128)
    assert loaded.intrinsics[0, 1, 1] == pytest.approx(k[1, 1] * 52 / 96)
    middle = (k[:2, 2] + 0.5) * [70 / 128, 52 / 96] - 0.5 - [3, 2]
    assert loaded.intrinsics[0, :2, 2] == pytest.approx(middle)
    test_frames_of_a_clip_lie_in_one_world(loaded, lambda *a: a)


def test_clips_of_one_shape_make_a_batch(rooms, wide):
    scenes = [*(Scene(path) for path in find_scenes(rooms)), wide]
    clips = PosedClips(scenes, 64)
    batches = list(validation_clips(clips, 6, 3, per_batch=3))
    assert [len(batch.images) for batch in batches] == [3, 1, 2]
    assert [batch.images.shape[-2:] for batch in batches] == [(64, 64), (64, 64), (48, 64)]
    shapes = {clips.batch(np.random.default_rng(s), 3, 2).images.shape[-2] for s in range(8)}
    assert shapes == {48, 64}


def test_points_of_the_reference_frame_are_its_local_points(scene):
    batch = batch_of(scene)
    points = move(batch.reference_from_camera(), batch.local_points())
    torch.testing.assert_close(points[:, 0], batch.local_points()[:, 0], rtol=1e-4, atol=1e-4)


def test_overlap_is_symmetric_and_full_with_itself(scene):
    assert np.allclose(scene.overlap, scene.overlap.T) and (np.diag(scene.overlap) > 0.99).all()
    assert scene.overlap[0, 1] > scene.overlap[0, 4]


def test_frames_are_drawn_within_the_overlap_where_there_are_any():
    chain = np.clip(1 - 0.2 * np.abs(np.subtract.outer(np.arange(20), np.arange(20))), 0, 1)
    for seed in range(20):
        chosen = draw_overlapping(np.random.default_rng(seed), chain, 6, (0.55, 0.85))
        assert len(set(chosen)) == 6
        for i in range(1, 6):
            best = chain[chosen[i], chosen[:i]].max()
            assert 0.55 <= best <= 0.85
    alone = draw_overlapping(np.random.default_rng(0), np.eye(3), 3, (0.5, 0.9))
    assert sorted(alone) == [0, 1, 2]


def test_batches_depend_on_the_generator_alone(rooms):
    scenes = [Scene(path) for path in find_scenes(rooms)]
    first, second = (
        PosedClips(scenes, 48).batch(np.random.default_rng(3), 2, 3, heights=(32, 48))
        for _ in range(2)
    )
    assert torch.equal(first.images, second.images) and first.sources == second.sources
    assert first.images.shape[-1] == 48 and first.images.shape[-2] in (32, 48)


def test_clips_can_follow_the_walk(rooms):
    clips = PosedClips([Scene(path) for path in find_scenes(rooms)], 48)
    for seed in range(8):
        batch = clips.batch(np.random.default_rng(seed), 1, 4, steps=(1, 2))
        frames = json.loads(batch.sources[0].split("frames ")[1])
        assert len(set(np.diff(frames))) == 1 and abs(frames[1] - frames[0]) in (1, 2)


def test_regression_is_zero_for_the_truth_at_any_scale(scene):
    batch = batch_of(scene)
    local = batch.local_points()
    points = move(batch.reference_from_camera(), local)
    flat = [t.flatten(2, 3) for t in (points, local)]
    valid = batch.depth.flatten(2) > 0
    sure = torch.full(valid.shape, 3.0)
    losses, errors = regression(Pointmaps(7 * flat[0], 7 * flat[1], sure), *flat, valid, alpha=0.2)
    assert all(abs(float(e)) < 1e-5 for e in errors.values())
    assert float(losses["points"]) == pytest.approx(-0.2 * np.log(3), abs=1e-4)
    # Local points that are off by one metre.
    moved = Pointmaps(flat[0], flat[1] + torch.tensor([1.0, 0, 0]), torch.ones(valid.shape))
    _, errors = regression(moved, *flat, valid, alpha=0.2)
    mean = float((flat[0].norm(dim=-1) * valid).sum() / valid.sum())
    assert float(errors["local_error"]) == pytest.approx(1 / mean, rel=1e-4)


def test_validation_measures_poses(scene):
    batch = batch_of(scene, (0, 1, 2))
    local = batch.local_points()
    points = move(batch.reference_from_camera(), local)
    errors = clip_errors(Pointmaps(points, local, torch.full(points.shape[:-1], 2.0)), batch)
    ignoring = errors.pop("identity_error")
    assert max(float(e.abs().max()) for e in errors.values()) < 0.1  # degrees
    assert ignoring[0, 0] < 0.01 < ignoring[0, 2]
    half_turn = torch.diag(torch.tensor([-1.0, 1, -1]))
    errors = clip_errors(
        Pointmaps(points @ half_turn, local, torch.full(points.shape[:-1], 2.0)), batch
    )
    assert errors["rotation_error"][0, 0] == pytest.approx(180, abs=0.5)


def test_matching_rewards_tokens_that_see_the_same_point(scene):
    batch = batch_of(scene, (2, 3))
    world = move(batch.camera_to_world, batch.local_points())
    # Descriptors that are the place itself match; shuffled ones do not.
    middle = world[:, :, 8::16, 8::16].flatten(2, 3)
    same = torch.nn.functional.normalize(
        torch.cat((middle, torch.ones_like(middle[..., :1])), -1), dim=-1
    )
    shuffled = same[:, :, torch.randperm(same.shape[2], generator=torch.Generator().manual_seed(0))]
    assert matching_loss(same, batch, world, 16, 0.02) < matching_loss(
        shuffled, batch, world, 16, 0.02
    )


def test_attention_loss_is_the_share_that_misses_the_same_point(scene):
    batch = batch_of(scene, (2, 3, 2))  # the last frame repeats the first
    world = move(batch.camera_to_world, batch.local_points())
    tokens = 9
    even = [torch.zeros(1, 2, tokens, tokens * len(frames_read(t))) for t in range(3)]
    blind = float(attention_loss(even, batch, world, 16))
    assert np.log(tokens) - 0.3 < blind < np.log(2 * tokens)
    own = torch.zeros(1, 2, tokens, 2 * tokens)
    own[..., torch.arange(tokens), torch.arange(tokens)] = (
        50  # every token looks at itself in the first frame
    )
    assert float(attention_loss([*even[:2], own], batch, world, 16)) < blind
    same = batch_of(scene, (2, 2))
    there = move(same.camera_to_world, same.local_points())
    assert float(attention_loss([own[..., :tokens]] * 2, same, there, 16)) < 1e-3


def test_training_calls_are_those_of_inference(scene):
    torch.manual_seed(0)
    encoder = Dust3rEncoder(img_size=(48, 48), embed_dim=24, depth=1, num_heads=2)
    decoder = MUSt3R(
        (48, 48),
        24,
        embed_dim=24,
        depth=2,
        num_heads=2,
        feedback_type="single_mlp",
        landscape_only=False,
    )
    model = StreamedClips(encoder, decoder).eval()
    batch = batch_of(scene, (0, 1, 2, 3))
    raw, _, attention = model(batch.images)  # with gradients: memory is concatenated
    with torch.no_grad():  # without: memory is written in place
        again = model(batch.images)[0]
    torch.testing.assert_close(raw, again, rtol=1e-5, atol=1e-6)
    # Two heads of the one middle layer there is, over the tokens of the frames before.
    assert [tuple(logits.shape) for logits in attention] == [(1, 2, 9, 9 * n) for n in (1, 1, 2, 3)]
    raw.sum().backward()
    assert all(
        p.grad is not None for n, p in model.named_parameters() if not n.startswith("matcher")
    )


def test_a_run_starts_from_released_weights_which_lack_the_matching_head(rooms):
    shipped = ROOT / "must3r_weights/must3r_tiny.safetensors"
    scenes = [f"data.scenes={rooms}", f"data.val_scenes={rooms}", "validation.val_frames=3"]
    arguments = ["experiment=tiny_must3r", f"trainer.init_from={shipped}", *scenes]
    model = build_must3r_task(compose_config(CONFIGS, "train", arguments)).model
    saved, state = read_weights(shipped), model.state_dict()
    assert all(torch.equal(state[name], value.float()) for name, value in saved.items())
    assert set(state) - set(saved) == {"matcher.weight", "matcher.bias"}
    assert state["matcher.weight"].std() > 0


def test_thin_pictures_are_supervised_at_all_their_pixels(tmp_path):
    write_rooms(range(5, 6), tmp_path, workers=1, frames=4, width=128, height=72)
    arguments = [
        "experiment=tiny_must3r",
        f"data.scenes={tmp_path}",
        f"data.val_scenes={tmp_path}",
        "validation.val_frames=3",
        "losses.pixels=12288",  # those of 128x96; these pictures have 128x64
        "batches.kinds.near={clips: 1, frames: 3, overlap: [0.3, 1.0], heights: [128, 96]}",
    ]
    task = build_must3r_task(compose_config(CONFIGS, "train", arguments))
    rng = np.random.default_rng(0)
    batch = task.batch(rng, 0)
    assert batch.images.shape[-2:] == (64, 128)
    assert torch.isfinite(task.losses(task.model, batch, rng)["total"])


def test_a_short_run_learns_resumes_and_loads(rooms, tmp_path):
    arguments = [
        ROOT / "train.py",
        "experiment=tiny_must3r",
        f"data.scenes={rooms}",
        f"data.val_scenes={rooms}",
        "batches.kinds.near={clips: 1, frames: 3, overlap: [0.3, 1.0], heights: [128, 96]}",
        "batches.kinds.wide={clips: 1, frames: 3, overlap: [0.3, 1.0]}",
        "batches.kinds.long={clips: 1, frames: 4, overlap: [0.3, 1.0]}",
        "validation.val_clips=2",
        "validation.val_frames=3",
        "trainer.device=cpu",
        "trainer.threads=2",
        "trainer.warmup_steps=2",
        "trainer.log_every=1",
        "trainer.eval_every=100",
        "trainer.save_every=2",
        f"trainer.run_dir={tmp_path}",
    ]
    done = run_script(*arguments, "trainer.max_steps=4")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "checkpoints/checkpoint_last.safetensors"
    encoder, decoder = must3r_loader.load_must3r(file)
    trained = load_file(file)
    assert torch.equal(encoder.state_dict()["norm_enc.weight"], trained["encoder.norm_enc.weight"])
    assert decoder.feedback_layer is not None and encoder.img_size == (128, 128)
