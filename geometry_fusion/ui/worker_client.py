"""The server's side of the worker process: a queue of jobs, previews, and restarts after a crash.

Thread-safe. Callbacks come on a thread of this module.
"""

import itertools
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.types import Prompt
from geometry_fusion.ui.messages import (
    Cancel,
    Ended,
    LiveFrame,
    LiveJob,
    LiveNote,
    LiveWants,
    Preview,
    Previewed,
    Progress,
    Ready,
    TrackingJob,
    WorkerOptions,
)
from geometry_fusion.ui.worker import work

QUEUE_LENGTH = 4  # jobs that wait


class WorkerClient:
    """Starts the worker process when it is first needed.

    on_progress, on_end: called with Progress and Ended; `on_live`, which the owner may set, with
    LiveFrame, LiveNote and LiveWants. target: the process's function; replaced in tests.
    """

    def __init__(
        self,
        options: WorkerOptions,
        on_progress: Callable[[Progress], None],
        on_end: Callable[[Ended], None],
        target: Callable = work,
    ):
        self._options, self._on_progress, self._on_end = options, on_progress, on_end
        self._target = target
        self._lock = threading.RLock()
        self.on_live: Callable = lambda message: None
        self._waiting: deque[TrackingJob | LiveJob] = deque()
        self._running: TrackingJob | LiveJob | None = None
        self._previews: dict[int, Future] = {}
        self._numbers = itertools.count(1)
        self._process: multiprocessing.Process | None = None
        self._connection: Connection | None = None
        self._closed = False
        self.ready: Ready | None = None  # None while the models load

    def start(self) -> None:
        """Start the process, unless it runs."""
        with self._lock:
            if self._closed or (self._process is not None and self._process.is_alive()):
                return
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            self._connection = ours
            self._process = context.Process(
                target=self._target, args=(theirs, self._options), daemon=True, name="3am-worker"
            )
            self._process.start()
            theirs.close()
            reader = threading.Thread(
                target=self._read, args=(self._process, ours), daemon=True, name="3am-reader"
            )
            reader.start()

    @property
    def pid(self) -> int | None:
        """Number of the worker's process; None where none was started."""
        return self._process.pid if self._process else None

    def submit(self, job: TrackingJob | LiveJob) -> None:
        """Run a job, after those that came before. Raises InputError where the queue is full."""
        with self._lock:
            if len(self._waiting) >= QUEUE_LENGTH:
                raise InputError(
                    f"{QUEUE_LENGTH} runs are waiting already; try again when one has ended"
                )
            self._waiting.append(job)
            self._next()

    def position(self, job_id: str) -> int:
        """How many jobs are before a waiting one; 0 for the running one and unknown ones."""
        with self._lock:
            waiting = [job.job_id for job in self._waiting]
            return waiting.index(job_id) + 1 if job_id in waiting else 0

    def cancel(self, job_id: str) -> None:
        """End a job between two frames; a waiting one is taken from the queue."""
        ended = None
        with self._lock:
            for job in self._waiting:
                if job.job_id == job_id:
                    self._waiting.remove(job)
                    ended = Ended(job_id, "cancelled")
                    break
            if self._running is not None and self._running.job_id == job_id:
                self._send(Cancel(job_id))
        if ended:
            self._on_end(ended)

    def send_live(self, message) -> None:
        """Give a running LiveJob one of `LIVE_COMMANDS`; nothing where it does not run."""
        with self._lock:
            if self._running is not None and self._running.job_id == message.job_id:
                self._send(message)

    def preview(self, session_id: str, frames: Path, prompt: Prompt) -> "Future[Previewed]":
        """The mask of a prompt on its frame."""
        with self._lock:
            self.start()
            request = next(self._numbers)
            future: Future[Previewed] = Future()
            self._previews[request] = future
            self._send(Preview(request, session_id, frames, prompt))
        return future

    def close(self) -> None:
        """End the process; jobs that run end as cancelled."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            if self._connection is not None:
                self._connection.close()
            process = self._process
        if process is not None:
            process.join(0.3)
            if process.is_alive():
                process.kill()
            process.join(5)

    def _next(self) -> None:
        """Give the worker the next job, if it has none."""
        with self._lock:
            if self._running is None and self._waiting:
                self.start()
                self._running = self._waiting.popleft()
                self._send(self._running)

    def _send(self, message) -> None:
        with suppress(OSError, BrokenPipeError):  # a process that ended is noticed by `_read`
            self._connection.send(message)

    def _read(self, process: multiprocessing.Process, connection: Connection) -> None:
        try:
            while True:
                self._take(connection.recv())
        except (EOFError, OSError):
            pass
        except TypeError:  # of a connection that `close` closed during `recv`
            if not self._closed:
                raise
        if not self._closed:
            process.join(5)
            self._crashed(process)

    def _take(self, message) -> None:
        if isinstance(message, Previewed):
            with self._lock:
                future = self._previews.pop(message.request, None)
            if future is not None and not future.cancelled():
                future.set_result(message)
        elif isinstance(message, Progress):
            self._on_progress(message)
        elif isinstance(message, LiveFrame | LiveNote | LiveWants):
            self.on_live(message)
        elif isinstance(message, Ended):
            with self._lock:
                self._running = None
            self._on_end(message)
            self._next()
        elif isinstance(message, Ready):
            self.ready = message

    def _crashed(self, process: multiprocessing.Process) -> None:
        """The process ended by itself: one line for whoever waits, then a new process."""
        text = death_in_words(process.exitcode)
        with self._lock:
            if self._process is process:
                self._process, self._connection = None, None
            job, self._running = self._running, None
            previews, self._previews = self._previews, {}
        for request, future in previews.items():
            if not future.done():
                future.set_result(Previewed(request, error=text))
        if job is not None:
            self._on_end(Ended(job.job_id, "failed", text))
        if job is not None or previews or self.ready is not None:
            self.start()
            self._next()


def death_in_words(exit_code: int | None) -> str:
    """Why the worker process ended, and what to do."""
    if exit_code is not None and exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = f"signal {-exit_code}"
        cause = ", often for lack of memory" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{cause}; it was started again, press Run"
    return f"the worker process ended with exit code {exit_code}; it was started again, press Run"
