"""The studio as a person uses it: a real server, real weights, Chromium. Eight frames of the twins
sample stand for a video; the sample itself is run once.
"""

import base64
import io
import os
import signal
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import ab_iou
from geometry_fusion.assets import SAMPLES
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.mask_writer import read_mask
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.measure.masks import iou
from geometry_fusion.player.masks import ids_of_png
from tests.ui.studio_browser import RunningStudio, Tab

COUNT = 8
VASE = (20, 147)  # on the object in frame 2
FIRST, LAST = 3, 10  # frames of the sample that the camera goes through, there and back
IN_ALL = (9, 147)  # on the vase in all of them
RATE, SECONDS = 8, 90


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """The first frames of the sample as a video of its own."""
    source = VideoFile(SAMPLES / "twins" / "video.mp4")
    file = tmp_path_factory.mktemp("clip") / "my vase.mp4"
    with VideoWriter(file, source.frame_rate, source.size, crf=10) as writer:
        for image, _ in zip(source, range(COUNT)):
            writer.write(image)
    return file


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """What the live camera sees."""
    video = VideoFile(SAMPLES / "twins" / "video.mp4")
    return [image for image, _ in zip(video, range(LAST + 1))][FIRST:]


@pytest.fixture(scope="module")
def studio(tmp_path_factory, clip, images) -> RunningStudio:
    extract_frames(clip, clip.parent / "frames", 1, "keep", progress=False, lossless=True)
    order = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    camera = clip.parent / "camera.mp4"
    with VideoWriter(camera, RATE, images[0].shape[1::-1], crf=10) as writer:
        for number in range(RATE * SECONDS):
            writer.write(images[order[number % len(order)]])
    folder = tmp_path_factory.mktemp("run") / "studio"
    running = RunningStudio(folder, "--allow-paths", str(clip.parent), "--source", str(camera))
    yield running
    running.close()


@pytest.fixture
def key(studio) -> str:
    """A new session over the clip's frames."""
    return studio.session_over("frames")


@pytest.fixture(scope="module")
def tracked(studio, clip) -> str:
    """A session over the clip in which both arms were run from a click on the vase."""
    key = studio.session_with(clip)
    studio.json(f"/api/s/{key}/do", {"do": "add_object"})
    mark = {"do": "mark", "kind": "point", "frame": 2, "object": 1, "values": VASE}
    studio.json(f"/api/s/{key}/do", mark)
    # Another memory policy than the default one, which other tests run.
    studio.json(f"/api/s/{key}/do", {"do": "settings", "memory": "dam"})
    studio.json(f"/api/s/{key}/run", {})
    assert studio.wait_for_run(key)["job"]["status"] == "done"
    return key


@pytest.fixture
def tab(browser, studio, key):
    opened = Tab(browser, studio, key)
    yield opened
    opened.close()


def truth(frame: int) -> np.ndarray:
    return read_mask(SAMPLES / "twins" / "gt" / f"{frame:04d}.png")


# --- masks


def test_masks_are_those_of_the_command_that_the_studio_shows(studio, tracked, clip, tmp_path):
    command = studio.client.get(f"/api/s/{tracked}/export/command").text.strip()
    asked = "--frames 'my vase.mp4' --point \"20,147\" --prompt-frame 2 --memory dam"
    assert command.endswith(f"ab_iou.py {asked}")
    exported = studio.client.get(f"/api/s/{tracked}/export/masks").content
    words = ["--frames", clip, "--point", "20,147", "--prompt-frame", 2, "--memory", "dam"]
    words += ["--out", tmp_path]
    ab_iou.main([str(word) for word in words])
    with zipfile.ZipFile(io.BytesIO(exported)) as archive:
        for arm in ("baseline", "geom"):
            folder = f"pred_masks_{arm}"
            files = sorted((tmp_path / folder).iterdir())
            assert len(files) == COUNT
            for file in files:
                assert archive.read(f"{folder}/{file.name}") == file.read_bytes(), file.name


def test_the_report_of_a_session_is_whole(studio, tracked):
    content = studio.client.get(f"/api/s/{tracked}/export/report").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        page = archive.read("ab_report/index.html").decode()
    assert f"pred_masks_geom/{COUNT - 1:04d}.png" in names and "output_segmented_geom.mp4" in names
    assert "my vase.mp4" in page and "player-data" in page and str(Path.cwd()) not in page


def test_a_preview_is_the_mask_that_tracking_begins_with(studio, tracked):
    preview = studio.client.post(f"/api/s/{tracked}/preview", json={"frame": 2, "object": 1})
    mask = ids_of_png(preview.content)
    kept = studio.client.get(f"/api/s/{tracked}/mask/baseline/2.png")
    assert np.array_equal(mask, ids_of_png(kept.content)) and iou(mask, truth(2)) > 0.7


# --- marking


@pytest.mark.parametrize("ratio, zooms", [(1, ("50", "100", "200")), (2, ("fit",))])
def test_a_click_marks_its_pixel_at_every_zoom(browser, studio, key, ratio, zooms):
    tab = Tab(browser, studio, key, device_scale_factor=ratio)
    tab.go(2)
    for zoom in zooms:
        tab.page.get_by_label("zoom").select_option(zoom)
        tab.click(*VASE)
        (mark,) = tab.marks()
        assert mark["kind"] == "point" and mark["frame"] == 2
        assert np.abs(np.subtract(mark["values"], VASE)).max() <= 1, zoom
        tab.wait("studio.player.preview !== null")
        ids = tab.see("Array.from(studio.player.preview.mask.ids)")
        assert iou(np.reshape(ids, truth(2).shape), truth(2)) > 0.7
        tab.page.get_by_role("button", name="Undo").click()
        tab.wait("studio.state.board.marks.length === 0")
    tab.close()


def test_clicks_beside_boxes_and_undo(tab):
    tab.go(2)
    tab.click(*VASE)
    tab.click(100, 60, button="right")
    tab.page.keyboard.down("Shift")
    tab.click(110, 60)
    tab.page.keyboard.up("Shift")
    tab.page.mouse.move(*tab.place(5, 120))
    tab.page.mouse.down()
    tab.page.mouse.move(*tab.place(40, 180), steps=4)
    tab.page.mouse.up()
    tab.wait("studio.state.board.marks.length === 4")
    kinds = [mark["kind"] for mark in tab.marks()]
    assert kinds == ["point", "negative", "negative", "box"]
    assert np.abs(np.subtract(tab.marks()[3]["values"], [5, 120, 41, 181])).max() <= 1
    tab.page.keyboard.press("Control+z")
    tab.wait("studio.state.board.marks.length === 3")
    tab.page.keyboard.press("Control+y")
    tab.wait("studio.state.board.marks.length === 4")
    # A mark that is dragged moves; a mark of the list is deleted.
    tab.page.mouse.move(*tab.place(*VASE))
    tab.page.mouse.down()
    tab.page.mouse.move(*tab.place(30, 150), steps=4)
    tab.page.mouse.up()
    tab.wait("studio.state.board.marks.find(m => m.kind === 'point').values[0] > 25")
    tab.page.get_by_role("button", name="delete the prompt box").click()
    tab.wait("studio.state.board.marks.length === 3")


def test_a_person_without_a_mouse_marks_runs_and_compares(tab):
    page = tab.page
    tab.go(2)
    page.locator(".p-frame").first.focus()
    for _ in range(11):  # from the middle, 127 or 128, 128
        page.keyboard.press("Shift+ArrowLeft")
    for _ in range(2):
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    tab.wait("studio.state.board.marks.length === 1")
    assert np.abs(np.subtract(tab.marks()[0]["values"], [18, 148])).max() <= 1
    page.keyboard.press("Control+Enter")
    tab.wait("studio.has('geom') && !studio.running")
    assert tab.see("Object.keys(studio.numbers.baseline).length") == COUNT
    page.locator(".p-frame").first.focus()
    page.keyboard.press(".")
    tab.wait("studio.player.shownIndex === 3")
    page.get_by_role("button", name="wipe", exact=True).press("Enter")
    before = tab.see("studio.player.wipe")
    page.keyboard.press("]")
    assert tab.see("studio.player.wipe") > before
    divider = page.get_by_role("slider", name="wipe between the arms")
    divider.focus()
    page.keyboard.press("End")
    assert divider.get_attribute("aria-valuenow") == "100"
    page.locator("#object-list input").fill("vase")
    page.keyboard.press("Tab")
    tab.wait("studio.state.board.objects[0].name === 'vase'")
    assert "vase present" in tab.see("studio.player.panes[0].canvas.getAttribute('aria-label')")


# --- looking


def pixels(tab) -> np.ndarray:
    """What the first pane shows, RGBA [H, W, 4]."""
    data = tab.see("studio.player.panes[0].canvas.toDataURL()").split(",")[1]
    content = np.frombuffer(base64.b64decode(data), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR).astype(int)


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures show the same. Chromium scales on the GPU or, after some readings of a
    canvas, on the CPU, which rounds differently.
    """
    return (np.abs(one - other).max(-1) > 24).mean() < 1e-3


def test_the_wipe_shows_each_arm_on_its_side(browser, studio, tracked):
    tab = Tab(browser, studio, tracked)
    tab.go(4)
    tab.see("studio.player.setMode('wipe')")
    shown = {}
    for share in (0, 0.5, 1):
        tab.see(f"studio.player.setWipe({share})")
        tab.see("studio.player.draw()")
        shown[share] = pixels(tab)
    width = shown[0].shape[1]
    left, right = slice(None, width // 2 - 1), slice(width // 2 + 1, None)
    assert alike(shown[0.5][:, left], shown[1][:, left])
    assert alike(shown[0.5][:, right], shown[0][:, right])
    assert not alike(shown[0][:, left], shown[1][:, left])  # the second arm is striped
    tab.see("studio.player.setMode('a')")
    tab.see("studio.player.draw()")
    assert alike(pixels(tab), shown[1])
    tab.see("studio.player.setMode('side')")
    assert tab.see("studio.player.panes.length") == 2
    # The curve is clicked, the table says the same as the pictures.
    tab.page.locator(".p-plot").scroll_into_view_if_needed()
    box = tab.page.locator(".p-plot").bounding_box()
    tab.page.mouse.click(box["x"] + box["width"] - 8, box["y"] + 40)
    tab.wait(f"studio.player.shownIndex === {COUNT - 1}")
    tab.page.get_by_text("Table of the frames that differ most").click()
    tab.wait(f"document.querySelectorAll('.p-table tbody tr').length === {COUNT}")
    tab.page.locator(".p-scene summary").click()
    tab.wait("studio.player.sceneView && studio.player.sceneView.lastView")
    first = tab.see("studio.player.sceneView.canvas.toDataURL()")
    tab.go(0)
    assert tab.see("studio.player.sceneView.canvas.toDataURL()") != first
    tab.close()


def test_a_correction_is_tracked_in_both_directions_and_nothing_else_is_lost(tab, studio):
    tab.go(2)
    tab.click(*VASE)
    tab.page.get_by_role("button", name="Run both").click()
    tab.wait("studio.has('geom') && !studio.running")
    before = [tab.see(f"studio.seen.baseline[1][{i}][0]") for i in range(COUNT)]
    # A second object is added on a later frame: the other twin's surroundings, by a box.
    tab.go(6)
    tab.page.get_by_role("button", name="Add an object").click()
    tab.wait("studio.active === 2")
    tab.page.mouse.move(*tab.place(150, 60))
    tab.page.mouse.down()
    tab.page.mouse.move(*tab.place(210, 130), steps=3)
    tab.page.mouse.up()
    tab.wait("studio.state.stale")
    assert "run again" in tab.page.locator("#hint").inner_text()
    tab.page.get_by_role("button", name="Run again").click()
    tab.wait("studio.seen.geom[2] && !studio.running && !studio.state.stale")
    seen = tab.see("studio.seen.baseline")
    assert all(entry is not None for entry in seen["2"])  # forwards and backwards
    assert [entry[0] for entry in seen["1"]] == before
    # A stretch of it is deleted, and comes back.
    tab.see("studio.panels.setStretch({first: 0, last: 3})")
    tab.page.get_by_role("button", name="Delete", exact=True).click()
    tab.wait("studio.state.board.deletions.length === 1")
    assert "object 2 deleted" in tab.see("studio.player.inWords('geom', 1)")
    key = tab.see("studio.api.key")
    content = studio.client.get(f"/api/s/{key}/export/masks").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        kept = ids_of_png(archive.read("pred_masks_geom/0001.png"))
    assert set(np.unique(kept)) <= {0, 1}
    tab.page.get_by_role("button", name="Undo").click()
    tab.wait("studio.state.board.deletions.length === 0")


def test_a_camera_is_recorded_and_opened(browser, studio, key):
    tab = Tab(browser, studio, key, permissions=["camera"])
    tab.page.get_by_role("button", name="Record from a camera").click()
    tab.wait("document.querySelector('#camera video').currentTime > 1")
    tab.page.get_by_role("button", name="Stop and use it").click()
    tab.wait("studio.state.source.name === 'camera.webm' && studio.player.shownIndex >= 0")
    assert tab.see("studio.state.source.count") > 3 and tab.marks() == []
    tab.close()


# --- the sample, cancelling, a crash


def test_the_sample_is_run_cancelled_and_survives_a_killed_worker(browser, studio):
    tab = Tab(browser, studio, source=False)
    assert "twin" in tab.page.locator("#facts").inner_text()
    tab.wait("studio.after > 4")
    assert tab.see("studio.running")  # results come before the end
    tab.page.get_by_role("button", name="Cancel").click()
    tab.wait("!studio.running")
    done = tab.see("Object.keys(studio.numbers.geom).length")
    assert tab.see("studio.state.job.status") == "cancelled" and 0 < done < 60
    assert tab.see("studio.state.stale")
    tab.page.get_by_role("button", name="Run again").click()
    tab.wait("studio.running && studio.state.job.done > 1")
    (worker,) = studio.workers()
    os.kill(worker.pid, signal.SIGKILL)
    tab.wait("!studio.running")
    text = tab.page.locator("#alert span").inner_text()
    assert "SIGKILL" in text and "\n" not in text
    assert tab.see("Object.keys(studio.numbers.geom).length") >= done
    tab.go(2)
    tab.click(30, 150)
    tab.wait("studio.player.preview !== null")  # the new worker answers
    tab.close()


# --- reload, tabs, narrow windows


def test_reload_restores_and_tabs_are_apart(browser, studio, key):
    tab = Tab(browser, studio, key)
    tab.go(2)
    tab.click(*VASE)
    tab.page.locator("#object-list input").fill("<b>vase</b>")
    tab.page.keyboard.press("Tab")
    tab.wait("studio.state.board.objects[0].name === '<b>vase</b>'")
    marks = tab.marks()
    tab.page.reload()
    tab.wait("window.studio && studio.player && studio.player.shownIndex !== undefined")
    assert tab.marks() == marks
    assert "<b>vase</b>" in tab.page.locator(".p-name").inner_text()  # text, not markup
    other = Tab(browser, studio, source=False)
    assert other.see("studio.api.key") != key
    assert tab.see("studio.api.key") == key and tab.marks() == marks
    other.see("studio.cancel()")
    other.close()
    tab.close()


OUTSIDE = """[...document.body.querySelectorAll("*")]
  .filter(e => e.checkVisibility() && !e.closest(".p-stage, .p-scroll, .skip, .quiet"))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.outerHTML.slice(0, 80))"""


def test_the_page_is_accessible_and_whole_in_both_themes_and_widths(browser, studio, tracked):
    tab = Tab(browser, studio, tracked)
    tab.see("document.querySelectorAll('details').forEach(box => { box.open = true; })")
    for scheme, paper in (("light", "rgb(238, 240, 242)"), ("dark", "rgb(14, 17, 20)")):
        tab.page.emulate_media(color_scheme=scheme)
        for width in (1300, 375):
            tab.page.set_viewport_size({"width": width, "height": 800})
            tab.see("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
            assert tab.see(OUTSIDE) == []
            assert tab.see("document.documentElement.scrollWidth") <= width
            assert tab.see("getComputedStyle(document.body).backgroundColor") == paper
            assert tab.barriers() == []
    assert tab.page.locator("#status[aria-live=polite]").count() == 1
    tab.close()


# --- live


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
    tab.click(*IN_ALL, delay=150)  # a person's press lasts while frames come
    (mark,) = tab.marks()
    assert mark["kind"] == "point" and np.abs(np.subtract(mark["values"], IN_ALL)).max() <= 1
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
    page.get_by_role("button", name="Resume").click()
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
