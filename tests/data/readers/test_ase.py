"""Aria Synthetic Environments: the published camera, upright pinhole pictures, ids and poses by
frame.
"""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from geometry_fusion.data import convert
from geometry_fusion.data.readers import ase
from geometry_fusion.data.scenes import Scene, SceneObject
from geometry_fusion.errors import InputError

HEADER = (
    "graph_uid,tracking_timestamp_us,utc_timestamp_ns,tx_world_device,ty_world_device,tz_world_device,"
    "qx_world_device,qy_world_device,qz_world_device,qw_world_device"
)
CLASSES = {"0": "empty_space", "1": "background", "7": "wall", "300": "lamp"}
FOCAL = 297.6375381
# Pixels of a fisheye picture of 704 (golden, from the published formula) by direction in the
# camera.
GOLDEN = {
    (0, 0, 1): (357.6599, 349.1922),
    (0.3, -0.2, 1): (446.9022, 289.7066),
    (-0.5, 0.4, 1): (213.2001, 464.8001),
}


def write_scene(folder, side=704, numbers=(0, 1), rows=2, classes=CLASSES, millimetres=None):
    """A scene as on disk: range 1 m, but 2 m at the golden pixel of (0.3, -0.2, 1): a green lamp,
    id 300.
    """
    for part in ("rgb", "depth", "instances"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    u, v = (round(side / 704 * (c + 0.5) - 0.5) for c in GOLDEN[0.3, -0.2, 1])
    lamp = (slice(v - 12, v + 13), slice(u - 12, u + 13))
    rgb = np.full((side, side, 3), 90, np.uint8)
    rgb[: side // 2] = (200, 40, 40)  # the upper half as stored is red
    rgb[lamp] = (30, 200, 30)
    depth = np.full((side, side), 1000, np.uint16)
    ids = np.full((side, side), 7, np.uint16)
    ids[-side // 3 :, : side // 2], ids[-side // 3 :, side // 2 :] = 0, 1
    depth[lamp], ids[lamp] = 2000, 300
    if millimetres is not None:
        depth[:] = millimetres
    for number in numbers:
        Image.fromarray(rgb).save(folder / f"rgb/vignette{number:07d}.jpg", quality=95)
        Image.fromarray(depth).save(folder / f"depth/depth{number:07d}.png", compress_level=1)
        Image.fromarray(ids).save(folder / f"instances/instance{number:07d}.png", compress_level=1)
    # Row i: the device at (i, 2, 3), turned a quarter about z.
    lines = [f"uid,{i},{i},{i},2,3,0,0,{0.5**0.5},{0.5**0.5}" for i in range(rows)]
    (folder / "trajectory.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    if classes is not None:
        (folder / "object_instances_to_classes.json").write_text(json.dumps(classes))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ase")
    write_scene(folder / "12")
    return folder


def frames_of(root, name):
    source = ase.open_scene(root, name)
    return list(source.frames(source.stems))


@pytest.mark.parametrize("direction", GOLDEN)
def test_golden_points_project_to_their_pixels_at_both_sizes(direction):
    pixel, seen = ase.CAMERA_704.project(np.array(direction, float))
    assert seen and np.allclose(pixel, GOLDEN[direction], atol=1e-4)
    pixel, seen = ase.CAMERA_704.scaled(2).project(np.array(direction, float))
    assert seen and np.allclose(pixel, [2 * (c + 0.5) - 0.5 for c in GOLDEN[direction]], atol=2e-4)


def test_the_lens_sees_nothing_beyond_one_radian_and_behind():
    angles = np.array([0.99, 1.01, 1.6, np.pi])
    _, seen = ase.CAMERA_704.project(np.stack([np.sin(angles), 0 * angles, np.cos(angles)], -1))
    assert seen.tolist() == [True, False, False, False]


@pytest.mark.parametrize("side", [704, 1408])
def test_a_point_in_the_world_is_where_the_published_camera_puts_it(tmp_path, side):
    (frame,) = frames_of(write_scene(tmp_path / "5", side, numbers=[1]), "5")
    # 2 m along the ray; the device stands at (1, 2, 3). scipy's quaternions are another
    # implementation.
    in_camera = 2 * np.array([0.3, -0.2, 1]) / np.sqrt(0.09 + 0.04 + 1)
    lens = Rotation.from_quat([0.326409344, 0.029274992, 0.033361060, 0.944185869])
    in_device = lens.apply(in_camera) + (-0.007530097, -0.010908550, -0.003598063)
    in_world = Rotation.from_euler("z", 90, degrees=True).apply(in_device) + (1, 2, 3)
    x, y, z, _ = np.linalg.inv(frame.camera_to_world) @ [*in_world, 1]
    fx, fy, cx, cy = frame.intrinsics
    u, v = fx * x / z + cx, fy * y / z + cy
    # By hand: turned clockwise, (x, y) becomes (-y, x), so the ray is (0.2, 0.3, 1).
    scale = side / 704
    assert np.allclose((u, v), (scale * FOCAL * np.array([0.2, 0.3])) + (side - 1) / 2, atol=1e-4)
    column, row = round(u), round(v)
    assert frame.instance[row, column] == 300
    assert frame.depth[row, column] == pytest.approx(
        2 / np.sqrt(1.13), abs=0.003
    ) and z == pytest.approx(1.8814, abs=1e-4)
    assert np.abs(frame.rgb[row, column] - np.array([30.0, 200, 30])).max() < 12
    assert frame.rgb.shape == (side, side, 3) and frame.instance.shape == frame.depth.shape == (
        side,
        side,
    )


def test_constant_range_unprojects_onto_a_sphere(tmp_path):
    (frame,) = frames_of(write_scene(tmp_path / "5", numbers=[0], millimetres=1000), "5")
    fx, fy, cx, cy = frame.intrinsics
    rows, columns = np.nonzero(frame.depth)
    z = frame.depth[rows, columns]
    points = np.stack([(columns - cx) / fx * z, (rows - cy) / fy * z, z], -1)
    assert np.allclose(np.linalg.norm(points, axis=-1), 1, atol=1e-6)
    # Half the picture is 351.5 pixels, 1.18097 focal lengths: there z is 1 / sqrt(1 + 1.18097^2).
    assert frame.depth[352, 352] == pytest.approx(1, abs=1e-5) and frame.depth[
        352, 0
    ] == pytest.approx(0.64622, abs=1e-4)


def test_beyond_the_lens_depth_is_zero_and_ids_are_void(root):
    frame = frames_of(root, "12")[0]
    rows, columns = np.indices((704, 704)) - 351.5
    outside = np.hypot(rows, columns) > FOCAL * np.tan(1.0)
    assert outside[0, 0] and 0 < outside.mean() < 0.02
    assert (frame.instance[outside] == -1).all() and (frame.instance[~outside] >= 0).all()
    assert (frame.depth[outside] == 0).all() and (frame.depth[~outside] > 0).all()
    assert (frame.rgb[outside] == 0).all()


def test_pictures_are_turned_clockwise(root):
    frame = frames_of(root, "12")[0]
    assert (
        frame.rgb[352, 650].argmax() == 0 and frame.rgb[352, 650, 0] > 150
    )  # the stored top is at the right
    assert np.ptp(frame.rgb[352, 50].astype(int)) < 10


@pytest.mark.parametrize("value", [0, 65535])
def test_no_measurement_is_zero(tmp_path, value):
    (frame,) = frames_of(write_scene(tmp_path / "5", numbers=[0], millimetres=value), "5")
    assert (frame.depth == 0).all()


def test_ids_survive_conversion(root, tmp_path):
    convert.main(["ase", str(root), "--out", str(tmp_path / "out")])
    scene = Scene(tmp_path / "out" / "12")
    assert scene.stems == ["000000", "000001"] and set(np.unique(scene.instance(1))) == {
        -1,
        0,
        7,
        300,
    }
    assert scene.instance(1)[441, 411] == 300 and scene.depth(1)[441, 411] == pytest.approx(
        1.881, abs=0.003
    )
    assert scene.objects == [SceneObject(7, "wall"), SceneObject(300, "lamp")]
    pose, k = scene.camera(1)
    assert np.allclose(pose, frames_of(root, "12")[1].camera_to_world)
    assert np.allclose(k, [[FOCAL, 0, 351.5], [0, FOCAL, 351.5], [0, 0, 1]])


def test_class_names_decide_what_is_no_object(tmp_path):
    classes = {"0": "floor", "1": "chair", "7": "Background", "300": "empty space"}
    write_scene(tmp_path / "5", numbers=[0], classes=classes)
    source = ase.open_scene(tmp_path, "5")
    assert source.objects == [SceneObject(0, "floor"), SceneObject(1, "chair")]
    assert set(np.unique(next(source.frames(source.stems)).instance)) == {-1, 0, 1}


def test_without_class_names_zero_and_one_are_background(tmp_path):
    write_scene(tmp_path / "25", numbers=[0], classes=None)
    source = ase.open_scene(tmp_path, "25")
    assert source.objects == [] and any(
        "object_instances_to_classes.json" in note for note in source.notes
    )
    assert set(np.unique(next(source.frames(source.stems)).instance)) == {-1, 0, 7, 300}


def test_rows_belong_to_frames_by_number(tmp_path):
    write_scene(tmp_path / "5", numbers=[0, 2, 9], rows=4)
    source = ase.open_scene(tmp_path, "5")
    assert source.stems == ["000000", "000002"]
    assert {"2 frames left out, no rgb: 1, 3", "1 frame left out, no pose: 9"} <= set(source.notes)
    first, third = (f.camera_to_world for f in source.frames(source.stems))
    assert np.allclose((third - first)[:3, 3], (2, 0, 0)) and np.allclose(
        first[:3, :3], third[:3, :3]
    )


def test_a_zero_quaternion_is_left_out(tmp_path):
    file = write_scene(tmp_path / "5") / "trajectory.csv"
    file.write_text(f"{HEADER}\nuid,0,0,0,0,0,0,0,0,0\nuid,1,1,1,2,3,0,0,0,1\n")
    source = ase.open_scene(tmp_path, "5")
    assert source.stems == ["000001"] and any("not rigid: 0" in note for note in source.notes)


def test_the_test_set_has_colour_and_poses_only(tmp_path):
    for number in range(2):
        (tmp_path / "3/rgb").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (704, 704)).save(tmp_path / f"3/rgb/vignette{number:07d}.jpg")
    (tmp_path / "3/trajectory.csv").write_text(
        f"{HEADER}\nu,0,0,0,0,0,0,0,0,1\nu,1,1,0,0,0,0,0,0,1\n"
    )
    source = ase.open_scene(tmp_path, "3")
    frame = next(source.frames(source.stems))
    assert (
        len(source.stems) == 2
        and frame.depth is None
        and frame.instance is None
        and len(source.notes) == 2
    )


def test_scenes_are_found_in_numeric_order_and_splits_kept_apart(tmp_path):
    for name in ("train/10", "train/9", "test/9"):
        (tmp_path / name / "rgb").mkdir(parents=True)
        (tmp_path / name / "trajectory.csv").write_text(HEADER)
    assert ase.find(tmp_path) == ["test/9", "train/9", "train/10"]
    assert ase.find(tmp_path / "train") == ["9", "10"] and ase.find(tmp_path / "train/9") == ["9"]


def test_zips_are_named_in_the_error(tmp_path):
    (tmp_path / "train_chunk_0000000.zip").touch()
    with pytest.raises(InputError, match=r"unzip train_chunk_0000000\.zip"):
        ase.find(tmp_path)


def spoil_size(folder):
    Image.new("RGB", (512, 512)).save(folder / "rgb/vignette0000000.jpg")


def spoil_depth_size(folder):
    Image.fromarray(np.ones((1408, 1408), np.uint16)).save(folder / "depth/depth0000000.png")


def spoil_depth_format(folder):
    for file in (folder / "depth").iterdir():
        file.rename(file.with_suffix(".jpg"))


def spoil_header(folder):
    file = folder / "trajectory.csv"
    file.write_text(file.read_text().split("\n", 1)[1])


def spoil_row(folder):
    (folder / "trajectory.csv").write_text(f"{HEADER}\nuid,0,0,0,0\n")


def spoil_ids(folder):
    Image.new("RGB", (704, 704)).save(folder / "instances/instance0000000.png")


def spoil_classes(folder):
    (folder / "object_instances_to_classes.json").write_text("[1, 2]")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_size, "512x512, expected 704x704 or 1408x1408"),
        (spoil_depth_size, "1408x1408, expected 704x704"),
        (spoil_depth_format, "is a JPEG"),
        (spoil_header, "no header"),
        (spoil_row, "line 2 lacks"),
        (spoil_ids, "3 channels"),
        (spoil_classes, "not a table of id and class name"),
    ],
)
def test_bad_scenes_are_refused(tmp_path, spoil, said):
    spoil(write_scene(tmp_path / "5", numbers=[0]))
    with pytest.raises(InputError, match=said) as caught:
        frames_of(tmp_path, "5")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
