"""The worker process of the studio: holds the models, answers previews, runs tracking jobs.

It lives in a process of its own, so that the server stays up when the models run out of memory or
crash. One job runs at a time; previews are answered between its frames.
"""

import signal
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.models.tracker import Tracker, load
from geometry_fusion.player.masks import mask_png
from geometry_fusion.tracking.features import FrameFeatures
from geometry_fusion.ui.live_run import LiveRun, live_session
from geometry_fusion.ui.messages import (
    LIVE_COMMANDS,
    Cancel,
    Ended,
    LiveJob,
    Preview,
    Previewed,
    Progress,
    Ready,
    TrackingJob,
    WorkerOptions,
)
from geometry_fusion.ui.photo_job import PhotoRun
from geometry_fusion.ui.picked_prompts import MaskPreview
from geometry_fusion.ui.tracking_job import Cancelled, JobRun

ARM_TITLES = {
    "sam2": "SAM2",
    "3am": "3AM",
    "places": "SAM2 + places",
    "both": "3AM + places",
    "control": "control",
    "oracle": "oracle",
}
TRACKERS_KEPT = 4  # more combinations of mode and memory policy are loaded again
VIDEOS_KEPT = 2  # whose encoded frames stay in memory for previews
PREVIEW_BYTES = 256 * 2**20  # of encoded frames per video


def work(connection: Connection, options: WorkerOptions) -> None:
    """Serve requests until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which closes the pipe
    with suppress(EOFError, BrokenPipeError, OSError):
        _Worker(connection, options).serve()


class _Worker:
    def __init__(self, connection: Connection, options: WorkerOptions):
        self._connection, self._options = connection, options
        # By geometry mode ("off" is SAM2 alone) and memory policy.
        self._trackers: OrderedDict[tuple[str, str], Tracker] = OrderedDict()
        self._previews: OrderedDict[Path, MaskPreview] = OrderedDict()
        self._job: TrackingJob | LiveJob | None = None
        self._live: LiveRun | None = None

    def serve(self) -> None:
        self._send(self._ready())
        while True:
            self._answer([self._connection.recv()])

    def _ready(self) -> Ready:
        try:
            baseline = self._tracker("off")
        except InputError as error:
            return Ready({}, {"baseline": str(error), "geom": str(error)})
        arms, missing = {"baseline": ARM_TITLES[baseline.arm]}, {}
        notes = []
        try:
            second = self._tracker("auto")
            if second.without_geometry:
                missing["geom"] = second.without_geometry
            else:
                arms["geom"] = ARM_TITLES[second.arm]
            if second.without_merger:
                notes.append(f"Geometry works by places, not by a merger: {second.without_merger}.")
        except InputError as error:
            missing["geom"] = str(error)
        return Ready(arms, missing, tuple(notes))

    def _tracker(self, mode: str, memory: str = "fifo") -> Tracker:
        """The tracker of a geometry mode and a memory policy; "off" is SAM2 alone."""
        key = mode, memory
        if key not in self._trackers:
            chosen = self._options
            given = {
                "sam2_checkpoint": chosen.sam2_checkpoint,
                "device": chosen.device,
                "precision": chosen.precision,
                "memory": memory,
            }
            if mode == "off":
                given["geometry"] = "none"
            else:
                named = "auto" if chosen.must3r == "auto" else f"auto:{chosen.must3r}"
                given |= {"geometry": named, "mode": mode, "checkpoint": chosen.checkpoint}
            self._trackers[key] = load(chosen.sam2, **given)
            if len(self._trackers) > TRACKERS_KEPT:
                previews = "off", "fifo"
                self._trackers.pop(next(key for key in self._trackers if key != previews))
        self._trackers.move_to_end(key)
        return self._trackers[key]

    def _send(self, message) -> None:
        self._connection.send(message)

    def _answer(self, messages: list) -> None:
        """Answer requests; of the previews of a session only the latest.

        Jobs begin, and the running one ends, when everything else is answered.
        """
        while self._connection.poll():
            messages.append(self._connection.recv())
        latest = {m.session_id: m for m in messages if isinstance(m, Preview)}
        for message in messages:
            if isinstance(message, Preview):
                if latest[message.session_id] is message:
                    self._send(self._preview(message))
                else:
                    self._send(Previewed(message.request))
            elif isinstance(message, LIVE_COMMANDS) and self._is_live(message.job_id):
                self._live.take(message)
        cancelled = {m.job_id for m in messages if isinstance(m, Cancel)}
        if self._job is not None and self._job.job_id in cancelled:
            raise Cancelled
        for message in messages:
            if isinstance(message, TrackingJob | LiveJob):
                if message.job_id in cancelled:
                    self._send(Ended(message.job_id, "cancelled"))
                else:
                    self._run(message)

    def _is_live(self, job_id: str) -> bool:
        return self._live is not None and self._job.job_id == job_id

    def _preview(self, request: Preview) -> Previewed:
        try:
            preview = self._preview_of(request.frames)
            ids = preview([request.prompt])
        except Exception as error:
            return Previewed(request.request, error=_in_words(error))
        return Previewed(request.request, mask_png(ids), int(np.count_nonzero(ids)))

    def _preview_of(self, folder: Path) -> MaskPreview:
        if folder not in self._previews:
            frames = FrameFeatures(FrameFolder(folder), bytes_kept=PREVIEW_BYTES)
            tracker = self._tracker("off")
            self._previews[folder] = MaskPreview(tracker.predictor, frames, tracker.precision)
        self._previews.move_to_end(folder)
        while len(self._previews) > VIDEOS_KEPT:
            self._previews.popitem(last=False)
        return self._previews[folder]

    def _run(self, job: TrackingJob | LiveJob) -> None:
        self._job = job
        try:
            self._send(Progress(job.job_id))
            text = self._run_live(job) if isinstance(job, LiveJob) else self._run_clip(job)
            self._send(Ended(job.job_id, "done", text))
        except Cancelled:
            self._send(Ended(job.job_id, "cancelled"))
        except Exception as error:
            self._send(Ended(job.job_id, "failed", _in_words(error)))
        finally:
            self._job = self._live = None

    def _run_clip(self, job: TrackingJob) -> str:
        if job.unordered:
            job = replace(job, memory="fifo", fallback="never")
        trackers = {}
        if "baseline" in job.arms:
            trackers["baseline"] = self._tracker("off", job.memory)
        if "geom" in job.arms:
            trackers["geom"] = self._with_geometry(job)
        if job.unordered:
            return PhotoRun(job, trackers, self._send, self._between_frames).run()
        return JobRun(job, trackers, self._send, self._between_frames).run()

    def _run_live(self, job: LiveJob) -> str:
        tracker, baseline = self._tracker("off", job.memory), None
        if job.arm == "geom" and job.fallback != "always":
            baseline = tracker if job.fallback == "auto" else None
            tracker = self._with_geometry(job)
        session = live_session(tracker, baseline)
        self._live = LiveRun(job, session, self._send, self._between_frames)
        return self._live.run()

    def _with_geometry(self, job: TrackingJob | LiveJob) -> Tracker:
        tracker = self._tracker(job.mode, job.memory)
        if tracker.without_geometry:
            raise InputError(tracker.without_geometry)
        return tracker

    def _between_frames(self) -> None:
        if self._connection.poll():
            self._answer([])


def _in_words(error: Exception) -> str:
    text = one_line(error)[:400]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
