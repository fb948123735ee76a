"""Exports of annotation tools: one module per format, all give `Annotations`.

The ids of a frame are read only when asked for, so that a long export need not fit into memory.
Exports come from elsewhere and are not trusted: zips are read member by member in memory and never
extracted, XML may not declare entities, sizes are checked before anything is drawn, and nothing in
a file is run.

Which object is which over the frames is taken from the export alone (`from_shapes`). If it does
not state that, the import is refused: masks whose ids change between frames would be worse than
none.
"""

import errno
import io
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from natsort import natsort_key
from PIL import Image

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.frame_folder import Size
from geometry_fusion.io.parsing import parse_json

MAX_BYTES = 1 << 30  # of one file of an export


@dataclass(frozen=True)
class AnnotatedObject:
    """An object that the export names."""

    id: int
    name: str
    label: str  # its class


@dataclass(frozen=True)
class AnnotatedFrame:
    """One frame that was annotated, maybe without any object."""

    # Of its image, with folders and suffix if the export has them; or the image's position.
    name: str | int
    size: Size | None  # (width, height) that the export states
    # (width, height) -> [H, W] int ids, 0 = background, -1 = void. Raster masks keep their own
    # size, whatever is asked for.
    ids: Callable[[Size], np.ndarray]


@dataclass(frozen=True)
class Annotations:
    """The content of an export."""

    objects: list[AnnotatedObject]
    frames: list[AnnotatedFrame]
    notes: list[str] = field(default_factory=list)  # what was left out and why, one line each
    num_images: int | None = None  # of the task, where frames are named by position
    num_frames: int | None = None  # of the annotated video, where the export states it


@dataclass(frozen=True)
class Shape:
    """One drawn shape in one frame."""

    label: str
    mask: Callable[[Size], np.ndarray]  # (width, height) -> [H, W] bool
    identity: int | str | None = None  # same object in all frames; None: only the label says it
    group: int | str | None = None  # shapes of one label and group are one object in the frame
    kind: int = 1  # 1 object, 0 erases to background, -1 void


def from_shapes(
    frames: Iterable[tuple[str | int, Size | None, list[Shape]]],  # name, size, in painting order
    cure: str,  # what the user can do where identities are missing
    **more,  # further fields of Annotations
) -> Annotations:
    """Annotations with one object per (label, identity), numbered by label, then identity.

    A label without identities is one object. Raises InputError if a frame shows two of it.
    """
    frames = list(frames)
    for name, _, shapes in frames:
        _check_identities(name, shapes, cure)
    keys = {(s.label, s.identity) for _, _, shapes in frames for s in shapes if s.kind == 1}
    keys = sorted(keys, key=_natural_order)
    per_label = Counter(label for label, _ in keys)
    number = {key: index + 1 for index, key in enumerate(keys)}
    objects = []
    for label, identity in keys:
        is_alone = per_label[label] == 1 or identity is None
        name = label if is_alone else f"{label} {identity}"
        objects.append(AnnotatedObject(number[label, identity], name, label))
    return Annotations(
        objects,
        [
            AnnotatedFrame(name, size, partial(_painted, shapes, number))
            for name, size, shapes in frames
        ],
        **more,
    )


def _check_identities(name: str | int, shapes: list[Shape], cure: str) -> None:
    """Raise InputError if a frame shows one label twice and nothing tells the objects apart."""
    loose = [s for s in shapes if s.identity is None and s.kind == 1]
    objects = {(s.label, index if s.group is None else s.group) for index, s in enumerate(loose)}
    counts = Counter(label for label, _ in objects)
    label, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise InputError(
            f"{name}: shows {count} times {label!r} without saying which is which; {cure}"
        )


def _natural_order(key: tuple[str, int | str | None]) -> tuple:
    """cup 2 before cup 10; a label without identity before those with one."""
    label, identity = key
    return natsort_key(label), label, identity is not None, natsort_key(str(identity))


def _painted(
    shapes: list[Shape], number: dict[tuple[str, int | str | None], int], size: Size
) -> np.ndarray:
    """[H, W] int32 ids of shapes, later ones over earlier ones."""
    ids = np.zeros(size[::-1], np.int32)
    for shape in shapes:
        value = number[shape.label, shape.identity] if shape.kind == 1 else shape.kind
        ids[shape.mask(size)] = value
    return ids


class Files:
    """The files of an export: a folder, a zip, or a single file.

    Names are relative, with forward slashes. Hidden files are left out.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        if not self.path.exists():
            raise InputError(f"{path}: no such file or folder; give the export")
        if self.path.is_dir():
            files = (f for f in self.path.rglob("*") if f.is_file())
            names = [f.relative_to(self.path).as_posix() for f in files]
        elif zipfile.is_zipfile(self.path):
            try:
                self._zip = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
                raise InputError(
                    f"{path}: not a whole zip ({one_line(error)}); download it again"
                ) from None
            infos = (info for info in self._zip.infolist() if not info.is_dir())
            self._members = {info.filename.replace("\\", "/"): info for info in infos}
            names = list(self._members)
        else:
            names = [self.path.name]
        self.names = sorted(name for name in names if not _is_hidden(name))

    def where(self, name: str) -> str:
        """The path of a file, for messages."""
        is_alone = self.path.name == name and self.path.is_file()
        return str(self.path if is_alone else self.path / name)

    def ending(self, *suffixes: str) -> list[str]:
        """Names with one of these suffixes, upper or lower case."""
        return [name for name in self.names if name.lower().endswith(suffixes)]

    def read(self, name: str) -> bytes:
        """The content of a file; raises InputError if it is damaged or larger than `MAX_BYTES`."""
        try:
            if self._zip is None:
                file = self.path if self.path.is_file() else self.path / name
                size, read = file.stat().st_size, file.read_bytes
            else:
                # zipfile reads a member up to its stated size only: a false size gives a wrong
                # checksum, not an endless file.
                member = self._members[name]
                size, read = member.file_size, partial(self._zip.read, member)
            if size > MAX_BYTES:
                raise InputError(
                    f"{self.where(name)}: has {size >> 20} MiB, too large for annotations"
                )
            return read()
        except (
            zipfile.BadZipFile,
            EOFError,
            RuntimeError,
            zlib.error,
            lzma.LZMAError,
            OSError,
        ) as error:
            # EINVAL in a zip: a damaged directory points before the beginning of the file. Other
            # errors of the system are not about the export.
            if isinstance(error, OSError) and (self._zip is None or error.errno != errno.EINVAL):
                raise
            raise InputError(
                f"{self.where(name)}: cannot be unpacked ({one_line(error)}); download it again"
            ) from None

    def json(self, name: str):
        """The value of a JSON file, within the limits of geometry_fusion.io.parsing."""
        return parse_json(self.read(name), self.where(name))

    def picture(self, name: str) -> Image.Image:
        """A decoded image file; raises InputError if it cannot be decoded."""
        return picture(self.read(name), self.where(name))


def _is_hidden(name: str) -> bool:
    # Zips made on a Mac have a second file, below __MACOSX, for every file.
    return any(folder.startswith((".", "__MACOSX")) for folder in PurePosixPath(name).parts)


def picture(data: bytes, where: str, size: Size | None = None) -> Image.Image:
    """A decoded image; `size` (width, height) is checked before its pixels are decoded.

    Raises InputError, naming `where`, for damaged images and other sizes.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if size is None or image.size == tuple(size):
            image.load()
    except Exception as error:  # Pillow's decoders raise many kinds
        raise InputError(
            f"{where}: not a readable picture ({one_line(error)}); export it again"
        ) from None
    if size is not None and image.size != tuple(size):
        stated = "x".join(map(str, image.size))
        raise InputError(
            f"{where}: the picture is {stated}, expected {size[0]}x{size[1]}; export it again"
        )
    return image


def stem_of(name: str) -> str:
    """The stem of an image's name, without folders (either slash) and image suffix.

    A dot that is part of the name stays: frame.left -> frame.left, frame.left.png -> frame.left.
    """
    base = re.split(r"[/\\]", name)[-1]
    return re.sub(r"\.(jpe?g|png|bmp|webp|tiff?|gif)$", "", base, flags=re.IGNORECASE)
