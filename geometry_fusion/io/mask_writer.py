"""Pictures on disk: writing masks, reading and writing frames, and masks painted over frames.

A mask of one object is written as 0 and 255; masks of several objects as a palette PNG in DAVIS's
colours, whose index is the object id (1..254). The rule by which masks of any origin are read is in
`geometry_fusion.io.mask_reader`. Reading raises InputError (one line: value, file, cure); a failed
write is an OSError that names the file.
"""

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.mask_reader import VOID, MaskRule, check_regular, read_mask_pixels

EXIF_ORIENTATION = 0x0112
SOURCE_KEY = "3AM source"  # name of the text chunk in mask PNGs that records their video


def davis_palette() -> np.ndarray:
    """[256, 3] uint8 RGB, the palette of PASCAL VOC and DAVIS.

    Low bits of the id become high bits of the channels, so that neighbouring ids differ strongly.
    """
    ids = np.arange(256)[:, None]
    return sum(((ids >> (3 * k + np.arange(3))) & 1) << (7 - k) for k in range(3)).astype(np.uint8)


PALETTE = davis_palette()


def palette_index(ids: np.ndarray | int) -> np.ndarray:
    """Ids of any size as palette indices, uint8: void (-1) is 255, ids repeat from 255 on."""
    ids = np.asarray(ids)
    if ids.dtype == bool or (ids.min(initial=0) >= 0 and ids.max(initial=0) < VOID):
        return ids.astype(np.uint8)
    ids = ids.astype(np.int32)
    not_an_object = np.where(ids < 0, VOID, 0)
    return np.where(ids > 0, (ids - 1) % (VOID - 1) + 1, not_an_object).astype(np.uint8)


def colour(object_id: int) -> tuple[int, int, int]:
    """RGB of an object in masks and overlays."""
    return tuple(int(channel) for channel in PALETTE[palette_index(object_id)])


def open_image(path: Path) -> Image.Image:
    """A picture with its header read and its pixels not yet. Raises InputError for other files."""
    check_regular(path)
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> Exception:
    """The error to raise for an error of Pillow.

    For damaged files its decoders raise OSError, SyntaxError, ValueError, struct.error and more.
    """
    if isinstance(error, PermissionError):
        return error
    return InputError(
        f"{path}: not a readable image ({one_line(error)}); export it again as PNG or JPEG"
    )


def is_turned(path: Path) -> bool:
    """Whether an image's EXIF data say that it has to be turned: `read_rgb` does that."""
    with open_image(path) as image:
        return _is_turned(image)


def _is_turned(image: Image.Image) -> bool:
    # Only the formats of cameras: Pillow would decode a whole PNG to find its EXIF data.
    return image.format in ("JPEG", "MPO", "WEBP") and image.getexif().get(EXIF_ORIENTATION, 1) != 1


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) that `read_rgb` would return, from the header alone."""
    with open_image(path) as image:
        sideways = _is_turned(image) and image.getexif()[EXIF_ORIENTATION] in (5, 6, 7, 8)
        return image.size[::-1] if sideways else image.size


def read_rgb(path: Path) -> np.ndarray:
    """[H, W, 3] uint8, upright by its EXIF orientation.

    Grey becomes RGB, and transparency is ignored. Raises InputError for unreadable pictures and
    more than 8 bits.
    """
    with open_image(path) as image:
        if image.mode.startswith(("I", "F")):
            raise InputError(f"{path}: has more than 8 bits per pixel; convert frames to 8-bit RGB")
        try:
            upright = ImageOps.exif_transpose(image) if _is_turned(image) else image
            return np.array(upright.convert("RGB"))
        except Exception as error:
            raise _unreadable(path, error) from None


def read_mask(
    path: Path,
    size: tuple[int, int] | None = None,  # (width, height) that it must have
    allow_empty: bool = True,
) -> np.ndarray:  # [H, W] bool
    """True where the pixels of a mask file are not black, whatever their transparency.

    Raises InputError for unreadable masks, another size, and, unless allowed, empty masks.
    """
    mask = read_mask_pixels(path).values > 0
    _check_size(path, mask, size)
    if not (allow_empty or mask.any()):
        raise InputError(f"{path}: mask is empty; paint the object in a non-zero value")
    return mask


def read_ids(
    path: Path,
    size: tuple[int, int] | None = None,  # (width, height) that it must have
) -> np.ndarray:  # [H, W] int32
    """Object ids of one mask file by itself, as `MaskRule.ids_of`: -1 is void.

    Raises InputError for unreadable or ambiguous masks and another size.
    """
    pixels = read_mask_pixels(path)
    _check_size(path, pixels.values, size)
    return MaskRule.of([(path, pixels)], path).ids_of(pixels)


def _check_size(path: Path, mask: np.ndarray, size: tuple[int, int] | None) -> None:
    if size is not None and mask.shape != size[::-1]:
        height, width = mask.shape
        frames = f"{size[0]}x{size[1]}"
        raise InputError(
            f"{path}: mask is {width}x{height}, frames are {frames}; export masks at frame size"
        )


def digest_of_mask(mask: np.ndarray | None) -> str | None:
    """SHA-256 of a mask [H, W] bool, for records; None for None."""
    if mask is None:
        return None
    content = np.packbits(mask).tobytes() + str(mask.shape).encode()
    return hashlib.sha256(content).hexdigest()


def write_rgb(path: Path, image_rgb: np.ndarray, quality: int = 95) -> None:
    """Write [H, W, 3] uint8 in the format of the suffix. quality: 1..100, of JPEG and WebP."""
    fast = {"compress_level": 1} if path.suffix.lower() == ".png" else {}
    _save(Image.fromarray(image_rgb), path, quality=quality, **fast)


def write_mask(
    path: Path, mask: np.ndarray, source: str | None = None, orientation: int = 1
) -> None:
    """Write [H, W] bool as PNG with 0 and 255. source: a record as `source_record.as_text`;
    orientation: EXIF tag to write, where the mask lies as a picture that has to be turned.
    """
    image = Image.fromarray(np.asarray(mask, bool).astype(np.uint8) * 255)
    _save(image, path, **_noting(source, orientation))


def write_palette_mask(
    path: Path, ids: np.ndarray, source: str | None = None, orientation: int = 1
) -> None:
    """Write [H, W] ids 0..255 as palette PNG in DAVIS's colours. Others: as in `write_mask`."""
    ids = np.asarray(ids)
    assert ids.min() >= 0 and ids.max() <= 255, (ids.min(), ids.max())
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette(PALETTE.tobytes())
    _save(image, path, **_noting(source, orientation))


def _noting(source: str | None, orientation: int) -> dict:
    """Options of Pillow's PNG writer that add the record as a text chunk, and an EXIF tag."""
    options: dict = {}
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][EXIF_ORIENTATION] = orientation
    if source is not None:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text(SOURCE_KEY, source)
    return options


def _save(image: Image.Image, path: Path, **options) -> None:
    path = Path(path)
    buffer = io.BytesIO()
    image.save(buffer, Image.registered_extensions()[path.suffix.lower()], **options)
    # Written beside and renamed: a kill must not leave half a picture under its name. The suffix
    # stays, so that a leftover counts as a result and may be replaced.
    aside = path.with_name(f".{path.stem}.new{path.suffix}")
    try:
        aside.write_bytes(buffer.getvalue())
        os.replace(aside, path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        # A full disk does not say which file it was.
        raise OSError(error.errno, error.strerror, str(path)) from None


def overlay(
    image_rgb: np.ndarray,  # [H, W, 3] uint8
    ids: np.ndarray,  # [H, W] object ids (or bool), 0 = nothing
    alpha: float = 0.5,
    palette: np.ndarray = PALETTE,  # [256, 3] uint8 RGB
) -> np.ndarray:  # [H, W, 3] uint8
    """The frame with every object tinted in its colour, by default that of DAVIS.

    Outlines have the brightest shade of the colour, to be visible on dark frames. alpha: strength
    of the tint, 0..1.
    """
    ids = palette_index(ids)
    assert ids.shape == image_rgb.shape[:2], (ids.shape, image_rgb.shape)
    # The outline is where the neighbourhood holds another id: one pixel wide in frames of 360
    # lines, wider in larger ones.
    width = max(1, round(min(ids.shape) / 360))
    window = np.ones((2 * width + 1,) * 2, np.uint8)
    edge = (cv2.dilate(ids, window) != ids) | (cv2.erode(ids, window) != ids)
    inside = ids > 0
    edge &= inside
    painted = image_rgb.copy()
    painted[inside] = np.rint(image_rgb[inside] * (1 - alpha) + palette[ids[inside]] * alpha)
    outline = palette[ids[edge]].astype(np.float32)
    painted[edge] = np.rint(outline * (255 / outline.max(-1, keepdims=True)))
    return painted


def innermost_point(mask: np.ndarray) -> tuple[int, int]:
    """x, y of the pixel of a mask [H, W] that is farthest from its outline."""
    padded = np.pad(mask.astype(np.uint8), 1)  # the image border counts as outline
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), mask.shape)
    return int(x), int(y)
