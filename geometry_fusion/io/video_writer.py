"""Writing video files: H.264 in MP4, the same bytes from the same frames."""

from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.io.frame_folder import Size

# For the same bytes in every run: with x264's macroblock tree, those of some sizes differ from run
# to run on CPUs with AVX-512. Files are about 5% larger without it.
REPEATABLE = {"mbtree": "0"}
ENCODER_THREADS = 4  # fixed, because the bytes depend on it


class VideoWriter:
    """Context manager that writes RGB frames to an H.264 MP4.

    The file appears at `path` when the block ends without an error. Odd sizes are padded to even
    ones by repeating the last row or column, because players expect 4:2:0 video.

    frame_rate: frames per second. size: (width, height). crf: x264's quality, lower is better.
    growing: the file is at `path` from the start and can be played up to its last second at any
    time, also after a kill. comment: kept in the file's metadata. keyframe_every: frames, for
    players that jump. A failed write raises an OSError that names the file.
    """

    def __init__(
        self,
        path: Path,
        frame_rate: Fraction | float,
        size: Size,
        crf: int = 20,
        growing: bool = False,
        comment: str | None = None,
        keyframe_every: int | None = None,
    ):
        self.path = Path(path)
        self.size = tuple(size)
        # Numerator and denominator have to fit FFmpeg's integers.
        self.frame_rate = Fraction(frame_rate).limit_denominator(65535)
        self._growing = growing
        self._crf = crf
        self._comment = comment
        self._keyframe_every = keyframe_every
        self._count = 0  # number of the next frame

    def __enter__(self) -> "VideoWriter":
        with _naming(self.path), ExitStack() as stack:
            fresh = self.path if self._growing else stack.enter_context(replacing_file(self.path))
            flags = "+frag_keyframe+empty_moov+default_base_moof" if self._growing else "+faststart"
            container = av.open(str(fresh), "w", format="mp4", options={"movflags": flags})
            self._container = stack.enter_context(container)
            if self._comment is not None:
                self._container.metadata["comment"] = self._comment
            self._stream = self._new_stream()
            stack.push(self._flush)
            self._stack = stack.pop_all()
        return self

    def _new_stream(self) -> av.VideoStream:
        options = {"crf": str(self._crf), **REPEATABLE}
        if self._keyframe_every is not None:
            options["g"] = str(self._keyframe_every)
        if self._growing:
            # A fragment is written with every keyframe: one a second.
            options |= {"g": str(max(1, round(self.frame_rate))), "tune": "zerolatency"}
        stream = self._container.add_stream("libx264", rate=self.frame_rate, options=options)
        width, height = self.size
        stream.width = width + width % 2
        stream.height = height + height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = ENCODER_THREADS
        if not self._growing:  # frame threads make smaller files, but add a delay
            context.thread_type = "FRAME"
        # Stated, because players guess the colour space by size, wrongly for small videos.
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        return stream

    def write(self, image_rgb: np.ndarray, index: int | None = None) -> None:
        """Append a frame, [H, W, 3] uint8 of the writer's size.

        index: its number in time, where frames are left out.
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
        """Write the frames that the encoder holds back. Raises ValueError where there were none."""
        if error_type is None:
            if not self._count:
                raise ValueError(f"{self.path}: no frames were written")
            self._container.mux(self._stream.encode(None))

    def __exit__(self, *error) -> None:
        with _naming(self.path):
            self._stack.__exit__(*error)


@contextmanager
def _naming(path: Path):
    """Turn FFmpeg's errors of writing (full disk, no permission) into OSErrors that name `path`."""
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
