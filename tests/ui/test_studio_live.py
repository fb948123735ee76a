"""Live sessions as a person uses them: a real server and weights, Chromium and its camera."""

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from geometry_fusion.assets import SAMPLES
from geometry_fusion.io.mask_writer import read_mask
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.measure.masks import iou
from geometry_fusion.player.masks import ids_of_png
from tests.ui.studio_browser import RunningStudio, Tab

FIRST, LAST = 3, 10  # frames of the sample: the vase is in view, and moves
VASE = (9, 147)  # on it in all of them
RATE, SECONDS = 8, 120


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """The frames that the camera goes through, there and back."""
    video = VideoFile(SAMPLES / "twins" / "video.mp4")
    return [image for image, _ in zip(video, range(LAST + 1))][FIRST:]


@pytest.fixture(scope="module")
def studio(tmp_path_factory, images) -> RunningStudio:
    folder = tmp_path_factory.mktemp("live")
    order = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    with VideoWriter(folder / "camera.mp4", RATE, images[0].shape[1::-1], crf=10) as writer:
        for number in range(RATE * SECONDS):
            writer.write(images[order[number % len(order)]])
    running = RunningStudio(folder / "studio", "--source", str(folder / "camera.mp4"))
    yield running
    running.close()


def truth_of(image: np.ndarray, images: list[np.ndarray]) -> np.ndarray:
    """The ground truth of the sample's frame that a recorded picture shows."""
    apart = [np.abs(image.astype(int) - other).mean() for other in images]
    return read_mask(SAMPLES / "twins" / "gt" / f"{FIRST + int(np.argmin(apart)):04d}.png")


def recorded(studio, key: str, frame: int) -> np.ndarray:
    """A recorded frame, RGB [H, W, 3]."""
    content = studio.client.get(f"/api/s/{key}/frame/{frame}.jpg").content
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


def mask_of(studio, key: str, arm: str, frame: int) -> np.ndarray:
    return ids_of_png(studio.client.get(f"/api/s/{key}/mask/{arm}/{frame}.png").content)


def test_a_click_while_it_runs_is_tracked_and_the_recording_is_a_clip(browser, studio, images):
    tab = Tab(browser, studio, live=True)
    key, page = tab.see("studio.api.key"), tab.page
    tab.wait("studio.live.number >= 3")
    assert page.locator("#live-text").inner_text().startswith("live: camera.mp4, frame ")
    tab.click(*VASE, delay=150)  # a person's press lasts while frames come
    (mark,) = tab.marks()
    assert mark["kind"] == "point" and np.abs(np.subtract(mark["values"], VASE)).max() <= 1
    clicked = mark["frame"]
    tab.wait(f"studio.live.number >= {clicked + 4}")
    # Another object, which is removed again, and a click beside.
    page.get_by_role("button", name="Add an object").click()
    tab.wait("studio.active === 2")
    tab.click(128, 220)
    tab.wait(f"studio.live.number >= {tab.marks()[-1]['frame'] + 3}")
    page.get_by_role("button", name="delete object 2").click()
    tab.wait("studio.state.board.objects.length === 1 && studio.active === 1")
    tab.click(128, 60, button="right")
    page.get_by_role("button", name="Pause").click()
    tab.wait("studio.state.live.paused")
    shown = tab.see("Array.from(studio.player.maskCache.items.values())[0].value.ids.includes(1)")
    assert shown and tab.see("studio.player.index === studio.live.number")
    # One session is live at a time: another tab says so and shows the sample.
    other = studio.json("/api/sessions", {})["key"]
    refusal = studio.client.post(f"/api/s/{other}/live/start", json={})
    assert refusal.status_code == 400 and "another session is live" in refusal.text
    assert tab.barriers() == []
    page.get_by_role("button", name="Go on").click()
    tab.wait("!studio.state.live.paused")
    page.get_by_role("button", name="Stop and keep").click()
    tab.wait("!studio.state.live && studio.after > 0 && studio.player.shownIndex >= 0")
    count = tab.see("studio.state.source.count")
    assert tab.see("studio.state.source.kind") == "live" and count > clicked + 8
    frames = [clicked, clicked + 4, clicked + 8, count - 1]
    for frame in frames:
        mask, truth = (
            mask_of(studio, key, "geom", frame),
            truth_of(recorded(studio, key, frame), images),
        )
        assert iou(mask == 1, truth) > 0.7, frame
    # The clip is corrected and run like any other.
    tab.go(clicked)
    assert tab.see("studio.player.mode") == "b" and page.locator("#run").is_visible()
    page.locator("#arms").select_option("baseline")
    page.get_by_role("button", name="Run again").click()
    tab.wait("studio.has('baseline') && !studio.running && !studio.state.stale")
    command = studio.client.get(f"/api/s/{key}/export/command").text
    assert (
        "frames.zip" in command and "--frames frames" in command and str(Path.cwd()) not in command
    )
    tab.close()


def test_the_pages_own_camera_is_tracked_and_a_killed_worker_loses_nothing(browser, studio):
    key = studio.json("/api/sessions", {})["key"]
    studio.json(f"/api/s/{key}/sample", {"name": "twins"})
    studio.json(f"/api/s/{key}/cancel", {})
    tab = Tab(browser, studio, key, permissions=["camera"])
    tab.wait("!studio.running")
    tab.page.locator("#arms").select_option("baseline")
    tab.page.get_by_role("button", name="Live from this camera").click()
    tab.wait("studio.state.live && studio.live.number >= 3")
    width, height = tab.see("studio.state.source.size")
    assert max(width, height) <= 640
    tab.click(width // 2, height // 2)
    frame = tab.marks()[0]["frame"]
    tab.wait(f"studio.live.number >= {frame + 3}")
    os.kill(studio.workers()[0].pid, signal.SIGKILL)
    tab.wait("!studio.state.live && studio.after > 0")
    text = tab.page.locator("#alert span").inner_text()
    assert "SIGKILL" in text and "\n" not in text
    assert tab.see("studio.state.source.count") >= frame + 3
    assert len(studio.json(f"/api/s/{key}/state")["results"]) == tab.see(
        "studio.state.source.count"
    )
    assert tab.see("studio.live.stream") is None  # the camera is off
    tab.go(frame)
    assert mask_of(studio, key, "baseline", frame).any()
    tab.close()
