"""Ten minutes of video in the page: 18,000 frames, tracked by both arms."""

import json
import math
import os
from pathlib import Path

import psutil
import pytest

from geometry_fusion.assets import SAMPLES
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.mask_writer import read_mask
from geometry_fusion.player.masks import mask_png
from geometry_fusion.ui.session import StudioSession
from geometry_fusion.ui.session_files import mask_file
from geometry_fusion.ui.sources import Cut, opened
from tests.ui.studio_browser import RunningStudio, Tab

COUNT = 18_000
KEY = "a" * 32
OUTSIDE = """[...document.body.querySelectorAll("*")]
  .filter(e => e.checkVisibility() && !e.closest(".p-stage, .p-scroll, .skip, .quiet"))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"""


def record(arm: str, frame: int) -> str:
    """A record whose confidence and agreement swing."""
    sure = round(0.75 + 0.25 * math.sin(frame / 40), 3)
    values = [900 if frame % 700 < 600 else 0, sure, 3.0, None, round(1 - sure / 3, 3), None]
    return json.dumps({"arm": arm, "frame": frame, "objects": {"1": values}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A studio's folder with a session of ten minutes, as if both arms had been run."""
    folder = tmp_path_factory.mktemp("long")
    files = extract_frames(SAMPLES / "twins" / "video.mp4", folder / "once", 1, progress=False)
    frames = folder / "frames"
    frames.mkdir()
    session = folder / "studio" / "sessions" / KEY
    for number in range(COUNT):
        os.link(files[number % 60], frames / f"{number:05d}.jpg")
    (frames / "frames.json").write_text('{"frame_rate": "30"}')
    for arm in ("baseline", "geom"):
        (session / "masks" / arm).mkdir(parents=True)
        for number in range(60):
            mask = read_mask(SAMPLES / "twins" / "gt" / f"{number:04d}.png")
            mask_file(session / "masks", arm, number).write_bytes(mask_png(mask.astype("uint8")))
        for number in range(60, COUNT):
            os.link(
                mask_file(session / "masks", arm, number % 60),
                mask_file(session / "masks", arm, number),
            )
    made = StudioSession(KEY, session)
    made.source = opened("path", "ten minutes", frames, Cut())
    made.act({"do": "add_object"})
    made.act({"do": "mark", "kind": "point", "frame": 9000, "object": 1, "values": [20, 147]})
    made.tracked = made.digest()
    made.save()
    lines = [record(arm, frame) for frame in range(COUNT) for arm in ("baseline", "geom")]
    (session / "results.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def studio(folder) -> RunningStudio:
    running = RunningStudio(folder / "studio", "--keep-hours", "1")
    yield running
    running.close()


def memory_mb(tab, server: psutil.Process) -> tuple[float, float, float]:
    """The page's heap after a collection, its process, and the server, in MB."""
    tab.devtools.send("HeapProfiler.collectGarbage")
    metrics = tab.devtools.send("Performance.getMetrics")["metrics"]
    heap = {item["name"]: item["value"] for item in metrics}["JSHeapUsedSize"]
    own = psutil.Process().children(recursive=True)
    pages = [child for child in own if "--type=renderer" in child.cmdline()]
    resident = max(page.memory_info().rss for page in pages)
    return heap / 2**20, resident / 2**20, server.memory_info().rss / 2**20


@pytest.mark.slow
def test_ten_minutes_are_looked_at_in_flat_memory(browser, studio):
    tab = Tab(browser, studio, KEY)
    tab.devtools = tab.context.new_cdp_session(tab.page)
    tab.devtools.send("Performance.enable")
    tab.wait(f"Object.keys(studio.numbers.geom || {{}}).length === {COUNT}")
    assert tab.see("studio.player.index") == 9000  # the prompted frame
    # Caches that are full soon: what grows then is a leak.
    tab.see("studio.player.images.most = studio.player.maskCache.most = 8 * 2 ** 20")
    server, memory = psutil.Process(studio.process.pid), []
    for width in (1300, 375):
        tab.page.set_viewport_size({"width": width, "height": 850})
        tab.see("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        assert tab.see(OUTSIDE) == 0
        # The last pixel of the timeline is the end of the video.
        lane = tab.page.locator(".p-lane").last
        lane.scroll_into_view_if_needed()
        box = lane.bounding_box()
        tab.page.mouse.click(box["x"] + box["width"] - 1, box["y"] + 7)
        tab.wait(f"studio.player.shownIndex > {COUNT - COUNT // 100}")
        for start in (0, 6000, 12000):
            for frame in range(start, start + 20 * 30, 20):
                tab.see(f"studio.player.go({frame})")
            memory.append(memory_mb(tab, server))
    assert tab.see("studio.player.images.bytes") <= 8 * 2**20
    for first, *later in zip(*memory):
        assert max(later[1:]) < 1.2 * later[0] and max(later) < 1.5 * first
    tab.page.locator(".p-frame").first.focus()
    before = tab.see("studio.player.index")
    tab.page.keyboard.press("n")
    assert tab.see("studio.player.index") != before
    tab.close()
