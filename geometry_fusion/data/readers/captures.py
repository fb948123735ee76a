"""Steps that the readers of phone captures share.

Which folders are captures, images as they are stored, intrinsics and depth at the size of an image.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from geometry_fusion.data.readers.source import Intrinsics, nearest, scaled_intrinsics
from geometry_fusion.errors import InputError, one_line

ASPECT_TOLERANCE = 0.02  # relative; sizes are rounded to whole pixels


def load_array(path: Path) -> np.ndarray:
    """[h, w] float64 of an .npy file; InputError if it holds anything else."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array ({one_line(error)}); export it again") from None
    values = np.squeeze(values)
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise InputError(
            f"{path}: is {values.dtype} of shape {values.shape}, not one depth per pixel; "
            "export it again"
        )
    return values.astype(np.float64)


def captures(root: Path, is_capture: Callable[[Path], bool], wanted: str) -> dict[str, Path]:
    """Name -> folder of a capture: `root` itself, or folders in it.

    Raises InputError, naming the `wanted` content, if there are none.
    """
    if root.is_dir():
        if is_capture(root):
            return {root.resolve().name: root}
        folders = [f for f in sorted(root.iterdir()) if f.is_dir() and is_capture(f)]
        if folders:
            return {folder.name: folder for folder in folders}
    raise InputError(
        f"{root}: no capture here or one folder below, that is, no {wanted}; "
        "unpack it or fix the path"
    )


def stored_rgb(file: Path, content: bytes | None = None) -> np.ndarray:
    """[H, W, 3] uint8 without EXIF orientation, like the intrinsics and depth of phones.

    content: the bytes of a `file` inside a zip. Raises InputError for damaged and 16-bit images.
    """
    try:
        with Image.open(file if content is None else io.BytesIO(content)) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(
                    f"{file}: has more than 8 bits per pixel; convert frames to 8-bit RGB"
                )
            return np.array(image.convert("RGB"))
    except (InputError, PermissionError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise InputError(
            f"{file}: not a readable picture ({one_line(error)}); export it again"
        ) from None


def same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have the same shape, up to rounding."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) < ASPECT_TOLERANCE


def intrinsics_at(
    intrinsics: Intrinsics,
    stated: tuple[int, int] | None,  # (width, height) that they are for; None = `size`
    size: tuple[int, int],  # (width, height) of the image
    file: Path,
) -> Intrinsics:
    """Intrinsics for an image of `size`.

    Raises InputError, naming `file`, if that is not the stated size scaled.
    """
    if stated is not None and not same_aspect(stated, size):
        raise InputError(
            f"{file}: cameras are for pictures of {stated[0]}x{stated[1]}, the pictures are "
            f"{size[0]}x{size[1]}; turned or cropped pictures do not fit, take the original ones"
        )
    return scaled_intrinsics(intrinsics, stated or size, size)


def depth_at(depth: np.ndarray, size: tuple[int, int], file: Path) -> np.ndarray:
    """Depth [h, w] resized to the size (width, height) of its image.

    Raises InputError, naming `file`, if the two have different shapes.
    """
    height, width = depth.shape
    if not same_aspect((width, height), size):
        raise InputError(
            f"{file}: depth is {width}x{height}, its picture {size[0]}x{size[1]}; one of them is "
            "turned or cropped, take the original ones"
        )
    return nearest(depth, size)
