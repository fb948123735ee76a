"""Live tracking: clicks on frames that have passed, against streams that knew the prompts."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geometry_fusion.assets import SAMPLES
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import read_mask, read_rgb
from geometry_fusion.io.stream import open_source
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.measure.masks import iou
from geometry_fusion.models.tracker import load
from geometry_fusion.player.masks import ids_of_png
from geometry_fusion.types import Prompt
from geometry_fusion.ui.live_feed import REACH, LiveFeed, decoded, played, shown_name
from geometry_fusion.ui.live_run import LiveRun, live_session
from geometry_fusion.ui.messages import (
    LiveControl,
    LiveFrame,
    LiveJob,
    LiveNote,
    LivePicture,
    LivePrompt,
    LiveRemove,
    LiveWants,
    Progress,
)
from geometry_fusion.ui.session_files import mask_file
from geometry_fusion.ui.tracking_job import Cancelled

COUNT = 24
VASE, BESIDE = (20.0, 147.0), (150.0, 60.0)


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """What a page's camera would send."""
    video = VideoFile(SAMPLES / "twins" / "video.mp4")
    return [jpeg(image) for image, _ in zip(video, range(COUNT))]


@pytest.fixture(scope="module")
def trackers() -> dict:
    return {"baseline": load("tiny", geometry="none"), "geom": load("tiny")}


class Page:
    """Sends pictures when they are wanted, and messages once a frame was shown."""

    def __init__(self, folder: Path, pictures, script: dict, arm: str = "baseline", most=1000):
        self.job = LiveJob(
            "job", "key", None, arm, "auto", "never", "fifo", folder / "f", folder / "m", most, 400
        )
        self.pictures, self.script = list(pictures), dict(script)
        self.waiting: list = []
        self.shown: list[LiveFrame] = []
        self.notes: list[str] = []
        self.records: dict[int, dict] = {}

    def send(self, message) -> None:
        if isinstance(message, LiveWants):
            content = self.pictures.pop(0) if self.pictures else None
            self.waiting.append(LivePicture("job", content) if content else self.stop)
        elif isinstance(message, LiveFrame):
            self.shown.append(message)
            self.waiting += self.script.pop(message.number, [])
        elif isinstance(message, LiveNote):
            self.notes.append(message.text)
        elif isinstance(message, Progress):
            self.records[message.record["frame"]] = message.record["objects"]

    @property
    def stop(self) -> LiveControl:
        return LiveControl("job", "stop")

    def attend(self) -> None:
        waiting, self.waiting = self.waiting, []
        for message in waiting:
            self.run.take(message)

    def live(self, session) -> str:
        self.run = LiveRun(self.job, session, self.send, self.attend)
        return self.run.run()

    def masks(self) -> list[np.ndarray]:
        files = [mask_file(self.job.out, self.job.arm, i) for i in range(len(self.records))]
        return [ids_of_png(file.read_bytes()) for file in files]


def prompt(frame: int, object_id: int, *points, negatives=()) -> LivePrompt:
    return LivePrompt("job", Prompt(frame, object_id, points=points, negatives=negatives))


def streamed(session, pictures, *prompts: LivePrompt) -> list[np.ndarray]:
    """The masks of a stream that has all prompts from the beginning."""
    for message in prompts:
        session.add(message.prompt)
    images = iter([decoded(content, 400) for content in pictures])
    frames = session.track(open_source(images, live=True, queue_size=len(pictures)))
    return [frame.ids for frame in frames]


def test_clicks_on_passed_frames_give_the_masks_of_a_stream_that_knew_them(
    trackers, pictures, tmp_path
):
    """A first click, a second object, a correction, two clicks at once; and one that is too late,
    which changes nothing.
    """
    first = prompt(2, 1, VASE)
    second = prompt(6, 2, BESIDE)
    better = prompt(9, 1, VASE, negatives=((100.0, 60.0),))
    third = prompt(10, 3, (40.0, 220.0))
    too_late = prompt(3, 2, BESIDE)
    script = {4: [first], 8: [second], 11: [better, third], COUNT - 1: [too_late]}
    assert COUNT > REACH + 6
    page = Page(tmp_path, pictures, script)
    assert page.live(trackers["baseline"].session()) == ""
    (note,) = page.notes
    assert "frame 3" in note and "next run" in note
    session = trackers["baseline"].session()
    expected = streamed(session, pictures, first, second, better, third)
    masks = page.masks()
    assert len(masks) == COUNT
    for number, (ids, other) in enumerate(zip(masks, expected)):
        assert np.array_equal(ids, other), number
    truth = read_mask(SAMPLES / "twins" / "gt" / "0006.png")
    assert iou(masks[6] == 1, truth) > 0.7
    assert page.records[20].keys() == {"1", "2", "3"} and page.records[1] == {}
    # The page never sees an old frame after a new one, and the last one with its last mask.
    numbers = [frame.number for frame in page.shown]
    assert numbers == sorted(numbers) and numbers[-1] == COUNT - 1
    assert np.array_equal(ids_of_png(page.shown[-1].mask), masks[-1])
    # What was recorded is what was tracked, but for the JPEG.
    kept = read_rgb(tmp_path / "f" / "000005.jpg").astype(int)
    assert np.abs(kept - decoded(pictures[5], 400)).mean() < 2
    assert not (tmp_path / "m" / "scene.json").exists()


def test_geometry_and_the_fallback_for_moving_objects_go_back_too(trackers, pictures, tmp_path):
    def session():
        return live_session(trackers["geom"], trackers["baseline"])

    first, second = prompt(2, 1, VASE), prompt(7, 2, BESIDE)
    page = Page(tmp_path, pictures[:11], {4: [first], 9: [second]}, "geom")
    page.live(session())
    expected = streamed(session(), pictures[:11], first, second)
    assert all(np.array_equal(ids, other) for ids, other in zip(page.masks(), expected))
    assert 2 in page.masks()[8] and (tmp_path / "m" / "scene.json").exists()


def test_clicks_while_paused_and_removed_objects(trackers, pictures, tmp_path):
    def control(do: str) -> LiveControl:
        return LiveControl("job", do)

    first, second = prompt(3, 1, VASE), prompt(5, 2, BESIDE)
    script = {
        5: [control("pause"), first, second, control("resume")],
        7: [LiveRemove("job", 2)],
    }
    page = Page(tmp_path, pictures[:10], script)
    page.live(trackers["baseline"].session())
    masks = page.masks()
    assert 2 in masks[6] and all(2 not in ids for ids in masks[8:])
    assert 1 not in masks[2] and all(1 in ids for ids in masks[3:])


def test_limits_and_bad_pictures_end_the_recording_with_a_sentence(trackers, pictures, tmp_path):
    page = Page(tmp_path / "a", pictures, {}, most=3)
    assert "limit of 3 frames" in page.live(trackers["baseline"].session())
    assert len(page.records) == 3
    for content, text in (
        (b"no", "no JPEG"),
        (jpeg(np.zeros((20, 500, 3), np.uint8)), "16..400"),
        (pictures[0][:700], "damaged|no JPEG"),
    ):
        page = Page(tmp_path / "b", [pictures[0], content], {})
        with pytest.raises(InputError, match=text):
            page.live(trackers["baseline"].session())
    page = Page(tmp_path / "c", [], {})
    with pytest.raises(Cancelled):  # stopped before the first picture came
        page.live(trackers["baseline"].session())


def test_a_file_is_played_in_time_and_drops_what_nobody_takes():
    source = played(str(SAMPLES / "twins" / "video.mp4"))
    with source:
        feed = LiveFeed(source, lambda: None, most=100, kept=4)
        taken = []
        for frame in feed:
            taken.append(frame.index)
            if len(taken) == 3:
                feed.go_back(1)
            if len(taken) == 6:
                feed.interrupt()
        assert taken == [0, 1, 2, 1, 2, 3] and 0 < feed.seconds < 60
        with pytest.raises(ValueError, match="kept"):
            feed.go_back(9)
    names = {"0": "camera 0", "rtsp://me:secret@host/x": "rtsp://host/x", "/a/b c.mp4": "b c.mp4"}
    assert {spec: shown_name(spec) for spec in names} == names
    assert "secret" not in json.dumps([shown_name(spec) for spec in names])
