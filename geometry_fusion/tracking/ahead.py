"""The next frames are encoded on threads of their own while the current ones are tracked.

Tracking runs many small operations one after another, so that it fills one core. The image encoder
and the geometry of the frames that follow need nothing from it. `EncodingAhead` runs them beside
it: one batch of frames at a time, the image encoder on one thread and the geometry on another. The
batches, and their order for the geometry source, are those of a run without threads, so that the
results are the same bit for bit.

Every thread computes with its share of the cores (`threads.share_cores`); without it nothing is
encoded ahead.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
Appearance = TypeVar("Appearance")


@dataclass(frozen=True)
class _Job(Generic[T]):
    indices: tuple[int, ...]
    batch: "Future[T]"


class EncodingAhead(Generic[T]):
    """At most one batch of frames of one video, encoded in the background.

    allowed: whether anything may be encoded ahead; set by the session that tracks. reached: the
    last frame of any batch that was begun, also of one that was dropped.
    """

    def __init__(self):
        self.allowed = False
        self.reached: int | None = None
        self.seconds = 0.0  # of its threads, and what was charged
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._job: _Job[T] | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """The frames of the batch that was begun and not taken; empty if there is none."""
        return self._job.indices if self._job else ()

    def begin(
        self,
        indices: Sequence[int],
        device: torch.device,
        appearance: Callable[[], Appearance],
        fuse: Callable[[Callable[[], Appearance]], T],
    ) -> None:
        """Begin to encode a batch. fuse: gets a function that waits for what `appearance` returned.

        Both run under the caller's autocast.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(2, thread_name_prefix="encoding-ahead")
        under = _autocast_of_this_thread(device)
        first = self._pool.submit(self._run, appearance, under)
        last = self._pool.submit(self._run, lambda: fuse(first.result), under)
        self._job = _Job(tuple(indices), last)
        self.reached = max(indices[-1], -1 if self.reached is None else self.reached)

    @torch.inference_mode()
    def _run(self, task: Callable[[], T], under: Callable[[], torch.autocast]) -> T:
        began = time.thread_time()
        try:
            with under():
                return task()
        finally:
            self.charge(time.thread_time() - began)

    def charge(self, seconds: float) -> None:
        """Count the time of work that another session did for this one too."""
        with self._lock:
            self.seconds += seconds

    def take(self) -> T:
        """Wait for the batch, and return it. Raises what encoding it raised."""
        job, self._job = self._job, None
        return job.batch.result()

    def wait(self) -> None:
        """Wait until the batch is encoded; it stays to be taken."""
        if self._job is not None:
            self._job.batch.exception()

    def forget(self) -> None:
        """As `stop`; the next batch is of another video."""
        self.stop()
        self.reached = None

    def stop(self) -> None:
        """Wait for the batch that is being encoded, drop it, and end the threads.

        The geometry source has taken in its frames all the same: see `reached`.
        """
        self.wait()
        self._job = None
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _autocast_of_this_thread(device: torch.device) -> Callable[[], torch.autocast]:
    """Makes contexts with the autocast of this thread, which other threads do not inherit."""
    kind = device.type
    options = {"dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}
    return lambda: torch.autocast(kind, **options)
