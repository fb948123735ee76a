"""ScanNet's .sens container, version 4: one RGB-D recording with its cameras and poses.

The layout is that of sensorData.h in ScanNet's SensReader. Images are JPEG, depth is zlib-packed
uint16; other codecs are refused. Opening a file reads the header and the poses and sizes of its
frames; images are read when asked for.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from geometry_fusion.errors import InputError, one_line

VERSION = 4
JPEG, ZLIB = 2, 1  # the codecs that are read
COLOUR_CODECS = {-1: "unknown", 0: "raw", 1: "png", 2: "jpeg"}
DEPTH_CODECS = {-1: "unknown", 0: "raw", 1: "zlib", 2: "occi"}
LARGEST_SIDE = 1 << 14  # pixels; more is a damaged header


class SensFile:
    """A recording. Raises InputError for other versions and codecs, and if the file is cut."""

    colour_intrinsics: np.ndarray  # [4, 4] for colour_size
    depth_intrinsics: np.ndarray  # [4, 4] for depth_size
    colour_size: tuple[int, int]  # width, height
    depth_size: tuple[int, int]  # width, height
    depth_shift: float  # depth counts per metre
    poses: np.ndarray  # [N, 4, 4] camera-to-world, -inf where tracking was lost

    def __init__(self, file: Path):
        self.file = Path(file)
        self._bytes = self.file.stat().st_size
        with open(self.file, "rb") as handle:
            self._read_header(handle)
            (count,) = self._take(handle, "<Q", "its header")
            self._places: list[tuple[int, int, int]] = []  # offset, bytes of colour, bytes of depth
            poses = []
            for index in range(count):
                where = f"frame {index} of {count}"
                # 16 floats of pose, two time stamps, two sizes in bytes.
                *pose, _, _, colour, depth = self._take(handle, "<16f4Q", where)
                self._places.append((handle.tell(), colour, depth))
                self._check_end(handle.tell() + colour + depth, where)
                handle.seek(colour + depth, 1)
                poses.append(pose)
        self.poses = np.array(poses, float).reshape(-1, 4, 4)

    def __len__(self) -> int:
        return len(self._places)

    def _read_header(self, handle: BinaryIO) -> None:
        (version,) = self._take(handle, "<I", "its header")
        if version != VERSION:
            raise InputError(
                f"{self.file}: .sens version {version}, known is {VERSION}; "
                "give a recording of ScanNet v2"
            )
        (name_bytes,) = self._take(handle, "<Q", "its header")
        self._check_end(handle.tell() + name_bytes, "its header")
        handle.seek(name_bytes, 1)
        matrices = np.reshape(self._take(handle, "<64f", "its header"), (4, 4, 4))
        # Colour and depth, intrinsics and extrinsics each. Extrinsics are near the identity and
        # ignored by everyone.
        self.colour_intrinsics, _, self.depth_intrinsics, _ = matrices
        colour, depth, *sides, self.depth_shift = self._take(handle, "<2i4If", "its header")
        self._check_codec("colour", colour, JPEG, COLOUR_CODECS)
        self._check_codec("depth", depth, ZLIB, DEPTH_CODECS)
        if not all(0 < side <= LARGEST_SIDE for side in sides) or not 0 < self.depth_shift < np.inf:
            raise InputError(
                f"{self.file}: sizes {sides}, depth shift {self.depth_shift:g}; "
                "damaged, download it again"
            )
        self.colour_size, self.depth_size = tuple(sides[:2]), tuple(sides[2:])

    def _check_codec(self, what: str, codec: int, expected: int, names: dict[int, str]) -> None:
        if codec != expected:
            raise InputError(
                f"{self.file}: {what} codec {codec} ({names.get(codec, 'unknown')}), known is "
                f"{expected} ({names[expected]}); export it with ScanNet's SensReader"
            )

    def _take(self, handle: BinaryIO, layout: str, where: str) -> tuple:
        """The next values of a struct `layout`; InputError naming `where` if the file ends."""
        size = struct.calcsize(layout)
        self._check_end(handle.tell() + size, where)
        return struct.unpack(layout, handle.read(size))

    def _check_end(self, end: int, where: str) -> None:
        if end > self._bytes:
            raise InputError(
                f"{self.file}: ends at byte {self._bytes} inside {where}; download it again"
            )

    def _data(self, index: int) -> tuple[bytes, bytes]:
        """Colour and depth of a frame as they are stored."""
        offset, colour, depth = self._places[index]
        with open(self.file, "rb") as handle:
            handle.seek(offset)
            return handle.read(colour), handle.read(depth)

    def rgb(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8. Raises InputError if the frame is damaged."""
        try:
            content, _ = self._data(index)
            rgb = np.array(Image.open(io.BytesIO(content), formats=["JPEG"]).convert("RGB"))
        except Exception as error:  # Pillow's decoders raise many kinds
            raise self._damaged(index, f"colour ({one_line(error)})") from None
        if rgb.shape[1::-1] != self.colour_size:
            raise self._damaged(
                index, f"colour is {rgb.shape[1]}x{rgb.shape[0]}, not the header's size"
            )
        return rgb

    def depth(self, index: int) -> np.ndarray:
        """[H, W] int32, `depth_shift` counts per metre, 0 = no measurement."""
        width, height = self.depth_size
        expected = 2 * width * height
        try:
            raw = zlib.decompressobj().decompress(self._data(index)[1], expected + 1)
        except zlib.error as error:
            raise self._damaged(index, f"depth ({one_line(error)})") from None
        if len(raw) != expected:
            raise self._damaged(index, f"depth has not {expected} bytes")
        return np.frombuffer(raw, "<u2").reshape(height, width).astype(np.int32)

    def _damaged(self, index: int, what: str) -> InputError:
        return InputError(f"{self.file}: frame {index}: {what}; damaged, download it again")
