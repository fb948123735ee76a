"""Text in pictures, drawn with Pillow in DejaVu Sans.

The font comes with matplotlib and has most scripts, so that nearly any file name can be shown.
"""

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geometry_fusion.names import shown_name

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
SMALLEST = 9  # font size in pixels that is still legible
INK = (29, 35, 41)
PAPER = (255, 255, 255)


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of `size` pixels."""
    file = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


def fitted(text: str, width: int, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text and a font in which it is at most `width` pixels wide.

    A long text gets a smaller font than `size` first, then loses its middle.
    """
    text = shown_name(text)
    while size > SMALLEST and font(size).getlength(text) > width:
        size -= 1
    shown = text
    num_kept = len(text)
    while num_kept > 2 and font(size).getlength(shown) > width:
        num_kept -= 1
        shown = text[: (num_kept + 1) // 2] + ELLIPSIS + text[len(text) - num_kept // 2 :]
    return shown, font(size)


def label(text: str, width: int, height: int, dark: bool = False) -> np.ndarray:
    """A bar [height, width, 3] uint8 with a line of text, white or dark. Long text is shrunk."""
    ink, paper = (PAPER, INK) if dark else (INK, PAPER)
    bar = Image.new("RGB", (width, height), paper)
    margin = max(2, height // 8)
    shown, chosen = fitted(text, width - 2 * margin, max(SMALLEST, round(height * 0.62)))
    ImageDraw.Draw(bar).text((margin, height / 2), shown, ink, chosen, anchor="lm")
    return np.asarray(bar)
