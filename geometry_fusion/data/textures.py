"""Procedural textures: RGB uint8 [S, S, 3] images drawn from a random generator.

Every texture mixes two or three colours of one palette by a pattern, then adds fine grain, so that
neither a segmenter nor a matcher ever sees a flat area. They tile only roughly: where they are
repeated, on walls, seams do not matter.
"""

import colorsys

import numpy as np
from scipy.ndimage import gaussian_filter, zoom


def palette(rng: np.random.Generator, vivid: bool) -> np.ndarray:
    """Three related RGB colours, float [3, 3] in 0..1; `vivid` for objects, muted for walls."""
    hue = rng.random()
    colours = []
    for index in range(3):
        saturation = rng.uniform(0.45, 1.0) if vivid else rng.uniform(0.05, 0.35)
        value = rng.uniform(0.35, 1.0) if vivid else rng.uniform(0.5, 0.95)
        shifted = (hue + index * rng.uniform(0.0, 0.25)) % 1.0
        colours.append(colorsys.hsv_to_rgb(shifted, saturation, value))
    return np.array(colours)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise in 0..1, float [size, size], with features about size / cells pixels wide."""
    coarse = rng.random((cells + 1, cells + 1))
    fine = zoom(coarse, size / (cells + 1), order=1, mode="nearest", grid_mode=True)
    fine = gaussian_filter(fine, size / cells / 6)
    return (fine - fine.min()) / max(np.ptp(fine), 1e-6)


# A pattern gives, both [size, size]: the blend of the first two colours (0..1), and where the third
# replaces them (bool).
Pattern = tuple[np.ndarray, np.ndarray]


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the pixels, each [size, size] in 0..1."""
    axis = (np.arange(size) + 0.5) / size
    return np.meshgrid(axis, axis)


def _stripes(rng: np.random.Generator, size: int) -> Pattern:
    u, v = _grid(size)
    angle = rng.choice([0.0, np.pi / 2, np.pi / 4])
    wave = (u * np.cos(angle) + v * np.sin(angle)) * rng.integers(3, 9)
    return (wave % 1.0 < rng.uniform(0.25, 0.6)).astype(float), wave % 2.0 < 0.15


def _checker(rng: np.random.Generator, size: int) -> Pattern:
    u, v = _grid(size)
    n = rng.integers(3, 8)
    return ((np.floor(u * n) + np.floor(v * n)) % 2), (np.floor(u * n) % 3 == 0)


def _dots(rng: np.random.Generator, size: int) -> Pattern:
    u, v = _grid(size)
    n = rng.integers(3, 8)
    radius = np.hypot(u * n % 1.0 - 0.5, v * n % 1.0 - 0.5)
    return (radius < rng.uniform(0.25, 0.4)).astype(float), radius < 0.12


def _bricks(rng: np.random.Generator, size: int) -> Pattern:
    u, v = _grid(size)
    rows, columns = rng.integers(4, 10), rng.integers(2, 5)
    row = np.floor(v * rows)
    shifted = u * columns + 0.5 * (row % 2)
    mortar = (v * rows % 1.0 < 0.1) | (shifted % 1.0 < 0.06)
    shade = rng.random((rows + 1, columns + 2))[row.astype(int), np.floor(shifted).astype(int)]
    return shade, mortar


def _patches(rng: np.random.Generator, size: int) -> Pattern:
    u, v = _grid(size)
    centres = rng.random((rng.integers(8, 24), 2))
    distance = np.hypot(u[..., None] - centres[:, 0], v[..., None] - centres[:, 1])
    order = np.sort(distance, -1)
    return rng.random(len(centres))[distance.argmin(-1)], order[..., 1] - order[..., 0] < 0.02


def _marble(rng: np.random.Generator, size: int) -> Pattern:
    field = smooth_noise(rng, size, 4) + 0.5 * smooth_noise(rng, size, 10)
    return 0.5 + 0.5 * np.sin(field * rng.uniform(8, 20)), smooth_noise(rng, size, 6) > 0.75


def _blotches(rng: np.random.Generator, size: int) -> Pattern:
    field = smooth_noise(rng, size, int(rng.integers(4, 9)))
    return (field > 0.5).astype(float), smooth_noise(rng, size, 12) > 0.8


PATTERNS = (_stripes, _checker, _dots, _bricks, _patches, _marble, _blotches)


def texture(rng: np.random.Generator, size: int = 128, vivid: bool = True) -> np.ndarray:
    """One random texture, RGB uint8 [size, size, 3]."""
    base, second, accent = palette(rng, vivid)
    blend, marks = PATTERNS[rng.integers(len(PATTERNS))](rng, size)
    image = base + (second - base) * blend[..., None]
    image = np.where(marks[..., None], accent, image)
    grain = smooth_noise(rng, size, 24) - 0.5 + 0.6 * (smooth_noise(rng, size, 48) - 0.5)
    image = image * (1 + 0.3 * grain[..., None])
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def poster_wall(rng: np.random.Generator, width_px: int, height_px: int) -> np.ndarray:
    """A wall, RGB uint8 [h, w, 3]: muted texture repeated, with posters and panels as landmarks."""
    tile = texture(rng, 192, vivid=False)
    repeats = (-(-height_px // 192), -(-width_px // 192), 1)
    wall = np.tile(tile, repeats)[:height_px, :width_px].copy()
    stain = 0.85 + 0.3 * zoom(smooth_noise(rng, 64, 5), (height_px / 64, width_px / 64), order=1)
    wall = wall * stain[:height_px, :width_px, None]
    for _ in range(rng.integers(2, 5)):
        w = int(rng.uniform(0.08, 0.2) * width_px)
        h = int(rng.uniform(0.2, 0.4) * height_px)
        x = rng.integers(0, width_px - w)
        y = rng.integers(int(0.05 * height_px), int(0.6 * height_px))
        picture = texture(rng, max(w, h), vivid=bool(rng.random() < 0.6))[:h, :w]
        wall[y : y + h, x : x + w] = 30  # a dark frame
        wall[y + 4 : y + h - 4, x + 4 : x + w - 4] = picture[4 : h - 4, 4 : w - 4]
    return wall.clip(0, 255).astype(np.uint8)
