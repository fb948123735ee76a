"""Items that are computed ahead on a daemon thread and held in a bounded queue.

`Prefetch(items, size)` is an iterator over the same items in the same order, to be iterated once.
At most `size` items wait, and one more may be being computed. An error of `items` is raised
unchanged, at its place in the order. With `newest`, for live sources, a full queue drops its oldest
item and counts it in `dropped`; otherwise the thread waits. `close`, garbage collection and the end
of the interpreter stop the thread, which then closes `items`.
"""

import weakref
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from threading import Condition, Event, Thread, current_thread
from typing import Generic, TypeVar

T = TypeVar("T")

# A thread inside a foreign call (a driver, a stalled network, a caller's iterator) cannot be
# stopped. After this wait it is left alone and ends when the call returns.
LEAVE_AFTER_S = 1.0


class Prefetch(Generic[T]):
    """See the module's description.

    stop: an event that is set to end the thread; pass it where `items` themselves wait for
    something. Raises ValueError for a size below 1.
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
        # The thread refers to the queue only, so that it does not keep this object alive.
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
        """The next item.

        Raises StopIteration at the end, and TimeoutError if no item arrives in `limit_s` seconds.
        """
        return self._queue.get(limit_s)

    def ahead(self, count: int) -> int | None:
        """Wait until `count` items are queued, or all that are left.

        Returns how many are left if the last one is queued, else None. Raises ValueError where the
        queue is smaller than `count`.
        """
        if count > self.size:
            raise ValueError(f"ahead({count}): the queue holds {self.size}; make it larger")
        return self._queue.ahead(count)

    @property
    def dropped(self) -> int:
        """Items that were discarded unread because newer ones came."""
        return self._queue.dropped


class _Queue(Generic[T]):
    """The queue that the thread and its consumer share."""

    def __init__(self, size: int, newest: bool, stop: Event):
        self.stop = stop
        self.dropped = 0
        self._size, self._newest = size, newest
        self._items: deque[T] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._changed = Condition()

    def put(self, item: T) -> None:
        """Add an item; wait for space, or drop the oldest item of a queue of newest ones."""
        with self._changed:
            if self._newest and len(self._items) >= self._size:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: len(self._items) < self._size or self.stop.is_set())
            if not self.stop.is_set():
                self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        """No more items come; `error` is raised after the last one."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Discard the items and let all waits end."""
        self.stop.set()
        with self._changed:
            self._items.clear()
            self._changed.notify_all()

    def get(self, limit_s: float | None) -> T:
        """As Prefetch.get."""
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
        """As Prefetch.ahead."""
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
                del item  # or it would stay in memory while the next one is computed
                if queue.stop.is_set():
                    break
    except BaseException as error:
        queue.end(error)
    else:
        queue.end(None)


def _end(queue: _Queue, thread: Thread) -> None:
    queue.close()
    if thread is not current_thread():  # garbage collection may run on any thread
        thread.join(LEAVE_AFTER_S)
