"""Frames of files, folders, arrays, cameras and addresses, decoded ahead, in constant memory.

    with open_source("clip.mp4") as source:
        for frame in source:
            frame.index, frame.stem, frame.image

A source is read once, and leaving the loop closes it; to pause and continue, keep one
`iter(source)`. At most `queue_size` frames wait, beside the one being consumed and the one being
decoded. A file waits for its consumer. A live source does not: a full queue drops its oldest frame
and counts it in `dropped`. Its indices count all frames that arrived, so that each dropped one
leaves a gap. An error is raised at its place in the order, after all earlier frames. Unusable input
raises InputError.
"""

import itertools
import re
from collections.abc import Generator, Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from threading import Event

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.camera import Camera
from geometry_fusion.io.frame_folder import FrameFolder, Size, frame_stem
from geometry_fusion.io.live import SCHEMES, Connection, Reconnecting, Stream
from geometry_fusion.io.mask_writer import read_rgb
from geometry_fusion.io.prefetch import Prefetch
from geometry_fusion.io.video_file import UNKNOWN_RATE, VideoFile

QUEUE_SIZE = 16
LIVE_QUEUE_SIZE = 2  # a longer queue would only delay the picture
UNKNOWN_COUNT = 1_000_000  # frames assumed where their number is unknown: stems have six digits


@dataclass(frozen=True)
class SourceFrame:
    """One frame of a source."""

    index: int  # number in the source; lost and dropped frames leave gaps
    stem: str  # the index, zero-padded; of a folder the stem of the file
    image: np.ndarray  # [H, W, 3] RGB uint8, upright, of the source's size


@dataclass(frozen=True)
class _Feed:
    """The frames of an opened source and what is known of them."""

    name: str
    size: Size
    frames: Generator[SourceFrame, None, None]
    frame_rate: Fraction
    live: bool = False
    num_frames: int | None = None
    lost: list[str] = field(default_factory=list)


class Source:
    """Context manager and iterator over SourceFrame; `open_source` makes it."""

    def __init__(self, feed: _Feed, queue_size: int, stop: Event):
        self.name = feed.name
        self.size = feed.size  # (width, height)
        self.frame_rate = feed.frame_rate
        self.live = feed.live
        # Of the whole source, with lost frames and those before `start`; None where unknown.
        self.num_frames = feed.num_frames
        # A line for each image, or stretch of a video, that could not be decoded so far.
        self.lost = feed.lost
        self._ahead = Prefetch(feed.frames, queue_size, newest=feed.live, stop=stop)
        self._closed = False

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and release the file or device; queued frames are discarded."""
        self._closed = True
        self._ahead.close()

    def __iter__(self) -> Iterator[SourceFrame]:
        if self._closed:
            raise ValueError(f"{self.name}: was read or closed; open it again")
        with closing(self):
            yield from self._ahead

    def get(self, limit_s: float) -> SourceFrame:
        """As Prefetch.get: for consumers that have something else to do while no frame comes."""
        return self._ahead.get(limit_s)

    def ahead(self, count: int) -> int | None:
        """As Prefetch.ahead: wait until `count` frames are queued, or all that are left."""
        return self._ahead.ahead(count)

    @property
    def dropped(self) -> int:
        """Live frames that were discarded unread because newer ones arrived."""
        return self._ahead.dropped


def open_source(
    spec: str | Path | int | Iterable[np.ndarray],
    *,
    start: int = 0,
    queue_size: int | None = None,
    live: bool | None = None,
    frame_rate: Fraction | float | None = None,
    timeout: float = 10.0,
    reconnects: int = 3,
    retry_wait: float = 1.0,
    opener=None,
) -> Source:
    """Open a video file, a folder of images, a camera, an address, standard input or an iterable.

    spec: a path; a camera's number, also as text; an address (rtsp, rtmp, http, https, udp, tcp);
    "-" for standard input (MPEG-TS, Matroska, MJPEG, ...); or RGB uint8 [H, W, 3] arrays.
    start: index of the first frame to yield, to resume a run; a live source counts from it.
    queue_size: frames decoded ahead.
    live: whether frames may be dropped, for addresses, standard input and iterables. By default
    cameras and addresses are live, and everything else, files on web servers included, is not.
    frame_rate: frames per second, overrides what the source states.
    timeout: seconds without a frame after which a camera or address is opened again, at most
    `reconnects` times in a row, with waits that double from `retry_wait` seconds.
    opener: index -> capture, replaces cv2.VideoCapture in tests.
    Raises InputError for sources that cannot be opened or have no frames.
    """
    if start < 0:
        raise InputError(f"start {start}: must be 0 or more")
    stop = Event()
    connection: Connection | None = None
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isdecimal()):
        connection = Camera(int(spec), opener, timeout, stop)
    elif isinstance(spec, str) and (spec == "-" or is_address(spec)):
        connection = Stream(spec, live, timeout, stop)
    if connection:
        retries = 0 if spec == "-" else reconnects  # a pipe cannot be opened again
        images = Reconnecting(connection, start, retries, retry_wait, stop)
        feed = _connected(connection, images, start)
    elif not isinstance(spec, str | Path):
        feed = _arrays(spec, start, bool(live))
    elif Path(spec).is_dir():
        feed = _folder(Path(spec), start)
    else:
        feed = _video(Path(spec), start)
    if frame_rate is not None:
        feed = replace(feed, frame_rate=Fraction(frame_rate).limit_denominator(1001))
    if queue_size is None:
        queue_size = LIVE_QUEUE_SIZE if feed.live else QUEUE_SIZE
    return Source(feed, queue_size, stop)


def _video(path: Path, start: int) -> _Feed:
    video = VideoFile(path)

    def frames() -> Iterator[SourceFrame]:
        for index, image in enumerate(video.frames_from(start), start):
            yield SourceFrame(index, frame_stem(index, video.num_frames), image)

    return _Feed(
        str(path),
        video.size,
        frames(),
        video.frame_rate,
        num_frames=video.num_frames,
        lost=video.lost,
    )


def _folder(path: Path, start: int) -> _Feed:
    folder = FrameFolder(path, damaged_allowed=True)
    lost: list[str] = []

    def frames() -> Iterator[SourceFrame]:
        for index, file in itertools.islice(enumerate(folder.files), start, None):
            try:
                image = read_rgb(file)
            except InputError as error:
                lost.append(f"{file.name}: {str(error).removeprefix(f'{file}: ')}")
                continue
            if image.shape[1::-1] != folder.size:  # the header was unreadable or wrong
                height, width = image.shape[:2]
                raise InputError(
                    f"{path}: {file.name} is {width}x{height}, others are "
                    f"{folder.size[0]}x{folder.size[1]}; frames must have one size"
                )
            yield SourceFrame(index, file.stem, image)
        if len(lost) == len(folder):
            raise InputError(f"{path}: no frame can be decoded ({lost[0]})")

    return _Feed(
        str(path), folder.size, frames(), folder.frame_rate, num_frames=len(folder), lost=lost
    )


def _arrays(arrays: Iterable[np.ndarray], start: int, live: bool) -> _Feed:
    images = iter(arrays)
    end = object()  # no iterable holds it
    first = next(images, end)
    if first is end:
        raise InputError("frames: there are none; give RGB uint8 [H, W, 3] arrays")
    size = _checked(first, 0, None).shape[1::-1]

    def frames(image: np.ndarray) -> Iterator[SourceFrame]:
        for count in itertools.count():
            if image is end:
                return
            _checked(image, count, size)
            index = count + start if live else count
            if index >= start:
                # A copy, because callers may reuse their array while the frame is queued.
                yield SourceFrame(index, frame_stem(index, UNKNOWN_COUNT), image.copy())
            image = None  # or it would stay in memory while the next one is made
            image = next(images, end)

    num_frames = len(arrays) if isinstance(arrays, Sized) and not live else None
    return _Feed("frames", size, frames(first), UNKNOWN_RATE, live, num_frames)


def _checked(image: np.ndarray, index: int, size: Size | None) -> np.ndarray:
    """The image. Raises InputError unless it is RGB uint8 [H, W, 3] and, if given, of `size`."""
    is_array = isinstance(image, np.ndarray)
    kind = f"{image.dtype} {list(image.shape)}" if is_array else type(image).__name__
    if not (is_array and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        raise InputError(f"frames: frame {index} is {kind}; give RGB uint8 [H, W, 3] arrays")
    if size is not None and image.shape[1::-1] != size:
        raise InputError(
            f"frames: frame {index} is {kind}, frame 0 is {size[0]}x{size[1]}; frames must have "
            "one size"
        )
    return image


def _connected(connection: Connection, images: Reconnecting, start: int) -> _Feed:
    frames = (
        SourceFrame(index, frame_stem(index, UNKNOWN_COUNT), image)
        for index, image in enumerate(images, start)
    )
    return _Feed(
        connection.name,
        images.size,
        frames,
        connection.frame_rate,
        connection.live,
        lost=connection.lost,
    )


def is_address(spec: str) -> bool:
    """Whether text is an address. Raises InputError for schemes that are not supported."""
    scheme = re.match(r"(\w\w+)://", spec)
    if scheme and scheme[1] not in SCHEMES:
        raise InputError(
            f"{spec}: {scheme[1]} is not an address that is read; give {', '.join(SCHEMES)} or a "
            "file"
        )
    return scheme is not None
