"""Interlaced video into whole frames: what cameras and television store as two half pictures of two
moments.

Read as it is stored, whatever moves has combs at its edges. FFmpeg's `bwdif` makes one frame of
each pair, so that numbers of frames and their times stay what they are; frames that are not
interlaced are not touched.
"""

from collections.abc import Iterable, Iterator

import av
from av.filter import Graph

OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"


class _Deinterlacer:
    """bwdif for frames of one size and format; it holds one frame back, because it looks at the
    next one.
    """

    def __init__(self, frame: av.VideoFrame):
        self.kind = _kind(frame)
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        bwdif, sink = self._graph.add("bwdif", OPTIONS), self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Frames that are ready once this one has come; None ends the video."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (BlockingIOError, EOFError):
                return


def deinterlaced(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """As many frames as come, those that are interlaced without combs. An error comes after what
    was held back.
    """
    filtered: _Deinterlacer | None = None
    try:
        for frame in frames:
            if filtered and filtered.kind != _kind(frame):
                yield from filtered.push(None)
                filtered = None
            if filtered is None and frame.interlaced_frame:
                filtered = _Deinterlacer(frame)
            if filtered:
                yield from filtered.push(frame)
            else:
                yield frame
    except Exception:
        if filtered:
            yield from filtered.push(None)
        raise
    if filtered:
        yield from filtered.push(None)


def _kind(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
