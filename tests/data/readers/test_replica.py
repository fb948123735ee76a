"""Replica's two renderings: units, pairing by unpadded numbers, poses as they are, ids where there
are some.
"""

import json

import numpy as np
import pytest
from PIL import Image

from geometry_fusion.data import convert
from geometry_fusion.data.readers import replica, semantic_nerf
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError

WIDTH, HEIGHT = 48, 32
CAMERA = {"w": WIDTH, "h": HEIGHT, "fx": 20.0, "fy": 20.0, "cx": 23.5, "cy": 15.5, "scale": 6553.5}
MARK = (
    slice(8, 16),
    slice(24, 32),
)  # rows, columns: one block of a JPEG, so that its edges stay sharp
NUMBERS = (0, 2, 10)
# Camera z looks along world x: camera (0.4, -0.4, 2) is world (2 + 1, -0.4 + 2, -0.4 + 3) = (3,
# 1.6, 2.6).
TURNED = np.array([[0.0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]])
WORLD_POINT = (3, 1.6, 2.6, 1)


def pose_lines(count=11):
    """Line i moves i metres along y; the last is TURNED."""
    poses = [np.eye(4) for _ in range(count - 1)] + [TURNED]
    for i, pose in enumerate(poses[:-1]):
        pose[1, 3] = i
    return "".join(" ".join(f"{value:.18e}" for value in pose.ravel()) + "\n" for pose in poses)


def picture():
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[MARK] = 240
    return Image.fromarray(rgb)


def plane(value):
    """A 16-bit PNG of one value: a plane in front of the camera."""
    return Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint16))


def nice_slam(root, camera=CAMERA):
    results = root / "room0/results"
    results.mkdir(parents=True)
    for number in NUMBERS:
        picture().save(results / f"frame{number:06d}.jpg", quality=95)
        plane(13107).save(results / f"depth{number:06d}.png")
    (root / "room0/traj.txt").write_text(pose_lines())
    if camera:
        (root / "cam_params.json").write_text(json.dumps({"camera": camera}))
    return root


def with_instances(root, scene="room_0", sequence="Sequence_1", numbers=NUMBERS, lines=11):
    folder = root / scene / sequence
    for part in ("rgb", "depth", "semantic_class", "semantic_instance"):
        (folder / part).mkdir(parents=True)
    ids = np.full((HEIGHT, WIDTH), 12, np.uint16)
    ids[MARK] = 300
    classes = np.full((HEIGHT, WIDTH), 40, np.uint8)
    classes[:, :4] = 0
    for number in numbers:
        picture().save(folder / f"rgb/rgb_{number}.png")
        plane(2000).save(folder / f"depth/depth_{number}.png")
        Image.fromarray(classes).save(folder / f"semantic_class/semantic_class_{number}.png")
        picture().save(folder / f"semantic_class/vis_sem_class_{number}.png")
        Image.fromarray(ids).save(folder / f"semantic_instance/semantic_instance_{number}.png")
        picture().save(folder / f"semantic_instance/vis_sem_instance_{number}.png")
    (folder / "traj_w_c.txt").write_text(pose_lines(lines))
    return folder


def check_mark(frame, pixel):
    """The world point is in the mark of frame 10, 2 m away, at `pixel`; and back."""
    x, y, z, _ = np.linalg.inv(frame.camera_to_world) @ WORLD_POINT
    fx, fy, cx, cy = frame.intrinsics
    u, v = fx * x / z + cx, fy * y / z + cy
    assert np.allclose((u, v), pixel) and z == pytest.approx(2)
    column, row = (int(np.rint(c)) for c in pixel)
    assert frame.rgb[row, column].min() > 230 and frame.rgb[row, column - 8].max() < 10
    depth = frame.depth[row, column]
    assert depth == pytest.approx(2, abs=1e-6)
    back = frame.camera_to_world @ [(u - cx) / fx * depth, (v - cy) / fy * depth, depth, 1]
    assert np.allclose(back, WORLD_POINT)


def test_nice_slam_depth_camera_and_poses(tmp_path):
    source = replica.open_scene(nice_slam(tmp_path), "room0")
    frames = list(source.frames(source.stems))
    assert [frame.stem for frame in frames] == ["000000", "000002", "000010"]
    # 20 * 0.4 / 2 + 23.5 and 20 * -0.4 / 2 + 15.5.
    check_mark(frames[2], (27.5, 11.5))
    assert np.array_equal(frames[2].camera_to_world, TURNED)  # no axis negated
    assert frames[1].camera_to_world[1, 3] == 2  # line 2 of the trajectory, not the second line
    assert {"8 frames left out, no rgb: 1, 3, 4, 5, 6, ..."} <= set(source.notes)


def test_nice_slam_has_no_masks_and_says_so(tmp_path):
    source = replica.open_scene(nice_slam(tmp_path / "in"), "room0")
    assert any("no masks" in note for note in source.notes)
    convert.main(["replica", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    scene = Scene(tmp_path / "out" / "room0")
    assert (
        not scene.has_ids
        and np.allclose(scene.depth(0), 2)
        and np.array_equal(scene.camera(2)[0], TURNED)
    )
    assert np.array_equal(scene.camera(0)[1], [[20, 0, 23.5], [0, 20, 15.5], [0, 0, 1]])


def test_nice_slam_without_its_camera_file_is_the_published_size(tmp_path):
    folder = nice_slam(tmp_path, camera=None) / "room0/results"
    source = replica.open_scene(tmp_path, "room0")
    with pytest.raises(InputError, match=r"48x32, the camera 1200x680.*cam_params\.json"):
        list(source.frames(source.stems))
    Image.new("RGB", (1200, 680)).save(folder / "frame000000.jpg")
    Image.fromarray(np.full((680, 1200), 65535, np.uint16)).save(folder / "depth000000.png")
    frame = next(source.frames(source.stems[:1]))
    assert frame.intrinsics == (600, 600, 599.5, 339.5) and np.allclose(frame.depth, 10)


def test_nice_slam_scale_is_that_of_the_camera_file(tmp_path):
    source = replica.open_scene(nice_slam(tmp_path, {**CAMERA, "scale": 1000.0}), "room0")
    assert np.allclose(next(source.frames(source.stems)).depth, 13.107)


@pytest.mark.parametrize("camera", [{"w": 48}, {**CAMERA, "fx": "wide"}, {**CAMERA, "scale": 0}])
def test_nice_slam_damaged_camera_file_is_refused(tmp_path, camera):
    with pytest.raises(InputError, match=r"cam_params\.json: (not a camera|camera has)"):
        replica.open_scene(nice_slam(tmp_path, camera), "room0")


def test_semantic_nerf_camera_depth_ids_and_poses(tmp_path):
    with_instances(tmp_path)
    source = semantic_nerf.open_scene(tmp_path, "room_0/Sequence_1")
    frames = list(source.frames(source.stems))
    assert [frame.stem for frame in frames] == ["000000", "000002", "000010"]  # 10 is after 2
    # 90 degrees across: f = 24, so 24 * 0.4 / 2 + 23.5 and 24 * -0.4 / 2 + 15.5.
    assert frames[0].intrinsics == (24, 24, 23.5, 15.5)
    check_mark(frames[2], (28.3, 10.7))
    assert frames[2].instance[11, 28] == 300 and frames[2].instance[11, 20] == 12
    assert (
        np.array_equal(frames[2].camera_to_world, TURNED) and frames[1].camera_to_world[1, 3] == 2
    )


def test_semantic_nerf_ids_survive_conversion_and_class_zero_is_void(tmp_path):
    with_instances(tmp_path / "in")
    convert.main(["semantic_nerf", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    scene = Scene(tmp_path / "out" / "room_0_Sequence_1")
    for index in range(3):
        ids = scene.instance(index)
        assert (ids[MARK] == 300).all() and (ids[:, :4] == -1).all() and (ids[20:, 4:] == 12).all()
    assert np.allclose(scene.depth(0), 2)


def test_semantic_nerf_without_the_instance_zip_has_no_ids(tmp_path):
    folder = with_instances(tmp_path)
    for file in (folder / "semantic_instance").iterdir():
        file.unlink()
    source = semantic_nerf.open_scene(tmp_path, "room_0/Sequence_1")
    assert any("zip of its own" in note for note in source.notes)
    assert next(source.frames(source.stems)).instance is None


def test_semantic_nerf_frames_inside_walls_are_left_out(tmp_path):
    with_instances(tmp_path, "office_1", "Sequence_1", (473, 474, 503, 504), 520)
    with_instances(tmp_path, "office_1", "Sequence_2", (474,), 520)
    with_instances(tmp_path, "office_4", "Sequence_1", (617, 618, 733, 734), 740)
    for name, stems in {
        "office_1/Sequence_1": ["000473", "000504"],
        "office_1/Sequence_2": ["000474"],
        "office_4/Sequence_1": ["000617", "000734"],
    }.items():
        source = semantic_nerf.open_scene(tmp_path, name)
        assert source.stems == stems
        assert sum("inside a wall" in note for note in source.notes) == name.endswith("1")


def test_a_pose_that_is_not_finite_is_left_out(tmp_path):
    folder = with_instances(tmp_path)
    lines = pose_lines().splitlines()
    lines[2] = " ".join(["nan"] * 16)
    (folder / "traj_w_c.txt").write_text("\n".join(lines))
    source = semantic_nerf.open_scene(tmp_path, "room_0/Sequence_1")
    assert source.stems == ["000000", "000010"] and any(
        "not rigid: 2" in note for note in source.notes
    )


def test_names_do_not_depend_on_where_the_root_is(tmp_path):
    with_instances(tmp_path / "s")
    nice_slam(tmp_path / "n")
    for root in ("s", "s/room_0", "s/room_0/Sequence_1"):
        assert semantic_nerf.find(tmp_path / root) == ["room_0/Sequence_1"]
        assert len(semantic_nerf.open_scene(tmp_path / root, "room_0/Sequence_1").stems) == 3
    for root in ("n", "n/room0"):
        assert replica.find(tmp_path / root) == ["room0"]
        assert len(replica.open_scene(tmp_path / root, "room0").stems) == 3


def test_one_rendering_taken_for_the_other_is_reported(tmp_path):
    with_instances(tmp_path / "s")
    nice_slam(tmp_path / "n")
    with pytest.raises(InputError, match="use semantic_nerf"):
        replica.find(tmp_path / "s")
    with pytest.raises(InputError, match="use replica"):
        semantic_nerf.find(tmp_path / "n")


def test_damaged_scenes_are_refused(tmp_path):
    folder = with_instances(tmp_path)
    Image.fromarray(np.ones((30, 40), np.uint16)).save(
        folder / "semantic_instance/semantic_instance_2.png"
    )
    source = semantic_nerf.open_scene(tmp_path, "room_0/Sequence_1")
    with pytest.raises(InputError, match=r"semantic_instance_2\.png: is 40x30, colour is 48x32"):
        list(source.frames(source.stems))
    (folder / "traj_w_c.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(InputError, match=r"traj_w_c\.txt: has 12 numbers a line"):
        semantic_nerf.open_scene(tmp_path, "room_0/Sequence_1")
