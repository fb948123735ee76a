"""All sessions of a studio: opening, finding, running, freeing. No web library.

Sessions are found by their key of 128 random bits and by nothing else. A session that nobody asks
for leaves memory; its files stay until they are old or the disk's share is used up.
"""

import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from geometry_fusion.assets import SAMPLES
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import digest_of
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.ui.intake import Intake
from geometry_fusion.ui.live_desk import LiveDesk
from geometry_fusion.ui.messages import Ended, LiveJob, Progress, TrackingJob, WorkerOptions
from geometry_fusion.ui.results import ARMS
from geometry_fusion.ui.session import JobState, StudioSession
from geometry_fusion.ui.sources import Cut, StudioSource, opened, sample_facts
from geometry_fusion.ui.studio_limits import StudioLimits
from geometry_fusion.ui.truth import first_object
from geometry_fusion.ui.worker_client import WorkerClient

KEY = re.compile(r"[0-9a-f]{32}")


class UnknownSession(LookupError):
    """No session has this key."""


class Studio:
    """The sessions of one server. out: folder of all their files. worker: made by default."""

    def __init__(
        self,
        out: Path,
        options: WorkerOptions,
        limits: StudioLimits | None = None,
        make_worker: Callable = WorkerClient,
        first_sample: str = "twins",
    ):
        sample_facts(first_sample)
        self.first_sample = first_sample
        self.out, self.options, self.limits = Path(out), options, limits or StudioLimits()
        self.allow_paths: Path | None = None  # below it, pages may open files by their path
        self._sessions: dict[str, StudioSession] = {}
        self._jobs: dict[str, StudioSession] = {}
        self._lock = threading.RLock()
        self.folder = self.out / "sessions"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.worker = make_worker(options, self._on_progress, self._on_end)
        self.intake = Intake(self.limits)
        self.live = LiveDesk(self)
        self.worker.on_live = self.live.take

    # --- sessions

    def create(self) -> StudioSession:
        """A new, empty session. Old ones make room."""
        self.tidy()
        key = secrets.token_hex(16)
        with self._lock:
            session = self._sessions[key] = self._opened(key)
        session.save()
        return session

    def _opened(self, key: str) -> StudioSession:
        session = StudioSession(key, self.folder / key)
        session.position = self.worker.position
        session.live = lambda: self.live.view(session)
        return session

    def session(self, key: str) -> StudioSession:
        """The session with a key, read from disk where it left memory. Raises UnknownSession."""
        if not KEY.fullmatch(key):
            raise UnknownSession
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                folder = self.folder / key
                if not (folder / "session.json").is_file():
                    raise UnknownSession
                session = self._sessions[key] = self._opened(key)
            session.last_seen = time.monotonic()
        return session

    def tidy(self) -> None:
        """Free idle sessions; remove files that are too old, and the oldest where the disk's share
        is used up. A session in memory loses nothing.
        """
        self.live.tidy()
        with self._lock:
            now = time.monotonic()
            for key, session in list(self._sessions.items()):
                idle = now - session.last_seen > self.limits.idle_minutes * 60
                active = session.busy or (session.job and session.job.is_active)
                if idle and not active:
                    session.results.close()
                    del self._sessions[key]
            closed = [f for f in self.folder.iterdir() if f.name not in self._sessions]
            by_age = sorted(closed, key=_last_used)
            total = sum(_size(folder) for folder in self.folder.iterdir())
            for folder in by_age:
                old = time.time() - _last_used(folder) > self.limits.keep_hours * 3600
                if old or total > self.limits.disk_gb * 1e9:
                    total -= _size(folder)
                    shutil.rmtree(folder, ignore_errors=True)

    @property
    def num_open(self) -> int:
        """Sessions in memory."""
        return len(self._sessions)

    def close(self) -> None:
        """End the worker and close all logs."""
        self.worker.close()
        self.intake.close()
        with self._lock:
            for session in self._sessions.values():
                session.results.close()

    # --- sources

    def open_sample(self, session: StudioSession, name: str) -> None:
        """A bundled sample with its prompt; its results are taken from an earlier run, or it is
        run at once.
        """
        facts = sample_facts(name)
        session.new_source(self._sample_source(name, facts))
        session.act({"do": "add_object", "name": facts.get("object_name", "object 1")})
        x, y = map(float, facts["point"].split(","))
        session.act(
            {
                "do": "mark",
                "kind": "point",
                "frame": facts["prompt_frame"],
                "object": session.board.objects[0].id,
                "values": [x, y],
            }
        )
        session.history.forget_past()
        if not self._from_cache(session):
            self.run(session)

    def _sample_source(self, name: str, facts: dict) -> StudioSource:
        video = SAMPLES / name / "video.mp4"
        folder = self.out / "samples" / f"{name}-{video.stat().st_size}"
        with self._lock:
            if not (folder / "frames.json").exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                extract_frames(video, folder, 1, "keep", progress=False, lossless=True)
        return opened("sample", facts["title"], folder, Cut(), sample=name)

    # --- runs

    def run(self, session: StudioSession, arms: tuple[str, ...] | None = None) -> None:
        """Track the session's prompts. arms: default all that can run. Raises InputError where
        nothing is marked, an arm cannot run, or the queue is full.
        """
        if session.job is not None and session.job.is_active:
            raise InputError("a run is going on; cancel it first")
        ready = self.worker.ready
        arms = arms or tuple(ready.arms if ready else ARMS)
        for arm in arms:
            if arm not in ARMS:
                raise InputError(f"arm {str(arm)[:20]}: unknown; choose of {', '.join(ARMS)}")
            if ready and arm in ready.missing:
                raise InputError(f"{arm} cannot run: {ready.missing[arm]}")
        prompts = session.prompts()
        job = JobState(secrets.token_hex(8), arms, session.digest())
        gt = SAMPLES / session.source.sample / "gt" if session.source.sample else None
        message = TrackingJob(
            job_id=job.job_id,
            session_id=session.key,
            frames=Path(session.source.folder),
            prompts=tuple(prompts),
            arms=arms,
            mode=session.settings["mode"],
            fallback=session.settings["fallback"],
            memory=session.settings["memory"],
            out=session.masks,
            truth=session.truth_folder if session.truth_folder.is_dir() else gt,
            truth_object=first_object(session),
            unordered=session.is_unordered,
        )
        session.job = job
        self.submit(session, message)

    def submit(self, session: StudioSession, message: TrackingJob | LiveJob) -> None:
        """Give the worker the session's job. Raises InputError where the queue is full."""
        with self._lock:
            self._jobs[message.job_id] = session
        try:
            self.worker.submit(message)
        except InputError:
            session.job = None
            self._jobs.pop(message.job_id, None)
            raise

    def act(self, session: StudioSession, action: dict) -> None:
        """A command of the page (actions.py). Raises InputError for wrong ones."""
        act = session.act if self.live.of(session) is None else partial(self.live.act, session)
        act(action)

    def cancel(self, session: StudioSession) -> None:
        """End the session's run; what it has done stays."""
        if session.job is not None and session.job.is_active:
            self.worker.cancel(session.job.job_id)

    def _on_progress(self, message: Progress) -> None:
        session = self._jobs.get(message.job_id)
        if session is None or session.job is None or session.job.job_id != message.job_id:
            return
        job = session.job
        if job.status == "waiting":
            job.status, job.began = "running", time.monotonic()
        job.done, job.total = message.done or job.done, message.total or job.total
        job.pace = message.pace or job.pace
        if message.record is not None:
            session.results.add(message.record)

    def _on_end(self, message: Ended) -> None:
        session = self._jobs.pop(message.job_id, None)
        if session is None or self.live.ended(session, message):
            return
        job = session.job
        if job is None or job.job_id != message.job_id:
            return
        job.status, job.text = message.status, message.text
        session.tracked = job.digest
        if message.status != "done":
            session.tracked = f"{job.digest} in part"
        with suppress(OSError):
            session.save()
            if message.status == "done" and session.source.sample:
                self._to_cache(session)

    # --- results of samples, kept aside

    def _cache_folder(self, session: StudioSession) -> Path:
        facts = [
            session.source.sample,
            session.digest(),
            [str(value) for value in vars(self.options).values()],
        ]
        return self.out / "samples" / f"results-{digest_of(facts)}"

    def _to_cache(self, session: StudioSession) -> None:
        whole = all(
            len(session.results.frames(a)) == session.source.count for a in session.job.arms
        )
        target = self._cache_folder(session)
        if not whole or target.exists() or session.job.digest != session.digest():
            return
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        shutil.copytree(session.masks, aside / "masks")
        lines = [session.results.record(a, f) for a in ARMS for f in session.results.frames(a)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (aside / "results.jsonl").write_text(text, encoding="utf-8")
        with suppress(OSError):
            aside.rename(target)

    def _from_cache(self, session: StudioSession) -> bool:
        folder = self._cache_folder(session)
        try:
            lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
            shutil.copytree(folder / "masks", session.masks, dirs_exist_ok=True)
            for line in lines:
                session.results.add(json.loads(line))
        except (OSError, ValueError):
            return False
        session.tracked = session.digest()
        session.save()
        return True


def _last_used(folder: Path) -> float:
    try:
        return max(folder.stat().st_mtime, (folder / "session.json").stat().st_mtime)
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.lstat().st_size
    return total
