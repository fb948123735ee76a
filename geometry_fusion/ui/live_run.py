"""Live tracking in the worker process: frames as they come, prompts while they come.

A prompt belongs to the frame that the person saw, which has passed by then. The session is set back
to a snapshot before that frame and tracks the frames since then again, so that masks are those of a
stream whose prompts were known before. Every frame is recorded: the result is a clip.
"""

import copy
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np
import torch

from geometry_fusion.errors import InputError
from geometry_fusion.models.tracker import Tracker
from geometry_fusion.player.masks import mask_png
from geometry_fusion.player.scene import SceneCloud
from geometry_fusion.tracking.confidence import confidences
from geometry_fusion.tracking.fallback import FallbackSession
from geometry_fusion.tracking.session import Session
from geometry_fusion.types import Prompt, TrackedFrame
from geometry_fusion.ui.live_feed import (
    REACH,
    LiveFeed,
    PictureSlot,
    opened_live,
    opened_meanwhile,
    opened_page,
    shown_name,
)
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
from geometry_fusion.ui.pictures import jpeg_bytes, shrunk_mask
from geometry_fusion.ui.session_files import mask_file, write_aside, write_scene
from geometry_fusion.ui.tracking_job import Cancelled

SNAPSHOT_EVERY = 4  # frames: a snapshot costs a few milliseconds, and the size of the memory
RECORD_QUALITY = 95  # of JPEG
TOO_LATE = "the click on frame {} came too late to be followed live; it counts in the next run"


def live_session(tracker: Tracker, baseline: Tracker | None) -> Session:
    """As `main.py segment` has it. baseline: SAM2 alone, for objects that move; None: geometry is
    used for all.
    """
    session = tracker.session()
    return session if baseline is None else FallbackSession(session, baseline.session())


class LiveRun:
    """Runs one LiveJob. send: receives messages for the server; attend: called often, gives
    messages of the server to `take`, may raise Cancelled.
    """

    def __init__(self, job: LiveJob, session: Session, send: Callable, attend: Callable):
        self._job, self._session, self._send, self._receive = job, session, send, attend
        self._slot = PictureSlot() if job.spec is None else None
        self._asked = -1  # number of the latest picture that was asked for
        self._feed: LiveFeed | None = None
        self._paused, self._stopped = False, False
        self._prompts: dict[tuple[int, int], Prompt] = {}  # by frame and object
        self._removed: set[int] = set()
        self._back_to: int | None = None  # frame of a prompt that came
        self._snapshots: deque[tuple[int, dict]] = deque()
        self._recorded = 0  # frames
        self._scene = SceneCloud()

    def run(self) -> str:
        """Track until the source ends or the person stops; returns a note, or an empty text.
        Raises InputError for sources that cannot be opened.
        """
        job = self._job
        name = "camera of this page" if job.spec is None else shown_name(job.spec)
        for folder in (job.frames, job.out / job.arm):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with opened_meanwhile(self._open, self._attend, name) as source:
                kept = REACH + SNAPSHOT_EVERY + 1
                self._feed = LiveFeed(source, self._attend, job.most_frames, kept)
                self._feed.paused = self._paused
                while not self._stopped and not (self._feed.ended and self._back_to is None):
                    for frame in self._session.track(self._feed):
                        self._take_frame(frame)
                    self._apply()
        except InputError as error:
            raise InputError(str(error).replace(str(job.spec), name)) from None
        finally:
            write_scene(job.out, self._scene)
        if self._feed.is_full:
            return f"The limit of {job.most_frames} frames is reached; see --max-frames."
        return "" if self._stopped else f"{name} has ended."

    def _open(self):
        if self._slot is None:
            return opened_live(self._job.spec)
        return opened_page(self._slot, self._job.most_side, lambda: self._paused)

    # --- what the person does

    def _attend(self) -> None:
        self._receive()
        if self._stopped and self._feed is None:
            raise Cancelled  # before the source was opened
        wanted = self._feed.wanted if self._feed is not None else 0
        if self._slot is not None and wanted is not None and wanted > self._asked:
            self._asked = wanted
            self._send(LiveWants(self._job.job_id))

    def take(self, message) -> None:
        """A message of the server about this job."""
        if isinstance(message, LivePicture):
            if self._slot is not None:
                self._slot.put(message.content)
        elif isinstance(message, LiveControl):
            self._control(message.do)
        elif isinstance(message, LiveRemove):
            self._removed.add(message.object_id)
            self._interrupt()
        elif isinstance(message, LivePrompt):
            prompt = message.prompt
            self._prompts[prompt.frame, prompt.object_id] = prompt
            waiting = prompt.frame if self._back_to is None else self._back_to
            self._back_to = min(waiting, prompt.frame)
            self._interrupt()

    def _control(self, do: str) -> None:
        self._paused = do == "pause"
        if self._feed is not None:
            self._feed.paused = self._paused
        if do == "stop":
            self._stopped = True
            self._interrupt()

    def _interrupt(self) -> None:
        if self._feed is not None:
            self._feed.interrupt()

    # --- going back

    def _apply(self) -> None:
        """Carry out removals and prompts that came, between two frames."""
        first, self._back_to = self._back_to, None
        if first is not None:
            self._go_back(first)
        for object_id in self._removed & set(self._session.object_ids):
            self._session.remove(object_id)

    def _go_back(self, first: int) -> None:
        """Let the session track again from a prompted frame on, or shortly before it."""
        prompts = [p for p in self._prompts.values() if p.object_id not in self._removed]
        if not prompts:
            return
        before = [(number, state) for number, state in self._snapshots if number < first]
        start = before[-1][0] + 1 if before else min(p.frame for p in prompts)
        if start < self._feed.oldest or first > self._feed.newest:
            for place in [place for place in self._prompts if place[0] == first]:
                del self._prompts[place]
            self._send(LiveNote(self._job.job_id, TOO_LATE.format(first)))
            return
        self._snapshots = deque(before)
        if before:
            self._session.restore(copied(before[-1][1]))
        else:  # nothing was tracked before the first prompt
            self._session.reset()
        for prompt in sorted(prompts, key=lambda prompt: (prompt.frame, prompt.object_id)):
            if prompt.frame >= start:
                self._session.add(prompt)
        self._feed.go_back(start)

    def _keep_snapshot(self, number: int) -> None:
        if number % SNAPSHOT_EVERY or not self._session.object_ids or not self._session.settled:
            return
        self._snapshots.append((number, copied(self._session.snapshot())))
        while self._snapshots[0][0] + 1 < self._feed.oldest:
            self._snapshots.popleft()

    # --- recording

    def _take_frame(self, frame: TrackedFrame) -> None:
        """Record a tracked frame, or its new masks; show it if it is the newest one."""
        job, number = self._job, frame.index
        if number >= self._recorded:
            write_aside(job.frames / f"{number:06d}.jpg", full_jpeg(frame.image))
            self._recorded = number + 1
        mask = mask_png(frame.ids)
        write_aside(mask_file(job.out, job.arm, number), mask)
        decisions = dict(frame.decisions)
        objects = {
            str(object_id): [
                seen.area,
                seen.confidence,
                seen.score,
                decisions.get(object_id),
                None,
                None,
            ]
            for object_id, seen in confidences(frame).items()
            if object_id not in self._removed
        }
        record = {"arm": job.arm, "frame": number, "objects": objects}
        seconds = self._feed.seconds
        pace = round(self._feed.newest / seconds, 3) if seconds else 0.0
        paces = {job.arm: pace} if pace else {}
        self._send(Progress(job.job_id, self._recorded, 0, paces, record))
        self._scene.add(frame, frame.image)
        self._keep_snapshot(number)
        if number == self._feed.newest and self._back_to is None:
            size = frame.image.shape[1::-1]
            image, small = jpeg_bytes(frame.image), shrunk_mask(mask, size)
            self._send(LiveFrame(job.job_id, number, size, image, small, pace))


def copied(snapshot: dict) -> dict:
    """A session's snapshot with its own tensors: tracking continues with those of the session."""
    with torch.inference_mode():
        return copy.deepcopy(snapshot)


def full_jpeg(image: np.ndarray) -> bytes:
    """An RGB picture [H, W, 3] uint8 as JPEG of its own size."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, RECORD_QUALITY])
    return data.tobytes()
