"""Steps that readers of phone captures share: which folders are captures, pictures as they are
stored, K and depth at their size.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from geometry_fusion.data.readers.source import nearest, scaled_intrinsics
from geometry_fusion.errors import InputError, one_line

ASPECT_TOLERANCE = 0.02


def load_array(path: Path) -> np.ndarray:
    """[h, w] of an .npy; raises InputError where it holds anything else."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array ({one_line(error)}); export it again") from None
    values = np.squeeze(values)
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise InputError(
            f"{path}: is {values.dtype} of shape {values.shape}, not one depth per pixel; export "
            "it again"
        )
    return values.astype(np.float64)


def captures(root: Path, holds: Callable[[Path], bool], wanted: str) -> dict[str, Path]:
    """Name -> folder of a capture: `root` itself, or the folders in it; raises InputError where
    there are none.
    """
    if root.is_dir():
        if holds(root):
            return {root.resolve().name: root}
        if found := {
            folder.name: folder
            for folder in sorted(root.iterdir())
            if folder.is_dir() and holds(folder)
        }:
            return found
    raise InputError(
        f"{root}: no capture here or one folder below, that is, no {wanted}; unpack it or fix "
        "the path"
    )


def stored_rgb(file: Path, content: bytes | None = None) -> np.ndarray:
    """[H, W, 3] uint8 as stored: intrinsics and depth of phones know no EXIF orientation.

    content: the bytes of a `file` that lies within another one.
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
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) < ASPECT_TOLERANCE


def intrinsics_at(
    intrinsics: tuple[float, float, float, float],  # fx, fy, cx, cy
    stated: tuple[int, int] | None,  # (width, height) that they are for; None = `size`
    size: tuple[int, int],
    file: Path,
) -> tuple[float, float, float, float]:
    """Intrinsics for a picture of `size`; raises InputError where it is not the stated one
    resized.
    """
    if stated is not None and not same_aspect(stated, size):
        raise InputError(
            f"{file}: cameras are for pictures of {stated[0]}x{stated[1]}, the pictures are "
            f"{size[0]}x{size[1]}; "
            "turned or cropped pictures do not fit, take the original ones"
        )
    return scaled_intrinsics(intrinsics, stated or size, size)


def depth_at(depth: np.ndarray, size: tuple[int, int], file: Path) -> np.ndarray:
    """Depth [h, w] at the size (width, height) of its picture; raises InputError where it covers
    another part.
    """
    if not same_aspect(depth.shape[::-1], size):
        found = "x".join(map(str, depth.shape[::-1]))
        raise InputError(
            f"{file}: depth is {found}, its picture {size[0]}x{size[1]}; one of them is turned "
            "or cropped"
        )
    return nearest(depth, size)
