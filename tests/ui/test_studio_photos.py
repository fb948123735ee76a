"""Unordered photos in the studio: the masks of `main.py segment --photos`, on the page."""

import io
import json
import shlex
import zipfile

import numpy as np
import pytest
from PIL import Image

from geometry_fusion.io.open_frames import opened_frames
from geometry_fusion.player.masks import ids_of_png
from tests.conftest import ROOT, run_script
from tests.ui.studio_browser import RunningStudio, Tab

SAMPLE = ROOT / "videos/samples/return"
CHOSEN = (28, 0, 56, 14, 7)  # frames of the sample, in the order in which they are given
CLICK = [158.0, 97.0]  # on the object, in frame 0 of the sample


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    running = RunningStudio(tmp_path_factory.mktemp("photos") / "studio")
    yield running
    running.close()


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def session_with(studio: RunningStudio, photos: list[np.ndarray]) -> str:
    """Key of a new session over photos, with a click on the second one."""
    key = studio.json("/api/sessions", {})["key"]
    ids = []
    for number, image in enumerate(photos):
        sent = studio.client.put(
            f"/api/s/{key}/upload", params={"name": f"IMG {9 - number}.png"}, content=png(image)
        )
        ids.append(sent.json()["id"])
    studio.json(f"/api/s/{key}/open", {"files": ids})
    studio.json(f"/api/s/{key}/do", {"do": "add_object"})
    mark = {"do": "mark", "kind": "point", "frame": 1, "object": 1, "values": CLICK}
    studio.json(f"/api/s/{key}/do", mark)
    return key


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    with opened_frames(SAMPLE / "video.mp4") as frames:
        return [frames[index] for index in CHOSEN]


@pytest.fixture(scope="module")
def segmented(studio, photos) -> str:
    """A session whose run has ended."""
    key = session_with(studio, photos)
    studio.json(f"/api/s/{key}/run", {})
    state = studio.wait_for_run(key)
    assert state["job"]["status"] == "done", state["job"]
    return key


def mask(studio, key: str, arm: str, index: int) -> np.ndarray:
    return ids_of_png(studio.client.get(f"/api/s/{key}/mask/{arm}/{index}.png").content)


def test_masks_are_those_of_the_command_that_the_studio_shows(studio, segmented, tmp_path):
    state = studio.json(f"/api/s/{segmented}/state")
    assert state["source"]["unordered"] and not state["stale"] and state["has_scene"]
    assert {record["arm"] for record in state["results"]} == {"baseline", "geom"}
    assert len(state["results"]) == 2 * len(CHOSEN)
    files = studio.client.get(f"/api/s/{segmented}/export/frames").content
    zipfile.ZipFile(io.BytesIO(files)).extractall(tmp_path / "frames")
    text = studio.client.get(f"/api/s/{segmented}/export/command").text
    words = shlex.split(text.splitlines()[-1])
    assert words[1:4] == ["main.py", "segment", "--photos"]
    done = run_script(ROOT / "main.py", *words[2:], "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for index in range(len(CHOSEN)):
        expected = np.array(Image.open(tmp_path / f"out/masks/{index:04d}.png")) > 0
        assert np.array_equal(mask(studio, segmented, "geom", index) == 1, expected), index
    # The object is where the sample's ground truth has it: in all of them but the third.
    for index, frame in enumerate(CHOSEN):
        truth = np.array(Image.open(SAMPLE / f"gt/{frame:04d}.png")) > 0
        answer = mask(studio, segmented, "geom", index) == 1
        overlap = (answer & truth).sum() / max(1, (answer | truth).sum())
        assert overlap > 0.4 if truth.any() else not answer.any(), (index, overlap)


def test_the_report_has_the_page_of_the_photos(studio, segmented):
    content = studio.client.get(f"/api/s/{segmented}/export/report").content
    archive = zipfile.ZipFile(io.BytesIO(content))
    for arm in ("baseline", "geom"):
        order = json.loads(archive.read(f"photos_{arm}/order.json"))
        assert order["prompted"] == ["0001.png"] and len(order["order"]) == len(CHOSEN)
        assert f"photos_{arm}/index.html" in archive.namelist()


def test_photos_of_other_sizes_are_segmented_within_their_part(studio, photos):
    narrow = photos[0][:, 80:240]
    key = session_with(studio, [photos[3], photos[1], narrow])
    studio.json(f"/api/s/{key}/run", {"arms": ["geom"]})
    assert studio.wait_for_run(key)["job"]["status"] == "done"
    inside = mask(studio, key, "geom", 2)
    assert inside.shape == (240, 320) and inside[:, 84:236].any()
    image = np.array(Image.open(io.BytesIO(studio.client.get(f"/api/s/{key}/frame/2.jpg").content)))
    pad = image[:, :76].reshape(-1, 3)
    assert np.abs(pad - narrow.reshape(-1, 3).mean(0)).max() < 8  # filled with the mean colour


@pytest.mark.parametrize("width", [1300, 375])
def test_the_page_says_what_a_run_over_photos_does(browser, studio, photos, width):
    key = session_with(studio, photos[:3])
    tab = Tab(browser, studio, key, viewport={"width": width, "height": 900})
    page = tab.page
    assert page.locator("#facts").inner_text().startswith("3 photos, 320")
    assert "whatever their order" in page.locator("#hint").inner_text()
    assert page.locator("#pictures-row").is_visible()
    page.locator("#settings details summary").click()
    assert page.locator("#mode").is_visible() and not page.locator("#memory-row").is_visible()
    page.locator("#pictures").select_option("video")
    page.locator("#memory-row").wait_for(state="visible")
    assert "through the video" in page.locator("#hint").inner_text()
    page.locator("#pictures").select_option("photos")
    page.locator("#memory-row").wait_for(state="hidden")
    page.locator("#run").click()
    tab.wait("studio.has('geom') && !studio.running")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.problems == []
    tab.close()
