"""Reading video files: upright RGB frames with square pixels, in order, as often as wanted.

Also what live video shares with files: finding the video stream, decoding packets across damage,
and turning frames upright. Unusable input raises InputError (one line: value, file, cure).
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from tqdm import tqdm

from geometry_fusion.errors import InputError, printable
from geometry_fusion.io.frame_folder import Size, frame_stem
from geometry_fusion.io.interlaced import deinterlaced

UNKNOWN_RATE = Fraction(30)  # assumed for videos that state no frame rate
CONVERT = "magick INPUT OUTPUT.mp4"  # ImageMagick reads animated pictures that FFmpeg does not
MOST_PIXELS = 100_000_000  # of an extracted frame: three times 8K, 300 MB in memory


# [2, 2] each, as `_display_matrix`, by the number of turns.
QUARTER_TURNS = (
    ((1, 0), (0, 1)),
    ((0, -1), (1, 0)),
    ((-1, 0), (0, -1)),
    ((0, 1), (-1, 0)),
)


class VideoFile:
    """A video in any format that FFmpeg reads: upright, with square pixels, deinterlaced.

    Opening decodes one frame; raises InputError for a file without a readable frame. Frames that
    later cannot be decoded are left out, so that fewer than `num_frames` may come: a warning on
    stderr says so, and `lost` has a line for each damaged stretch. With variable frame rate every
    stored frame counts once, and `frame_rate` is the average. options: of FFmpeg's container, such
    as the formats and protocols that files of strangers may use.
    """

    def __init__(self, path: Path, options: dict[str, str] | None = None):
        self.path = Path(path)
        self._options = options or {}
        if not self.path.exists():
            raise InputError(f"{path}: no such file; give a video or a folder of frames")
        if self.path.is_dir():
            raise InputError(f"{path}: is a folder, not a video file; give the file")
        if self.path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty; copy or download it again")
        if kind := _animated_picture(self.path):
            raise InputError(
                f"{path}: is an animated {kind}, which is not read; convert it to a video: "
                f"{CONVERT}"
            )
        self._warned = False
        self.lost: list[str] = []  # of the latest reading
        with self._opened() as (container, stream):
            self._duration = _seconds(stream)
            aspect = stream.sample_aspect_ratio
            self.num_frames, self.frame_rate = _count_and_rate(container, stream)
        first = next(self._decoded(), None)
        if first is None:
            raise InputError(
                f"{path}: no frame can be decoded; the file is damaged or incomplete, copy it again"
            )
        self._upright = Upright(first, aspect)
        height, width = self._upright(first).shape[:2]
        self.size: Size = (width, height)
        self.stems = [frame_stem(i, self.num_frames) for i in range(self.num_frames)]

    def __iter__(self) -> Iterator[np.ndarray]:
        """All frames, RGB uint8 [H, W, 3]."""
        return self.frames_from(0)

    def frames_from(self, start: int) -> Iterator[np.ndarray]:
        """All frames from index `start` on. Earlier ones are decoded too, because later ones depend
        on them.
        """
        return map(self._upright, islice(self._decoded(), start, None))

    @contextmanager
    def _opened(self):
        """Yield (container, video stream). Raises InputError for files that are no video."""
        try:
            # "replace", because old cameras and editors write titles that are not UTF-8.
            container = av.open(
                str(self.path), metadata_errors="replace", options=dict(self._options)
            )
        except PermissionError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        except av.FFmpegError as error:
            raise InputError(
                f"{self.path}: not a readable video ({error.strerror}); it may be damaged, "
                "incomplete or no video at all; copy it again or convert it to MP4"
            ) from None
        with container:
            stream = video_stream(container)
            if stream is None:
                raise InputError(
                    f"{self.path}: has no video stream; give a video file that is complete"
                )
            stream.thread_type = "AUTO"
            yield container, stream

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """All frames that can be decoded; warns of damage, once per file."""
        self.lost.clear()
        end = 0.0  # seconds after the first frame
        with self._opened() as (container, stream):
            start = float((stream.start_time or 0) * stream.time_base)
            for frame in deinterlaced(decode(self._packets(container, stream), self.lost)):
                if frame.time is not None:
                    end = frame.time - start + float(frame.duration * frame.time_base)
                yield frame
        of_all = f" of {self._duration:.1f}" if self._duration else ""
        lasts = f"{end:.1f}{of_all} seconds"
        if self._duration is not None and 0 < end < 0.9 * self._duration:
            self.lost.append(f"ends after {lasts}")
        if self.lost and not self._warned:
            self._warned = True
            # Through tqdm, so that a progress bar does not run into the line.
            path = printable(str(self.path))
            tqdm.write(
                f"warning: {path}: damaged, read what decodes ({lasts}); copy it again",
                file=sys.stderr,
            )

    def _packets(self, container, stream) -> Iterator[av.Packet]:
        try:
            yield from container.demux(stream)
        except av.FFmpegError as error:
            self.lost.append(f"cannot be read to its end ({error.strerror})")


def _animated_picture(path: Path) -> str | None:
    """WebP or AVIF for an animated picture of this kind, else None.

    FFmpeg reports such files as damaged, or reads only their first frame.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and head[20] & 2:
        return "WebP"
    return "AVIF" if head[4:12] == b"ftypavis" else None


def video_stream(container) -> av.VideoStream | None:
    """The first stream that is a video and no cover picture; None where there is none."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    # FFmpeg reads text files as videos of a terminal.
    return streams[0] if streams and container.format.name != "tty" else None


def decode(packets: Iterable[av.Packet], lost: list[str]) -> Iterator[av.VideoFrame]:
    """The frames of `packets`. Those that cannot be decoded are left out; each stretch of them adds
    a line to `lost`.
    """
    count = stretch = 0  # decoded frames, and packets of the current damaged stretch
    for packet in packets:
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            stretch += 1
            if stretch > 1:
                lost.pop()  # the line of this stretch so far
            lost.append(
                f"{stretch} packet(s) after {count} frames cannot be decoded ({error.strerror})"
            )
            continue
        for frame in frames:
            count += 1
            stretch = 0
            yield frame


class Upright:
    """Turns decoded frames into upright RGB uint8 [H, W, 3] with square pixels.

    first: a frame of the stream, whose size and orientation hold for all. aspect: width of a pixel
    over its height, None for square ones.
    """

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None):
        # Other pixels than square ones are stretched along x, as players do.
        self._square_size = (max(1, round(first.width * (aspect or 1))), first.height)
        self._display_matrix = _display_matrix(first)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        # The first frame's size, because some streams change theirs midway.
        width, height = self._square_size
        image = frame.to_ndarray(format="rgb24", width=width, height=height)
        (a, b), (c, d) = self._display_matrix
        if abs(b) > abs(a):  # a quarter turn swaps the axes
            image = image.transpose(1, 0, 2)
            a, d = c, b
        return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _display_matrix(frame: av.VideoFrame) -> np.ndarray:
    """[2, 2]: stored (x, y) @ matrix is the direction on the screen.

    It is a quarter turn, with or without a mirror.
    """
    try:
        matrix = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32).reshape(3, 3)
        return matrix[:2, :2]
    except (KeyError, ValueError):  # ValueError: the frame has side data that PyAV does not know
        turns = round(frame.rotation / 90) % 4
        return np.array(QUARTER_TURNS[turns])


def _count_and_rate(container, stream) -> tuple[int, Fraction]:
    """(number of frames, frames per second), counted without decoding."""
    times = []
    with suppress(av.FFmpegError):  # damage is reported when decoding meets it
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                time = packet.dts if packet.pts is None else packet.pts
                times.append(((time or 0), (time or 0) + (packet.duration or 0)))
    stated = Fraction(stream.average_rate or stream.guessed_rate or UNKNOWN_RATE)
    if not times:
        return 0, stated
    span = (max(end for _, end in times) - min(start for start, _ in times)) * stream.time_base
    counted = len(times) / span if span else stated
    # Files of variable frame rate may state their clock (1000 from browsers) or their highest rate.
    is_wrong = counted < stated * Fraction(9, 10)
    return len(times), counted.limit_denominator(1001) if is_wrong else stated


def _seconds(stream) -> float | None:
    """The duration of a stream as its container states it; None where it does not."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")  # Matroska
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (KeyError, ValueError):
        return None
