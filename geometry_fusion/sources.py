"""Frames of files, folders, arrays, cameras and addresses, decoded ahead, in constant memory.

    with open_source("clip.mp4") as source:
        for frame in source:
            frame.index, frame.stem, frame.image

A source is read once, and leaving the loop closes it; to read it in parts, take `iter(source)`
once. At most `queue_size` frames wait, beside the consumer's and the one in the making. A file
waits for its consumer. A live source does not: the newest frame wins, and what was skipped is
counted in `dropped`; its indices count the frames that the source gave, so that each skipped one
leaves a gap. Errors are raised where they occur in order, after all frames before them. Input that
cannot be used is an InputError.
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
from geometry_fusion.frame_folder import FrameFolder, Size, frame_stem
from geometry_fusion.live_sources import SCHEMES, Camera, Connection, Reconnecting, Stream
from geometry_fusion.mask_files import read_rgb
from geometry_fusion.prefetch import Prefetch
from geometry_fusion.video import UNKNOWN_RATE, VideoFile

QUEUE_SIZE, LIVE_QUEUE_SIZE = 16, 2
UNKNOWN_COUNT = (
    1_000_000  # frames that stems are made for where nobody knows how many will come: six digits
)


@dataclass(frozen=True)
class SourceFrame:
    # its number in the source; frames that were lost or dropped keep theirs, so that there are gaps
    index: int
    stem: str  # the index, zero-padded; of a folder the stem of the file
    image: np.ndarray  # [H, W, 3] RGB uint8, upright, of the source's size


@dataclass(frozen=True)
class _Feed:
    """What `open_source` found, and how its frames are made."""

    name: str
    size: Size
    frames: Generator[SourceFrame, None, None]
    frame_rate: Fraction
    live: bool = False
    num_frames: int | None = None
    lost: list[str] = field(default_factory=list)


class Source:
    """Context manager and iterator over SourceFrame; `open_source` makes it.

    `size` is (width, height). `num_frames` counts the whole source, lost frames and those before
    `start` included, and is None where it is not known. `lost` has a line for each frame, or
    stretch of a video, that could not be decoded so far.
    """

    def __init__(self, feed: _Feed, queue_size: int, stop: Event):
        self.name, self.size, self.frame_rate = feed.name, feed.size, feed.frame_rate
        self.live, self.num_frames, self.lost = feed.live, feed.num_frames, feed.lost
        self._ahead = Prefetch(feed.frames, queue_size, newest=feed.live, stop=stop)
        self._closed = False

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and let go of the file or device; what is queued is discarded."""
        self._closed = True
        self._ahead.close()

    def __iter__(self) -> Iterator[SourceFrame]:
        if self._closed:
            raise ValueError(f"{self.name}: was read or closed; open it again")
        with closing(self):
            yield from self._ahead

    def ahead(self, count: int) -> int | None:
        """Wait until `count` frames are queued or the source ended; returns how many are left, None
        if not known.
        """
        return self._ahead.ahead(count)

    @property
    def dropped(self) -> int:
        """Live frames that were skipped because newer ones came before anybody asked for them."""
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
    "-" for standard input (MPEG-TS, Matroska, MJPEG, ...); or RGB uint8 [H, W, 3] arrays. start:
    index of the first frame to give, to go on with an interrupted run. A live source numbers from
    there. live: whether frames may be dropped, for addresses, standard input and iterables. If not
    given, cameras and addresses are live, files on web servers and all else are not. frame_rate:
    overrules what the source states. timeout: seconds without a frame after which a camera or
    address is opened again, `reconnects` times in a row with waits of `retry_wait` seconds that
    double. opener: in place of cv2.VideoCapture.
    """
    if start < 0:
        raise InputError(f"start {start}: must be 0 or more")
    stop = Event()
    connection: Connection | None = None
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isdecimal()):
        connection = Camera(int(spec), opener, timeout, stop)
    elif isinstance(spec, str) and (spec == "-" or _is_address(spec)):
        connection = Stream(spec, live, timeout, stop)
    if connection:
        retries = 0 if spec == "-" else reconnects  # what was piped is gone
        feed = _connected(
            connection, Reconnecting(connection, start, retries, retry_wait, stop), start
        )
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

    def frames():
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
    folder, lost = FrameFolder(path, damaged_allowed=True), []

    def frames():
        for index, file in itertools.islice(enumerate(folder.files), start, None):
            try:
                image = read_rgb(file)
            except InputError as error:
                lost.append(f"{file.name}: {str(error).removeprefix(f'{file}: ')}")
                continue
            if image.shape[1::-1] != folder.size:  # its header was not readable, or told a lie
                found, size = ("x".join(map(str, s)) for s in (image.shape[1::-1], folder.size))
                raise InputError(
                    f"{path}: {file.name} is {found}, others are {size}; frames must have one size"
                )
            yield SourceFrame(index, file.stem, image)
        if len(lost) == len(folder):
            raise InputError(f"{path}: no frame can be decoded ({lost[0]})")

    return _Feed(
        str(path), folder.size, frames(), folder.frame_rate, num_frames=len(folder), lost=lost
    )


def _arrays(arrays: Iterable[np.ndarray], start: int, live: bool) -> _Feed:
    images, nothing = iter(arrays), object()
    first = next(images, nothing)
    if first is nothing:
        raise InputError("frames: there are none; give RGB uint8 [H, W, 3] arrays")
    size = _checked(first, 0, None).shape[1::-1]

    def frames(image):
        for count in itertools.count():
            if image is nothing:
                return
            _checked(image, count, size)
            index = count + start if live else count
            if index >= start:
                # A copy, because those who reuse one array would change what is queued.
                yield SourceFrame(index, frame_stem(index, UNKNOWN_COUNT), image.copy())
            image = None
            image = next(images, nothing)

    num_frames = len(arrays) if isinstance(arrays, Sized) and not live else None
    return _Feed("frames", size, frames(first), UNKNOWN_RATE, live, num_frames)


def _checked(image: np.ndarray, index: int, size: Size | None) -> np.ndarray:
    found = (
        f"{image.dtype} {list(image.shape)}"
        if isinstance(image, np.ndarray)
        else type(image).__name__
    )
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
    ):
        raise InputError(f"frames: frame {index} is {found}; give RGB uint8 [H, W, 3] arrays")
    if size is not None and image.shape[1::-1] != size:
        raise InputError(
            f"frames: frame {index} is {found}, frame 0 is {size[0]}x{size[1]}; frames must have "
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


def _is_address(spec: str) -> bool:
    scheme = re.match(r"(\w\w+)://", spec)
    if scheme and scheme[1] not in SCHEMES:
        raise InputError(
            f"{spec}: {scheme[1]} is not an address that is read; give {', '.join(SCHEMES)} or a "
            "file"
        )
    return scheme is not None
