"""The command as a user runs it: files, resuming after kill -9, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

import main
from geometry_fusion.assets import SAMPLES
from geometry_fusion.data.scenes import Scene
from geometry_fusion.instances.outputs import NAMES
from geometry_fusion.instances.tracks import decoded
from tests.conftest import ROOT, THREADS

FRAMES = 4  # keyframes are 0 and 2
SETTINGS = """
points_per_side: 8
predicted_iou: 0.5
stability: 0.6
fuse_every: 2
lift_every: 1
least_points: 20
"""


@pytest.fixture(scope="module")
def scene(rooms, tmp_path_factory) -> Path:
    """The first 4 frames of a room."""
    whole = sorted(rooms.glob("room_*"))[0]
    folder = tmp_path_factory.mktemp("scene") / whole.name
    for part in ("rgb", "depth"):
        (folder / part).mkdir(parents=True)
        for file in sorted((whole / part).iterdir())[:FRAMES]:
            shutil.copy(file, folder / part)
    cameras = json.loads((whole / "cameras.json").read_text())
    cameras["frames"] = cameras["frames"][:FRAMES]
    (folder / "cameras.json").write_text(json.dumps(cameras))
    return folder


@pytest.fixture(scope="module")
def words(scene, tmp_path_factory) -> list[str]:
    """The command for the scene, without --out."""
    settings = tmp_path_factory.mktemp("settings") / "few.yaml"
    settings.write_text(SETTINGS)
    words = ["instances", "--scene", scene, "--arm", "sam2", "--stride", "2", "--device", "cpu"]
    return [*map(str, words), "--settings", str(settings), "--voxel", "0.05"]


@pytest.fixture(scope="module")
def finished(words, tmp_path_factory) -> Path:
    """Results of an uninterrupted run."""
    out = tmp_path_factory.mktemp("finished") / "instances"
    main.main([*words, "--out", str(out)])
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_files_agree_with_each_other(finished, words):
    assert sorted(contents(finished)) == sorted(NAMES)
    stored = np.load(finished / "instances.npz")
    about = json.loads((finished / "instances.json").read_text())
    tracks = json.loads((finished / "tracks.json").read_text())["instances"]
    described = about["instances"]
    assert described and list(tracks) == [str(i["id"]) for i in described]
    confidence = stored["confidence"].tolist()
    assert confidence == sorted(confidence, reverse=True)
    painted = np.asarray(trimesh.load(finished / "instances.ply").colors)
    for instance in described:
        number = instance["id"]
        ids = stored["point_ids"][stored["offsets"][number - 1] : stored["offsets"][number]]
        assert np.array_equal(ids, np.flatnonzero(stored["instance"] == number))
        assert len(ids) == instance["points"]
        assert (painted[ids, :3] == instance["colour"]).all()
        assert np.ptp(instance["colour"]) > 100  # grey is what belongs to no instance
    # Every threshold, and what the results depend on.
    assert about["settings"]["points_per_side"] == 8 and about["settings"]["voxel"] == 0.05
    assert about["settings"]["part_voxel"] == pytest.approx(0.125)  # lengths scale alike
    assert about["depends_on"]["arm"] == "sam2" and about["keyframes"] == [0, 2]
    picture = cv2.imread(str(finished / "overview.png"))
    assert min(picture.shape[:2]) > 500 and picture.std() > 10


def test_masks_of_an_instance_lie_where_its_points_are(finished, words):
    """Its points, projected into a frame of its track, fall into its mask."""
    stored = np.load(finished / "instances.npz")
    tracks = json.loads((finished / "tracks.json").read_text())["instances"]
    scene = Scene(Path(words[2]))
    number = int(np.argmax(np.bincount(stored["instance"])[1:])) + 1
    stem, runs = next(iter(tracks[str(number)].items()))
    mask = decoded({**runs, "counts": runs["counts"].encode("ascii")})
    pose, k = scene.camera(scene.stems.index(stem))
    points = stored["points"][stored["instance"] == number]
    camera = (points - pose[:3, 3]) @ pose[:3, :3]
    u, v = np.rint((camera[:, :2] / camera[:, 2:]) @ k[:2, :2].T + k[:2, 2]).astype(int).T
    inside = (camera[:, 2] > 0) & (u >= 0) & (v >= 0) & (u < 96) & (v < 96)
    assert mask[v[inside], u[inside]].mean() > 0.5


@pytest.fixture(scope="module")
def killed(words, tmp_path_factory) -> Path:
    """What is left of a run that was killed after its first keyframe."""
    out = tmp_path_factory.mktemp("killed") / "instances"
    environment = {"OMP_NUM_THREADS": THREADS, **os.environ, "PYTHONPATH": str(ROOT)}
    # Waits after every segment, so that it can be killed between two keyframes.
    program = (
        "import sys, time, main; from geometry_fusion.instances.segments import SegmentStore as S\n"
        "add = S.add\n"
        "S.add = lambda *a: (add(*a), time.sleep(600))\n"
        "main.main(sys.argv[1:])"
    )
    with open(out.parent / "printed.txt", "wb") as printed:
        run = subprocess.Popen(
            [sys.executable, "-c", program, *words, "--out", str(out)],
            cwd=ROOT,
            env=environment,
            stdout=printed,
            stderr=printed,
        )
    state = out / "unfinished/state.pt"
    ends = time.monotonic() + 600
    while not state.exists() and run.poll() is None and time.monotonic() < ends:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert state.exists() and not (out / "instances.npz").exists()
    return out


def test_a_run_prints_no_warnings_of_libraries(killed):
    printed = (killed.parent / "printed.txt").read_text()
    assert "track:" in printed and "Warning" not in printed


def test_an_unfinished_run_of_other_settings_is_not_continued(killed, words, refuse):
    before = contents(killed / "unfinished")
    line = refuse(main, *words, "--out", killed, "--no-superpoints")
    assert f"{killed / 'unfinished'}: left by a run with settings" in line
    assert "repeat that command" in line
    assert contents(killed / "unfinished") == before


def test_a_killed_run_continues_at_its_keyframe_with_the_same_results(killed, words, finished):
    main.main([*words, "--out", str(killed)])
    assert contents(killed) == contents(finished)


def test_results_of_another_scene_are_replaced_only_on_demand(finished, words, rooms, refuse):
    other = sorted(rooms.glob("room_*"))[1]
    changed = [str(other) if word == words[2] else word for word in words]
    before = contents(finished)
    assert "--overwrite" in refuse(main, *changed, "--out", finished)
    assert contents(finished) == before


def test_options_that_contradict_each_other_are_refused(words, rooms, refuse, tmp_path):
    scene = words[2]
    bare = ["instances", "--out", tmp_path / "out"]
    assert "give --scene" in refuse(main, *bare, "--geometry", "scan")
    assert "excludes --frames" in refuse(main, *bare, "--scene", scene, "--frames", tmp_path)
    assert "holds no rgb/" in refuse(main, *bare, "--scene", tmp_path)
    assert "--stride 0: must be" in refuse(main, *bare, "--scene", scene, "--stride", "0")
    both = ("--coverage", "--stride", "5")
    assert "excludes --stride 5" in refuse(main, *bare, "--scene", scene, *both)
    assert "holds 'cameras.json'" in refuse(main, *words, "--out", scene)
    settings = ("--scene", scene, "--settings", tmp_path / "no.yaml")
    assert "no.yaml: no such file; check the path" in refuse(main, *bare, *settings)
    weights = ("--scene", scene, "--arm", "places", "--checkpoint", tmp_path / "no.pt")
    assert "no.pt: --arm places has no merger" in refuse(main, *bare, *weights)
    # One line: a video is not read before, which would show a bar.
    frames = ("--frames", SAMPLES / "twins/video.mp4", "--arm", "oracle")
    assert "needs depth and cameras" in refuse(main, *bare, *frames)
