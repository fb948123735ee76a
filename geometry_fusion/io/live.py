"""Images from cameras, addresses and standard input, across stalls and lost connections.

A connection (`Camera`, `Stream`) is opened, read and closed by one pass over its `images()`. These
are upright RGB uint8 [H, W, 3], in the size in which they arrive. A fault raises Gone with the
reason; the regular end just returns. `Reconnecting` connects as often as needed and makes one
sequence of images of one size.
"""

import os
import re
import select
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from threading import Event
from time import monotonic
from typing import Protocol

import av
import cv2
import numpy as np
from tqdm import tqdm

from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import Size
from geometry_fusion.io.interlaced import deinterlaced
from geometry_fusion.io.video_file import UNKNOWN_RATE, Upright, decode, video_stream

SCHEMES = ("rtsp", "rtmp", "http", "https", "udp", "tcp")


POLL_S = 0.1  # seconds after which a wait notices that it was stopped
LONGEST_WAIT_S = 30.0  # before a reconnect


class Gone(Exception):
    """A connection delivers no more images. The text is the reason."""


class Connection(Protocol):
    """Where live images come from. `frame_rate` and `live` are valid from the first image on."""

    name: str
    cure: str  # what a user can do where no image arrives; ends the message
    frame_rate: Fraction  # frames per second
    live: bool  # whether images may be dropped
    lost: list[str]  # a line for each stretch that could not be decoded, so far
    ends: bool  # whether `images` returning is the regular end, or a fault

    def images(self) -> Generator[np.ndarray, None, None]:
        """Connect and yield RGB uint8 [H, W, 3]. Raises Gone on a fault."""


class Stream:
    """A video from an address or, with "-", from standard input.

    A video over http(s) that states its length or duration is a file and not live; `live` overrides
    that. timeout: seconds without a frame that are a fault. stop: set to end `images`.
    """

    def __init__(self, address: str, live: bool | None, timeout: float, stop: Event):
        self._piped = address == "-"
        self._http = address.startswith("http")
        self._address = address
        self._wants_live = live
        self._stop = stop
        self.lost: list[str] = []
        # A pipe may wait as long as the program that writes to it.
        self._timeout = None if self._piped else timeout
        # Passwords must not appear in messages and reports.
        self.name = "standard input" if self._piped else re.sub(r"//[^/]*@", "//", address)
        self.cure = (
            "pipe MPEG-TS, Matroska or MJPEG into it, as ffmpeg -i FILE -f mpegts - does"
            if self._piped
            else "check the address and that what sends from there is running"
        )
        self.ends = self._piped or self._http
        self.live = bool(live)
        self.frame_rate = UNKNOWN_RATE

    def images(self) -> Generator[np.ndarray, None, None]:
        """As Connection.images."""
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
            # Threads that decode whole frames delay the video by one frame per core.
            stream.thread_type = "SLICE" if self.live else "AUTO"
            upright = stored = None
            end = 0.0  # seconds
            lasts = (container.duration or 0) / av.time_base
            for frame in deinterlaced(decode(self._packets(container, stream), self.lost)):
                if frame.time is not None:
                    end = frame.time + float(frame.duration * frame.time_base)
                if stored != (frame.width, frame.height):  # the first frame, or a change of size
                    stored = (frame.width, frame.height)
                    upright = Upright(frame, stream.sample_aspect_ratio)
                yield upright(frame)
                self._last = monotonic()
            end -= (container.start_time or 0) / av.time_base
            if 0 < end < 0.9 * lasts:
                self.lost.append(f"ends after {end:.1f} of {lasts:.1f} seconds")
                _warn(self.name, self.lost[-1])

    def _packets(self, container, stream) -> Iterator[av.Packet]:
        """Packets of the video stream until `stop` is set. Raises Gone on a fault."""
        self._last = monotonic()
        try:
            # All streams are read, to notice a picture that stalls while the sound continues.
            for packet in container.demux():
                if packet.stream is stream:
                    yield packet
                if self._stop.is_set():
                    return
                if self._timeout and monotonic() - self._last > self._timeout:
                    raise Gone(f"no frame for {self._timeout:g} s")
        except av.FFmpegError as error:
            last = av.Packet()  # an empty packet makes the decoder return the frames it holds
            last.stream, last.time_base = stream, stream.time_base
            yield last
            raise Gone(self._reason(error)) from None

    def _states_its_end(self, container) -> bool:
        """Whether the container has a length or duration: then it is a file."""
        # The size of a playlist says nothing about the video.
        sized = self._http and container.format.name not in ("hls", "dash") and container.size > 0
        return container.duration is not None or sized

    def _reason(self, error: av.FFmpegError) -> str:
        # PyAV raises ExitError when its timeout is over.
        timed_out = isinstance(error, av.ExitError)
        return f"no frame for {self._timeout:g} s" if timed_out else error.strerror


class _StandardInput:
    """Standard input as a file object for PyAV that returns bytes as soon as they arrive."""

    name = "standard input"  # PyAV reads it

    def __init__(self, stop: Event):
        self._stop = stop

    def read(self, count: int) -> bytes:
        """At most `count` bytes; none at the end of the input, and once `stop` is set."""
        while sys.platform != "win32":  # on Windows, select is for sockets only
            if self._stop.is_set():
                return b""
            if select.select([0], [], [], POLL_S)[0]:
                break
        return os.read(0, count)


class Reconnecting:
    """The images of a connection across faults, all resized to the size of the first.

    The first image is read at once; raises InputError where there is none. After a fault the
    connection is opened again, at most `reconnects` times in a row, with waits that double from
    `retry_wait` seconds; then InputError is raised. A video that is not live starts again from its
    beginning: images that were already yielded are left out, and at first the first `start` ones.
    """

    def __init__(
        self, connection: Connection, start: int, reconnects: int, retry_wait: float, stop: Event
    ):
        self._connection = connection
        self._stop = stop
        self._reconnects = reconnects
        self._retry_wait = retry_wait
        self._images = connection.images()
        try:
            self._first = next(self._images, None)
        except Gone as gone:
            raise InputError(f"{connection.name}: {gone}; {connection.cure}") from None
        if self._first is None:
            raise InputError(f"{connection.name}: holds no frame; {connection.cure}")
        self.size: Size = self._first.shape[1::-1]
        self._num_done = 0 if connection.live else start  # images to leave out after a reconnect
        self._last_size = self.size
        self._last_time = monotonic()

    def __iter__(self) -> Iterator[np.ndarray]:
        failures = 0
        while True:
            fault = "the stream ended"
            try:
                with closing(self._images):
                    for image in self._new_images():
                        failures = 0
                        self._last_time = monotonic()
                        yield self._fitted(image)
                        del image  # a frame may be large: do not hold it while waiting
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
        """The images of the current connection that were not yielded before."""
        index = 0
        image = self._first
        self._first = None
        if image is None:
            image = next(self._images, None)
        while image is not None:
            if self._connection.live or index >= self._num_done:
                self._num_done += 1
                yield image
            index += 1
            del image
            image = next(self._images, None)

    def _await_reconnect(self, fault: str, failures: int) -> None:
        """Warn and wait. Raises InputError where no reconnect is left."""
        name = self._connection.name
        if not self._reconnects:
            raise InputError(f"{name}: {fault}; {self._connection.cure}")
        if failures > self._reconnects:
            seconds = monotonic() - self._last_time
            raise InputError(
                f"{name}: no frame for {seconds:.0f} s and {self._reconnects} reconnects failed; "
                "check the camera or the address"
            )
        wait = min(self._retry_wait * 2 ** (failures - 1), LONGEST_WAIT_S)
        _warn(name, f"{fault}; reconnect {failures} of {self._reconnects} in {wait:g} s")
        self._stop.wait(wait)

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        """The image at the size of the first; warns where the stream changes its size."""
        size = image.shape[1::-1]
        if size != self._last_size:
            self._last_size = size
            used = f"{self.size[0]}x{self.size[1]}"
            text = f"frames are {size[0]}x{size[1]} from here on, used at {used}"
            _warn(self._connection.name, text)
        if size == self.size:
            return image
        method = cv2.INTER_AREA if size[0] > self.size[0] else cv2.INTER_CUBIC
        return cv2.resize(image, self.size, interpolation=method)


def _warn(name: str, text: str) -> None:
    # Through tqdm, so that a progress bar does not run into the line.
    tqdm.write(f"warning: {name}: {text}", file=sys.stderr)
