"""A bank of flat shapes for layered clips: blobs, polygons, strokes, letters, unions, holes."""

import cv2
import numpy as np
import torch
from torch import Tensor

DRAWN = 256  # pixels of a side while a shape is drawn; shrinking it smooths the outline


def _blob(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A closed curve whose radius is a few random waves."""
    angle = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    radius = np.ones(128)
    for wave in range(1, int(rng.integers(3, 9))):
        strength = rng.uniform(0, 0.75) / wave
        radius += strength * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.15, None)
    stretch = rng.uniform(0.4, 1.0)
    points = np.stack((radius * np.cos(angle), stretch * radius * np.sin(angle)), 1)
    _fill(rng, canvas, points)


def _polygon(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A polygon with 3 to 9 corners, regular or not."""
    corners = int(rng.integers(3, 10))
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    angle = angle + rng.uniform(-0.3, 0.3, corners)
    radius = rng.uniform(0.35, 1.0, corners) if rng.random() < 0.6 else np.ones(corners)
    points = np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)
    points[:, 1] *= rng.uniform(0.4, 1.0)
    _fill(rng, canvas, points)


def _fill(rng: np.random.Generator, canvas: np.ndarray, points: np.ndarray) -> None:
    """Fill an outline [P, 2], turned at random, at a random place and size."""
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = points / np.abs(points).max() @ rotation.T
    size = DRAWN * rng.uniform(0.28, 0.46)
    middle = DRAWN / 2 + rng.uniform(-0.06, 0.06, 2) * DRAWN
    cv2.fillPoly(canvas, [np.round(middle + points * size).astype(np.int32)], 255)


def _box(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A rectangle or an ellipse."""
    half = (DRAWN * rng.uniform(0.12, 0.46, 2)).astype(int)
    middle = (DRAWN // 2, DRAWN // 2)
    if rng.random() < 0.5:
        cv2.ellipse(canvas, middle, half.tolist(), float(rng.uniform(0, 180)), 0, 360, 255, -1)
        return
    corners = cv2.boxPoints((middle, (2 * half).tolist(), float(rng.uniform(0, 180))))
    cv2.fillPoly(canvas, [corners.astype(np.int32)], 255)


def _stroke(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """One to four thick bent lines from a common start, as branches or legs."""
    start = rng.uniform(0.3, 0.7, 2)
    for _ in range(int(rng.integers(1, 5))):
        steps = rng.normal(0, 0.16, (int(rng.integers(2, 6)), 2))
        points = np.clip(start + np.cumsum(steps, 0), 0.06, 0.94)
        line = np.round(np.vstack((start, points)) * DRAWN).astype(np.int32)
        cv2.polylines(canvas, [line], False, 255, int(rng.integers(10, 44)), cv2.LINE_8)


def _letter(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A capital letter or a digit."""
    text = str(rng.choice(list("ABCDEFGHJKLMNOPQRSTUVWXYZ234567890&?")))
    font, thick = cv2.FONT_HERSHEY_SIMPLEX, int(rng.integers(20, 60))
    (width, height), _ = cv2.getTextSize(text, font, 7, thick)
    cv2.putText(
        canvas, text, ((DRAWN - width) // 2, (DRAWN + height) // 2), font, 7, 255, thick, cv2.LINE_8
    )


def _union(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Two to four simple shapes that touch, each moved a little."""
    for _ in range(int(rng.integers(2, 5))):
        part = np.zeros_like(canvas)
        PARTS[rng.integers(len(PARTS))](rng, part)
        scale = rng.uniform(0.35, 0.8)
        middle = DRAWN / 2 + rng.uniform(-0.2, 0.2, 2) * DRAWN
        shift = middle - scale * DRAWN / 2
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        canvas |= cv2.warpAffine(part, matrix, canvas.shape[::-1], flags=cv2.INTER_NEAREST)


PARTS = (_blob, _polygon, _box)
KINDS = (_blob, _blob, _polygon, _box, _stroke, _letter, _union, _union)


def shape_bank(seed: int, count: int, size: int) -> Tensor:
    """Cover of `count` shapes, [count, S, S] in 0..1, a pure function of the arguments.

    A fifth of the shapes has a hole. The outermost pixels are always empty.
    """
    rng = np.random.default_rng([seed, 3])
    shapes = []
    while len(shapes) < count:
        canvas = np.zeros((DRAWN, DRAWN), np.uint8)
        KINDS[rng.integers(len(KINDS))](rng, canvas)
        if rng.random() < 0.2:
            hole = np.zeros_like(canvas)
            PARTS[rng.integers(len(PARTS))](rng, hole)
            scale = rng.uniform(0.25, 0.6)
            shift = DRAWN * (0.5 - scale / 2 + rng.uniform(-0.1, 0.1, 2))
            matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
            canvas[cv2.warpAffine(hole, matrix, hole.shape[::-1]) > 0] = 0
        canvas[:4] = canvas[-4:] = 0
        canvas[:, :4] = canvas[:, -4:] = 0
        if (canvas > 0).mean() > 0.03:
            shapes.append(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(shapes).astype(np.float32) / 255)
