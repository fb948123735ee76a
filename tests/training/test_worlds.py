"""Training on generated worlds: geometry as inference makes it, the trunk's weights, the chain."""

import numpy as np
import pytest
import torch

from geometry_fusion.data.generated.rooms import RoomWorld
from geometry_fusion.data.generated.textures import TextureBank
from geometry_fusion.data.scenes import Scene
from geometry_fusion.data.thin import main as thin
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.must3r_stream import Must3rStream
from geometry_fusion.geometry.overlap import OverlapRule
from geometry_fusion.geometry.posed_depth import PosedDepth, PosedView
from geometry_fusion.models.must3r import load_must3r, model_file
from geometry_fusion.models.sam2 import build_sam2
from geometry_fusion.models.trunk import EfficientNetTrunk
from geometry_fusion.training import chain
from geometry_fusion.training.generated_clips import fitted, normalised, picture_size
from geometry_fusion.training.generated_fusion import ClipGeometry, true_geometry, view_shares
from geometry_fusion.training.start_from import start_from
from geometry_fusion.training.trunk_weights import renamed, trunk_weights
from tests.conftest import error_line, run_script

LEVELS = [0, 2, 4, 5]


@pytest.fixture(scope="module")
def room():
    bank = TextureBank(0, torch.device("cpu"), count=48, size=32)
    clips = RoomWorld(bank).clips(
        torch.Generator().manual_seed(0), 3, 5, 128, (1, 1), moving_share=0.0
    )
    clips.rgb = clips.rgb.round().to(torch.uint8)
    return clips


def test_the_geometry_of_a_training_clip_is_that_of_a_stream_of_keyframes(room, monkeypatch):
    encoder, decoder = load_must3r(model_file("tiny"))
    fit, (images, *_) = fitted(room, [0, 1, 2, 3, 4], 128)
    geometry = ClipGeometry(encoder, decoder, LEVELS)
    monkeypatch.setattr("geometry_fusion.training.generated_fusion.KEPT_SHARE", 1.0)
    answers = geometry.frames(np.random.default_rng(0), images[None] / 127.5 - 1, fit)[0]
    every = OverlapRule(threshold=-1.0, min_confidence=1.0)
    stream = Must3rStream(encoder, decoder, levels=LEVELS, rule=every, precision="fp32")
    # At its own size the picture is read as it is.
    pictures = [image.permute(1, 2, 0).numpy().astype(np.uint8) for image in images.round()]
    streamed = [stream.push(index, picture) for index, picture in enumerate(pictures)]
    assert stream.keyframes == [0, 1, 2, 3, 4]
    for index, (one, other) in enumerate(zip(answers[2:], streamed[2:])):
        spread = other.points.std()
        assert (one.points - other.points).abs().mean() < 0.05 * spread, index
        assert torch.nn.functional.cosine_similarity(one.rays, other.rays, dim=0).mean() > 0.99
        assert one.scale / other.scale == pytest.approx(1, abs=0.05)
        for level, wanted in zip(one.levels, other.levels):
            assert level.shape == wanted.shape
            assert torch.nn.functional.cosine_similarity(level, wanted, dim=0).mean() > 0.98


def test_the_true_geometry_of_a_clip_is_that_of_posed_depth(room):
    def look(index: int):
        depth, pose = room.depth[0, index].float(), room.camera_to_world[0, index]
        lens = Lens(room.intrinsics[0, index].double().numpy())
        return PosedView(depth.numpy(), pose.double().numpy(), lens)

    source = PosedDepth(look)
    size = picture_size(room)
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    order = [2, 3, 4, 1, 0]
    for one, index in zip(true_geometry(room, order), order):
        other = source.push(index, picture)
        assert torch.allclose(one.points, other.points, atol=1e-4)
        assert torch.allclose(one.rays, other.rays, atol=1e-5)
        assert one.fit == other.fit and one.scale == pytest.approx(float(other.scale), rel=1e-4)


def test_an_object_lies_in_the_view_of_the_frame_that_shows_it(room):
    shown = int(room.areas[0, 0, 1:].argmax()) + 1
    shares = view_shares(room, 0, shown)
    assert shares[0] == 1 and ((shares >= 0) & (shares <= 1)).all()


def test_the_trunk_takes_the_weights_of_the_package_strictly():
    weights = trunk_weights()
    trunk = EfficientNetTrunk()
    trunk.body.load_state_dict(weights)
    features = trunk(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]
    assert trunk.channel_list == [320, 112, 40, 24]
    # The second block of the third stage, counted through all blocks, is number 4.
    assert set(renamed({"_blocks.4._expand_conv.weight": torch.ones(1), "_fc.bias": 0})) == {
        "blocks.2.1.conv_pw.weight"
    }


def test_batch_statistics_of_the_trunk_stay_while_it_trains():
    trunk = EfficientNetTrunk().train()
    before = {name: value.clone() for name, value in trunk.named_buffers()}
    trunk(torch.rand(2, 3, 64, 64))
    assert trunk.training and before
    assert all(torch.equal(value, before[name]) for name, value in trunk.named_buffers())


def test_the_second_sam2_starts_as_the_first_one_with_another_trunk(room):
    first = build_sam2("tiny")
    second = build_sam2("tiny2", random_weights=True)
    pictures = normalised(torch.nn.functional.interpolate(room.rgb[0].float(), size=(256, 256)))
    shown = pictures[:1]
    wanted = first.image_encoder(shown)["vision_features"]

    def distance() -> float:
        """Of the features to those of the first model, as a share of their own spread."""
        answer = second.image_encoder(shown)["vision_features"]
        return float((answer - wanted).std() / wanted.std())

    with torch.no_grad():
        before = distance()
        start_from(second, first, pictures)
        assert distance() < 0.7 < before
    old, new = first.state_dict(), second.state_dict()
    for part in ("memory_attention", "memory_encoder", "sam_prompt_encoder"):
        assert all(torch.equal(new[k], old[k]) for k in old if k.startswith(part))
    tokens = second.sam_mask_decoder.mask_tokens.weight
    assert torch.equal(tokens[0], first.sam_mask_decoder.mask_tokens.weight[0])
    spread = (tokens[1:] - tokens[0]).std() / tokens[0].std()
    assert 0.05 < spread < 0.2


def test_a_model_of_other_sizes_is_no_start(room):
    first, second = build_sam2("tiny"), build_sam2("tiny2", random_weights=True)
    second.mask_downsample = torch.nn.Conv2d(1, 1, kernel_size=2)
    with pytest.raises(InputError, match=r"start_from: mask_downsample\.weight is missing"):
        start_from(second, first, torch.zeros(1, 3, 256, 256))


def test_thinned_scenes_keep_cameras_and_ids_and_lose_frames(tmp_path, rooms):
    thin([str(rooms), "--out", str(tmp_path), "--every", "2", "--with-depth", "0"])
    before, after = Scene(rooms / "room_000005"), Scene(tmp_path / "room_000005")
    assert after.stems == before.stems[::2] and not (after.folder / "depth").exists()
    assert np.array_equal(after.instance(1), before.instance(2))
    assert np.allclose(after.camera(1)[0], before.camera(2)[0])


def test_the_chain_gives_each_training_its_own_overrides():
    command = chain._command("sam2", ["a=1", "sam2:b=2", "must3r:c=3"])
    assert command[2:] == ["trainer.run_dir=sam2_logs/chain/sam2", "a=1", "b=2"]


def test_the_fusion_stage_refuses_to_start_without_backbones(tmp_path, monkeypatch):
    monkeypatch.setattr(chain, "RUNS", tmp_path)
    with pytest.raises(InputError, match="run the stage backbones first"):
        chain.main(["fusion", "--out", str(tmp_path / "out")])


SMALL = [
    "data.worlds.rooms=1",
    "data.worlds.start=1",
    "data.worlds.fresh=0",
    "data.worlds.frames=2",
    "data.worlds.textures=32",
    "data.worlds.texture_size=16",
    "data.worlds.moving_share=0",
    "trainer.device=cpu",
    "trainer.max_steps=1",
]


def train_once(tmp_path, scenes, *overrides: str) -> str:
    done = run_script(
        "train.py",
        *SMALL,
        f"trainer.run_dir={tmp_path / 'run'}",
        f"data.val_scenes={scenes}",
        *overrides,
    )
    assert done.returncode == 0, done.stderr
    return (tmp_path / "run/logs/log.txt").read_text()


def test_sam2_trains_on_generated_worlds(tmp_path, rooms):
    log = train_once(
        tmp_path,
        rooms,
        "experiment=worlds_sam2",
        "batches.kinds.image.clips=2",
        "val_objects=1",
        "val_frames=2",
        "data.min_area=20",
    )
    assert "step 1: total" in log and "click_iou" in log


@pytest.mark.slow
def test_must3r_trains_on_generated_worlds(tmp_path, rooms):
    log = train_once(
        tmp_path,
        rooms,
        "experiment=worlds_must3r",
        "batches.kinds.near.clips=1",
        "batches.kinds.near.frames=2",
        "validation.val_clips=1",
        "validation.val_frames=2",
    )
    assert "step 1: total" in log and "rotation_error" in log


@pytest.mark.slow
def test_the_fusion_trains_on_generated_rooms(tmp_path, rooms):
    log = train_once(
        tmp_path,
        rooms,
        "experiment=worlds_fusion",
        "sam2=tiny",  # the shipped one
        "batches.kinds.short.clips=1",
        "batches.kinds.short.frames=2",
        "batches.kinds.short.objects=1",
        "val_objects=1",
        "val_hard_only=false",
        "data.min_area=20",
        f"geometry_cache={tmp_path / 'geometry'}",
    )
    assert "step 1: total" in log and "mask_positive_iou" in log


@pytest.mark.parametrize(
    "overrides, reason",
    [
        (["experiment=tiny_must3r", "data=generated"], "heights=[128, 96]: generated pictures"),
        (["experiment=worlds_must3r", "losses.pixels=9000"], "must be at most 8192"),
        (["experiment=worlds_sam2", "data.worlds.layered_share=2"], "layered_share=2: must be"),
        (["experiment=worlds_sam2", "trunk_weights=no.safetensors"], "no.safetensors"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(tmp_path, rooms, overrides, reason):
    done = run_script(
        "train.py",
        f"trainer.run_dir={tmp_path / 'run'}",
        f"data.val_scenes={rooms}",
        *overrides,
        "trainer.device=cpu",
    )
    assert done.returncode == 2 and reason in error_line(done)
