"""A Gradio page for a Hugging Face Space: click on an object, track it with both arms, download.

    python spaces/app.py        # http://127.0.0.1:7860; needs gradio (spaces/requirements.txt)

Everything but `build` works without Gradio. The page needs no mouse: clicks can be typed.
"""

import shutil
import tempfile
import time
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion import Prompt, load
from geometry_fusion.assets import SAMPLES
from geometry_fusion.errors import InputError
from geometry_fusion.io.exports import export
from geometry_fusion.io.frame_folder import frame_stem
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.tracker import Tracker
from geometry_fusion.tracking.clip_session import clip_session, track_together
from geometry_fusion.tracking.write_masks import write_masks_and_videos

MOST_FRAMES = 150  # a free Space has two cores; longer videos are cut
LONGEST_SIDE = 640  # pixels; larger frames are made smaller
ARMS = {"sam2": "none", "3am": "auto"}  # arm -> geometry, as `load` takes it
EXAMPLE = SAMPLES / "twins" / "video.mp4"
RESULTS = "3am-space-"  # prefix of folders among the temporary files, from which Gradio copies
SECONDS_KEPT = 3600  # of results, and of Gradio's copies


class Frames:
    """The first frames of a video in memory, as `geometry_fusion.types.Frames`."""

    def __init__(self, video: str | Path):
        file = VideoFile(Path(video))
        self._images = [_smaller(image) for image in islice(file, MOST_FRAMES)]
        height, width = self._images[0].shape[:2]
        self.size = (width, height)
        self.frame_rate: Fraction = file.frame_rate
        self.stems = [frame_stem(index, len(self)) for index in range(len(self))]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._images[index]


def _smaller(image: np.ndarray) -> np.ndarray:
    """The image [H, W, 3] with its long side at most LONGEST_SIDE."""
    scale = LONGEST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


@cache
def tracker(geometry: str) -> Tracker:
    """The tracker of an arm; it is loaded once and serves all visitors."""
    return load("tiny", geometry=geometry)


def points_of(clicks: str) -> tuple[tuple[float, float], ...]:
    """The points of "20,147 25,150". Raises InputError for anything else."""
    try:
        points = tuple(tuple(float(v) for v in pair.split(",")) for pair in clicks.split())
    except ValueError:
        points = ()
    if not points or any(len(point) != 2 for point in points):
        raise InputError(f"clicks {clicks[:40]!r}: click on the object, or write x,y")
    return points


def picture(video: str | Path, index: int, clicks: str) -> np.ndarray:
    """A frame [H, W, 3] with its clicks, for the page."""
    frames = Frames(video)
    shown = frames[min(int(index), len(frames) - 1)].copy()
    for x, y in points_of(clicks) if clicks.strip() else ():
        cv2.circle(shown, (round(x), round(y)), 4, (255, 255, 255), -1)
        cv2.circle(shown, (round(x), round(y)), 3, (220, 0, 80), -1)
    return shown


def track(video: str | Path, index: int, clicks: str, folder: Path) -> list[Path]:
    """Track the clicked object with both arms: a video of each, and a zip of masks.

    folder: an empty folder for the results. Raises InputError for unusable videos and clicks.
    """
    prompt = Prompt(frame=int(index), points=points_of(clicks), source="the click")
    frames = Frames(video)
    prompt.check(frames.size, len(frames))
    sessions = [clip_session(tracker(geometry).predictor, [prompt]) for geometry in ARMS.values()]
    masks = [folder / "masks" / arm for arm in ARMS]
    videos = [folder / f"{arm}.mp4" for arm in ARMS]
    for place in masks:
        place.mkdir(parents=True)
    write_masks_and_videos(track_together(sessions, frames), frames, [1], masks, videos)
    for arm, place in zip(ARMS, masks):
        export(place, "coco", folder / "masks" / f"{arm}.json", frames=frames)
    archive = shutil.make_archive(str(folder / "masks"), "zip", folder / "masks")
    return [*videos, Path(archive)]


def _remove_old_results() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{RESULTS}*"):
        if folder.stat().st_mtime < time.time() - SECONDS_KEPT:
            shutil.rmtree(folder, ignore_errors=True)


def build():
    """The page, a `gradio.Blocks`."""
    import gradio as gr

    def click(clicks: str, event: gr.SelectData) -> str:
        x, y = event.index
        return f"{clicks} {x},{y}".strip()

    def show(video: str, index: int, clicks: str) -> np.ndarray:
        with _as_messages(gr):
            return picture(video, index, clicks)

    def run(video: str, index: int, clicks: str) -> list[str]:
        with tempfile.TemporaryDirectory() as folder, _as_messages(gr):
            results = track(video, index, clicks, Path(folder))
            _remove_old_results()
            kept = Path(tempfile.mkdtemp(prefix=RESULTS))
            return [str(shutil.move(result, kept / result.name)) for result in results]

    with gr.Blocks(title="3AM", delete_cache=(SECONDS_KEPT, SECONDS_KEPT)) as page:
        gr.Markdown(
            "# 3AM\nClick on an object and track it twice: with SAM2 alone, and with 3AM, which "
            "adds geometry. The small weights of this page were trained on rendered rooms and work "
            f"only there. The first {MOST_FRAMES} frames are used."
        )
        video = gr.Video(str(EXAMPLE), label="Video")
        index = gr.Slider(0, MOST_FRAMES - 1, 2, step=1, label="Frame to click on")
        clicks = gr.Textbox("20,147", label="Clicks: x,y x,y")
        frame = gr.Image(picture(EXAMPLE, 2, "20,147"), label="Click here", interactive=False)
        button = gr.Button("Track with both arms", variant="primary")
        with gr.Row():
            results = [gr.Video(label="SAM2"), gr.Video(label="3AM")]
        results.append(gr.File(label="Masks: PNG and COCO"))
        frame.select(click, clicks, clicks, api_name=False)
        for change in (clicks.change, index.change):
            change(show, [video, index, clicks], frame, api_name=False)
        video.change(lambda: "", None, clicks, api_name=False)
        # One at a time: two runs on the same cores are slower together than in turn.
        button.click(run, [video, index, clicks], results, api_name="track", concurrency_limit=1)
    return page


class _as_messages:
    """Shows an InputError as a message of the page."""

    def __init__(self, gr):
        self._gr = gr

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, InputError):
            raise self._gr.Error(str(error), duration=None) from None


if __name__ == "__main__":
    build().queue(max_size=8).launch()
