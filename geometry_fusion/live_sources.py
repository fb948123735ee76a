"""Images from cameras, addresses and standard input, across stalls and lost connections.

A connection (`Camera`, `Stream`) opens, reads and closes in one pass of its `images()`: upright RGB
uint8 [H, W, 3] in the size they come in. A fault raises Gone with the reason; returning is the
regular end. `Reconnecting` makes one sequence of images of one size out of as many connections as
it takes.
"""

import os
import re
import select
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from threading import Event
from time import monotonic
from typing import Protocol

import av
import cv2
import numpy as np
from tqdm import tqdm

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.frame_folder import Size
from geometry_fusion.interlaced import deinterlaced
from geometry_fusion.prefetch import Prefetch
from geometry_fusion.video import UNKNOWN_RATE, Upright, decode, video_stream

SCHEMES = ("rtsp", "rtmp", "http", "https", "udp", "tcp")
POLL_S = 0.1  # how soon a wait notices that it is over
LONGEST_WAIT_S = 30.0


class Gone(Exception):
    """A connection gives no more images. The text is the reason."""


class Connection(Protocol):
    """`frame_rate` and `live` are known from the first image on. `cure` ends the message when there
    is none.
    """

    name: str
    cure: str
    frame_rate: Fraction
    live: bool
    lost: list[str]  # a line for each stretch that could not be decoded, so far
    ends: bool  # whether its end is the end, or a fault

    def images(self) -> Generator[np.ndarray, None, None]: ...


class Camera:
    """A camera by its number, through OpenCV. `opener(index)` gives a cv2.VideoCapture or what
    reads like one.
    """

    live, ends = True, False
    cure = "check that it is plugged in and that no other program uses it"

    def __init__(self, index: int, opener: Callable | None, timeout: float, stop: Event):
        self.name, self.frame_rate = f"camera {index}", UNKNOWN_RATE
        self.lost: list[str] = []
        self._index, self._opener, self._timeout, self._stop = (
            index,
            opener or _open_camera,
            timeout,
            stop,
        )

    def images(self) -> Generator[np.ndarray, None, None]:
        # OpenCV waits for a camera as long as its driver likes: on a thread of its own this costs
        # nothing but it.
        with Prefetch(self._read(), size=1) as reading:
            last = monotonic()
            while not self._stop.is_set():
                try:
                    image = reading.get(POLL_S)
                except TimeoutError:
                    if monotonic() - last > self._timeout:
                        raise Gone(f"no frame for {self._timeout:g} s") from None
                    continue
                yield image
                del image
                last = monotonic()

    def _read(self) -> Generator[np.ndarray, None, None]:
        try:
            capture = self._opener(self._index)
            try:
                if not capture.isOpened():
                    raise Gone("cannot be opened")
                if (
                    1 <= (rate := capture.get(cv2.CAP_PROP_FPS)) <= 1000
                ):  # 0 or nan of those who do not know
                    self.frame_rate = Fraction(rate).limit_denominator(1001)
                while True:
                    good, image_bgr = capture.read()
                    if not good:
                        raise Gone("gives no frames")
                    yield cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)
                    del image_bgr
            finally:
                capture.release()
        except cv2.error as error:
            raise Gone(one_line(error)) from None


def _open_camera(index: int) -> cv2.VideoCapture:
    # OpenCV would explain at length on stderr which of its backends do not know the camera.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(index)
    finally:
        cv2.utils.logging.setLogLevel(level)


class Stream:
    """A video that comes from an address or, with "-", from standard input.

    Of http(s), what states its length or duration is a file and not live. `live` overrules that.
    """

    def __init__(self, address: str, live: bool | None, timeout: float, stop: Event):
        self._piped, self._http = address == "-", address.startswith("http")
        self._address, self._wants_live, self._stop = address, live, stop
        self.lost: list[str] = []
        # A pipe is as slow as the program that writes to it.
        self._timeout = None if self._piped else timeout
        # Passwords are not for messages and reports.
        self.name = "standard input" if self._piped else re.sub(r"//[^/]*@", "//", address)
        self.cure = (
            "pipe MPEG-TS, Matroska or MJPEG into it, as ffmpeg -i FILE -f mpegts - does"
            if self._piped
            else "check the address and that what sends from there is running"
        )
        self.ends = self._piped or self._http
        self.live, self.frame_rate = bool(live), UNKNOWN_RATE

    def images(self) -> Generator[np.ndarray, None, None]:
        source = _StandardInput(self._stop) if self._piped else self._address
        options = {"rtsp_transport": "tcp"} if self._address.startswith("rtsp") else {}
        limits = self._timeout and (self._timeout, self._timeout)
        try:
            container = av.open(source, metadata_errors="replace", options=options, timeout=limits)
        except av.FFmpegError as error:
            raise Gone(f"cannot be opened ({self._reason(error)})") from None
        with container:
            stream = video_stream(container)
            if stream is None:
                raise Gone("has no video stream")
            self.frame_rate = Fraction(stream.average_rate or stream.guessed_rate or UNKNOWN_RATE)
            if self._wants_live is None:
                self.live = not self._piped and not self._states_its_end(container)
            # Frame threads hold frames back, one for each core.
            stream.thread_type = "SLICE" if self.live else "AUTO"
            upright = stored = None
            end, lasts = 0.0, (container.duration or 0) / av.time_base
            for frame in deinterlaced(decode(self._packets(container, stream), self.lost)):
                if frame.time is not None:
                    end = frame.time + float(frame.duration * frame.time_base)
                if stored != (frame.width, frame.height):
                    stored, upright = (
                        (frame.width, frame.height),
                        Upright(frame, stream.sample_aspect_ratio),
                    )
                yield upright(frame)
                self._last = monotonic()
            end -= (container.start_time or 0) / av.time_base
            if 0 < end < 0.9 * lasts:
                self.lost.append(f"ends after {end:.1f} of {lasts:.1f} seconds")
                _warn(self.name, self.lost[-1])

    def _packets(self, container, stream) -> Iterator[av.Packet]:
        self._last = monotonic()
        try:
            # All streams: the sound alone may go on when the picture stalls.
            for packet in container.demux():
                if packet.stream is stream:
                    yield packet
                if self._stop.is_set():
                    return
                if self._timeout and monotonic() - self._last > self._timeout:
                    raise Gone(f"no frame for {self._timeout:g} s")
        except av.FFmpegError as error:
            last = av.Packet()  # an empty one makes the decoder give what it still holds
            last.stream, last.time_base = stream, stream.time_base
            yield last
            raise Gone(self._reason(error)) from None

    def _states_its_end(self, container) -> bool:
        # The size of a playlist says nothing about the video.
        sized = self._http and container.format.name not in ("hls", "dash") and container.size > 0
        return container.duration is not None or sized

    def _reason(self, error: av.FFmpegError) -> str:
        return (
            f"no frame for {self._timeout:g} s"
            if isinstance(error, av.ExitError)
            else error.strerror
        )


class _StandardInput:
    """Standard input as a file for PyAV: what is there, as soon as it is there."""

    name = "standard input"

    def __init__(self, stop: Event):
        self._stop = stop

    def read(self, count: int) -> bytes:
        while sys.platform != "win32":  # there select is for sockets only
            if self._stop.is_set():
                return b""
            if select.select([0], [], [], POLL_S)[0]:
                break
        return os.read(0, count)


class Reconnecting:
    """The images of a connection, all of the size of the first, which is read at once.

    After a fault it is opened again, `reconnects` times with growing waits, until it gives an
    image. Of what is not live, the images that were there already (at first: the first `start`) are
    left out.
    """

    def __init__(
        self, connection: Connection, start: int, reconnects: int, retry_wait: float, stop: Event
    ):
        self._connection, self._stop = connection, stop
        self._reconnects, self._retry_wait = reconnects, retry_wait
        self._images = connection.images()
        try:
            self._first = next(self._images, None)
        except Gone as gone:
            raise InputError(f"{connection.name}: {gone}; {connection.cure}") from None
        if self._first is None:
            raise InputError(f"{connection.name}: holds no frame; {connection.cure}")
        self.size: Size = self._first.shape[1::-1]
        self._came = 0 if connection.live else start
        self._last_size, self._last_time = self.size, monotonic()

    def __iter__(self) -> Iterator[np.ndarray]:
        failures = 0
        while True:
            fault = "the stream ended"
            try:
                with closing(self._images):
                    for image in self._new_images():
                        failures, self._last_time = 0, monotonic()
                        yield self._fitted(image)
                        del image
                if self._connection.ends:
                    return
            except Gone as gone:
                fault = str(gone)
            if self._stop.is_set():
                return
            failures += 1
            self._await_reconnect(fault, failures)
            if self._stop.is_set():
                return
            self._images = self._connection.images()

    def _new_images(self) -> Iterator[np.ndarray]:
        seen, image, self._first = 0, self._first, None
        if image is None:
            image = next(self._images, None)
        while image is not None:
            if self._connection.live or seen >= self._came:
                self._came += 1
                yield image
            seen += 1
            del image
            image = next(self._images, None)

    def _await_reconnect(self, fault: str, failures: int) -> None:
        name = self._connection.name
        if not self._reconnects:
            raise InputError(f"{name}: {fault}; {self._connection.cure}")
        if failures > self._reconnects:
            raise InputError(
                f"{name}: no frame for {monotonic() - self._last_time:.0f} s and "
                f"{self._reconnects} reconnects failed; "
                "check the camera or the address"
            )
        wait = min(self._retry_wait * 2 ** (failures - 1), LONGEST_WAIT_S)
        _warn(name, f"{fault}; reconnect {failures} of {self._reconnects} in {wait:g} s")
        self._stop.wait(wait)

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        size = image.shape[1::-1]
        if size != self._last_size:
            self._last_size = size
            found, used = (f"{width}x{height}" for width, height in (size, self.size))
            _warn(self._connection.name, f"frames are {found} from here on, used at {used}")
        if size == self.size:
            return image
        method = cv2.INTER_AREA if size[0] > self.size[0] else cv2.INTER_CUBIC
        return cv2.resize(image, self.size, interpolation=method)


def _warn(name: str, text: str) -> None:
    # Through tqdm, so that a progress bar does not run into the line.
    tqdm.write(f"warning: {name}: {text}", file=sys.stderr)
