"""Reading arrays of .npz files of any origin: numbers and text only, within limits.

numpy's own reader would load a whole array at once, and believes what a header declares. Here the
header is checked first, against the limits and against the file.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError, one_line

CURE = "write it again (docs/own_geometry.md)"
MOST_BYTES = 8 << 30  # of one array, unpacked


@contextmanager
def opened_arrays(file: Path) -> Iterator[zipfile.ZipFile]:
    with reading_arrays(file, "the file"), zipfile.ZipFile(file) as archive:
        yield archive


@contextmanager
def reading_arrays(file: Path, what: str) -> Iterator[None]:
    """Turn what damaged zips and arrays raise into an InputError."""
    try:
        yield
    except (InputError, FileNotFoundError, PermissionError):
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise InputError(f"{file}: {what} is damaged ({one_line(error)[:120]}); {CURE}") from None
    except (NotImplementedError, RuntimeError, KeyError, SyntaxError, MemoryError) as error:
        raise InputError(f"{file}: {what} is unreadable ({one_line(error)[:120]})") from None


def header_of(
    file: Path, archive: zipfile.ZipFile, name: str
) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """(shape, dtype, whether in Fortran's order, bytes before the data) of an array.

    Raises InputError for pickled objects and for arrays that are larger than they could be.
    """
    with reading_arrays(file, name), archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"format version {version}")
        shape, fortran, dtype = read(stream)
        start = stream.tell()
    if dtype.hasobject:
        raise InputError(
            f"{file}: refused: {name} holds Python objects, which could run code; "
            "save plain numbers"
        )
    if dtype.kind not in "fiuUS":
        raise InputError(f"{file}: {name} holds {dtype}, not numbers; {CURE}")
    size = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    if not 0 <= size <= MOST_BYTES:
        raise InputError(
            f"{file}: {name} is {list(shape)}, {size >> 20} MiB; at most {MOST_BYTES >> 20} MiB "
            "are read: give fewer frames or smaller maps"
        )
    stored = archive.getinfo(f"{name}.npy").file_size - start
    if stored != size:
        raise InputError(
            f"{file}: {name} should hold {size} bytes and holds {stored}; it is damaged, {CURE}"
        )
    return tuple(map(int, shape)), dtype, fortran, start


def array_of(file: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """A whole array; InputError as `header_of`."""
    shape, dtype, fortran, start = header_of(file, archive, name)
    with reading_arrays(file, name), archive.open(f"{name}.npy") as stream:
        stream.read(start)
        values = np.frombuffer(stream.read(), dtype)
        return values.reshape(shape, order="F" if fortran else "C")


def maps_of(
    file: Path, archive: zipfile.ZipFile, name: str, map_hw: tuple[int, int]
) -> Iterator[np.ndarray]:
    """The maps [height, width] of an array, read one after another: the whole may not fit."""
    shape, dtype, fortran, start = header_of(file, archive, name)
    height, width = map_hw
    count = int(np.prod(shape, dtype=object)) // (height * width)
    if fortran:
        yield from array_of(file, archive, name).reshape(count, height, width)
        return
    with reading_arrays(file, name), archive.open(f"{name}.npy") as stream:
        stream.read(start)
        for _ in range(count):
            content = stream.read(height * width * dtype.itemsize)
            yield np.frombuffer(content, dtype).reshape(height, width)
