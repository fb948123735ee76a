"""How masks on disk are read, by everything here that reads them: scores, prompts, training,
imports, the report.

Pixels (`MaskPixels`) come from one file. What they mean depends on all files that belong together
(`MaskRule`):

    several objects  palette PNGs (the value is the index), or grey of 8 or 16 bits with other
    values than below:
                     the value is the object's id
    one object       grey or palette with 255 as the only value besides 0, 16 bits with 65535, grey
    with 1; or colour
                     (RGB, RGBA): one colour besides black, smooth edges allowed. The object has no
                     id
    void             index 255 of a palette and 65535 of 16 bits, beside ids: the pixel belongs to
    nothing known

Transparency is ignored. Of JPEG and WebP, where black is never quite 0, a pixel above half
brightness is the object. Refused, because they could mean two things: 255 beside other values in
8-bit grey (smoothed masks or ids?), colour with several colours, colour beside ids. A palette that
does not begin with black belongs to a picture: colour.
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

# Pixels that belong to nothing that is known: index in palettes (DAVIS), value in 16 bits, id in
# memory.
VOID, VOID_16, VOID_ID = 255, 65535, -1
LARGEST_ID = VOID - 1  # that a palette PNG can hold
ONE_OBJECT = 1  # the id of a single object whose masks give it none
PALETTE, GREY, DEEP, COLOUR = "palette", "grey", "16 bits", "colour"
LOSSY = ("JPEG", "MPO", "WEBP")


def check_regular(path: Path) -> None:
    """Raise InputError for a pipe, a socket or a device: reading one could wait for ever."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: is a pipe or a device, not a file; remove it or give a file")


@dataclass(frozen=True)
class MaskPixels:
    """One picture of masks, not yet interpreted."""

    values: np.ndarray  # [H, W] int32; of colour: 0 is black, else red + 256 * green + 65536 * blue
    kind: str  # PALETTE, GREY, DEEP or COLOUR

    @cached_property
    def present(self) -> set[int]:
        """The values besides 0."""
        if self.kind == COLOUR:
            return set(np.unique(self.values).tolist()) - {0}
        return set(np.flatnonzero(np.bincount(self.values.ravel())).tolist()) - {0}


def mask_pixels(image: Image.Image, name: Path | str) -> MaskPixels:
    """The pixels of an opened picture. Raises InputError, naming `name`, for pictures that are no
    masks.
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
    """The pixels of a mask file. Raises InputError for files that are missing, damaged or no
    masks.
    """
    file = Path(file)
    check_regular(file)
    if not file.is_file():
        problem = "is a folder" if file.exists() else "no such file"
        raise InputError(f"{file}: {problem}; give a mask as PNG")
    content = file.read_bytes()
    try:
        # Decoding looks at no checksum, so that damage would give another mask.
        Image.open(io.BytesIO(content)).verify()
        image = Image.open(io.BytesIO(content))
        image.load()
    except Exception:  # Pillow's decoders raise many kinds
        raise InputError(
            f"{file}: not a readable image (not a PNG, or truncated or damaged); write the mask "
            "again"
        ) from None
    return mask_pixels(image, file)


@dataclass(frozen=True)
class MaskRule:
    """What the values of masks that belong together mean."""

    ids: list[int] | None  # sorted; None: they show one object, which has no id
    values: frozenset[int]  # that occur, besides 0
    kinds: Mapping[str, Path | str]  # that occur -> the first file of the kind

    @classmethod
    def of(cls, pictures: Iterable[tuple[Path | str, MaskPixels]], whole: Path | str) -> "MaskRule":
        """The rule of (name, pixels) of all files. Raises InputError naming `whole` where they are
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
                f"{whole}: grey masks hold 255 beside other values such as "
                f"{min(every - {VOID})}: neither 0/255 masks "
                "of one object nor ids; write 0/255 (no smoothing), or palette or 16-bit PNGs "
                "with ids"
            )
        void = {(PALETTE, VOID), (DEEP, VOID_16)}
        ids = {
            value for kind, some in values.items() for value in some if (kind, value) not in void
        }
        return cls(sorted(ids), every, kinds)

    def ids_of(self, pixels: MaskPixels) -> np.ndarray:
        """[H, W] int32: 0 nothing, -1 void, else the id, which is 1 where there is one object
        without an id.
        """
        if self.ids is None:
            return np.where(pixels.values > 0, ONE_OBJECT, 0).astype(np.int32)
        void = {PALETTE: VOID, DEEP: VOID_16}.get(pixels.kind)
        return np.where(pixels.values == void, VOID_ID, pixels.values).astype(np.int32)


def _is_single(values: Mapping[str, set[int]]) -> bool:
    """Whether masks with these values, by kind, show one object without an id; empty masks do."""
    others = {kind: some for kind, some in values.items() if kind != COLOUR}
    white = all(
        some == {VOID} or (kind == DEEP and some == {VOID_16}) for kind, some in others.items()
    )
    ones = COLOUR not in values and PALETTE not in values and set().union(*others.values()) == {1}
    return (white and _is_one_colour(values.get(COLOUR, set()))) or ones


def _is_one_colour(codes: set[int]) -> bool:
    """Whether colours are shades of one, as smooth edges have; shades of grey without white could
    be ids.
    """
    if len(codes) <= 1:
        return True
    colours = np.array([[code & 255, code >> 8 & 255, code >> 16] for code in codes])
    brightest = colours[colours.max(1).argmax()]
    if (colours == colours[:, :1]).all():
        return brightest.max() == 255
    expected = brightest * (colours.max(1, keepdims=True) / brightest.max())
    return bool(np.abs(colours - expected).max() <= 2)  # of rounding


def _refuse_colour(
    values: Mapping[str, set[int]], kinds: Mapping[str, Path | str], whole: Path | str
) -> None:
    if len(values) > 1:
        other = next(kind for kind in values if kind != COLOUR)
        both = " and ".join(f"{kinds[kind]} ({kind})" for kind in (other, COLOUR))
        raise InputError(f"{both}: are of different kinds; export all masks in the same way")
    raise InputError(
        f"{whole}: masks are RGB with {len(values[COLOUR])} colours, which are no ids; write "
        "palette PNGs "
        "(index = object id), or one colour for one object"
    )


class MaskFolder:
    """Mask files that belong together, read by one rule."""

    def __init__(self, files: Mapping[str, Path] | Collection[Path]):
        """files: by stem, or just the files. All are read once for their values."""
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
                    f"{size[0]}x{size[1]}; export masks at "
                    "frame size"
                )

    def read(self, stem: str) -> np.ndarray:
        """[H, W] int32 as `MaskRule.ids_of`."""
        return self.rule.ids_of(read_mask_pixels(self.files[stem]))

    def part(self, stems: Collection[str]) -> "MaskFolder":
        """Some of the files, read by the rule of all."""
        part = MaskFolder({})
        part.files = {stem: file for stem, file in self.files.items() if stem in stems}
        part.sizes, part.rule = {stem: self.sizes[stem] for stem in part.files}, self.rule
        return part


def list_masks(folder: Path | str, what: str = "masks") -> dict[str, Path]:
    """Stem -> file of a folder's PNGs, in frame order (2 before 10 even without zero-padding)."""
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
    parts = {
        file: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", file.stem)]
        for file in files
    }
    by_stem: dict[str, Path] = {}
    for file in sorted(files, key=parts.get):
        check_regular(file)
        if file.is_dir():
            raise InputError(f"{file}: is a folder; move it out of the folder of masks")
        if (other := by_stem.setdefault(file.stem, file)) is not file:
            raise InputError(
                f"{folder}: {other.name} and {file.name} are the same frame twice; remove one"
            )
    return by_stem
