"""Materials of the second world: solid textures, evaluated at points in an object's coordinates.

A `Material` turns points [N, 3] (metres) and normals [N, 3] into linear RGB [N, 3] in 0..1. Twins
share their materials, so that they look the same. The order of random draws is part of every room.
"""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

LATTICE = 32  # cells of the repeating noise
OFF_GRID = 0.3719  # of a cell: keeps faces at round numbers off the borders between cells
_NOISE = np.random.default_rng(20_130_000).random((LATTICE,) * 3)

Points = np.ndarray  # [N, 3] metres


@dataclass(frozen=True)
class Material:
    """A pattern with its colours."""

    kind: str  # a key of PATTERNS
    colours: np.ndarray  # [3, 3] linear RGB: ground, pattern, accent
    scale: float  # metres, of one repetition
    shift: np.ndarray  # [3] metres
    amount: float  # 0..1, what it means depends on the pattern
    gloss: float  # 0 = dull .. 1 = polished

    def colour(self, points: Points, normals: np.ndarray) -> np.ndarray:
        """Linear RGB [N, 3] at points with unit normals [N, 3]."""
        first, second = PATTERNS[self.kind](self, (points + self.shift) / self.scale, normals)
        ground, pattern, accent = self.colours
        rgb = ground + (pattern - ground) * first[:, None]
        return rgb + (accent - rgb) * second[:, None]


def noise(points: Points) -> np.ndarray:
    """Smooth noise [N] in 0..1 whose cells are one unit wide."""
    places = np.ascontiguousarray(points.T % LATTICE)
    return map_coordinates(_NOISE, places, order=1, mode="grid-wrap")


def clouds(points: Points, octaves: int = 3) -> np.ndarray:
    """Noise [N] in 0..1 of several sizes, each half as large and half as strong."""
    layers = [noise(points * 2**k + 7.3 * k) * 0.5**k for k in range(octaves)]
    return sum(layers) / (2 - 0.5 ** (octaves - 1))


def chance(cells: np.ndarray) -> np.ndarray:
    """A fixed random number [N] in 0..1 for each whole-numbered cell [N, 2 or 3]."""
    cell = cells.astype(np.int64)
    third = cell[:, 2] if cell.shape[1] > 2 else 0
    return _NOISE[cell[:, 0] % LATTICE, (cell[:, 1] * 5 + 3) % LATTICE, (third * 7 + 11) % LATTICE]


def flat(points: Points, normals: np.ndarray) -> np.ndarray:
    """Points as [N, 2] on the plane that the surface is closest to; of walls, v is the height."""
    axis = np.abs(normals).argmax(1)
    u = np.where(axis == 0, points[:, 1], points[:, 0])
    v = np.where(axis == 2, points[:, 1], points[:, 2])
    return np.column_stack([u, v])


def _step(values: np.ndarray, edge: float, width: float = 0.06) -> np.ndarray:
    """0 below `edge`, 1 above, with a ramp of `width` between."""
    return np.clip((values - edge) / width + 0.5, 0, 1)


# A pattern takes the material, points in units of its scale and normals, and gives two blends
# [N] in 0..1: of the second colour over the first, and of the third over both.
Blends = tuple[np.ndarray, np.ndarray]


def _plain(m: Material, p: Points, normals: np.ndarray) -> Blends:
    return 0.35 * clouds(p), np.zeros(len(p))


def _grain(m: Material, p: Points, normals: np.ndarray) -> Blends:
    """Year rings of a trunk that runs along x or z, and fine fibres."""
    along, across = (0, 2) if m.amount < 0.5 else (2, 0)
    stretched = p.copy()
    stretched[:, along] *= 0.12
    wobble = clouds(stretched * 1.5, 2)
    rings = np.hypot(stretched[:, across], stretched[:, 1]) * 2.2 + 2.5 * wobble
    fibres = noise(stretched * 24)
    return 0.75 * (rings % 1.0) ** 2 + 0.2 * fibres, 0.25 * _step(noise(stretched * 9), 0.75, 0.2)


def _marble(m: Material, p: Points, normals: np.ndarray) -> Blends:
    bent = p[:, 0] + 0.7 * p[:, 1] + p[:, 2] + (2 + 3 * m.amount) * clouds(p * 1.3, 4)
    veins = 1 - np.abs(np.sin(bent * np.pi))
    return clouds(p * 0.8 + 9, 2), veins**6


def _checks(m: Material, p: Points, normals: np.ndarray) -> Blends:
    cells = np.floor(p + OFF_GRID)
    return cells.sum(1) % 2, 0.4 * (chance(cells) > 0.8)


def _tiles(m: Material, p: Points, normals: np.ndarray) -> Blends:
    """Tiles with joints, each of its own shade; in a running bond where the amount is small."""
    uv = flat(p, normals)
    if m.amount < 0.4:
        uv = uv * (0.6, 1.4)
        uv[:, 0] += 0.5 * (np.floor(uv[:, 1]) % 2)
    border = np.abs(uv % 1.0 - 0.5).max(1)
    return 0.8 * chance(np.floor(uv)) + 0.2 * noise(p * 6), _step(border, 0.47, 0.02)


def _planks(m: Material, p: Points, normals: np.ndarray) -> Blends:
    """Floor boards with staggered ends."""
    uv = flat(p, normals)[:, :: 1 if m.amount < 0.5 else -1] * (0.35, 2.2)
    row = np.floor(uv[:, 1])
    uv[:, 0] += 0.37 * row
    shade = chance(np.floor(uv))
    fibres = clouds(np.column_stack([uv[:, 0] * 4, uv[:, 1] * 7, 9 * shade]), 3)
    near = np.abs(uv % 1.0 - 0.5)
    gap = np.maximum(_step(near[:, 1], 0.48, 0.02), _step(near[:, 0], 0.495, 0.006))
    return 0.5 * shade + 0.5 * fibres, 0.8 * gap


def _spots(m: Material, p: Points, normals: np.ndarray) -> Blends:
    """Balls in a grid, every second layer shifted, of two colours."""
    moved = p + OFF_GRID
    moved[:, 0] += 0.5 * (np.floor(moved[:, 2]) % 2)
    moved[:, 1] += 0.5 * (np.floor(moved[:, 2]) % 2)
    distance = np.linalg.norm(moved % 1.0 - 0.5, axis=1)
    inside = 1 - _step(distance, 0.34 + 0.12 * m.amount, 0.05)
    return 0.15 * noise(p * 5), inside * (0.75 + 0.25 * (chance(np.floor(moved)) > 0.5))


def _fabric(m: Material, p: Points, normals: np.ndarray) -> Blends:
    """A weave of fine threads with broad bands."""
    uv = flat(p, normals)
    threads = np.sin(uv[:, 0] * 40) * np.sin(uv[:, 1] * 40)
    bands = _step(np.abs((uv[:, 0] + OFF_GRID) % 1.0 - 0.5), 0.5 - 0.3 * m.amount)
    return 0.3 + 0.3 * threads + 0.2 * (noise(p * 8) - 0.5), 0.8 * bands


def _plaid(m: Material, p: Points, normals: np.ndarray) -> Blends:
    """Crossing bands."""
    uv = (flat(p, normals) + OFF_GRID) % 1.0
    wide = (uv < 0.45).mean(1)
    thin = (np.abs(uv - 0.72) < 0.04).any(1)
    return wide, 0.9 * thin


def _bands(m: Material, p: Points, normals: np.ndarray) -> Blends:
    """Level stripes, wavy where the amount is large."""
    level = p[:, 2] + OFF_GRID
    if m.amount > 0.5:
        level = level + 0.15 * np.sin(8 * np.arctan2(p[:, 1], p[:, 0]))
    return _step(np.abs(level % 1.0 - 0.5), 0.25), 1.0 * (np.abs(level % 2.0 - 1.0) < 0.1)


def _slanted(m: Material, p: Points, normals: np.ndarray) -> Blends:
    """Stripes across all three axes."""
    level = (p[:, 0] + 0.8 * p[:, 1] + 1.1 * p[:, 2]) * 0.7
    return _step(np.abs(level % 1.0 - 0.5), 0.25), 0.5 * clouds(p * 3, 2) ** 2


def _patches(m: Material, p: Points, normals: np.ndarray) -> Blends:
    """Large soft blots of three colours."""
    return _step(clouds(p * 1.6, 3), 0.5, 0.12), _step(clouds(p * 2.1 + 13, 3), 0.57, 0.1)


PATTERNS: dict[str, Callable[[Material, Points, np.ndarray], Blends]] = {
    "plain": _plain,
    "grain": _grain,
    "marble": _marble,
    "checks": _checks,
    "tiles": _tiles,
    "planks": _planks,
    "spots": _spots,
    "fabric": _fabric,
    "plaid": _plaid,
    "bands": _bands,
    "slanted": _slanted,
    "patches": _patches,
}
ON_THINGS = ("plain", "plain", *(kind for kind in PATTERNS if kind != "planks"))
ON_FURNITURE = ("plain", "grain", "grain", "grain", "fabric", "plaid", "marble", "patches")
ON_FLOORS = ("planks", "planks", "tiles", "tiles", "fabric", "marble", "checks")
ON_WALLS = ("plain", "plain", "plain", "tiles", "fabric", "patches", "bands")
ON_PICTURES = ("patches", "marble", "slanted", "spots", "plaid")
ON_RUGS = ("fabric", "plaid", "patches", "tiles")
VIVID, MUTED = (0.3, 0.95), (0.1, 0.6)  # saturation from, to


def linear(hue: float, saturation: float, value: float) -> np.ndarray:
    """Linear RGB [3] of a colour that is meant for a screen."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)) ** 2.2


def _wood(rng: np.random.Generator) -> np.ndarray:
    """Colours of a wood: light, dark, darkest."""
    hue, depth = rng.uniform(0.05, 0.1), rng.uniform(0.45, 0.9)
    values = (depth, depth * 0.66, depth * 0.4)
    return np.stack([linear(hue, rng.uniform(0.35, 0.65), value) for value in values])


def material(
    rng: np.random.Generator,
    kinds: Sequence[str],
    scale: float,
    strength: tuple[float, float] = VIVID,  # of the colours
) -> Material:
    """A material of one of `kinds` for an object; `scale` is about its size in metres."""
    kind = str(rng.choice(kinds))
    hue = rng.random()
    shades = [(0, 0.45, 0.95), (rng.uniform(0.2, 0.8), 0.35, 0.9), (rng.uniform(0.1, 0.6), 0.1, 1)]
    colours = np.stack(
        [linear(hue + h, rng.uniform(*strength), rng.uniform(low, top)) for h, low, top in shades]
    )
    if kind == "grain" and rng.random() < 0.8:
        colours = _wood(rng)
    elif kind == "marble":
        colours[:2] = 0.3 * colours[:2] + 0.7 * colours[:2].max(1, keepdims=True)
    size = scale * rng.uniform(0.28, 0.5) * (1.3 if kind in ("grain", "patches") else 1)
    shift = rng.uniform(3, 9, 3)
    return Material(kind, colours, size, shift, float(rng.random()), float(rng.random() ** 2))


def surface(rng: np.random.Generator, kinds: Sequence[str]) -> Material:
    """A pale material of one of `kinds` for floor, walls or ceiling."""
    kind = str(rng.choice(kinds))
    hue, depth = rng.random(), rng.uniform(0.55, 0.9)
    saturation = rng.uniform(0.04, 0.32)
    values = (depth, depth * rng.uniform(0.72, 0.9), depth * rng.uniform(0.4, 0.7))
    colours = np.stack([linear(hue + rng.uniform(0, 0.1), saturation, v) for v in values])
    if kind == "planks":
        colours = _wood(rng)
    size = {"planks": 0.45, "tiles": rng.uniform(0.25, 0.6), "bands": 0.3, "fabric": 0.5}
    scale = size.get(kind, rng.uniform(0.35, 0.7))
    shift = rng.uniform(3, 9, 3)
    gloss = 0.3 if kind in ("tiles", "marble", "planks") else 0.0
    return Material(kind, colours, scale, shift, float(rng.random()), gloss)
