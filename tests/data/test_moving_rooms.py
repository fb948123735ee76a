"""Rooms with moving objects: objects are where the record says, still ones stay where they were."""

import json

import numpy as np
import pytest

from geometry_fusion.data import moving_rooms
from geometry_fusion.data.motion_record import KINDS, STILL, read_motion
from geometry_fusion.data.room_layout import draw_layout, draw_path
from geometry_fusion.data.room_motion import FRAME_RATE, SPEEDS, draw_moving_room
from geometry_fusion.data.rooms import render_room as render_still_room
from geometry_fusion.data.scenes import Scene
from geometry_fusion.data.worlds import world_of
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.cameras import back_project, intrinsic_matrix, project
from tests.conftest import ROOT, run_script

SEEDS = range(120_000, 120_008)


@pytest.fixture(scope="module")
def drawn():
    return {seed: draw_moving_room(seed) for seed in SEEDS}


@pytest.fixture(scope="module")
def film():
    return list(moving_rooms.render_room(120_001, num_frames=24, width=96, height=96))


def motions_of(drawn, kind):
    return [(room, m) for room in drawn.values() for m in room.motions if m.kind == kind]


def test_the_same_seed_gives_the_same_film(film):
    again = next(moving_rooms.render_room(120_001, num_frames=24, width=96, height=96))
    assert np.array_equal(again.rgb, film[0].rgb)
    first, second = draw_moving_room(120_003), draw_moving_room(120_003)
    assert np.array_equal(first.body_to_world, second.body_to_world)
    assert [m.kind for m in first.motions] == [m.kind for m in second.motions]
    other = draw_moving_room(120_004)
    assert [m.kind for m in first.motions] != [m.kind for m in other.motions]


def agreement(source, target, motion, frames) -> float:
    """Share of an object's pixels that the target frame shows where the record puts them."""
    pose, k = source.camera_to_world, intrinsic_matrix(*source.intrinsics)
    rows, columns = np.nonzero(source.instance == motion.id)
    points = back_project(source.depth[rows, columns], k, pose, columns, rows)
    there = motion.object_to_world[frames[1]] @ np.linalg.inv(motion.object_to_world[frames[0]])
    moved = there[:3, :3] @ points + there[:3, 3:]
    u, v, z = project(moved, k, target.camera_to_world)
    u, v = u.round().astype(int), v.round().astype(int)
    seen = (z > 0.1) & (u >= 0) & (v >= 0) & (u < 96) & (v < 96)
    if seen.sum() < 30:
        return np.nan
    depth, ids = target.depth[v[seen], u[seen]], target.instance[v[seen], u[seen]]
    in_front = depth > 0.97 * z[seen]  # nothing else hides it
    if in_front.sum() < 30:
        return np.nan
    agrees = (ids == motion.id) & (np.abs(depth - z[seen]) < 0.04 * z[seen])
    return agrees[in_front].mean()


def test_objects_are_where_the_record_says(film):
    """Depth, moved by the recorded poses, is found again: with the still pose it is not."""
    room = draw_moving_room(120_001, 24)
    checked = set()
    for motion in room.motions:
        if motion.kind == "door":  # its panel moves on its own
            continue
        shares = [
            share
            for s in range(0, 23, 2)
            for gap in (1, 4)
            if s + gap < 24
            and not np.isnan(share := agreement(film[s], film[s + gap], motion, (s, s + gap)))
        ]
        if shares:
            assert np.median(shares) > 0.8, (motion.id, motion.kind, shares)
            checked.add(motion.kind)
    assert STILL in checked and checked & {"translate", "spin", "carry"}


def test_still_objects_do_not_move_and_the_camera_is_that_of_the_still_room(drawn):
    for seed, room in drawn.items():
        layout = draw_layout(seed)
        assert np.array_equal(room.camera_to_world, draw_path(seed, layout))
        for item, motion in zip(layout.objects, room.motions):
            assert motion.moving == (motion.kind != STILL)
            poses = motion.object_to_world
            if not motion.moving:
                assert (poses == poses[0]).all() and motion.moved.max() == 0
                assert np.allclose(poses[0][:2, 3], item.position)
            else:
                assert motion.moved.max() > 0.05, motion.kind


def test_every_kind_occurs_and_goes_at_its_speed(drawn):
    assert {m.kind for room in drawn.values() for m in room.motions} >= set(KINDS)
    for kind in ("translate", "spin", "door"):
        for _, motion in motions_of(drawn, kind):
            assert motion.speed in SPEEDS
            poses = motion.object_to_world if kind != "door" else motion.part_to_world
            assert (poses[: motion.start + 1] == poses[0]).all()
            a, b = poses[motion.start : motion.start + 2]
            if kind == "translate":
                step = np.linalg.norm(b[:3, 3] - a[:3, 3])
                expected = motion.speed * motion.size_m / FRAME_RATE
                assert step == pytest.approx(expected, rel=1e-6)
            else:
                assert not np.allclose(a[:3, :3], b[:3, :3]) and np.allclose(a[:3, 3], b[:3, 3])


def test_carried_objects_keep_their_place_before_the_camera(drawn):
    for room, motion in motions_of(drawn, "carry"):
        offset = np.linalg.inv(room.camera_to_world) @ motion.object_to_world
        assert np.allclose(offset, offset[0])
        assert offset[0][2, 2] == pytest.approx(0) and offset[0][1, 2] == pytest.approx(-1)


def test_teleported_objects_move_only_while_nobody_looks():
    room = draw_moving_room(120_000)
    motion = next(m for m in room.motions if m.kind == "teleport")
    poses = motion.object_to_world
    changed = np.flatnonzero((poses[1:] != poses[:-1]).any((1, 2))) + 1
    assert changed.tolist() == [motion.start]
    ids = [f.instance for f in moving_rooms.render_room(120_000, width=48, height=48)]
    seen = [bool((i == motion.id).any()) for i in ids]
    assert not any(seen[motion.start - 1 : motion.start + 1])
    assert any(seen[: motion.start]) and any(seen[motion.start :])


def test_scenes_offer_the_record(tmp_path):
    moving_rooms.write_rooms(range(120_003, 120_004), tmp_path, frames=4, width=48, height=48)
    scene = Scene(moving_rooms.room_folder(tmp_path, 120_003))
    room = draw_moving_room(120_003, 4)
    assert sorted(scene.motions) == [m.id for m in room.motions] == [o.id for o in scene.objects]
    for motion in room.motions:
        read = scene.motions[motion.id]
        assert np.array_equal(read.object_to_world, motion.object_to_world)
        assert (read.kind, read.moving, read.speed) == (motion.kind, motion.moving, motion.speed)
    file = scene.folder / "motion.json"
    with pytest.raises(InputError, match=r"motion\.json: object 1 has 4 poses, the scene has 5"):
        read_motion(file, 5)
    content = json.loads(file.read_text())
    content["objects"][0]["object_to_world"][0][0] = [1, 2]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"motion\.json: not a record of moving objects"):
        read_motion(file, 4)
    file.unlink()
    assert Scene(scene.folder).motions == {}


def test_placing_bodies_where_they_stand_changes_nothing():
    """A room whose motion is stopped is the still room of its seed, for all that is not changed."""
    still = next(render_still_room(120_003, num_frames=60, width=64, height=64))
    moving = next(moving_rooms.render_room(120_003, width=64, height=64))
    changed = [m.id for m in draw_moving_room(120_003).motions if m.kind in ("carry", "door")]
    same = ~np.isin(still.instance, changed) & ~np.isin(moving.instance, changed)
    assert same.mean() > 0.5
    assert (still.instance == moving.instance)[same].mean() > 0.99


def test_the_world_is_known_by_name_and_has_a_command(tmp_path):
    assert world_of("moving", "data.world") is moving_rooms
    options = ["--seeds", "120009:120010", "--frames", "2", "--width", "32", "--height", "32"]
    done = run_script(
        "-m", "geometry_fusion.data.moving_rooms", *options, "--out", tmp_path, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "moving_120009" / "motion.json").exists()
