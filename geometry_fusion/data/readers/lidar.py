"""Depth of an iPhone's LiDAR as ScanNet++ stores it: one file of compressed frames."""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError, one_line

LIDAR_HW = 192, 256
LIDAR_PIXELS = LIDAR_HW[0] * LIDAR_HW[1]


def lidar_frames(file: Path) -> Iterator[np.ndarray]:
    """Frames of depth.bin, [192, 256] float32 metres, 0 = no measurement.

    The file has one of two layouts. Either it is one raw deflate stream of all frames (float32
    metres), or each frame follows its length (4 bytes, little endian) and is an LZ4 block (uint16
    millimetres) or raw deflate (float32 metres). Raises InputError for anything else.
    """
    blocks = _blocks(file)
    if blocks is None:
        yield from map(_metres, _inflated(file))
        return
    with file.open("rb") as stream:
        for start, length in blocks:
            stream.seek(start)
            yield _unpacked(stream.read(length), file)


def _blocks(file: Path) -> list[tuple[int, int]] | None:
    """Start and length of every frame; None if the lengths do not lead exactly to the end."""
    end = file.stat().st_size
    start, blocks = 4, []
    with file.open("rb") as stream:
        while start - 4 < end:
            stream.seek(start - 4)
            length = int.from_bytes(stream.read(4), "little")
            if not 0 < length <= end - start:
                return None
            blocks.append((start, length))
            start += length + 4
    return blocks


def _inflated(file: Path) -> Iterator[bytes]:
    """Frames of a single stream, one at a time: all of them would be gigabytes."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    frame, size = b"", 4 * LIDAR_PIXELS
    try:
        with file.open("rb") as stream:
            while packed := inflate.unconsumed_tail or stream.read(1 << 20):
                frame += inflate.decompress(packed, size - len(frame))
                if len(frame) == size:
                    yield frame
                    frame = b""
            frame += inflate.flush()
    except zlib.error as error:
        raise _damaged(file, one_line(error)) from None
    if len(frame) == size:
        yield frame
    elif frame or not inflate.eof:
        raise _damaged(file, "ends within a frame")


def _unpacked(block: bytes, file: Path) -> np.ndarray:
    """[192, 256] float32 metres of one frame, deflated or LZ4; the length decides which."""
    with suppress(zlib.error):
        raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(block, 4 * LIDAR_PIXELS + 1)
        if len(raw) == 4 * LIDAR_PIXELS:
            return _metres(raw)
    try:
        import lz4.block
    except ImportError:
        raise InputError(
            f"{file}: is packed with LZ4; pip install -r requirements-data.txt"
        ) from None
    with suppress(lz4.block.LZ4BlockError):
        raw = lz4.block.decompress(block, uncompressed_size=2 * LIDAR_PIXELS)
        if len(raw) == 2 * LIDAR_PIXELS:
            return np.frombuffer(raw, "<u2").reshape(LIDAR_HW).astype(np.float32) / 1000
    raise _damaged(file, "a frame is neither LZ4 nor deflate of 256x192")


def _metres(raw: bytes) -> np.ndarray:
    depth = np.frombuffer(raw, "<f4").reshape(LIDAR_HW)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(f"{file}: not depth in one of its two layouts ({reason}); copy it again")
