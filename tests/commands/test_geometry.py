"""`main.py geometry`: a model that --geometry takes, and one line where COLMAP cannot make any."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import main
from geometry_fusion.data.given import open_geometry
from geometry_fusion.io.frame_folder import FrameFolder
from tests.data.given import room

WIDTH, HEIGHT, FOCAL = 320, 240, 260.0


def seen(step: float) -> tuple[np.ndarray, np.ndarray]:
    """RGB and z-depth of the room of the layouts' tests, with squares of random colours."""
    pose = room.pose_at(step)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    x, y = (u - (WIDTH - 1) / 2) / FOCAL, (v - (HEIGHT - 1) / 2) / FOCAL
    rays = pose[:3, :3] @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    depth = room._first_hits(rays, pose[:3, 3])
    cells = np.floor((pose[:3, 3:] + rays * depth * (1 - 1e-6)) * 9).astype(int) + 40
    colours = np.random.default_rng(0).integers(0, 255, (90, 90, 90, 3), np.uint8)
    return colours[tuple(cells)].reshape(HEIGHT, WIDTH, 3), depth.reshape(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def textured(tmp_path_factory):
    """A camera that walks through the room: 10 frames."""
    folder = tmp_path_factory.mktemp("walk")
    for index in range(10):
        Image.fromarray(seen(index)[0]).save(folder / f"{index:04d}.png")
    return folder


def test_without_pycolmap_the_line_says_how_to_install_it(textured, tmp_path, monkeypatch, refuse):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    line = refuse(main, "geometry", "--frames", textured, "--out", tmp_path / "out")
    assert "pycolmap is missing" in line and "3am[sfm]" in line
    assert not (tmp_path / "out").exists()


def test_another_method_is_refused(textured, tmp_path, refuse):
    line = refuse(main, "geometry", "--frames", textured, "--with", "magic", "--out", tmp_path)
    assert "'magic'" in line and "colmap" in line


def test_photos_are_not_replaced(textured, refuse):
    line = refuse(main, "geometry", "--frames", textured, "--out", textured)
    assert "--out" in line and "not only old results" in line


@pytest.mark.slow
def test_a_walking_camera_gives_geometry_that_agrees(textured, tmp_path, capsys):
    pytest.importorskip("pycolmap")
    out = tmp_path / "out"
    main.main(["geometry", "--frames", str(textured), "--with", "colmap", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "10 of 10 frames" in printed
    assert json.loads((out / "geometry.json").read_text())["registered"] == 10
    given = open_geometry(out, FrameFolder(textured))
    ratios = []
    for index in range(10):
        view = given.view(index)
        cells = view.depth.shape[0]
        rows = ((np.arange(cells) + 0.5) * HEIGHT / cells).astype(int)
        columns = ((np.arange(cells) + 0.5) * WIDTH / cells).astype(int)
        truth = seen(index)[1][np.ix_(rows, columns)]
        ratios.append((view.depth / truth)[view.confidence > 0.5])
    # COLMAP's unit is its own; one factor makes it ours in all frames.
    off = np.abs(np.concatenate(ratios) / np.median(np.concatenate(ratios)) - 1)
    assert np.median(off) < 0.02 and (off < 0.1).mean() > 0.9
    models = [(out / f"{part}.bin").read_bytes() for part in ("images", "points3D")]
    main.main(["geometry", "--frames", str(textured), "--out", str(out)])
    assert [(out / f"{part}.bin").read_bytes() for part in ("images", "points3D")] == models


@pytest.mark.slow
def test_a_camera_that_stands_still_is_refused_in_one_line(textured, tmp_path, refuse):
    pytest.importorskip("pycolmap")
    still = tmp_path / "still"
    still.mkdir()
    content = (textured / "0003.png").read_bytes()
    for index in range(6):
        (still / f"{index:04d}.png").write_bytes(content)
    line = refuse(main, "geometry", "--frames", still, "--out", tmp_path / "out")
    assert "the camera moves too little" in line and not (tmp_path / "out").exists()
