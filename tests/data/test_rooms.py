"""Synthetic rooms: geometry that agrees with itself, twins that look alike, cameras that stay clear
of things.
"""

import itertools

import numpy as np
import pytest

from geometry_fusion.data.room_layout import EYE_CLEARANCE_M, draw_layout, draw_path
from geometry_fusion.data.rooms import render_room, seed_range, write_rooms
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.errors import InputError
from tests.conftest import ROOT, error_line, run_script

SEEDS = [0, 1, 17, 100_003]


@pytest.fixture(scope="module")
def clip():
    return list(render_room(3, num_frames=16, width=160, height=128))


def reproject(source, target):
    """Back-project every pixel of one frame by depth and pose; return what the other frame shows
    there.

    Only points that the target frame sees (its depth agrees) are returned: ids in source and in
    target.
    """
    height, width = source.instance.shape
    fx, fy, cx, cy = source.intrinsics
    v, u = np.mgrid[:height, :width]
    camera = np.stack(
        [(u - cx) / fx * source.depth, (v - cy) / fy * source.depth, source.depth], -1
    ).reshape(-1, 3)
    world = camera @ source.camera_to_world[:3, :3].T + source.camera_to_world[:3, 3]
    x, y, z = ((world - target.camera_to_world[:3, 3]) @ target.camera_to_world[:3, :3]).T
    front = z > 0.1
    u, v = (
        np.rint(f * a / np.where(front, z, 1) + c).astype(int)
        for f, a, c in ((fx, x, cx), (fy, y, cy))
    )
    inside = front & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v = u[inside], v[inside]
    seen = np.abs(target.depth[v, u] - z[inside]) < 0.02 * z[inside]
    return source.instance.reshape(-1)[inside][seen], target.instance[v, u][seen], seen.mean()


@pytest.mark.parametrize("pair", [(0, 1), (0, 3), (9, 6), (12, 15)])
def test_depth_pose_and_ids_agree_between_frames(clip, pair):
    source_ids, target_ids, seen_share = reproject(clip[pair[0]], clip[pair[1]])
    objects = source_ids > 0
    assert len(source_ids) > 1000 and objects.sum() > 100
    assert seen_share > 0.7  # a wrong axis, unit or principal point leaves next to nothing
    assert (source_ids == target_ids).mean() > 0.99
    assert (source_ids == target_ids)[objects].mean() > 0.95


def test_principal_point_is_the_image_centre_to_a_fraction_of_a_pixel(clip):
    """The floor is z = 0: back-projected floor pixels must lie on it. Half a pixel of offset would
    show.
    """
    errors = []
    for frame in clip:
        fx, fy, cx, cy = frame.intrinsics
        v, u = np.mgrid[: frame.depth.shape[0], : frame.depth.shape[1]]
        camera = (
            np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(frame.depth)], -1)
            * frame.depth[..., None]
        )
        height = (camera @ frame.camera_to_world[:3, :3].T + frame.camera_to_world[:3, 3])[..., 2]
        errors.append(np.abs(height[(np.abs(height) < 0.1) & (frame.instance == 0)]))
    assert np.median(np.concatenate(errors)) < 0.002  # metres


@pytest.mark.parametrize("seed", SEEDS)
def test_layout_keeps_its_promises(seed):
    layout = draw_layout(seed)
    assert 8 <= len(layout.objects) <= 14
    assert [o.id for o in layout.objects] == list(range(1, len(layout.objects) + 1))
    twins = [o for o in layout.objects if o.twin_of]
    assert twins
    for twin in twins:
        other = layout.objects[twin.twin_of - 1]
        assert (
            other.twin_of == twin.id and other.mesh is twin.mesh and other.texture is twin.texture
        )
        assert np.hypot(*np.subtract(other.position, twin.position)) > 1.5
    for index, first in enumerate(layout.objects):
        for second in layout.objects[index + 1 :]:
            assert (
                np.hypot(*np.subtract(first.position, second.position))
                > first.radius + second.radius
            )


@pytest.mark.parametrize("seed", SEEDS)
def test_camera_never_enters_walls_or_objects_and_turns_smoothly(seed):
    layout = draw_layout(seed)
    poses = draw_path(seed, layout)
    eyes, rotations = poses[:, :3, 3], poses[:, :3, :3]
    assert (np.abs(eyes[:, :2]) < np.array(layout.size[:2]) / 2 - EYE_CLEARANCE_M).all()
    for item in layout.objects:
        assert (
            np.hypot(*(eyes[:, :2] - item.position).T) > item.radius + EYE_CLEARANCE_M - 0.01
        ).all()
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(rotations), 1)
    assert (rotations[:, 2, 1] < 0).all()  # the camera's y axis points down: images are upright
    cosine = (np.trace(rotations[1:] @ rotations[:-1].transpose(0, 2, 1), axis1=1, axis2=2) - 1) / 2
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 15


def test_objects_leave_view_and_come_back():
    """In most rooms the first target is seen, lost for at least three frames, and seen again."""
    returning = 0
    for seed in range(8):
        frames = [f.instance for f in render_room(seed, num_frames=40, width=32, height=24)]
        areas = np.stack([np.bincount(f.reshape(-1), minlength=16) for f in frames])[:, 1:]
        for visible in (areas > 0).T:
            changes = np.flatnonzero(np.diff(visible.astype(int)))
            gaps = [b - a for a, b in itertools.pairwise(changes) if not visible[a + 1]]
            if max(gaps, default=0) >= 3:
                returning += 1
                break
    assert returning >= 6


def test_the_same_seed_gives_the_same_room_and_another_does_not():
    first, again, other = (next(render_room(seed, 2, 48, 48)) for seed in (7, 7, 8))
    assert np.array_equal(first.rgb, again.rgb) and np.array_equal(first.instance, again.instance)
    assert np.array_equal(first.depth, again.depth)
    assert not np.array_equal(first.rgb, other.rgb)


def test_written_scenes_read_back_exactly(rooms):
    scene = Scene(find_scenes(rooms)[0])
    frames = list(render_room(5, 8, 96, 96))
    assert scene.stems == [f.stem for f in frames]
    for index in (0, 7):
        assert np.array_equal(scene.instance(index), frames[index].instance)
        assert np.abs(scene.depth(index) - frames[index].depth).max() <= 0.0005 + 1e-6
        pose, k = scene.camera(index)
        assert (
            np.allclose(pose, frames[index].camera_to_world) and k[0, 2] == 47.5 and k[1, 2] == 47.5
        )
        # JPEG halves the resolution of colour: compare brightness per pixel, colour over the
        # picture.
        read, drawn = scene.rgb(index).astype(float), frames[index].rgb.astype(float)
        assert np.abs(read.mean(-1) - drawn.mean(-1)).mean() < 4
        assert np.abs(read.mean((0, 1)) - drawn.mean((0, 1))).max() < 1.5
    assert [o.id for o in scene.objects] == [o.id for o in draw_layout(5, 8).objects]
    assert scene.areas[0, 1:].sum() == (frames[0].instance > 0).sum()


def test_rooms_that_exist_are_kept(rooms, tmp_path):
    write_rooms(range(5, 6), tmp_path, frames=2, width=32, height=32)
    marker = tmp_path / "room_000005" / "rgb" / "000000.jpg"
    marker.write_bytes(b"mine")
    write_rooms(range(5, 6), tmp_path, frames=2, width=32, height=32)
    assert marker.read_bytes() == b"mine"


def test_command_line_renders_scene_folders(tmp_path):
    options = [
        "--seeds",
        "9:10",
        "--frames",
        "3",
        "--width",
        "64",
        "--height",
        "48",
        "--workers",
        "1",
    ]
    done = run_script("-m", "geometry_fusion.data.rooms", *options, "--out", tmp_path, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    scene = Scene(tmp_path / "room_000009")
    assert len(scene) == 3 and scene.rgb(0).shape == (48, 64, 3)


@pytest.mark.parametrize("text", ["5", "5:5", "a:b", "9:2", "-1:3", ""])
def test_wrong_seed_ranges_are_refused(text):
    with pytest.raises(InputError, match="expected A:B"):
        seed_range(text)


def test_command_line_refuses_wrong_seeds_in_one_line(tmp_path):
    assert "9:2" in error_line(
        run_script("-m", "geometry_fusion.data.rooms", "--seeds", "9:2", "--out", tmp_path)
    )


def test_scene_errors_name_the_file(tmp_path, rooms):
    with pytest.raises(InputError, match="no frame has rgb"):
        Scene(tmp_path)
    with pytest.raises(InputError, match="holds no scene folders"):
        find_scenes(tmp_path)
    (tmp_path / "rgb").mkdir()
    (tmp_path / "instance").mkdir()
    (tmp_path / "rgb" / "0.png").write_bytes(b"no image")
    (tmp_path / "instance" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0\.png"):
        Scene(tmp_path).rgb(0)
    with pytest.raises(InputError, match=r"cameras\.json"):
        Scene(tmp_path).camera(0)
