"""Frames in, video out.

`open_frames(path)` reads a video file or a folder of images. Both give `.size` (width, height),
`.frame_rate` (Fraction), `.stems`, and iterate upright RGB uint8 [H, W, 3] frames one at a time;
they can be iterated again. `opened_frames(path)` is for readers that jump about: it gives `len` and
`[index]` for videos as well. `extract_frames` turns a video into a folder, `VideoWriter` turns
frames into an H.264 MP4. Input that cannot be used raises InputError (one line: value, file, cure);
a failed write is an OSError with the file.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace
from tqdm import tqdm

from geometry_fusion.errors import InputError, printable
from geometry_fusion.files import check_apart, replacing_file, replacing_folder
from geometry_fusion.frame_folder import (
    FRAMES_JSON,
    LEAST_RATE,
    MOST_RATE,
    FrameFolder,
    Size,
    check_holds_only_frames,
    frame_stem,
)
from geometry_fusion.interlaced import deinterlaced
from geometry_fusion.mask_files import write_rgb
from geometry_fusion.source_record import check_may_replace, record_of
from geometry_fusion.temporary import working_folder

UNKNOWN_RATE = Fraction(30)  # of video files that do not say
DEFAULT_LONG_SIDE = 1280
CONVERT = "magick INPUT OUTPUT.mp4"  # what ImageMagick reads of what FFmpeg does not
MOST_PIXELS = 100_000_000  # of a frame that is made: three times 8K, 300 MB in memory
# The same frames give the same file: with x264's macroblock tree the bytes of some sizes change
# from run to run on CPUs with AVX-512 (files are about 5% larger without it), and they depend on
# the number of threads.
REPEATABLE = {"mbtree": "0"}
ENCODER_THREADS = 4


class VideoFile:
    """A video in any format that FFmpeg reads, upright, with square pixels, and whole frames where
    it is interlaced.

    Opening decodes one frame, so a file without a readable frame is refused at once. Damage further
    on drops what cannot be decoded and says so on stderr and, one line for each damaged stretch, in
    `lost`: fewer frames than `num_frames` may come. With variable frame rate every stored frame
    counts once and `frame_rate` is the average.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
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
        self.lost: list[str] = []  # of the last time it was read
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
        return self.frames_from(0)

    def frames_from(self, start: int) -> Iterator[np.ndarray]:
        """All frames but the first `start`, which are decoded nevertheless: the others are made
        from them.
        """
        return map(self._upright, islice(self._decoded(), start, None))

    @contextmanager
    def _opened(self):
        try:
            # Old cameras and editors write titles in other encodings than UTF-8.
            container = av.open(str(self.path), metadata_errors="replace")
        except PermissionError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        except av.FFmpegError as error:
            raise InputError(
                f"{self.path}: not a readable video ({error.strerror}); it may be damaged, "
                "incomplete or no video "
                "at all; copy it again or convert it to MP4"
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
        self.lost.clear()
        end = 0.0
        with self._opened() as (container, stream):
            start = float((stream.start_time or 0) * stream.time_base)
            for frame in deinterlaced(decode(self._packets(container, stream), self.lost)):
                if frame.time is not None:
                    end = frame.time - start + float(frame.duration * frame.time_base)
                yield frame
        lasts = (
            f"{end:.1f} of {self._duration:.1f} seconds" if self._duration else f"{end:.1f} seconds"
        )
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
    """WebP or AVIF where a picture is animated: FFmpeg takes such files for damaged, or for their
    first frame.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and head[20] & 2:
        return "WebP"
    return "AVIF" if head[4:12] == b"ftypavis" else None


def video_stream(container) -> av.VideoStream | None:
    """The first stream that is a film and no cover picture."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    # FFmpeg plays text files as films of a terminal.
    return streams[0] if streams and container.format.name != "tty" else None


def decode(packets: Iterable[av.Packet], lost: list[str]) -> Iterator[av.VideoFrame]:
    """The frames of `packets`; what cannot be decoded is left out and put in `lost`, one line for
    each stretch.
    """
    count = stretch = 0
    for packet in packets:
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            stretch += 1
            line = f"{stretch} packet(s) after {count} frames cannot be decoded ({error.strerror})"
            lost[len(lost) - (stretch > 1) :] = [line]
            continue
        for frame in frames:
            count, stretch = count + 1, 0
            yield frame


class Upright:
    """Turns decoded frames into RGB uint8 [H, W, 3], upright and with square pixels, as `first` has
    to be turned.
    """

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None):
        # Pixels that are not square are stretched along x, as players do.
        self._square_size = (max(1, round(first.width * (aspect or 1))), first.height)
        self._display_matrix = _display_matrix(first)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        # The size is the first frame's: some streams change theirs on the way.
        width, height = self._square_size
        image = frame.to_ndarray(format="rgb24", width=width, height=height)
        (a, b), (c, d) = self._display_matrix
        if abs(b) > abs(a):
            image, a, d = image.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _display_matrix(frame: av.VideoFrame) -> np.ndarray:
    """[2, 2]: stored (x, y) @ matrix is the direction on the screen. Quarter turns, with or without
    a mirror.
    """
    try:
        matrix = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32).reshape(3, 3)
        return matrix[:2, :2]
    except (
        KeyError,
        ValueError,
    ):  # ValueError: PyAV does not know some kind of side data of this frame
        turns = round(frame.rotation / 90) % 4
        return np.array(
            [[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]][turns]
        )


def _count_and_rate(container, stream) -> tuple[int, Fraction]:
    """Frames, counted without decoding, and frames per second."""
    times = []
    with suppress(av.FFmpegError):  # damage is reported when decoding meets it
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                time = packet.dts if packet.pts is None else packet.pts
                times.append(((time or 0), (time or 0) + (packet.duration or 0)))
    stated = Fraction(stream.average_rate or stream.guessed_rate or UNKNOWN_RATE)
    span = (
        (max(end for _, end in times) - min(start for start, _ in times)) * stream.time_base
        if times
        else 0
    )
    counted = len(times) / span if span else stated
    # Files of variable frame rate may state their clock (1000 from browsers) or their fastest pace.
    return len(times), counted.limit_denominator(1001) if counted < stated * Fraction(
        9, 10
    ) else stated


def _seconds(stream) -> float | None:
    """Duration of a stream as its container states it."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")  # Matroska
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (KeyError, ValueError):
        return None


def open_frames(path: Path) -> VideoFile | FrameFolder:
    """Frames of a folder of images or of a video file."""
    return FrameFolder(path) if Path(path).is_dir() else VideoFile(path)


@contextmanager
def opened_frames(path: Path) -> Iterator[FrameFolder]:
    """The frames of a folder or of a video, in any order: a video is extracted to a temporary
    folder meanwhile, without loss, so that they are the very frames that a stream of it gives."""
    if Path(path).is_dir():
        yield FrameFolder(path)
        return
    with working_folder("3am-frames") as folder:
        extract_frames(path, folder / "frames", every=1, size="keep", lossless=True)
        yield FrameFolder(folder / "frames")


def frame_size(text: str) -> Size | str:
    """Command line value -> `size` of `extract_frames`: '640x480' -> (640, 480), 'keep' ->
    'keep'.
    """
    if text == "keep":
        return text
    try:
        width, height = text.lower().split("x")
        return int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: not a size; write --size 640x480 or --size keep"
        ) from None


def extract_frames(
    video: Path,
    out: Path,
    every: int = 6,
    size: Size | str | None = None,
    quality: int = 95,
    progress: bool = True,
    lossless: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write every `every`-th frame of `video` to the folder `out` as 0000.jpg, 0001.jpg, ...;
    return the files.

    size: None shrinks the long side to at most 1280, "keep" keeps the video's, (width, height) is
    taken as given. lossless: write PNG instead of JPEG. overwrite: replace frames of another video,
    which is refused otherwise. `frames.json` beside the frames says which video they are of and
    states their rate: the video's divided by `every`, so that what is made of them lasts as long as
    the video. An older extraction in `out` is replaced once the new one is complete.
    """
    if not (isinstance(every, int) and every >= 1):
        raise InputError(f"every {every}: must be a whole number from 1; 1 keeps all frames")
    if not 1 <= quality <= 100:
        raise InputError(f"quality {quality}: must be 1..100; 95 is the default")
    out = Path(out)
    check_holds_only_frames(out)
    check_apart([out], [video])
    source = VideoFile(video)
    target = _target_size(source.size, size)
    rate = min(source.frame_rate / every, MOST_RATE)
    if rate < LEAST_RATE:
        raise InputError(
            f"every {every}: would keep only the first of {source.num_frames} frames of {video}; "
            "choose a smaller one"
        )
    record = {**record_of(source.path), "every": every}
    cure = "add --overwrite (from Python overwrite=True) to replace them, or choose another --out"
    check_may_replace([out], record, overwrite, cure)
    with replacing_folder(out.resolve()) as fresh:
        count = source.num_frames
        method = cv2.INTER_AREA if target[0] < source.size[0] else cv2.INTER_CUBIC
        # Progress counts decoded frames: that is where the time goes.
        bar = tqdm(source, total=count, unit="frame", desc=source.path.name, disable=not progress)
        for index, image in enumerate(bar):
            if index % every:
                continue
            if target != source.size:
                image = cv2.resize(image, target, interpolation=method)
            suffix = ".png" if lossless else ".jpg"
            write_rgb(
                fresh / f"{frame_stem(index // every, -(-count // every))}{suffix}", image, quality
            )
        about = {
            **record,
            "frame_rate": str(rate),
            "source_frame_rate": str(source.frame_rate),
            "source_size": source.size,
        }
        (fresh / FRAMES_JSON).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if not any(file.name != FRAMES_JSON for file in fresh.iterdir()):
            raise InputError(
                f"{video}: no frame can be decoded; the file is damaged or incomplete, copy it "
                "again"
            )
        names = [
            file.name for file in FrameFolder(fresh).files
        ]  # proves, before the swap, that they can be read
    return [out / name for name in names]


def _target_size(source: Size, wanted: Size | str | None) -> Size:
    if wanted == "keep":
        return source
    if wanted is None:
        scale = min(1, DEFAULT_LONG_SIDE / max(source))
        return max(1, round(source[0] * scale)), max(1, round(source[1] * scale))
    try:
        width, height = (int(side) for side in wanted)
    except (TypeError, ValueError):
        raise InputError(f'size {wanted!r}: must be (width, height) or "keep"') from None
    if not (1 <= width <= 65535 and 1 <= height <= 65535 and width * height <= MOST_PIXELS):
        raise InputError(
            f"size {width}x{height}: sides must be 1..65535 pixels, {MOST_PIXELS // 10**6} "
            "million in all at most"
        )
    return width, height


class VideoWriter:
    """Context manager that writes RGB frames to an H.264 MP4, which appears at `path` when the
    block ends well.

    The same frames give the same bytes. Odd sizes are padded to even ones by repeating the last row
    or column, because players want 4:2:0 video. growing: the file is at `path` from the start and
    plays up to its last second at any time, also after a kill. comment: kept in the file's
    metadata.
    """

    def __init__(
        self,
        path: Path,
        frame_rate: Fraction | float,
        size: Size,
        crf: int = 20,
        growing: bool = False,
        comment: str | None = None,
    ):
        self.path, self.size = Path(path), tuple(size)
        self._growing = growing
        # Numerator and denominator have to fit FFmpeg's integers.
        self.frame_rate = Fraction(frame_rate).limit_denominator(65535)
        self._crf, self._comment = crf, comment
        self._count = 0

    def __enter__(self) -> "VideoWriter":
        with _naming(self.path), ExitStack() as stack:
            fresh = self.path if self._growing else stack.enter_context(replacing_file(self.path))
            options = {
                "movflags": "+frag_keyframe+empty_moov+default_base_moof"
                if self._growing
                else "+faststart"
            }
            self._container = stack.enter_context(
                av.open(str(fresh), "w", format="mp4", options=options)
            )
            if self._comment is not None:
                self._container.metadata["comment"] = self._comment
            # A growing file gains a piece with every keyframe: one a second.
            pace = (
                {"g": str(max(1, round(self.frame_rate))), "tune": "zerolatency"}
                if self._growing
                else {}
            )
            options = {"crf": str(self._crf), **REPEATABLE, **pace}
            self._stream = self._container.add_stream(
                "libx264", rate=self.frame_rate, options=options
            )
            self._stream.width, self._stream.height = (side + side % 2 for side in self.size)
            self._stream.pix_fmt = "yuv420p"
            context = self._stream.codec_context
            context.thread_count = ENCODER_THREADS
            if not self._growing:  # threads that share a frame give no delay, but larger files
                context.thread_type = "FRAME"
            # Say which YUV it is: players guess by size, and guess wrong for small videos.
            context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
            context.color_range = ColorRange.MPEG
            stack.push(self._flush)
            self._stack = stack.pop_all()
        return self

    def write(self, image_rgb: np.ndarray, index: int | None = None) -> None:
        """Append a frame: [H, W, 3] uint8 of the writer's size. index: its number, where some are
        left out.
        """
        height, width = image_rgb.shape[:2]
        assert (width, height) == self.size, (image_rgb.shape, self.size)
        if width % 2 or height % 2:
            image_rgb = np.pad(image_rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_rgb), format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        self._count = self._count if index is None else index
        frame.pts, frame.time_base = self._count, 1 / self.frame_rate
        self._count += 1
        with _naming(self.path):
            self._container.mux(self._stream.encode(frame))

    def _flush(self, error_type, *_) -> None:
        if error_type is None:
            if not self._count:
                raise ValueError(f"{self.path}: no frames were written")
            self._container.mux(self._stream.encode(None))

    def __exit__(self, *error) -> None:
        with _naming(self.path):
            self._stack.__exit__(*error)


@contextmanager
def _naming(path: Path):
    """FFmpeg's errors while writing are the system's (full disk, no permission): give them the
    file's name.
    """
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
