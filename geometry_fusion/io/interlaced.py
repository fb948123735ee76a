"""Deinterlacing: video that stores each frame as two fields of different times.

Read as it is stored, moving edges look like combs. FFmpeg's `bwdif` makes one frame of each pair of
fields, so that the number of frames and their times stay the same. Frames that are not interlaced
are not changed.
"""

from collections.abc import Iterable, Iterator

import av
from av.filter import Graph

OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"


class _Deinterlacer:
    """bwdif for frames of one size and format. It holds one frame back, to read the next one."""

    def __init__(self, frame: av.VideoFrame):
        self.kind = _kind(frame)
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        bwdif = self._graph.add("bwdif", OPTIONS)
        sink = self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Add a frame and yield those that are complete; None ends the video."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (BlockingIOError, EOFError):
                return


def deinterlaced(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same number of frames, interlaced ones deinterlaced.

    An error of `frames` is raised after the frame that was held back.
    """
    deinterlacer: _Deinterlacer | None = None
    try:
        for frame in frames:
            if deinterlacer and deinterlacer.kind != _kind(frame):
                yield from deinterlacer.push(None)
                deinterlacer = None
            if deinterlacer is None and frame.interlaced_frame:
                deinterlacer = _Deinterlacer(frame)
            if deinterlacer:
                yield from deinterlacer.push(frame)
            else:
                yield frame
    except Exception:
        if deinterlacer:
            yield from deinterlacer.push(None)
        raise
    if deinterlacer:
        yield from deinterlacer.push(None)


def _kind(frame: av.VideoFrame) -> tuple[int, int, str]:
    """Width, height and pixel format: a filter graph takes frames of one kind."""
    return frame.width, frame.height, frame.format.name
