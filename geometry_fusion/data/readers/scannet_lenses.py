"""Cameras of ScanNet: intrinsics of colour and depth, from either exporter's files."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.source import Intrinsics, read_numbers, scaled_intrinsics
from geometry_fusion.errors import InputError
from geometry_fusion.io.parsing import size_of

# (width, height) of the recordings; two scenes have smaller colour.
COLOUR_SIZE, DEPTH_SIZE = (1296, 968), (640, 480)
SIDES = ("Width", "Height")  # in the keys of _info.txt
DEPTH_SHIFT = 1000.0  # depth counts per metre in exports without _info.txt


@dataclass(frozen=True)
class Lens:
    """Intrinsics, and the image sizes (width, height) that they may be for, likeliest first.

    None stands for the size of the image at hand: text files of intrinsics do not state one.
    """

    file: Path
    matrix: np.ndarray  # [4, 4] or [3, 3]
    sizes: tuple[tuple[int, int] | None, ...]

    def at(self, size: tuple[int, int]) -> Intrinsics:
        """Intrinsics for an image of `size`; InputError if none of `sizes` is plausible."""
        fx, fy = self.matrix[0, 0], self.matrix[1, 1]
        cx, cy = self.matrix[0, 2], self.matrix[1, 2]
        for width, height in (stated or size for stated in self.sizes):
            # Only the principal point, which must be near the middle, says which size is meant.
            is_central = (
                abs(cx - (width - 1) / 2) < 0.1 * width
                and abs(cy - (height - 1) / 2) < 0.1 * height
            )
            is_resized = abs(size[0] * height / (size[1] * width) - 1) < 0.02  # and not cropped
            if is_central and is_resized and fx > 0 and fy > 0:
                return scaled_intrinsics((fx, fy, cx, cy), (width, height), size)
        raise InputError(
            f"{self.file}: principal point ({cx:g}, {cy:g}) is not near the middle of "
            f"{size[0]}x{size[1]}; "
            "the pictures were resized or cropped, export them at their own size"
        )


def lenses_of(folder: Path, frames: Path, with_depth: bool) -> tuple[Lens, Lens | None, float]:
    """Cameras of colour and depth (None without depth), and the depth counts per metre.

    `frames` is the folder of the images. Raises InputError if a file is missing or damaged.
    """
    info = next((f for f in (frames / "_info.txt", folder / "_info.txt") if f.exists()), None)
    if info is not None and not (folder / "intrinsic").is_dir():
        return _of_info(info)
    file = folder / "intrinsic/intrinsic_color.txt"
    colour, depth = Lens(file, read_numbers(file, (4, 4)), (None, COLOUR_SIZE)), None
    if with_depth:
        file = folder / "intrinsic/intrinsic_depth.txt"
        depth = Lens(file, read_numbers(file, (4, 4)), (None, DEPTH_SIZE))
    return colour, depth, DEPTH_SHIFT


def _of_info(info: Path) -> tuple[Lens, Lens, float]:
    """Both cameras and the depth shift of the C++ exporter's _info.txt, lines of key = value."""
    text = info.read_text(errors="replace")
    table = dict(re.findall(r"^\s*(\w+)\s*=[ \t]*(.*?)\s*$", text, re.MULTILINE))
    try:
        lenses = []
        for camera in ("color", "depth"):
            numbers = table[f"m_calibration{camera.title()}Intrinsic"].split()
            size = size_of(*(int(table[f"m_{camera}{side}"]) for side in SIDES))
            lenses.append(Lens(info, np.array(numbers, float).reshape(4, 4), (size,)))
        shift = float(table["m_depthShift"])
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"{info}: lacks sizes, intrinsics or m_depthShift; export this scene again"
        ) from None
    if not 0 < shift < np.inf:
        raise InputError(
            f"{info}: m_depthShift {shift:g} is not a number of counts per metre; "
            "export this scene again"
        )
    return lenses[0], lenses[1], shift
