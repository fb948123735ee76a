"""Generated worlds: ray casting against known distances, geometry against itself, determinism."""

import numpy as np
import pytest
import torch

from geometry_fusion.data.generated import cast, noise
from geometry_fusion.data.generated.damage import _jpeg, damaged
from geometry_fusion.data.generated.layered import LayeredWorld
from geometry_fusion.data.generated.plan import LIMITS, draw_plan
from geometry_fusion.data.generated.pool import ClipPool
from geometry_fusion.data.generated.rooms import RoomWorld
from geometry_fusion.data.generated.shapes import shape_bank
from geometry_fusion.data.generated.solids import MAKERS
from geometry_fusion.data.generated.textures import TextureBank
from geometry_fusion.devices import can_compile
from geometry_fusion.training.generated_clips import GeneratedPosedBatches, fitted, overlap_of
from geometry_fusion.training.posed_clips import PosedBatch, move, project

CPU = torch.device("cpu")
SIZE = 48


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def bank() -> TextureBank:
    return TextureBank(0, CPU, count=64, size=32)


@pytest.fixture(scope="module")
def room(bank):
    return RoomWorld(bank).clips(generator(), 3, 4, SIZE, (4, 3), moving_share=0.0)


def maps(scale=(1.0, 1.0, 1.0), centre=(0.0, 0.0, 5.0)) -> torch.Tensor:
    """The map [1, 1, 3, 4] into the frame of one solid."""
    own = torch.eye(4)
    own[:3, :3] = torch.diag(torch.tensor(scale))
    own[:3, 3] = torch.tensor(centre)
    return torch.linalg.inv(own)[None, None, :3]


RAYS = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.1]]])
EYE = torch.zeros(1, 3)


def test_rays_meet_solids_at_the_distances_of_plane_geometry():
    assert cast.boxes(EYE, RAYS, maps((1, 1, 2)))[0, 0].tolist() == [3.0, 1e6, 1e6]
    assert cast.ellipsoids(EYE, RAYS, maps((1, 1, 3)))[0, 0].tolist() == pytest.approx(
        [2, 1e6, 1e6]
    )
    one = torch.ones(1, 1)
    assert cast.frustums(EYE, RAYS, maps(), one)[0, 0].tolist() == [4.0, 1e6, 1e6]  # its cap
    # A cone with its tip at z = 6, seen from the side at z = 5: half as wide as its base.
    side = torch.tensor([[[1.0, 0.0, 0.0]]])
    at = torch.tensor([[-10.0, 0.0, 5.0]])
    assert cast.frustums(at, side, maps(), torch.zeros(1, 1)).item() == pytest.approx(9.5)


def test_the_nearest_of_several_kinds_of_solids_is_the_one_seen():
    near, far = maps(centre=(0, 0, 5)), maps(centre=(0, 0, 9))
    t, index = cast.nearest(EYE, RAYS[:, :1], (far, near, far), torch.ones(1, 1))
    assert (t.item(), index.item()) == (4.0, 1)
    t, index = cast.nearest(EYE, RAYS[:, :1], (far, far, near), torch.ones(1, 1))
    assert (t.item(), index.item()) == (4.0, 2)


def test_depth_and_poses_of_a_room_agree(room):
    depth, poses = room.depth[0].float(), room.camera_to_world[0]
    batch = PosedBatch(depth[None, :, None], depth[None], poses[None], room.intrinsics, [])
    points = move(poses, batch.local_points()[0])
    for first in range(3):
        at, seen = project(
            points[first : first + 1],
            depth[first + 1 : first + 2],
            poses[first + 1 : first + 2],
            room.intrinsics[0, first + 1 : first + 2],
        )
        # What a frame sees of another has the ids that the other has, but for outlines.
        there = at.round().long().clamp(0, SIZE - 1)[0]
        other = room.ids[0, first + 1][there[..., 1], there[..., 0]]
        assert seen.float().mean() > 0.2
        assert (other == room.ids[0, first])[seen[0]].float().mean() > 0.9


def test_the_room_of_a_seed_is_always_the_same_and_seeds_differ(bank, room):
    again = RoomWorld(bank).clips(generator(), 3, 4, SIZE, (4, 3), moving_share=0.0)
    assert torch.equal(again.rgb, room.rgb) and torch.equal(again.ids, room.ids)
    other = RoomWorld(bank).clips(generator(), 4, 4, SIZE, (4, 3), moving_share=0.0)
    assert not torch.equal(other.ids, room.ids)


def test_plans_hold_twins_things_that_move_and_no_more_solids_than_there_is_room_for():
    moving = 0
    for seed in range(12):
        plan = draw_plan(seed, 8, moving_share=0.5)
        kinds = [s.kind for p in plan.placed for s in p.thing.solids]
        assert all(n <= most for n, most in zip(np.bincount(kinds, minlength=3), LIMITS))
        by_id = {p.id: p for p in plan.placed if p.id}
        assert len(by_id) == max(by_id) and len(by_id) < 64
        for item in by_id.values():
            if item.twin:
                assert by_id[item.twin].thing is item.thing
                assert np.array_equal(by_id[item.twin].textures, item.textures)
        for path in plan.motion.values():
            rotation = path[:, :3, :3]
            assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3))
        moving += bool(plan.motion)
        forward = plan.poses[:, :3, 2]
        turns = np.degrees(np.arccos((forward[1:] * forward[:-1]).sum(1).clip(-1, 1)))
        assert turns.max() < 20
    assert 2 <= moving <= 10


def test_every_thing_stands_on_the_ground_inside_its_own_circle():
    rng = np.random.default_rng(0)
    for maker in dict.fromkeys(MAKERS):
        thing = maker(rng)
        corners = np.stack(np.meshgrid((-1, 1), (-1, 1), (-1, 1)), -1).reshape(-1, 3)
        points = np.concatenate([s.centre + (corners * s.half) @ s.turn.T for s in thing.solids])
        assert points[:, 2].min() == pytest.approx(0)
        assert np.linalg.norm(points[:, :2], axis=1).max() <= thing.radius + 1e-9


def test_layered_clips_show_their_sprites_where_their_ids_are(bank):
    world = LayeredWorld(bank, shapes=32)
    clips = world.clips(generator(2), 6, 4, SIZE, (16, 9))
    assert clips.rgb.shape == (6, 4, 3, SIZE, SIZE) and clips.areas.sum() == 6 * 4 * SIZE**2
    shown = (clips.areas[:, :, 1:] > 0).any(1).sum(1)
    assert shown.max() >= 4 and (clips.areas[:, :, 13:] == 0).all()
    # Sprites come and go: some id of some clip is absent in one frame and present in another.
    present = clips.areas[:, :, 1:] > 0
    assert (present.any(1) & ~present.all(1)).any()
    for v, row in enumerate(clips.twin_of.tolist()):
        for i, twin in enumerate(row):
            assert not twin or clips.twin_of[v, twin] == i
    again = world.clips(generator(2), 6, 4, SIZE, (16, 9))
    assert torch.equal(again.rgb, clips.rgb)


def test_shapes_are_neither_empty_nor_full_and_leave_their_edge_free():
    shapes = shape_bank(0, 64, 128)
    cover = shapes.mean((1, 2))
    assert cover.min() > 0.02 and cover.max() < 0.95
    assert not shapes[:, 0].any() and not shapes[:, :, -1].any()


def test_textures_are_read_bilinearly_and_folded_at_their_edges(bank):
    texture = bank.levels[0][5].float() / 255
    at = torch.tensor([0.5 / 32, 31.5 / 32, 1.5 / 32, 32.5 / 32])
    row = bank.sample(torch.full((4,), 5), at, torch.full((4,), 0.5 / 32), torch.ones(4))
    wanted = texture[0, [0, 31, 1, 31]]  # beyond the edge the texture comes back mirrored
    assert torch.allclose(row, wanted, atol=1e-6)
    coarse = bank.sample(torch.tensor([5]), at[:1] * 4, at[:1] * 4, torch.tensor([8.0]))
    assert torch.allclose(coarse[0], bank.levels[3][5, 0, 0].float() / 255, atol=0.3)


@pytest.mark.parametrize("kind", [noise.clouds, noise.cells, noise.leaves, noise.stripes])
def test_patterns_are_pictures_and_differ_from_each_other(kind):
    pictures = kind(generator(), 3, 24)
    assert pictures.shape == (3, 3, 24, 24)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert (pictures[0] - pictures[1]).abs().mean() > 0.02


def test_damage_keeps_pictures_recognisable_and_jpeg_without_a_step_changes_nothing():
    rgb = torch.nn.functional.interpolate(
        torch.rand(6, 3, 4, 4, generator=generator(1)) * 255, size=(48, 48), mode="bilinear"
    ).unflatten(0, (2, 3))
    result = damaged(generator(1), rgb)
    assert result.dtype == torch.uint8 and result.shape == rgb.shape
    for before, after in zip(rgb.flatten(0, 1), result.float().flatten(0, 1)):
        both = torch.stack((before.flatten(), after.flatten()))
        assert torch.corrcoef(both)[0, 1] > 0.7
    same = _jpeg(rgb, torch.zeros(2, 1, 1, 1, 1))
    assert torch.allclose(same, rgb, atol=0.01)
    blocky = _jpeg(rgb, torch.ones(2, 1, 1, 1, 1))
    assert 0.5 < (blocky - rgb).abs().mean() < 20


def test_a_pool_at_a_step_is_the_same_however_it_was_reached():
    options = {"rooms": 3, "start": 2, "fresh": 0.5, "frames": 2, "size": 32, "textures": 48}
    walked = ClipPool(CPU, texture_size=16, compiles=False, **options)
    for step in range(5):
        walked.at_step(step)
    resumed = ClipPool(CPU, texture_size=16, compiles=False, **options)
    resumed.at_step(4)
    assert len(walked.rooms) == len(resumed.rooms) == 3
    for one, other in zip(walked.rooms, resumed.rooms):
        assert torch.equal(one.rgb, other.rgb) and one.rgb.dtype == torch.uint8


@pytest.mark.skipif(not can_compile(CPU), reason="needs a C++ compiler")
def test_compiled_ray_casting_sees_what_the_plain_one_sees():
    options = {"rooms": 2, "start": 1, "fresh": 0, "frames": 3, "size": 32, "textures": 48}
    plain, compiled = (
        ClipPool(CPU, texture_size=16, compiles=compiles, **options).room(5)
        for compiles in (False, True)
    )
    # Rounding differs, so that single pixels on outlines may show the other side.
    assert (plain.ids == compiled.ids).float().mean() > 0.99
    near = (plain.depth.float() - compiled.depth.float()).abs() < 0.01 * plain.depth.float()
    assert near.float().mean() > 0.99
    assert len(plain.ids.unique()) > 3


def test_frames_fitted_to_must3r_keep_their_geometry(room):
    fit, (images, depth, poses, k) = fitted(room, [0, 1, 2], 128)
    assert images.shape == (3, 3, 96, 128) and fit.size == (128, 96)
    batch = PosedBatch(depth[None, :, None], depth[None], poses[None], k[None], [])
    points = move(poses, batch.local_points()[0])
    _, seen = project(points[1:2], depth[2:3], poses[2:3], k[2:3])
    assert seen.float().mean() == pytest.approx(float(overlap_of(room)[1, 2]), abs=0.3)


def test_posed_batches_are_a_pure_function_of_their_generator():
    options = {"rooms": 3, "start": 3, "fresh": 0, "frames": 4, "size": 64, "textures": 48}
    pool = ClipPool(CPU, texture_size=16, moving_share=0.0, compiles=False, **options)
    batches = GeneratedPosedBatches(pool, 64, scene_share=0.0)
    batches.at_step(0)
    one, other = (batches.batch(np.random.default_rng(1), 2, 3, (0.2, 0.9)) for _ in range(2))
    assert torch.equal(one.images, other.images) and one.images.abs().max() <= 1
    assert one.images.shape[:3] == (2, 3, 3) and one.images.shape[-1] % 16 == 0
    # Mirrored or not, depth and poses of a clip belong together.
    points = move(one.camera_to_world, one.local_points())
    for clip in range(2):
        _, seen = project(
            points[clip, :1].expand(3, -1, -1, -1),
            one.depth[clip],
            one.camera_to_world[clip],
            one.intrinsics[clip],
        )
        assert seen[0].float().mean() > 0.95
