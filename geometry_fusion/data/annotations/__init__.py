"""Exports of annotation tools: one module per format, all give `Annotations`, ids per annotated
frame.

What a frame's ids are is read when it is asked for, so that a long export does not have to fit into
memory. Exports are data from elsewhere: zips are read member by member in memory and never
extracted, XML may not declare entities, sizes are checked before anything is drawn, and nothing in
a file is run.

Who is who over frames comes from the export alone (`from_shapes`). Where it does not tell, the
import is refused: masks whose ids change between frames would be worse than none.
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
from pathlib import Path, PurePosixPath

import numpy as np
from natsort import natsort_key
from PIL import Image

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.frame_folder import Size
from geometry_fusion.parsing import parse_json

MAX_BYTES = 1 << 30  # of one file of an export


@dataclass(frozen=True)
class AnnotatedObject:
    id: int
    name: str
    label: str  # its class


@dataclass(frozen=True)
class AnnotatedFrame:
    """One frame that was annotated, maybe with nothing in it."""

    name: (
        str | int
        # of its image, folders and suffix included if the export has them; int: position among the
        # images
    )
    size: Size | None  # (width, height) that the export states
    ids: Callable[
        [Size], np.ndarray
    ]  # (width, height) -> [H, W] int ids, 0 = nothing, -1 = void; pictures keep theirs


@dataclass(frozen=True)
class Annotations:
    objects: list[AnnotatedObject]
    frames: list[AnnotatedFrame]
    notes: list[str] = field(default_factory=list)
    num_images: int | None = None  # of the task, where frames are known by position
    num_frames: int | None = None  # of the video that was annotated, where the export states it


@dataclass(frozen=True)
class Shape:
    """One drawn thing in one frame."""

    label: str
    mask: Callable[[Size], np.ndarray]  # (width, height) -> [H, W] bool
    identity: int | str | None = (
        None  # what tells the object apart in all frames; None: nothing but the label does
    )
    group: int | str | None = (
        None  # shapes of one label and group are parts of one thing within the frame
    )
    kind: int = 1  # 1 object, 0 erases to nothing, -1 void


def from_shapes(
    frames: Iterable[
        tuple[str | int, Size | None, list[Shape]]
    ],  # name, size, shapes in painting order
    cure: str,  # what to do where identity is missing
    **more,
) -> Annotations:
    """One object per (label, identity), numbered by label, then identity.

    A label without identities is one object, as long as no frame shows two of it: InputError then.
    """
    frames = list(frames)
    for name, _, shapes in frames:
        loose = [s for s in shapes if s.identity is None and s.kind == 1]
        things = {
            (s.label, s.group if s.group is not None else index) for index, s in enumerate(loose)
        }
        label, count = max(
            Counter(label for label, _ in things).items(), key=lambda item: item[1], default=("", 0)
        )
        if count > 1:
            raise InputError(
                f"{name}: shows {count} times {label!r} without saying which is which; {cure}"
            )
    keys = {(s.label, s.identity) for _, _, shapes in frames for s in shapes if s.kind == 1}
    natural = natsort_key
    ordered = sorted(
        keys, key=lambda key: (natural(key[0]), key[0], key[1] is not None, natural(str(key[1])))
    )
    per_label = Counter(label for label, _ in ordered)
    number = {key: index + 1 for index, key in enumerate(ordered)}

    def painted(shapes: list[Shape], size: Size) -> np.ndarray:
        ids = np.zeros(size[::-1], np.int32)
        for shape in shapes:
            ids[shape.mask(size)] = (
                number[shape.label, shape.identity] if shape.kind == 1 else shape.kind
            )
        return ids

    named = {
        key: key[0] if per_label[key[0]] == 1 or key[1] is None else f"{key[0]} {key[1]}"
        for key in ordered
    }
    return Annotations(
        [AnnotatedObject(number[key], named[key], key[0]) for key in ordered],
        [
            AnnotatedFrame(name, size, lambda at, s=shapes: painted(s, at))
            for name, size, shapes in frames
        ],
        **more,
    )


class Files:
    """The files of an export: a folder, a zip, or a single file. Names are relative, with forward
    slashes.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        if not self.path.exists():
            raise InputError(f"{path}: no such file or folder; give the export")
        if self.path.is_dir():
            names = (
                f.relative_to(self.path).as_posix() for f in self.path.rglob("*") if f.is_file()
            )
        elif zipfile.is_zipfile(self.path):
            try:
                self._zip = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
                raise InputError(
                    f"{path}: not a whole zip ({one_line(error)}); download it again"
                ) from None
            infos = (info for info in self._zip.infolist() if not info.is_dir())
            self._members = {info.filename.replace("\\", "/"): info for info in infos}
            names = self._members
        else:
            names = (self.path.name,)

        def hidden(name: str) -> bool:
            return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)

        self.names = sorted(name for name in names if not hidden(name))

    def where(self, name: str) -> str:
        """A file as messages name it."""
        return str(
            self.path if self.path.name == name and self.path.is_file() else self.path / name
        )

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
                # A member is read up to its stated size only, so that a lie about it is no bomb but
                # a wrong checksum.
                member = self._members[name]
                size, read = member.file_size, lambda: self._zip.read(member)
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
            if isinstance(error, OSError) and (self._zip is None or error.errno != errno.EINVAL):
                raise  # EINVAL: a place before the beginning of the zip
            raise InputError(
                f"{self.where(name)}: cannot be unpacked ({one_line(error)}); download it again"
            ) from None

    def json(self, name: str):
        """The value of a JSON file, within the limits of geometry_fusion.parsing."""
        return parse_json(self.read(name), self.where(name))

    def picture(self, name: str) -> Image.Image:
        return picture(self.read(name), self.where(name))


def picture(data: bytes, where: str, size: Size | None = None) -> Image.Image:
    """A decoded picture; `size` (width, height) is checked before its pixels are."""
    try:
        image = Image.open(io.BytesIO(data))
        if size is None or image.size == tuple(size):
            image.load()
    except Exception as error:  # Pillow's decoders raise many kinds
        raise InputError(
            f"{where}: not a readable picture ({one_line(error)}); export it again"
        ) from None
    if size is not None and image.size != tuple(size):
        found = "x".join(map(str, image.size))
        raise InputError(
            f"{where}: the picture is {found}, expected {size[0]}x{size[1]}; export it again"
        )
    return image


def stem_of(name: str) -> str:
    """The stem of an image's name: folders of either slash and the suffix of a picture are left
    out.

    A dot that is part of the name stays: frame.left -> frame.left, frame.left.png -> frame.left.
    """
    base = re.split(r"[/\\]", name)[-1]
    return re.sub(r"\.(jpe?g|png|bmp|webp|tiff?|gif)$", "", base, flags=re.IGNORECASE)
