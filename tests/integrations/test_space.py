"""The logic of the Gradio page, without Gradio, and what the hub reads about it."""

import importlib.util
import re
import tomllib
import zipfile

import numpy as np
import pytest
import yaml

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import read_mask
from geometry_fusion.io.video_file import VideoFile
from tests.conftest import ROOT
from tests.io.exports.world import iou


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("space_app", ROOT / "spaces/app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.MOST_FRAMES = 5
    return module


def test_a_click_is_tracked_with_both_arms(app, tmp_path):
    videos = app.track(app.EXAMPLE, 2, "20,147", tmp_path)
    assert [file.name for file in videos] == ["sam2.mp4", "3am.mp4", "masks.zip"]
    assert all(len(list(VideoFile(video))) == 5 for video in videos[:2])
    with zipfile.ZipFile(videos[2]) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    stems = [f"{index:04d}.png" for index in range(5)]
    expected = [f"{arm}/{stem}" for arm in ("3am", "sam2") for stem in stems]
    assert sorted(names) == sorted([*expected, "3am.json", "sam2.json"])
    for arm in ("3am", "sam2"):
        mask = read_mask(tmp_path / "masks" / arm / "0004.png")
        assert iou(mask, read_mask(ROOT / "videos/samples/twins/gt/0004.png")) > 0.7


def test_the_click_is_drawn_where_it_is(app):
    before = app.picture(app.EXAMPLE, 2, "")
    after = app.picture(app.EXAMPLE, 2, "20,147")
    rows, columns = np.nonzero((before != after).any(2))
    assert abs(rows.mean() - 147) < 1 and abs(columns.mean() - 20) < 1 and np.ptp(rows) < 12


@pytest.mark.parametrize("clicks", ["", "20", "a,b", "1,2,3"])
def test_clicks_that_are_no_points_are_refused(app, clicks, tmp_path):
    with pytest.raises(InputError, match="click on the object"):
        app.track(app.EXAMPLE, 2, clicks, tmp_path)


def test_large_frames_are_made_smaller(app):
    assert app._smaller(np.zeros((720, 1280, 3), np.uint8)).shape == (360, 640, 3)
    assert app._smaller(np.zeros((30, 40, 3), np.uint8)).shape == (30, 40, 3)


def test_the_hub_finds_what_it_needs(app):
    """Front matter with the keys of a Gradio Space, and the packages that the package needs."""
    _, front, _ = (ROOT / "spaces/README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["sdk"] == "gradio" and (ROOT / "spaces" / about["app_file"]).is_file()
    assert len(about["short_description"]) <= 60  # the hub refuses longer ones
    lines = (ROOT / "spaces/requirements.txt").read_text().splitlines()
    listed = {line for line in lines if not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["dependencies"]) <= listed
    more = {re.split("[<>=]", line)[0] for line in listed - set(project["dependencies"])}
    assert more == {"gradio", "pycocotools"}
