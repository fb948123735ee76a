"""Frames of a live source for a session: numbered without gaps, and able to go back a little.

A person clicks on a frame that has passed already. `LiveFeed` keeps the latest frames, so that a
session can be set back to the clicked one and catches up from there.
"""

import io
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from threading import Condition

import cv2
import numpy as np
from PIL import Image

from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import Size
from geometry_fusion.io.prefetch import Prefetch
from geometry_fusion.io.stream import Source, SourceFrame, open_source

POLL_S = 0.01  # between looks at what the person does, while no frame comes
REACH = 16  # frames that a click may lie back
SILENCE_S = 10.0  # without a picture of the page's camera, after which it has ended
PAGE_RATE = Fraction(15)  # pictures a second that a page sends


class LiveFeed(Source):
    """Frames 0, 1, 2, ... of a source. `__iter__` ends at the end of the source and where
    `interrupt` was called, and can then be iterated again; `go_back` chooses from which frame on.

    attend: called before every frame and while none comes; may raise. most: frames, at most; kept:
    how many of the latest can be given again.
    """

    def __init__(self, source: Source, attend: Callable[[], None], most: int, kept: int):
        self.name, self.size, self.frame_rate = source.name, source.size, source.frame_rate
        self.live, self.num_frames, self.lost = True, None, source.lost
        self._source, self._attend, self._most = source, attend, most
        self._recent: deque[SourceFrame] = deque(maxlen=kept)
        self._next = 0
        self._interrupted = False
        self.newest = -1  # number of the latest frame that came
        self.ended = False
        self.is_full = False  # whether it ended because of `most`
        self.paused = False
        self.seconds = 0.0  # between the frames that came, without pauses
        self._last: float | None = None  # when the latest frame came; None after a pause

    def __iter__(self) -> Iterator[SourceFrame]:
        while (frame := self._frame()) is not None:
            yield frame

    def close(self) -> None:
        """Nothing to close: the source has its own context."""

    @property
    def dropped(self) -> int:
        return self._source.dropped

    @property
    def oldest(self) -> int:
        """The first frame that `go_back` can reach."""
        return self._recent[0].index if self._recent else 0

    @property
    def wanted(self) -> int | None:
        """The number of the frame that is waited for; None where none is."""
        waits = self._next > self.newest and not (self.paused or self.ended)
        return self.newest + 1 if waits else None

    def interrupt(self) -> None:
        """End the iteration before the next frame."""
        self._interrupted = True

    def go_back(self, number: int) -> None:
        """The next frame to be given. Raises ValueError for one that is not kept."""
        if not self.oldest <= number <= self.newest + 1:
            raise ValueError(f"frame {number}: kept are {self.oldest} to {self.newest}")
        self._next = number

    def _frame(self) -> SourceFrame | None:
        """The next frame; None where the iteration ends."""
        while True:
            self._attend()
            if self._interrupted:
                self._interrupted = False
                return None
            if self._next <= self.newest:
                frame = self._recent[self._next - self.oldest]
                self._next += 1
                return frame
            if self.ended:
                return None
            if self.paused:
                self._last = None
                time.sleep(POLL_S)
                continue
            self._fetch()

    def _fetch(self) -> None:
        """Wait a moment for a frame of the source."""
        if self.newest + 1 >= self._most:
            self.ended = self.is_full = True
            return
        try:
            image = self._source.get(POLL_S).image
        except TimeoutError:
            return
        except StopIteration:
            self.ended = True
            return
        now = time.monotonic()
        self.seconds += now - self._last if self._last is not None else 0.0
        self._last = now
        self.newest += 1
        self._recent.append(SourceFrame(self.newest, f"{self.newest:06d}", image))


class PictureSlot:
    """The latest picture that a page sent; a reader on another thread waits for it."""

    def __init__(self):
        self._changed = Condition()
        self._content: bytes | None = None

    def put(self, content: bytes) -> None:
        """A new picture, in place of one that nobody has taken."""
        with self._changed:
            self._content = content
            self._changed.notify_all()

    def take(self) -> bytes | None:
        """The picture, as soon as there is one; None if none comes in `SILENCE_S` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._content is not None, SILENCE_S)
            content, self._content = self._content, None
        return content


def page_pictures(
    slot: PictureSlot, most_side: int, is_paused: Callable[[], bool]
) -> Generator[np.ndarray, None, None]:
    """The pictures of a page's camera, RGB uint8 [H, W, 3], in the size of the first one. Ends
    where none comes any more. Raises InputError for pictures that cannot be used.
    """
    size: Size | None = None
    while True:
        content = slot.take()
        if content is None:
            if is_paused():
                continue
            return
        image = decoded(content, most_side)
        size = size or image.shape[1::-1]
        yield image if image.shape[1::-1] == size else cv2.resize(image, size)


def decoded(content: bytes, most_side: int) -> np.ndarray:
    """A JPEG as RGB uint8 [H, W, 3]; its size is checked before a pixel is decoded. Raises
    InputError for anything else.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as header:
            size = header.size
    except (OSError, ValueError, Image.DecompressionBombError):
        raise InputError("the page's camera sent a picture that is no JPEG") from None
    if max(size) > most_side or min(size) < 16:
        raise InputError(
            f"the page's camera sent {size[0]}x{size[1]} pixels; sides must be 16..{most_side}"
        )
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise InputError("the page's camera sent a damaged picture")
    return image


def played(spec: str) -> Source:
    """A video file or a folder as if it were a camera: frames come at their time, and those for
    which nobody has time are dropped.
    """
    source = open_source(spec)

    def images() -> Generator[np.ndarray, None, None]:
        with source:
            began = time.monotonic()
            for number, frame in enumerate(source):
                due = began + number / float(source.frame_rate)
                time.sleep(max(0.0, due - time.monotonic()))
                yield frame.image

    return open_source(images(), live=True, frame_rate=source.frame_rate)


def opened_live(spec: str) -> Source:
    """A live source by what `main.py segment --source` takes; files are `played`."""
    return played(spec) if Path(spec).exists() and not spec.isdecimal() else open_source(spec)


def opened_page(slot: PictureSlot, most_side: int, is_paused: Callable[[], bool]) -> Source:
    """The pictures of a page as a source. Waits for the first one."""
    try:
        pictures = page_pictures(slot, most_side, is_paused)
        return open_source(pictures, live=True, frame_rate=PAGE_RATE)
    except InputError as error:
        if "there are none" in str(error):
            raise InputError("the page sent no picture; allow it to use the camera") from None
        raise


def opened_meanwhile(make: Callable[[], Source], attend: Callable[[], None], name: str) -> Source:
    """What `make` returns, made on a thread of its own while `attend` is called; shown as `name`.
    Raises what `make` raises.
    """

    def making() -> Generator[Source, None, None]:
        yield make()

    opening = Prefetch(making(), 1)
    while True:
        attend()
        try:
            source = opening.get(POLL_S)
        except TimeoutError:
            continue
        source.name = name
        return source


def shown_name(spec: str) -> str:
    """A source's name for the page: no folder of this machine, no password."""
    if spec.isdecimal():
        return f"camera {spec}"
    if "://" in spec:
        scheme, rest = spec.split("://", 1)
        return f"{scheme}://{rest.rpartition('@')[2]}"
    return Path(spec).name
