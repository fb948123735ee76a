"""The live session of a studio, on the server's side: at most one at a time. No web library.

The worker tracks and records (live_run.py). Here its latest frame waits for the page, commands of
the page go to the worker, and what was recorded becomes the session's clip when it ends.
"""

import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.ui.live_clip import keep_recorded
from geometry_fusion.ui.live_feed import shown_name
from geometry_fusion.ui.messages import (
    Ended,
    LiveControl,
    LiveFrame,
    LiveJob,
    LiveNote,
    LivePicture,
    LivePrompt,
    LiveRemove,
    LiveWants,
)
from geometry_fusion.ui.session import JobState, StudioSession
from geometry_fusion.ui.sources import StudioSource

UNWATCHED_S = 60.0  # without a page that asks for frames, after which it is stopped
# Of the commands of actions.py: others change what has been tracked already.
COMMANDS = ("add_object", "change_object", "remove_object", "mark")
CONTROLS = ("pause", "resume", "stop")
PAGE_CAMERA = "camera of this page"


@dataclass
class Live:
    """The running live session."""

    session: StudioSession
    job: JobState
    arm: str
    name: str
    folder: Path  # of recorded frames
    from_page: bool  # the page sends the pictures
    latest: LiveFrame | None = None
    turn: int = 0  # counts the frames that came, also new masks of the same frame
    note: str = ""
    paused: bool = False
    wants: bool = False  # the worker waits for a picture of the page
    picture: bytes | None = None  # the latest one that was not sent to the worker
    watched: float = field(default_factory=time.monotonic)

    def as_json(self) -> dict:
        """What the page shows."""
        return {
            "name": self.name,
            "arm": self.arm,
            "paused": self.paused,
            "from_page": self.from_page,
            "note": self.note,
            "frames": self.latest.number + 1 if self.latest else 0,
        }


class LiveDesk:
    """Starts, steers and ends live sessions. studio: its worker and limits are used. source: what
    the server can open, as `main.py segment --source` takes it; None: only pages' cameras.
    """

    def __init__(self, studio, source: str | None = None):
        self._studio, self.source = studio, source
        self._live: Live | None = None
        self._lock = threading.RLock()

    @property
    def shown_source(self) -> str | None:
        """The server's source, for people."""
        return None if self.source is None else shown_name(self.source)

    def of(self, session: StudioSession) -> Live | None:
        """The live session, if it is this session's."""
        live = self._live
        return live if live is not None and live.session is session else None

    def view(self, session: StudioSession) -> dict | None:
        """As `Live.as_json`; None where the session is not live."""
        live = self.of(session)
        return live.as_json() if live else None

    def needed(self, session: StudioSession) -> Live:
        """As `of`. Raises InputError where the session is not live."""
        live = self.of(session)
        if live is None:
            raise InputError("this session is not live any more")
        return live

    def start(self, session: StudioSession, from_page: bool, arm: str | None = None) -> None:
        """Begin anew with a live source; what the session had is dropped. arm: default with
        geometry where it can run. Raises InputError where another session is live, or the source,
        the arm or the queue cannot be used.
        """
        studio, settings = self._studio, session.settings
        if not from_page and self.source is None:
            raise InputError("the server has no camera; start the studio with --source")
        if session.busy or (session.job is not None and session.job.is_active):
            raise InputError("this session is busy; wait, or cancel its run")
        arm = self._checked_arm(arm)
        job = JobState(secrets.token_hex(8), (arm,), "")
        name = PAGE_CAMERA if from_page else self.shown_source
        folder = session.folder / f"frames-{time.time_ns():x}"
        with self._lock:
            if self._live is not None:
                raise InputError("another session is live; stop it first")
            self._live = Live(session, job, arm, name, folder, from_page)
        old = session.source
        session.new_source(None)
        session.job = job
        if old is not None and Path(old.folder).parent == session.folder:
            shutil.rmtree(old.folder, ignore_errors=True)
        message = LiveJob(
            job_id=job.job_id,
            session_id=session.key,
            spec=None if from_page else self.source,
            arm=arm,
            mode=settings["mode"],
            fallback=settings["fallback"],
            memory=settings["memory"],
            frames=folder,
            out=session.masks,
            most_frames=studio.limits.frames,
            most_side=studio.limits.long_side,
        )
        try:
            studio.submit(session, message)
        except InputError:
            self._live = None
            raise

    def _checked_arm(self, arm: str | None) -> str:
        ready = self._studio.worker.ready
        arm = arm or ("baseline" if ready and "geom" in ready.missing else "geom")
        if arm not in ("baseline", "geom"):
            raise InputError(f"arm {str(arm)[:20]}: unknown; choose of baseline, geom")
        if ready and arm in ready.missing:
            raise InputError(f"{arm} cannot run: {ready.missing[arm]}")
        return arm

    # --- commands of the page

    def act(self, session: StudioSession, action: dict) -> None:
        """A command of actions.py while the session is live. Raises InputError for those that have
        to wait for the end.
        """
        live = self.needed(session)
        name = action.get("do")
        if name not in COMMANDS:
            raise InputError("stop the live video first; then everything can be changed")
        session.act(action)
        job_id = live.job.job_id
        if name == "remove_object":
            self._studio.worker.send_live(LiveRemove(job_id, action["object"]))
        elif name == "mark":
            prompt = session.prompt_on(action["frame"], action["object"])
            if prompt is not None:
                prompt.check(session.source.size, session.source.count)
                self._studio.worker.send_live(LivePrompt(job_id, prompt))

    def control(self, session: StudioSession, do: str) -> None:
        """pause, resume or stop. Raises InputError for anything else."""
        if do not in CONTROLS:
            raise InputError(f"{str(do)[:20]}: unknown; it is {', '.join(CONTROLS)}")
        live = self.needed(session)
        live.paused = do == "pause"
        if live.job.status == "waiting" and do == "stop":
            self._studio.cancel(session)
        else:
            self._studio.worker.send_live(LiveControl(live.job.job_id, do))

    def picture(self, session: StudioSession, content: bytes) -> None:
        """A picture of the page's camera; the latest one is sent when the worker wants it."""
        live = self.of(session)
        if live is None:
            return
        if not live.from_page:
            raise InputError("this live session does not use the page's camera")
        with self._lock:
            live.picture = content
        self._hand_over(live)

    def _hand_over(self, live: Live) -> None:
        with self._lock:
            if not live.wants or live.picture is None:
                return
            live.wants, content, live.picture = False, live.picture, None
        self._studio.worker.send_live(LivePicture(live.job.job_id, content))

    def tidy(self) -> None:
        """Stop a live session that no page watches."""
        live = self._live
        if live is not None and time.monotonic() - live.watched > UNWATCHED_S:
            self.control(live.session, "stop")

    # --- messages of the worker

    def take(self, message: LiveFrame | LiveNote | LiveWants) -> None:
        """What the worker says about the running live session."""
        live = self._live
        if live is None or live.job.job_id != message.job_id or live.session.job is not live.job:
            return
        if isinstance(message, LiveWants):
            live.wants = True
            self._hand_over(live)
        elif isinstance(message, LiveNote):
            live.note = message.text
        else:
            self._show(live, message)

    def _show(self, live: Live, frame: LiveFrame) -> None:
        session = live.session
        if session.source is None:
            session.source = StudioSource(
                kind="live",
                name=live.name,
                folder=str(live.folder),
                count=frame.number + 1,
                size=tuple(frame.size),
                rate="10",
            )
            session.epoch += 1
            session.save()
        elif frame.number >= session.source.count:
            session.source = replace(session.source, count=frame.number + 1)
        live.latest, live.turn = frame, live.turn + 1

    def ended(self, session: StudioSession, message: Ended) -> bool:
        """What was recorded becomes the session's clip. False where another job has ended."""
        live = self.of(session)
        if live is None or live.job.job_id != message.job_id:
            return False
        live.job.status, live.job.text = message.status, message.text
        if session.job is live.job:
            pace = (live.job.pace or {}).get(live.arm, 0.0)
            keep_recorded(session, live.folder, live.name, pace)
            session.job = live.job
        else:  # another video was opened meanwhile
            shutil.rmtree(live.folder, ignore_errors=True)
        self._live = None
        return True
