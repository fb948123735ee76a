"""Fixtures of the studio's tests without a browser: a studio whose worker paints discs."""

from concurrent.futures import Future

import numpy as np
import pytest
from starlette.testclient import TestClient

from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.player.masks import mask_png
from geometry_fusion.ui.messages import (
    Ended,
    LiveFrame,
    LiveJob,
    Previewed,
    Progress,
    Ready,
    WorkerOptions,
)
from geometry_fusion.ui.pictures import jpeg_bytes
from geometry_fusion.ui.server import make_app
from geometry_fusion.ui.session_files import mask_file, write_aside
from geometry_fusion.ui.studio import Studio
from geometry_fusion.ui.studio_limits import StudioLimits
from tests.ui.studio_browser import CHROMIUM, OPTIONS, need_chromium

HOST = "127.0.0.1:7860"
OWN = {"x-studio": "1"}


class PaintingWorker:
    """Answers every job at once, with a disc where the first click is."""

    def __init__(self, options, on_progress, on_end):
        self.on_progress, self.on_end = on_progress, on_end
        self.ready = Ready({"baseline": "SAM2", "geom": "3AM"}, {})
        self.jobs, self.sent = [], []
        self.on_live = lambda message: None

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def cancel(self, job_id: str) -> None:
        pass

    def position(self, job_id: str) -> int:
        return 0

    def send_live(self, message) -> None:
        self.sent.append(message)

    def record(self, job: LiveJob, index: int) -> None:
        """A frame of a live job, as the worker process answers it."""
        for folder in (job.frames, job.out / job.arm):
            folder.mkdir(parents=True, exist_ok=True)
        grey = np.full((48, 64, 3), 20 * index, np.uint8)
        write_aside(job.frames / f"{index:06d}.jpg", jpeg_bytes(grey))
        ids = np.zeros((48, 64), np.uint8)
        ids[10:20, 10:20] = 1
        write_aside(mask_file(job.out, job.arm, index), mask_png(ids))
        record = {"arm": job.arm, "frame": index, "objects": {"1": [100, 0.9, 1.0] + 3 * [None]}}
        self.on_progress(Progress(job.job_id, index + 1, 0, {job.arm: 12.5}, record))
        shown = LiveFrame(job.job_id, index, (64, 48), jpeg_bytes(grey), mask_png(ids), 12.5)
        self.on_live(shown)

    def submit(self, job) -> None:
        self.jobs.append(job)
        if isinstance(job, LiveJob):
            self.on_progress(Progress(job.job_id))
            return
        count = len(list(job.frames.glob("*.png"))) or len(list(job.frames.glob("*.jpg")))
        for arm in job.arms:
            (job.out / arm).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                write_aside(mask_file(job.out, arm, index), mask_png(np.eye(8, dtype=np.uint8)))
                objects = {"1": [8, 0.9, 1.0, None, 1.0, None]}
                record = {"arm": arm, "frame": index, "objects": objects}
                self.on_progress(Progress(job.job_id, index + 1, count, {arm: 9.0}, record))
        self.on_end(Ended(job.job_id, "done"))

    def preview(self, session_id, frames, prompt) -> Future:
        future = Future()
        future.set_result(Previewed(1, mask_png(np.ones((8, 8), np.uint8)), 64))
        return future


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium."""
    need_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def studio(tmp_path) -> Studio:
    limits = StudioLimits(upload_mb=1, frames=20, long_side=400, photos=3, minutes=0.1)
    return Studio(tmp_path / "studio", WorkerOptions(), limits, make_worker=PaintingWorker)


@pytest.fixture
def client(studio) -> TestClient:
    return TestClient(make_app(studio), base_url=f"http://{HOST}", headers=OWN)


@pytest.fixture
def key(client) -> str:
    return client.post("/api/sessions").json()["key"]


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> bytes:
    """Eight frames of 64x48."""
    file = tmp_path_factory.mktemp("video") / "clip.mp4"
    with VideoWriter(file, 10, (64, 48)) as writer:
        for index in range(8):
            writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    return file.read_bytes()
