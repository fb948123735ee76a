"""Items made ahead on a daemon thread and held in a bounded queue.

`Prefetch(items, size)` is an iterator over the same items in the same order, to be iterated once.
At most `size` wait; one more may be in the making. An error of `items` is raised where it occurred
in order, as it was. With `newest`, for what cannot wait, a full queue drops its oldest item and
counts it in `dropped`; otherwise the thread waits. `close`, garbage collection and the end of the
interpreter stop the thread and close `items` on it.
"""

import weakref
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from threading import Condition, Event, Thread, current_thread
from typing import Generic, TypeVar

T = TypeVar("T")

# A thread inside a foreign call (a driver, a stalled network, somebody's iterator) cannot be ended:
# it is left to end by itself when the call returns.
LEAVE_AFTER_S = 1.0


class Prefetch(Generic[T]):
    """See the module. `stop` is set when the thread shall end, for `items` that wait for something
    themselves.
    """

    def __init__(
        self,
        items: Generator[T, None, None],
        size: int,
        newest: bool = False,
        stop: Event | None = None,
    ):
        if size < 1:
            raise ValueError(f"size {size}: must be at least 1")
        self.size = size
        self._queue = _Queue(size, newest, stop or Event())
        # The thread knows the queue only: it must not keep this object alive.
        thread = Thread(target=_fill, args=(items, self._queue), name="prefetch", daemon=True)
        self.close = weakref.finalize(self, _end, self._queue, thread)
        thread.start()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self.get()

    def get(self, limit_s: float | None = None) -> T:
        """The next item. Raises StopIteration at the end, and TimeoutError if there is none in
        `limit_s` seconds.
        """
        return self._queue.get(limit_s)

    def ahead(self, count: int) -> int | None:
        """Wait until `count` items are queued or the last one is; returns how many are left, None
        if not known.
        """
        if count > self.size:
            raise ValueError(f"ahead({count}): the queue holds {self.size}; make it larger")
        return self._queue.ahead(count)

    @property
    def dropped(self) -> int:
        """Items that were discarded unread because newer ones came."""
        return self._queue.dropped


class _Queue(Generic[T]):
    """What the thread and its consumer share."""

    def __init__(self, size: int, newest: bool, stop: Event):
        self.stop = stop
        self.dropped = 0
        self._size, self._newest = size, newest
        self._items: deque[T] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._changed = Condition()

    def put(self, item: T) -> None:
        with self._changed:
            if self._newest and len(self._items) >= self._size:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: len(self._items) < self._size or self.stop.is_set())
            if not self.stop.is_set():
                self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        self.stop.set()
        with self._changed:
            self._items.clear()
            self._changed.notify_all()

    def get(self, limit_s: float | None) -> T:
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._items or self._ended or self.stop.is_set(), limit_s
            ):
                raise TimeoutError
            self._changed.notify_all()
            if self._items:
                return self._items.popleft()
            error, self._error = self._error, None
            raise error or StopIteration

    def ahead(self, count: int) -> int | None:
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._items) >= count or self._ended or self.stop.is_set()
            )
            return len(self._items) if self._ended else None


def _fill(items: Generator[T, None, None], queue: _Queue[T]) -> None:
    try:
        with closing(items):
            for item in items:
                queue.put(item)
                del item  # the queue's alone: it would be one more in memory while the next is made
                if queue.stop.is_set():
                    break
    except BaseException as error:
        queue.end(error)
    else:
        queue.end(None)


def _end(queue: _Queue, thread: Thread) -> None:
    queue.close()
    if thread is not current_thread():  # garbage may be collected on any thread
        thread.join(LEAVE_AFTER_S)
