"""Pictures of a report: prompts, frames with the masks of every arm, and the side-by-side video."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.io.mask_writer import PALETTE, overlay
from geometry_fusion.io.text import label
from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.report.comparison import Arm
from geometry_fusion.types import Frames, Prompt

STRIP_HEIGHT, LABEL_HEIGHT = 180, 22
NARROWEST_TILE = 150  # wide enough for a label
PROMPT_WIDTH = (480, 960)  # at least, at most
# Widths of a panel of the side-by-side video. Small ones are enlarged so that names are sharp;
# large ones are shrunk because many players refuse videos wider than 4096.
SMALLEST_PANEL, LARGEST_PANEL = 480, 1920
ON_OBJECT, BESIDE_IT = (40, 190, 60), (220, 40, 40)


@dataclass(frozen=True)
class Tile:
    """One picture of a strip."""

    name: str  # an arm's title, "ground truth" or "not annotated"
    caption: str
    alt: str
    picture: np.ndarray  # [h, w, 3] RGB uint8

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return jpeg(self.picture)


@dataclass(frozen=True)
class Column:
    """One frame with the masks of the ground truth and of all arms."""

    stem: str
    prompted: bool
    tiles: list[Tile]


def jpeg(rgb: np.ndarray) -> str:
    """An RGB picture [H, W, 3] uint8 as the data URI of a JPEG."""
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def scaled(rgb: np.ndarray, scale: float) -> np.ndarray:
    """A picture [H, W, 3] resized by a factor, to at least one pixel a side."""
    size = tuple(max(1, round(side * scale)) for side in rgb.shape[1::-1])
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def tile_picture(rgb: np.ndarray) -> np.ndarray:
    """A frame at the size of a strip."""
    height, width = rgb.shape[:2]
    # The second limit keeps panoramas small.
    return scaled(rgb, min(STRIP_HEIGHT / height, 4 * STRIP_HEIGHT / width))


def strip_picture(columns: list[Column]) -> np.ndarray:
    """The columns side by side, their tiles below each other with labels: RGB uint8 [H, W, 3]."""
    stacks = []
    for column in columns:
        rows = []
        for tile in column.tiles:
            picture = tile.picture
            missing = max(0, NARROWEST_TILE - picture.shape[1])
            picture = np.pad(picture, ((0, 0), (0, missing), (0, 0)), constant_values=255)
            text = tile.caption if rows else f"{column.stem} {tile.caption}"
            rows += [label(text, picture.shape[1], LABEL_HEIGHT), picture]
        stacks.append(np.pad(np.vstack(rows), ((0, 4), (2, 2), (0, 0)), constant_values=255))
    return np.hstack(stacks)


def prompt_picture(frame: np.ndarray, prompts: list[Prompt]) -> str:
    """A frame [H, W, 3] uint8 with its prompts drawn on it, as data URI."""
    picture = frame.copy()
    size = max(4, round(max(frame.shape) / 90))
    for prompt in prompts:
        colour = PALETTE[prompt.object_id].tolist()
        if prompt.mask is not None:
            picture = overlay(picture, prompt.mask.astype(np.int32) * prompt.object_id)
        if prompt.box is not None:
            x0, y0, x1, y1 = map(round, prompt.box)
            cv2.rectangle(picture, (x0, y0), (x1, y1), colour, max(2, size // 3))
        for points, fill in ((prompt.points, ON_OBJECT), (prompt.negatives, BESIDE_IT)):
            for x, y in points:
                cv2.circle(picture, (round(x), round(y)), size, (255, 255, 255), -1, cv2.LINE_AA)
                cv2.circle(picture, (round(x), round(y)), max(2, size - 2), fill, -1, cv2.LINE_AA)
    width = picture.shape[1]
    return jpeg(scaled(picture, np.clip(width, *PROMPT_WIDTH) / width))


def prompt_in_words(prompts: list[Prompt]) -> str:
    """The prompts of one frame as text, for readers who do not see the picture."""
    return "; ".join(f"object {p.object_id}: {', '.join(_marks_in_words(p))}" for p in prompts)


def _marks_in_words(prompt: Prompt) -> list[str]:
    words = []
    if prompt.points:
        points = ", ".join(f"{x:g},{y:g}" for x, y in prompt.points)
        words.append(f"a click at {points}" if len(prompt.points) == 1 else f"clicks at {points}")
    if prompt.negatives:
        words.append("not at " + ", ".join(f"{x:g},{y:g}" for x, y in prompt.negatives))
    if prompt.box is not None:
        words.append("a box from {:g},{:g} to {:g},{:g}".format(*prompt.box))
    if prompt.mask is not None:
        words.append("a mask")
    return words


def write_side_by_side(
    file: Path,
    frames: Frames,  # with `stems` and `frame_rate`
    arms: list[Arm],
    read_ids: Callable[[Arm, str], np.ndarray],  # (arm, stem) -> ids [H, W]
) -> None:
    """Write the arms' overlays next to each other as H.264 video at the frames' rate.

    A bar above each shows the arm's name, the frame and its IoU.
    """
    width, height = frames.size
    scale = min(max(1, round(SMALLEST_PANEL / width)), LARGEST_PANEL / width)
    # Of a resized picture, so that rounding is the same.
    height, width = scaled(np.zeros((height, width, 3), np.uint8), scale).shape[:2]
    bar = max(24, height // 18)
    size = (len(arms) * width // 2 * 2, (height + bar) // 2 * 2)
    with VideoWriter(file, frames.frame_rate, size) as writer:
        for index, stem in enumerate(frames.stems):
            panels = []
            for arm in arms:
                iou = arm.ious[index] if arm.ious else None
                text = f"{arm.title}, frame {stem}" + ("" if iou is None else f", IoU {iou:.2f}")
                title = label(text, width, bar, dark=True)
                painted = scaled(overlay(frames[index], read_ids(arm, stem)), scale)
                panels.append(np.vstack([title, painted]))
            writer.write(np.ascontiguousarray(np.hstack(panels)[: size[1], : size[0]]))
