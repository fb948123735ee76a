"""Looking at a scene: the numbers of the re-projection check against brute force, and pictures of
whatever there is.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geometry_fusion.data import look
from geometry_fusion.data.agreement import AGREES, DIFFERS, NOT_SEEN, agreement, from_above
from geometry_fusion.data.look import choose
from geometry_fusion.data.scenes import Scene, SceneFrame, find_scenes
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import run_cli
from geometry_fusion.io.mask_writer import palette_index


def frame_of(scene, index, **changes):
    pose, k = scene.camera(index)
    parts = dict(stem=scene.stems[index], rgb=scene.rgb(index), instance=scene.instance(index))
    parts |= dict(
        depth=scene.depth(index),
        camera_to_world=pose,
        intrinsics=(k[0, 0], k[1, 1], k[0, 2], k[1, 2]),
    )
    return SceneFrame(**{**parts, **changes})


def brute_force(scene, i, j):
    """Pixel by pixel with 4x4 matrices: errors, and ids of here and there where the depth agrees
    within 3%.
    """
    (pose, k), (other_pose, other_k) = scene.camera(i), scene.camera(j)
    depth, there = scene.depth(i), scene.depth(j)
    ids, ids_there = scene.instance(i), scene.instance(j)
    errors, pairs = [], []
    to_pixel = other_k @ np.linalg.inv(other_pose)[:3] @ pose
    for v, u in np.argwhere(depth > 0):
        x, y, z = to_pixel @ [*(np.linalg.inv(k) @ [u, v, 1] * depth[v, u]), 1]
        column, row = round(x / z), round(y / z)
        if (
            z > 1e-3
            and 0 <= row < there.shape[0]
            and 0 <= column < there.shape[1]
            and there[row, column] > 0
        ):
            errors.append(abs(there[row, column] - z) / z)
            if errors[-1] < 0.03:
                pairs.append((ids[v, u], ids_there[row, column]))
    return np.array(errors), np.array(pairs)


@pytest.mark.parametrize("pair", [(0, 1), (0, 7), (6, 2)])
def test_numbers_of_a_rendered_room_are_those_of_brute_force(rooms, pair):
    scene = Scene(find_scenes(rooms)[0])
    found = agreement(*(frame_of(scene, i) for i in pair))
    errors, ids = brute_force(scene, *pair)
    objects = (ids > 0).any(1)
    assert found.pixels == pytest.approx(len(errors), abs=2)  # rounding of .5 may differ
    assert found.consistent == pytest.approx((errors < 0.03).mean(), abs=1e-3)
    assert found.depth_error == pytest.approx(np.median(errors), abs=1e-4)
    assert found.ids == pytest.approx((ids[objects, 0] == ids[objects, 1]).mean(), abs=0.01)
    assert (found.verdict != NOT_SEEN).sum() == found.pixels


def test_a_right_room_is_told_from_corrupted_ones(rooms):
    scene = Scene(find_scenes(rooms)[0])
    first, second = frame_of(scene, 3), frame_of(scene, 4)
    right = agreement(first, second)
    assert right.depth_error < 0.01 and right.consistent > 0.85 and right.ids > 0.9

    def both(change):
        return agreement(
            *(frame_of(scene, i, camera_to_world=change(scene.camera(i)[0])) for i in (3, 4))
        )

    corrupted = {
        "OpenGL axes": both(lambda pose: pose @ np.diag([1, -1, -1, 1])),
        "world to camera": both(np.linalg.inv),
        "five times the unit": both(lambda pose: pose * [[1, 1, 1, 5]]),
        "pose of another frame": agreement(
            first, frame_of(scene, 4, camera_to_world=scene.camera(7)[0])
        ),
    }
    for name, wrong in corrupted.items():
        assert (
            not wrong.pixels
            or wrong.depth_error > 0.05
            or wrong.consistent < 0.5 * right.consistent
        ), (name, wrong)
    ids = scene.instance(4)
    renumbered = frame_of(scene, 4, instance=np.where(ids > 0, ids % 3 + 20, ids))
    assert agreement(first, renumbered).ids == 0


def wall(depth, ids=None, **changes):
    """A 4x4 picture of a wall; the camera is at the origin."""
    parts = dict(
        instance=ids, depth=depth, camera_to_world=np.eye(4), intrinsics=(2.0, 2.0, 1.5, 1.5)
    )
    return SceneFrame("0", np.zeros((4, 4, 3), np.uint8), **{**parts, **changes})


def test_known_answers_by_hand():
    two = np.full((4, 4), 2.0)
    there = two.copy()
    there[:2] = 2.2  # off by a tenth, the lower half is right
    there[3, 3] = 0  # unknown: not compared
    ids, ids_there = np.zeros((4, 4), int), np.zeros((4, 4), int)
    ids[2:, 0], ids_there[2:, 1] = 5, 5  # of two and two object pixels in the right half none agree
    ids[2:, 2] = ids_there[2:, 2] = 7  # two that agree
    ids[2, 3] = -1  # void says nothing
    found = agreement(wall(two, ids), wall(there, ids_there))
    assert (found.pixels, found.consistent) == (15, pytest.approx(7 / 15))
    assert found.depth_error == pytest.approx(0.1) and found.ids == pytest.approx(2 / 6)
    assert found.verdict[0, 0] == DIFFERS and found.verdict[2, 0] == AGREES
    assert found.verdict[3, 3] == NOT_SEEN
    assert str(found) == "depth off by 10.0% (median), 47% of 15 pixels consistent, ids agree 33.3%"


def test_behind_the_camera_and_beside_the_picture_is_not_seen():
    two = np.full((4, 4), 2.0)
    for pose in (
        np.diag([1.0, -1, -1, 1]),
        np.array([[1.0, 0, 0, 9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ):
        found = agreement(wall(two), wall(two, camera_to_world=pose))
        assert (
            found.pixels == 0
            and np.isnan(found.depth_error)
            and str(found) == "no pixel is seen in both"
        )
    assert agreement(wall(None), wall(two)) is None
    assert agreement(wall(two), wall(two, camera_to_world=None)) is None


def test_pairs_are_ten_frames_apart_or_as_far_as_there_are():
    assert choose(31, 4) == ([0, 10, 20, 30], {0: 10, 10: 20, 20: 30, 30: 20})
    assert choose(3, 4) == ([0, 1, 2], {0: 2, 1: 2, 2: 0})
    assert choose(8, 3) == ([0, 4, 7], {0: 7, 4: 0, 7: 0})
    assert choose(1, 4) == ([0], {})


@pytest.mark.parametrize("up", [(0, 0, 1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (0.6, 0, 0.8)])
def test_the_view_from_above_finds_up_in_any_world(up):
    """Cameras on a circle whose axis is `up`, looking outwards and 40 degrees down: their own up is
    not `up`.
    """
    up = np.array(up, float)
    side = np.cross(up, (0.3, 0.5, 0.2))
    side /= np.linalg.norm(side)
    poses = []
    for angle in np.linspace(0, 5, 20):
        out = np.cos(angle) * side + np.sin(angle) * np.cross(up, side)
        forward = np.cos(0.7) * out - np.sin(0.7) * up
        right = np.cross(forward, up) / np.linalg.norm(np.cross(forward, up))
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
        pose[:3, 3] = 3 * out + 7
        poses.append(pose)
    axes = from_above(np.stack(poses))
    assert (
        np.allclose(axes[2], up, atol=1e-6)
        and np.allclose(axes @ axes.T, np.eye(3))
        and np.linalg.det(axes) > 0
    )
    straight = np.stack(poses[:1] * 3)
    straight[:, :3, 3] += np.outer(
        range(3), straight[0, :3, 0]
    )  # a line spans no plane: the picture's own up
    assert np.allclose(from_above(straight)[2], -straight[0, :3, 1])
    assert np.allclose(from_above(straight[:1])[2], -straight[0, :3, 1])


def test_command_line_prints_the_numbers_and_writes_the_picture(rooms, tmp_path, capsys):
    folder = find_scenes(rooms)[0]
    look.main([str(folder), "--out", str(tmp_path / "room.png"), "--frames", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folder.name}: 8 frames; ids, depth, cameras"
    found = agreement(*(frame_of(Scene(folder), i) for i in (0, 7)))
    assert f"000000 -> 000007: {found}" in lines and lines[-1] == str(tmp_path / "room.png")
    ids = Scene(folder).instance(0)
    line = next(line for line in lines if line.startswith("000000: ids "))
    for value in np.unique(ids):
        assert f"{value} {(ids == value).mean():.1%}" in line
    with Image.open(tmp_path / "room.png") as picture:
        assert picture.width > 700 and picture.height > 700


def test_the_default_picture_is_named_after_the_scene(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "room_6", [SceneFrame("0", np.zeros((8, 8, 3), np.uint8))], [])
    look.main(["room_6"])
    assert (tmp_path / "videos/look/room_6.png").exists()


@pytest.mark.parametrize(
    ("removed", "says"),
    [
        (["depth"], "ids, cameras"),
        (["cameras.json"], "ids, depth"),
        (["instance"], "depth, cameras"),
        (["depth", "cameras.json", "instance", "scene.json"], "colour only"),
    ],
)
def test_what_a_scene_lacks_is_left_out(removed, says, rooms, tmp_path, capsys):
    folder = tmp_path / "room"
    shutil.copytree(find_scenes(rooms)[0], folder)
    for name in removed:
        (shutil.rmtree if (folder / name).is_dir() else (lambda file: file.unlink()))(folder / name)
    look.main([str(folder), "--out", str(tmp_path / "room.png"), "--frames", "2"])
    out = capsys.readouterr().out
    assert out.startswith(f"room: 8 frames; {says}\n") and (tmp_path / "room.png").exists()
    assert (" -> " in out) == (removed == ["instance"])


def test_parts_that_some_frames_lack_are_named(rooms, tmp_path, capsys):
    folder = tmp_path / "room"
    shutil.copytree(find_scenes(rooms)[0], folder)
    (folder / "depth/000000.png").unlink()
    cameras = json.loads((folder / "cameras.json").read_text())
    cameras["frames"].pop()
    (folder / "cameras.json").write_text(json.dumps(cameras))
    look.main([str(folder), "--out", str(tmp_path / "room.png"), "--frames", "2"])
    out = capsys.readouterr().out
    assert (
        "depth/000000.png: missing" in out and "has no frame '000007'" in out and " -> " not in out
    )


def test_ids_beyond_a_byte_and_void_are_painted(tmp_path, capsys):
    ids = np.zeros((32, 40), int)
    ids[:8], ids[8:16], ids[16:24] = 256, 511, -1
    write_scene(tmp_path / "s", [SceneFrame("0", np.full((32, 40, 3), 90, np.uint8), ids)], [])
    look.main([str(tmp_path / "s"), "--out", str(tmp_path / "s.png")])
    assert "256 25.0%" in (out := capsys.readouterr().out) and "void 25.0%" in out
    painted = palette_index(ids)
    assert painted[24:].max() == 0 and len({0, *painted[[0, 8, 16], 0].tolist()}) == 4


def test_datasets_can_be_looked_at_without_converting(rooms, tmp_path, capsys):
    scene, folder = Scene(find_scenes(rooms)[0]), tmp_path / "all" / "kitchen"
    frames = []
    for i, stem in enumerate(scene.stems):
        pose, k = scene.camera(i)
        for part, content in (
            ("images", scene.rgb(i)),
            ("depth", np.rint(scene.depth(i) * 1000).astype(np.uint16)),
        ):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(folder / part / f"{stem}.png")
        record = {"file_path": f"images/{stem}.png", "depth_file_path": f"depth/{stem}.png"}
        frames.append(record | {"transform_matrix": (pose @ np.diag([1, -1, -1, 1])).tolist()})
    meta = {
        "fl_x": k[0, 0],
        "fl_y": k[1, 1],
        "cx": k[0, 2] + 0.5,
        "cy": k[1, 2] + 0.5,
        "frames": frames,
    }
    (folder / "transforms.json").write_text(json.dumps(meta))
    look.main(
        [
            "--format",
            "nerfstudio",
            str(tmp_path / "all"),
            "--out",
            str(tmp_path / "k.png"),
            "--frames",
            "1",
        ]
    )
    out = capsys.readouterr().out
    expected = agreement(*(frame_of(scene, i, instance=None) for i in (0, 7)))
    assert "kitchen: 8 frames; depth, cameras" in out and f"000000 -> 000007: {expected}" in out
    assert look.view_of_source("nerfstudio", tmp_path / "all", "kitchen", 2).shown == [0, 7]


def test_wrong_command_lines_are_refused(refuse, rooms, tmp_path):
    folder = find_scenes(rooms)[0]
    assert "must be 1..20" in refuse(look, folder, "--frames", "0")
    assert "must end in .png" in refuse(look, folder, "--out", tmp_path / "a.jpg")
    assert "goes with --format" in refuse(look, folder, "--scene", "a")
    assert "no such folder" in refuse(look, tmp_path / "none")
    assert "no such folder" in refuse(look, tmp_path / "none", "--format", "stray")
    assert "invalid choice" in refuse(look, folder, "--format", "none")
    (tmp_path / "a" / "keyframes").mkdir(parents=True)
    assert "there are: a" in refuse(look, tmp_path, "--format", "polycam", "--scene", "b")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_any_name_can_be_drawn(rooms, tmp_path, capfd):
    """Bytes that are no text, formulas that are none, letters that no font has: everywhere a name
    is read or drawn.
    """
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/k\xff$\\frac{$ ^_$_$\xe7\x94\xbb\n"))
    shutil.copytree(find_scenes(rooms)[0], folder)
    meta = json.loads((folder / "scene.json").read_text())
    for thing in meta["objects"]:
        thing["name"] = "a $x_ {$ b"
    (folder / "scene.json").write_text(json.dumps(meta))
    stems = [file.stem for file in sorted((folder / "rgb").iterdir())]
    odd = {stem: os.fsdecode(b"f\xfe$_{$" + stem.encode()) for stem in stems}
    for part in ("rgb", "instance", "depth"):
        for file in (folder / part).iterdir():
            file.rename(file.with_name(odd[file.stem] + file.suffix))
    cameras = json.loads((folder / "cameras.json").read_text())
    for camera in cameras["frames"]:
        camera["stem"] = odd[camera["stem"]]
    (folder / "cameras.json").write_text(json.dumps(cameras))
    out = tmp_path / os.fsdecode(b"p\xff.png")
    assert run_cli(lambda: look.main([str(folder), "--out", str(out), "--frames", "2"])) == 0
    printed, errors = capfd.readouterr()
    assert "f\\udcfe$_{$000000" in printed and errors == ""
    assert Image.open(out).size[0] > 500
    copy = tmp_path / os.fsdecode(b"copy\xff")  # written and read again
    scene = Scene(folder)
    write_scene(copy, [frame_of(scene, 0)], scene.objects)
    assert (
        Scene(copy).stems == [odd["000000"]]
        and (Scene(copy).instance(0) == scene.instance(0)).all()
    )


def test_names_are_text_whatever_they_hold(rooms, tmp_path, capsys):
    """Dollars are mathematics to matplotlib, escapes obeyed by terminals, and bytes that are no
    text neither.
    """
    for name in ("price$a_{$", "red\x1b[31m", os.fsdecode(b"caf\xe9")):
        scene = shutil.copytree(find_scenes(rooms)[0], tmp_path / name)
        objects = json.loads((scene / "scene.json").read_text())["objects"]
        for item in objects:
            item["name"] = "$\\frac{ \x1b[2J"
        (scene / "scene.json").write_text(json.dumps({"objects": objects}))
        look.main([str(scene), "--out", str(tmp_path / f"{name}.png"), "--frames", "1"])
        assert Image.open(tmp_path / f"{name}.png").size[0] > 300
        assert "\x1b" not in capsys.readouterr().out
