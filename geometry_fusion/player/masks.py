"""Masks for the player: small palette PNGs whose index is the object id."""

import io

import numpy as np
from PIL import Image

from geometry_fusion.io.mask_writer import PALETTE


def mask_png(ids: np.ndarray) -> bytes:
    """Ids [H, W] 0..255 as a palette PNG in DAVIS's colours, no more colours than it needs.

    A palette of all 256 would be most of the file.
    """
    ids = np.asarray(ids, np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(PALETTE[: max(2, int(ids.max(initial=0)) + 1)].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def ids_of_png(content: bytes) -> np.ndarray:
    """The ids [H, W] uint8 that `mask_png` wrote."""
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image, np.uint8)
