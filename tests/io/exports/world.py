"""A small video whose masks are hard to export: odd size, border, holes, parts, absences.

Its masks begin at frame 12 of a video of 20.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from geometry_fusion.io.mask_writer import write_palette_mask

SIZE = (67, 45)  # width, height
FIRST, COUNT, TOTAL = 12, 6, 20  # number of the first mask, of masks, of frames
ABSENT = (2, 3)  # masks that do not show object 2
NAMES = {1: "red vase", 2: 'cup & "<saucer>"', 3: "point"}


def truth(index: int) -> np.ndarray:
    """[H, W] ids of a mask. 1: a disk over the border; 2: a ring and a bar; 3: a pixel."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    ids = np.zeros((height, width), np.uint8)
    ids[np.hypot(x - 2 - index, y - 3) < 14] = 1
    if index not in ABSENT:
        distance = np.hypot(x - 45, y - 25)
        ids[(distance < 12) & (distance > 6)] = 2
        ids[40:45, 60 - index : 67] = 2
    ids[30, 3 + index] = 3
    return ids


def write_masks(folder: Path) -> Path:
    """Palette PNGs 0012.png ... of the world."""
    folder.mkdir(parents=True)
    for index in range(COUNT):
        write_palette_mask(folder / f"{FIRST + index:04d}.png", truth(index))
    return folder


def frame(number: int) -> np.ndarray:
    """[H, W, 3] uint8, a smooth picture that differs from frame to frame."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 5, np.full_like(x, 10 * number)], axis=2).astype(np.uint8)


def write_frames(folder: Path) -> Path:
    """PNGs 0000.png ... of the world, 25 a second."""
    folder.mkdir(parents=True)
    for number in range(TOTAL):
        Image.fromarray(frame(number)).save(folder / f"{number:04d}.png")
    (folder / "frames.json").write_text(json.dumps({"frame_rate": 25}))
    return folder


def many_objects() -> np.ndarray:
    """[64, 68] ids 1..255, each a block of 3x3 pixels."""
    ids = np.zeros((64, 68), np.uint16)
    for object_id in range(1, 256):
        row, column = divmod(object_id - 1, 17)
        ids[4 * row : 4 * row + 3, 4 * column : 4 * column + 3] = object_id
    return ids


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks [H, W] bool."""
    return (one & other).sum() / (one | other).sum()
