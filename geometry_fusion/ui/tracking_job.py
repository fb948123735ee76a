"""One run of the arms in the worker process: frames and prompts in, masks and records out.

The masks are those of `ab_iou.py` with the same prompts, bit for bit: the same sessions track in
step over the same batches of frames.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.models.tracker import Tracker
from geometry_fusion.player.masks import mask_png
from geometry_fusion.player.scene import SceneCloud
from geometry_fusion.tracking.clip_session import ClipSession, track_together
from geometry_fusion.tracking.confidence import Seen, confidences
from geometry_fusion.tracking.fallback import ClipFallback, without_geometry
from geometry_fusion.tracking.places import MOVING
from geometry_fusion.types import TrackedFrame
from geometry_fusion.ui.arm_records import ArmRecords
from geometry_fusion.ui.messages import Progress, TrackingJob
from geometry_fusion.ui.results import ARMS
from geometry_fusion.ui.session_files import write_aside, write_scene


class Cancelled(Exception):
    """Raised by `step` when a person ended the job."""


class StepSession(ClipSession):
    """A ClipSession that calls `step` after every frame, also those that are not answered yet."""

    step: Callable[[], None] = staticmethod(lambda: None)

    def _tracked_pass(self, order: range) -> Iterator[TrackedFrame]:
        for frame in super()._tracked_pass(order):
            self.step()
            yield frame


class JobRun:
    """Runs one job. send: receives Progress; step: called after every frame, may raise Cancelled.

    Raises InputError for prompts and frames that cannot be used.
    """

    def __init__(
        self,
        job: TrackingJob,
        trackers: dict[str, Tracker],
        send: Callable[[Progress], None],
        step: Callable[[], None],
    ):
        self._job, self._trackers, self._send, self._step = job, trackers, send, step
        self._frames = FrameFolder(job.frames)
        self._records = ArmRecords(job, self._frames.stems)
        self._done = 0
        self._seconds = dict.fromkeys(trackers, 0.0)
        prompted = [prompt.frame for prompt in job.prompts]
        self._total = len(self._frames) - min(prompted) + max(prompted)
        self.scene = SceneCloud()
        self._seen: dict[tuple[str, int], dict[int, Seen]] = {}  # by arm and frame
        both = len(trackers) == 2
        self._fallback = None
        if both and job.fallback != "never":
            self._fallback = ClipFallback(
                self._frames, job.prompts, always=job.fallback == "always"
            )

    def run(self) -> str:
        """Track to the end; returns a note for the person, or an empty text."""
        for arm in self._trackers:
            (self._job.out / arm).mkdir(parents=True, exist_ok=True)
        for prompt in self._job.prompts:
            prompt.check(self._frames.size, len(self._frames))
        sessions = [self._session(tracker) for tracker in self._trackers.values()]
        sessions[0].step = self._one_step
        try:
            for answers, seconds in track_together(sessions, self._frames):
                for arm, spent in zip(self._trackers, seconds):
                    self._seconds[arm] += spent
                self._take(dict(zip(self._trackers, answers)))
        finally:
            write_scene(self._job.out, self.scene)
        return self._fall_back()

    def _session(self, tracker: Tracker) -> StepSession:
        session = StepSession(tracker.predictor, tracker.precision, keep="reachable")
        for prompt in self._job.prompts:
            session.add(prompt)
        return session

    def _one_step(self) -> None:
        self._done += 1
        self._step()
        self._send(Progress(self._job.job_id, self._done, self._total, self._pace()))

    def _pace(self) -> dict[str, float]:
        return {
            arm: round(self._done / spent, 2) for arm, spent in self._seconds.items() if spent > 0
        }

    def _take(self, answers: dict[str, TrackedFrame]) -> None:
        """One frame, as each arm answers it."""
        last = list(answers.values())[-1]
        image = self._frames[last.index]
        self.scene.add(last, image)
        if self._fallback:
            self._fallback.add(answers["baseline"], answers["geom"])
        ids = {arm: frame.ids for arm, frame in answers.items()}
        ids = self._records.with_other_arms(ids, last.index)
        for arm, frame in answers.items():
            write_aside(self._records.file(arm, frame.index), mask_png(frame.ids))
            seen = self._seen[arm, frame.index] = confidences(frame)
            record = self._records.record(arm, frame.index, ids, seen, frame.decisions)
            self._send(Progress(self._job.job_id, self._done, self._total, self._pace(), record))

    def _fall_back(self) -> str:
        """Replace the masks of moving objects by those of SAM2 alone, as `ab_iou.py` does."""
        if not self._fallback:
            return ""
        self._fallback.decide()
        moving = self._fallback.moving
        if not moving:
            return ""
        for index in range(len(self._frames)):
            ids = {arm: self._records.kept(arm, index) for arm in ARMS}
            joined = without_geometry(ids["geom"], ids["baseline"], moving).astype(np.uint8)
            write_aside(self._records.file("geom", index), mask_png(joined))
            ids["geom"] = joined
            areas = np.bincount(joined.flatten(), minlength=256)
            seen = {}
            for object_id, item in self._seen["geom", index].items():
                source = self._seen["baseline", index][object_id] if object_id in moving else item
                seen[object_id] = replace(source, area=int(areas[object_id]))
            record = self._records.record("geom", index, ids, seen, dict.fromkeys(moving, MOVING))
            self._send(Progress(self._job.job_id, self._done, self._total, self._pace(), record))
        named = ", ".join(map(str, sorted(moving)))
        return f"Moving objects ({named}) have SAM2's own masks in both arms."
