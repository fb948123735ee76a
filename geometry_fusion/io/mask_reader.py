"""The one rule by which masks on disk are read: scores, prompts, training, imports, the report.

Pixels (`MaskPixels`) come from one file. Their meaning depends on all files that belong together
(`MaskRule`):

    several objects  palette PNGs (the value is the index), or 8-bit or 16-bit grey with other
                     values than below: the value is the object's id
    one object       8-bit grey or palette with 255 as the only value besides 0, 16-bit grey with
                     65535, any grey with 1; or colour (RGB, RGBA) with one colour besides black,
                     smooth edges allowed. The object has no id
    void             index 255 of a palette and 65535 of 16 bits, beside ids: nothing is known of
                     the pixel

Transparency is ignored. In JPEG and WebP, where black is never exactly 0, pixels above half
brightness are the object. A palette that does not begin with black belongs to a colour picture.

Refused, because they are ambiguous: 255 beside other values in 8-bit grey (smoothed masks, or
ids?), several colours, and colour beside ids.
"""

import io
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from geometry_fusion.errors import InputError

# Void pixels: the index in palettes (as in DAVIS), the value in 16-bit grey, the id in memory.
VOID, VOID_16, VOID_ID = 255, 65535, -1
LARGEST_ID = VOID - 1  # that a palette PNG can hold
ONE_OBJECT = 1  # the id given to a single object whose masks give it none
PALETTE, GREY, DEEP, COLOUR = "palette", "grey", "16 bits", "colour"  # kinds, as messages name them
LOSSY = ("JPEG", "MPO", "WEBP")  # formats of Pillow


def check_regular(path: Path) -> None:
    """Raise InputError for a pipe, a socket or a device, which could be read for ever."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: is a pipe or a device, not a file; remove it or give a file")


def is_colour_png(file: Path) -> bool:
    """Whether a PNG holds colours, neither grey nor palette indices, by its header alone.

    False for files that are too short for a header.
    """
    with open(file, "rb") as handle:
        header = handle.read(26)
    # The last byte is the colour type (PNG specification, IHDR): 0 is grey, 3 is palette.
    return len(header) == 26 and header[25] not in (0, 3)


@dataclass(frozen=True)
class MaskPixels:
    """One picture of masks, before it is interpreted."""

    values: np.ndarray  # [H, W] int32; COLOUR: red + 256 * green + 65536 * blue, black is 0
    kind: str  # PALETTE, GREY, DEEP or COLOUR

    @cached_property
    def present(self) -> set[int]:
        """The values besides 0."""
        if self.kind == COLOUR:
            return set(np.unique(self.values).tolist()) - {0}
        return set(np.flatnonzero(np.bincount(self.values.ravel())).tolist()) - {0}


def mask_pixels(image: Image.Image, name: Path | str) -> MaskPixels:
    """The pixels of an opened picture.

    Raises InputError, naming `name`, for pictures that cannot be masks.
    """
    mode = image.mode
    if mode == "P" and image.getpalette()[:3] != [0, 0, 0]:
        image = image.convert("RGB")
    if image.mode == "LA":
        image = image.convert("L")
    if image.format in LOSSY:
        bright = np.asarray(image.convert("L")) > 127
        return MaskPixels(bright.astype(np.int32) * VOID, GREY)
    values = np.asarray(image)
    if image.mode == "1":
        return MaskPixels(values.astype(np.int32) * VOID, GREY)
    if values.ndim == 3 and values.dtype == np.uint8:
        bands = [i for i, band in enumerate(image.getbands()) if band != "A"]
        shifted = [values[..., band].astype(np.int32) << (8 * i) for i, band in enumerate(bands)]
        return MaskPixels(sum(shifted), COLOUR)
    kind = {"P": PALETTE, "L": GREY}.get(image.mode, DEEP)
    if (
        values.ndim != 2
        or values.dtype.kind not in "iu"
        or values.min() < 0
        or values.max() > VOID_16
    ):
        raise InputError(f"{name}: pictures of mode {mode} are no masks; write palette PNGs")
    return MaskPixels(values.astype(np.int32), kind)


def read_mask_pixels(file: Path) -> MaskPixels:
    """The pixels of a mask file. Raises InputError for missing, damaged and unsuitable files."""
    file = Path(file)
    check_regular(file)
    if not file.is_file():
        problem = "is a folder" if file.exists() else "no such file"
        raise InputError(f"{file}: {problem}; give a mask as PNG")
    content = file.read_bytes()
    try:
        # Decoding alone checks no checksums, and damage would give another mask.
        Image.open(io.BytesIO(content)).verify()
        image = Image.open(io.BytesIO(content))
        image.load()
    except Exception:  # Pillow's decoders raise errors of many kinds
        raise InputError(
            f"{file}: not a readable image (not a PNG, or truncated or damaged); write the mask "
            "again"
        ) from None
    return mask_pixels(image, file)


@dataclass(frozen=True)
class MaskRule:
    """The meaning of the values in masks that belong together."""

    ids: list[int] | None  # sorted; None: the masks show one object, which has no id
    values: frozenset[int]  # all values besides 0
    kinds: Mapping[str, Path | str]  # kind -> the first file of that kind

    @classmethod
    def of(cls, pictures: Iterable[tuple[Path | str, MaskPixels]], whole: Path | str) -> "MaskRule":
        """The rule of all files, given as (name, pixels).

        Raises InputError, naming `whole` (their folder, or the only file), where they are
        ambiguous.
        """
        values: dict[str, set[int]] = {}
        kinds: dict[str, Path | str] = {}
        for name, pixels in pictures:
            kinds.setdefault(pixels.kind, name)
            if pixels.present:
                values.setdefault(pixels.kind, set()).update(pixels.present)
        every = frozenset().union(*values.values())
        if _is_single(values):
            return cls(None, every, kinds)
        if COLOUR in values:
            _refuse_colour(values, kinds, whole)
        if VOID in values.get(GREY, ()) and len(every) > 1:
            raise InputError(
                f"{whole}: grey masks hold 255 beside other values such as {min(every - {VOID})}: "
                "neither 0/255 masks of one object nor ids; write 0/255 (no smoothing), or palette "
                "or 16-bit PNGs with ids"
            )
        pairs = {(kind, value) for kind, present in values.items() for value in present}
        ids = {value for _, value in pairs - {(PALETTE, VOID), (DEEP, VOID_16)}}
        return cls(sorted(ids), every, kinds)

    def ids_of(self, pixels: MaskPixels) -> np.ndarray:
        """[H, W] int32: 0 nothing, -1 void, else the id; a single object without an id is 1."""
        if self.ids is None:
            return np.where(pixels.values > 0, ONE_OBJECT, 0).astype(np.int32)
        void = {PALETTE: VOID, DEEP: VOID_16}.get(pixels.kind)
        return np.where(pixels.values == void, VOID_ID, pixels.values).astype(np.int32)


def _is_single(values: Mapping[str, set[int]]) -> bool:
    """Whether masks with these values, by kind, show one object without an id.

    True for empty masks.
    """
    without_colour = {kind: present for kind, present in values.items() if kind != COLOUR}
    only_white = all(
        present == {VOID} or (kind == DEEP and present == {VOID_16})
        for kind, present in without_colour.items()
    )
    is_grey = COLOUR not in values and PALETTE not in values
    only_ones = is_grey and set().union(*without_colour.values()) == {1}
    return (only_white and _is_one_colour(values.get(COLOUR, set()))) or only_ones


def _is_one_colour(codes: set[int]) -> bool:
    """Whether colours are shades of a single one, as smooth edges have.

    False for shades of grey without white, which could be ids.
    """
    if len(codes) <= 1:
        return True
    colours = np.array([[code & 255, code >> 8 & 255, code >> 16] for code in codes])
    brightest = colours[colours.max(1).argmax()]
    if (colours == colours[:, :1]).all():
        return brightest.max() == 255
    expected = brightest * (colours.max(1, keepdims=True) / brightest.max())
    return bool(np.abs(colours - expected).max() <= 2)  # more than rounding gives


def _refuse_colour(
    values: Mapping[str, set[int]], kinds: Mapping[str, Path | str], whole: Path | str
) -> None:
    """Raise InputError for colour masks that show no single object."""
    if len(values) > 1:
        other = next(kind for kind in values if kind != COLOUR)
        both = " and ".join(f"{kinds[kind]} ({kind})" for kind in (other, COLOUR))
        raise InputError(f"{both}: are of different kinds; export all masks in the same way")
    raise InputError(
        f"{whole}: masks are RGB with {len(values[COLOUR])} colours, which are no ids; write "
        "palette PNGs (index = object id), or one colour for one object"
    )


class MaskFolder:
    """Mask files that belong together, read by one rule.

    files: by stem, or just the files. All are read at once for their values. Raises InputError as
    `read_mask_pixels` and `MaskRule.of`.
    """

    def __init__(self, files: Mapping[str, Path] | Collection[Path]):
        self.files = (
            dict(files) if isinstance(files, Mapping) else {Path(f).stem: Path(f) for f in files}
        )
        self.sizes: dict[str, tuple[int, int]] = {}  # stem -> (width, height)
        paths = list(self.files.values())
        whole = paths[0] if len(paths) == 1 else paths[0].parent if paths else ""
        self.rule = MaskRule.of(self._pictures(), whole)

    def _pictures(self) -> Iterable[tuple[Path, MaskPixels]]:
        for stem, file in self.files.items():
            pixels = read_mask_pixels(file)
            self.sizes[stem] = pixels.values.shape[::-1]
            yield file, pixels

    @property
    def ids(self) -> list[int] | None:
        """The object ids; None where the files show one object, which has no id."""
        return self.rule.ids

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise InputError unless all masks have this (width, height)."""
        for stem, (width, height) in self.sizes.items():
            if (width, height) != tuple(size):
                raise InputError(
                    f"{self.files[stem]}: mask is {width}x{height}, frames are "
                    f"{size[0]}x{size[1]}; export masks at frame size"
                )

    def read(self, stem: str) -> np.ndarray:
        """The ids of a mask, [H, W] int32 as `MaskRule.ids_of`."""
        return self.rule.ids_of(read_mask_pixels(self.files[stem]))

    def part(self, stems: Collection[str]) -> "MaskFolder":
        """The files with these stems, read by the rule of all files."""
        subset = MaskFolder({})
        subset.files = {stem: file for stem, file in self.files.items() if stem in stems}
        subset.sizes = {stem: self.sizes[stem] for stem in subset.files}
        subset.rule = self.rule
        return subset


def list_masks(folder: Path | str, what: str = "masks") -> dict[str, Path]:
    """Stem -> file of a folder's PNGs, in natural order (2 before 10).

    Raises InputError for a folder without PNGs and for two files of one stem. what: the masks, as
    messages name them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give the folder that holds the {what} as PNG masks"
        )
    entries = sorted(folder.iterdir())
    files = [
        file for file in entries if file.suffix.lower() == ".png" and not file.name.startswith(".")
    ]
    if not files:
        inside = next(
            (f"; did you mean its subfolder {sub.name}?" for sub in entries if sub.is_dir()), ""
        )
        raise InputError(
            f"{folder}: holds no PNG files; {what} are PNG masks named by frame number{inside}"
        )
    by_stem: dict[str, Path] = {}
    for file in sorted(files, key=_natural_order):
        check_regular(file)
        if file.is_dir():
            raise InputError(f"{file}: is a folder; move it out of the folder of masks")
        if (other := by_stem.setdefault(file.stem, file)) is not file:
            raise InputError(
                f"{folder}: {other.name} and {file.name} are the same frame twice; remove one"
            )
    return by_stem


def _natural_order(file: Path) -> list[str | int]:
    return [int(run) if run.isdecimal() else run for run in re.split(r"(\d+)", file.stem)]
