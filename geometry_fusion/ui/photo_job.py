"""One run of the arms over unordered photos in the worker process.

The masks of photos of one size are those of `main.py segment --photos`, bit for bit.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from geometry_fusion.fit import Size
from geometry_fusion.io.atomic import replacing_folder
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.models.tracker import Tracker
from geometry_fusion.photos.collection import by_reference, segment_frames
from geometry_fusion.photos.page import write_results
from geometry_fusion.photos.pictures import CanvasFrames, by_content, read_photo
from geometry_fusion.photos.records import CONTRADICTION, Collection, PhotoSettings
from geometry_fusion.photos.work import PhotoWork
from geometry_fusion.player.masks import mask_png
from geometry_fusion.player.scene import SceneCloud
from geometry_fusion.tracking.confidence import confidences
from geometry_fusion.types import TrackedFrame
from geometry_fusion.ui.arm_records import ArmRecords
from geometry_fusion.ui.messages import Progress, TrackingJob
from geometry_fusion.ui.session_files import photo_page, photo_sizes, write_aside, write_scene

PIECES = 3  # of work per photo: its tokens, its geometry, its masks
NAMED = 5  # photos in a note, at most


class StepWork(PhotoWork):
    """Work that is not kept; `step` is called after every photo's piece of it."""

    def __init__(self, step: Callable[[], None]):
        super().__init__()
        self._step = step

    def once(self, name: str, make: Callable[[], dict], photo: int | None = None) -> dict:
        piece = super().once(name, make, photo)
        if photo is not None:
            self._step()
        return piece


class PhotoRun:
    """Runs one job. send: receives Progress; step: called after every piece of work, may raise
    Cancelled.

    Raises InputError for prompts and photos that cannot be used.
    """

    def __init__(
        self,
        job: TrackingJob,
        trackers: Mapping[str, Tracker],
        send: Callable[[Progress], None],
        step: Callable[[], None],
    ):
        self._job, self._trackers, self._send, self._step = job, trackers, send, step
        folder = FrameFolder(job.frames)
        self._frames = canvas_of(folder.files, photo_sizes(job.frames))
        at = {file: index for index, file in enumerate(folder.files)}
        self._index = [at[photo.path] for photo in self._frames.photos]  # by number
        self._records = ArmRecords(job, folder.stems)
        self._total = self._done = 0
        self._seconds: dict[str, float] = {}

    def run(self) -> str:
        """Segment to the end; returns a note for the person, or an empty text."""
        number = {index: number for number, index in enumerate(self._index)}
        prompts = []
        for prompt in self._job.prompts:
            prompt.check(self._frames.size, len(self._frames))
            prompts.append(replace(prompt, frame=number[prompt.frame]))
        pieces = PIECES * len(self._frames)
        ends = np.cumsum([pieces * len(by_reference(t, prompts)) for t in self._trackers.values()])
        self._total = int(ends[-1])
        notes = []
        for end, (arm, tracker) in zip(ends, self._trackers.items()):
            began = time.perf_counter()
            work = StepWork(self._one_step)
            collection = segment_frames(tracker, self._frames, prompts, PhotoSettings(), work)
            self._seconds[arm] = time.perf_counter() - began
            self._done = int(end)
            self._answer(arm, tracker, collection)
            notes = self._notes(collection)
        return " ".join(notes)

    def _one_step(self) -> None:
        self._done = min(self._done + 1, self._total)  # second looks are not counted
        self._step()
        self._send(Progress(self._job.job_id, self._done, self._total, self._pace()))

    def _pace(self) -> dict[str, float]:
        """Photos per second, of arms that are done."""
        return {arm: round(len(self._frames) / s, 2) for arm, s in self._seconds.items() if s > 0}

    def _answer(self, arm: str, tracker: Tracker, collection: Collection) -> None:
        """Write and send all masks of an arm, its points, and its page."""
        (self._job.out / arm).mkdir(parents=True, exist_ok=True)
        scene = SceneCloud()
        for photo, index in sorted(enumerate(self._index), key=lambda pair: pair[1]):
            frame = tracked(collection, photo, index)
            scene.add(frame, self._frames[photo])
            write_aside(self._records.file(arm, index), mask_png(frame.ids))
            flags = {
                i: ", ".join(answer.flags)
                for i, answer in collection.answers[photo].items()
                if answer.flags
            }
            ids = self._records.with_other_arms({arm: frame.ids}, index)
            record = self._records.record(arm, index, ids, confidences(frame), flags)
            self._send(Progress(self._job.job_id, self._done, self._total, self._pace(), record))
        write_scene(self._job.out, scene)
        with replacing_folder(photo_page(self._job.out, arm)) as fresh:
            write_results(collection, fresh, tracker.arm, None)

    def _notes(self, collection: Collection) -> list[str]:
        """What a person should look at."""
        flagged = [self._index[step.photo] for step in collection.steps if step.flag]
        notes = []
        if flagged:
            notes.append(f"Little connects these photos with the prompt: {listed(flagged)}.")
        doubted: dict[int, list[int]] = {}
        for photo, answers in collection.answers.items():
            for object_id, answer in answers.items():
                if CONTRADICTION in answer.flags:
                    doubted.setdefault(object_id, []).append(self._index[photo])
        for object_id, photos in sorted(doubted.items()):
            notes.append(
                f"Object {object_id} cannot be where its mask is, perhaps that is a twin: "
                f"{listed(photos)}."
            )
        return notes


def canvas_of(files: Sequence[Path], sizes: Sequence[Size]) -> CanvasFrames:
    """Frames that photos of these sizes were fitted into, in the order of their contents."""
    photos = by_content([read_photo(file) for file in files])
    return CanvasFrames(photos, dict(zip(files, sizes)))


def tracked(collection: Collection, photo: int, index: int) -> TrackedFrame:
    """The answers on a photo as those of a frame with this index."""
    return TrackedFrame(
        index=index,
        ids=collection.ids(photo),
        object_ids=tuple(collection.object_ids),
        logits=collection.logits(photo),
        geometry=collection.session.geometry(photo),
        scores={i: answer.look.score for i, answer in collection.answers[photo].items()},
    )


def listed(photos: Sequence[int]) -> str:
    """Numbers of photos, for a note."""
    shown = ", ".join(map(str, sorted(photos)[:NAMED]))
    return f"{shown} and {len(photos) - NAMED} more" if len(photos) > NAMED else shown
