"""Geometry of one room in several layouts, given to the commands: the same masks."""

import json

import numpy as np
import pytest

import ab_iou
import main as main_script
from geometry_fusion.io.mask_writer import read_ids, write_mask, write_rgb
from tests.data.given import room

PROMPTED = 7


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    for stem, rgb in zip(room.stems(), room.RGB):
        write_rgb(folder / f"{stem}.png", rgb)
    return folder


@pytest.fixture(scope="module")
def prompt(tmp_path_factory) -> list[str]:
    """The box's mask in a frame in the middle, as words of a command line."""
    file = tmp_path_factory.mktemp("prompt") / "box.png"
    write_mask(file, box_in(PROMPTED))
    return ["--mask", str(file), "--prompt-frame", str(PROMPTED)]


def box_in(frame: int) -> np.ndarray:
    """The true mask of the box, bool [H, W]."""
    low, high = room.BOX
    return ((room.POINTS[frame] > low - 1e-6) & (room.POINTS[frame] < high + 1e-6)).all(-1)


def segmented(frames, prompt, geometry, out) -> list[np.ndarray]:
    """The masks of all frames. geometry: None for SAM2 alone."""
    words = ["segment", "--frames", frames, *prompt, "--mode", "full", "--out", out]
    words += ["--fallback", "never"]
    words += ["--geometry", geometry] if geometry else ["--geometry-mode", "off"]
    main_script.main([str(word) for word in words])
    return [read_ids(out / "masks" / f"{stem}.png") for stem in room.stems()]


def overlap(a, b) -> float:
    """IoU over all frames together."""
    both = [(x > 0, y > 0) for x, y in zip(a, b, strict=True)]
    union = sum(int((x | y).sum()) for x, y in both)
    return sum(int((x & y).sum()) for x, y in both) / union


def test_every_layout_gives_the_masks_of_the_scene_folder(frames, prompt, tmp_path, capsys):
    room.write_scene(tmp_path / "scene")
    scene = segmented(frames, prompt, tmp_path / "scene", tmp_path / "a")
    assert "scene folder of" in capsys.readouterr().out and any(mask.any() for mask in scene)
    # Else what follows would hold where geometry is ignored.
    assert overlap(segmented(frames, prompt, None, tmp_path / "alone"), scene) < 0.98
    room.write_npz(tmp_path / "npz")
    assert overlap(segmented(frames, prompt, tmp_path / "npz", tmp_path / "b"), scene) > 0.99
    room.write_colmap(tmp_path / "colmap", binary=True)
    assert overlap(segmented(frames, prompt, tmp_path / "colmap", tmp_path / "c"), scene) > 0.98


def test_the_report_describes_the_given_geometry(frames, prompt, tmp_path, capsys):
    room.write_npz(tmp_path / "npz")
    words = ["--frames", frames, *prompt, "--geometry", tmp_path / "npz", "--out", tmp_path]
    ab_iou.main([str(word) for word in words])
    assert "SAM2 + places" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "ab_report/metrics.json").read_text())
    assert any(note.startswith("geometry: ") for note in metrics["notes"])
    assert metrics["fallback"]["mode"] == "auto"
    decisions = metrics["arms"]["geom"]["objects"]["1"]["decisions"]
    assert sum(decisions.values()) >= room.COUNT - 1
    page = (tmp_path / "ab_report/index.html").read_text()
    assert "What decided" in page and "Given depth and cameras" in page
    header = (tmp_path / "ab_report/per_frame.csv").read_text().splitlines()[0]
    assert "decided_geom_1" in header


def test_geometry_and_a_merger_exclude_each_other(frames, prompt, refuse, tmp_path):
    room.write_npz(tmp_path / "npz")
    words = ["--frames", frames, *prompt, "--geometry", tmp_path / "npz"]
    line = refuse(ab_iou, *words, "--geometry-mode", "merger", "--out", tmp_path / "out")
    assert "has no features for a merger" in line
    bad = tmp_path / "bad"
    room.write_npz(bad, camera_to_world=np.linalg.inv(room.POSES))
    line = refuse(ab_iou, *words[:-1], bad, "--out", tmp_path / "out")
    assert str(bad) in line and "%" in line
