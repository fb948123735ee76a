"""Pictures of a report: the prompts, frames with the masks of every arm, and the arms' video side
by side.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.comparison import Arm
from geometry_fusion.mask_files import PALETTE, overlay
from geometry_fusion.text import label
from geometry_fusion.video import VideoWriter

STRIP_HEIGHT, LABEL_HEIGHT = 180, 22
NARROWEST_TILE = 150  # a label has to fit
PROMPT_WIDTH = (480, 960)  # at least, at most
# Panels of the side-by-side video: small ones are enlarged so that names are sharp, large ones made
# smaller because players give up on videos wider than 4096.
SMALLEST_PANEL, LARGEST_PANEL = 480, 1920
ON_OBJECT, BESIDE_IT = (40, 190, 60), (220, 40, 40)


@dataclass(frozen=True)
class Tile:
    """One picture of a strip."""

    name: str  # an arm's title, or what else it shows
    caption: str
    alt: str
    picture: np.ndarray  # [h, w, 3] RGB uint8

    @property
    def uri(self) -> str:
        return jpeg(self.picture)


@dataclass(frozen=True)
class Column:
    """One frame as all arms see it."""

    stem: str
    prompted: bool
    tiles: list[Tile]


def jpeg(rgb: np.ndarray) -> str:
    """A picture as data URI."""
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def scaled(rgb: np.ndarray, scale: float) -> np.ndarray:
    """[H, W, 3] at another size."""
    size = tuple(max(1, round(side * scale)) for side in rgb.shape[1::-1])
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def tile_picture(rgb: np.ndarray) -> np.ndarray:
    """A frame as small as a strip shows it."""
    return scaled(
        rgb, min(STRIP_HEIGHT / rgb.shape[0], 4 * STRIP_HEIGHT / rgb.shape[1])
    )  # panoramas stay small


def strip_picture(columns: list[Column]) -> np.ndarray:
    """The columns side by side, one row per tile, labelled: RGB uint8."""
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


def prompt_picture(frame: np.ndarray, prompts: list) -> str:
    """A frame with the prompts that are on it, as data URI."""
    picture = frame.copy()
    size = max(4, round(max(frame.shape) / 90))
    for prompt in prompts:
        colour = PALETTE[prompt.object_id].tolist()
        if prompt.mask is not None:
            picture = overlay(picture, prompt.mask.astype(np.int32) * prompt.object_id)
        if prompt.box is not None:
            x0, y0, x1, y1 = (round(v) for v in prompt.box)
            cv2.rectangle(picture, (x0, y0), (x1, y1), colour, max(2, size // 3))
        for points, fill in ((prompt.points, ON_OBJECT), (prompt.negatives, BESIDE_IT)):
            for x, y in points:
                cv2.circle(picture, (round(x), round(y)), size, (255, 255, 255), -1, cv2.LINE_AA)
                cv2.circle(picture, (round(x), round(y)), max(2, size - 2), fill, -1, cv2.LINE_AA)
    width = picture.shape[1]
    return jpeg(scaled(picture, np.clip(width, *PROMPT_WIDTH) / width))


def prompt_in_words(prompts: list) -> str:
    """What was asked on one frame, for readers who do not see it."""
    parts = []
    for p in prompts:
        points = ", ".join(f"{x:g},{y:g}" for x, y in p.points)
        beside = ", ".join(f"{x:g},{y:g}" for x, y in p.negatives)
        said = (
            [f"a click at {points}" if len(p.points) == 1 else f"clicks at {points}"]
            if points
            else []
        )
        said += [f"not at {beside}"] if beside else []
        said += ["a box from {:g},{:g} to {:g},{:g}".format(*p.box)] if p.box is not None else []
        said += ["a mask"] if p.mask is not None else []
        parts.append(f"object {p.object_id}: {', '.join(said)}")
    return "; ".join(parts)


def write_side_by_side(file: Path, frames, arms: list[Arm], read_ids) -> None:
    """The arms' overlays next to each other, each under its name, the frame and its IoU: H.264 at
    the frames' rate.
    """
    width, height = frames.size
    scale = min(max(1, round(SMALLEST_PANEL / width)), LARGEST_PANEL / width)
    height, width = scaled(np.zeros((height, width, 3), np.uint8), scale).shape[:2]
    bar = max(24, height // 18)
    size = (len(arms) * width // 2 * 2, (height + bar) // 2 * 2)
    with VideoWriter(file, frames.frame_rate, size) as writer:
        for index, stem in enumerate(frames.stems):
            panels = []
            for arm in arms:
                iou = arm.ious[index] if arm.ious else None
                text = f"{arm.title}, frame {stem}" + ("" if iou is None else f", IoU {iou:.2f}")
                painted = overlay(frames[index], read_ids(arm, stem))
                panels.append(
                    np.vstack([label(text, width, bar, dark=True), scaled(painted, scale)])
                )
            writer.write(np.ascontiguousarray(np.hstack(panels)[: size[1], : size[0]]))
