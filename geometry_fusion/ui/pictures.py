"""Frames and masks as the browser gets them: at most 1280 pixels a side."""

import cv2
import numpy as np

from geometry_fusion.io.mask_writer import PALETTE
from geometry_fusion.player import COLOURS
from geometry_fusion.player.masks import ids_of_png, mask_png
from geometry_fusion.ui.board import Board
from geometry_fusion.ui.session import StudioSession
from geometry_fusion.ui.session_files import mask_file

LONG_SIDE = 1280
QUALITY = 88  # of JPEG


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) at which a frame of `size` is sent."""
    scale = min(1.0, LONG_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def jpeg_bytes(image: np.ndarray, quality: int = QUALITY) -> bytes:
    """An RGB picture [H, W, 3] uint8 as JPEG, shrunk to the size at which it is shown."""
    size = shown_size(image.shape[1::-1])
    if size != image.shape[1::-1]:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def colour_table(board: Board) -> np.ndarray:
    """[256, 3] uint8 RGB: the page's colour of every object id."""
    table = PALETTE.copy()
    for item in board.objects:
        code = COLOURS[item.colour % len(COLOURS)]
        table[item.id] = [int(code[at : at + 2], 16) for at in (1, 3, 5)]
    return table


def frame_jpeg(session: StudioSession, index: int) -> bytes:
    """A frame as JPEG. Raises InputError for frames that do not exist."""
    session.check_frame(index)
    return jpeg_bytes(session.frames[index])


def small_mask(session: StudioSession, arm: str, index: int) -> bytes | None:
    """An arm's mask as PNG; None where there is none yet."""
    session.check_frame(index)
    file = mask_file(session.masks, arm, index)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    return shrunk_mask(content, session.source.size)


def shrunk_mask(content: bytes, size: tuple[int, int]) -> bytes:
    """A mask PNG of a frame of `size`, at the size at which the frame is shown."""
    if shown_size(size) == tuple(size):
        return content
    ids = cv2.resize(ids_of_png(content), shown_size(size), interpolation=cv2.INTER_NEAREST)
    return mask_png(ids)
