"""Objects of the second world: furniture, and small things that stand on it or on the floor.

`FURNITURE` and `THINGS` name the builders. Each takes a random generator and returns the parts of
one object in metres, z up, its back towards +y. Slots are the numbers of an object's materials,
0 to 2. The order of their random draws is part of every room.
"""

from collections.abc import Callable

import numpy as np

from geometry_fusion.data.second_world_shapes import (
    Part,
    ball,
    box,
    cylinder,
    lathe,
    prism,
    ring,
    rod,
    upright,
)

Random = np.random.Generator


def _legs(half_x: float, half_y: float, height: float, thick: float, slot: int) -> list[Part]:
    """Four square legs at the corners of a rectangle."""
    return [
        box((thick, thick, height), (sx * half_x, sy * half_y, 0), slot)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def table(rng: Random) -> list[Part]:
    """A rectangular table, some with a lower board."""
    x, y, z = rng.uniform(0.9, 1.4), rng.uniform(0.6, 0.8), rng.uniform(0.55, 0.75)
    thick = rng.uniform(0.05, 0.09)
    parts = [box((x, y, 0.05), (0, 0, z - 0.05), 0)]
    parts += _legs(x / 2 - thick, y / 2 - thick, z - 0.05, thick, 1)
    if rng.random() < 0.4:
        parts.append(box((x - 2 * thick, y - 2 * thick, 0.03), (0, 0, 0.18), 2))
    return parts


def round_table(rng: Random) -> list[Part]:
    """A round table on a turned column."""
    radius, z = rng.uniform(0.4, 0.6), rng.uniform(0.55, 0.72)
    column = [(radius * 0.55, 0), (radius * 0.5, 0.05), (0.07, 0.12), (0.05, z / 2)]
    column += [(0.09, z - 0.12), (0.06, z - 0.05)]
    return [cylinder(radius, 0.05, (0, 0, z - 0.05), 0), lathe(column, (0, 0, 0), 1)]


def cabinet(rng: Random) -> list[Part]:
    """A chest with rows of drawers and round knobs."""
    x, y, z = rng.uniform(0.6, 1.1), rng.uniform(0.4, 0.5), rng.uniform(0.55, 0.95)
    parts = [box((x, y, z - 0.06), (0, 0, 0.06), 0)]
    parts.append(box((x + 0.06, y + 0.06, 0.04), (0, 0, z), 1))
    rows, columns = int(rng.integers(2, 4)), int(rng.integers(1, 3))
    high, wide = (z - 0.12) / rows, (x - 0.04) / columns
    for row in range(rows):
        for column in range(columns):
            at_x, at_z = (column + 0.5) * wide - (x - 0.04) / 2, 0.09 + row * high
            parts.append(box((wide - 0.03, 0.03, high - 0.03), (at_x, -y / 2 - 0.01, at_z), 1))
            knob = (at_x, -y / 2 - 0.04, at_z + high / 2)
            parts.append(ball((0.022, 0.022, 0.022), knob, 2))
    return parts


def bookcase(rng: Random) -> list[Part]:
    """Tall open shelves, filled with books of two materials."""
    x, y, z = rng.uniform(0.6, 0.9), rng.uniform(0.26, 0.34), rng.uniform(1.2, 1.7)
    levels = int(rng.integers(3, 5))
    parts = [box((0.03, y, z), (side * x / 2, 0, 0), 0) for side in (-1, 1)]
    parts.append(box((x, 0.02, z), (0, y / 2 - 0.01, 0), 0))
    step = (z - 0.03) / levels
    for level in range(levels + 1):
        parts.append(box((x, y, 0.03), (0, 0, level * step), 0))
    for level in range(levels):
        left = -x / 2 + 0.03
        while left < x / 2 - 0.12:
            wide = rng.uniform(0.03, 0.07)
            tall, deep = rng.uniform(0.55, 0.85) * step, rng.uniform(0.6, 0.8) * y
            at = (left + wide / 2, (y - deep) / 2 - 0.03, level * step + 0.03)
            parts.append(box((wide - 0.004, deep, tall), at, int(rng.integers(1, 3))))
            left += wide + (rng.uniform(0.05, 0.2) if rng.random() < 0.15 else 0)
    return parts


def chair(rng: Random) -> list[Part]:
    """A chair with a board or rungs as its back."""
    x, z, back = rng.uniform(0.42, 0.5), rng.uniform(0.42, 0.48), rng.uniform(0.4, 0.55)
    parts = [*_legs(x / 2 - 0.03, x / 2 - 0.03, z, 0.045, 1), box((x, x, 0.06), (0, 0, z), 0)]
    for side in (-1, 1):
        parts.append(box((0.045, 0.045, back), (side * (x / 2 - 0.03), x / 2 - 0.03, z + 0.06), 1))
    if rng.random() < 0.5:
        parts.append(box((x, 0.03, back * 0.6), (0, x / 2 - 0.03, z + 0.06 + back * 0.4), 2))
        return parts
    for share in (0.35, 0.62, 0.9):
        parts.append(box((x, 0.03, 0.06), (0, x / 2 - 0.03, z + 0.06 + back * share), 2))
    return parts


def armchair(rng: Random) -> list[Part]:
    """A cushioned chair with round arms."""
    x, y, seat = rng.uniform(0.75, 0.95), rng.uniform(0.7, 0.8), rng.uniform(0.36, 0.42)
    parts = [box((x, y, seat - 0.14), (0, 0, 0.06), 0), *_legs(x / 2.3, y / 2.4, 0.06, 0.06, 2)]
    parts.append(box((x - 0.3, y - 0.14, 0.13), (0, -0.06, seat - 0.08), 1))
    parts.append(box((x, 0.18, 0.82 - 0.06), (0, y / 2 - 0.09, 0.06), 0))
    for side in (-1, 1):
        at = side * (x / 2 - 0.075)
        parts.append(box((0.15, y, seat + 0.08), (at, 0, 0.06), 0))
        parts.append(rod((at, -y / 2 - 0.01, seat + 0.14), (at, y / 2, seat + 0.14), 0.09, 1))
    return parts


def stool(rng: Random) -> list[Part]:
    """A round stool with splayed legs."""
    radius, z = rng.uniform(0.19, 0.26), rng.uniform(0.42, 0.6)
    parts = [cylinder(radius, 0.07, (0, 0, z - 0.07), 0)]
    parts.append(ring(radius * 0.85, 0.014, (0, 0, z * 0.35), 2))
    for angle in np.arange(4) * np.pi / 2:
        way = np.array([np.cos(angle), np.sin(angle), 0])
        parts.append(rod(way * radius, way * radius * 0.7 + (0, 0, z - 0.06), 0.022, 1))
    return parts


def floor_lamp(rng: Random) -> list[Part]:
    """A lamp as high as a person."""
    z, shade = rng.uniform(1.2, 1.6), rng.uniform(0.17, 0.26)
    parts = [cylinder(0.16, 0.04, (0, 0, 0), 1), rod((0, 0, 0), (0, 0, z), 0.02, 1)]
    parts.append(lathe([(shade, 0), (shade * 0.55, 0.32)], (0, 0, z - 0.2), 0))
    return parts


def lamp(rng: Random) -> list[Part]:
    """A table lamp with a turned foot."""
    r, z = rng.uniform(0.07, 0.11), rng.uniform(0.2, 0.3)
    foot = [(r, 0), (r * 1.1, 0.03), (r * 0.4, z * 0.3), (r * 0.8, z * 0.6), (0.02, z)]
    shade = rng.uniform(0.13, 0.18)
    parts = [lathe(foot, (0, 0, 0), 1), rod((0, 0, z - 0.02), (0, 0, z + 0.1), 0.01, 2)]
    parts.append(lathe([(shade, 0), (shade * rng.uniform(0.4, 0.9), 0.2)], (0, 0, z + 0.02), 0))
    return parts


def bottle(rng: Random) -> list[Part]:
    """A bottle with a label and a stopper."""
    r, z = rng.uniform(0.07, 0.11), rng.uniform(0.36, 0.5)
    body = [(r * 0.9, 0), (r, 0.02), (r, z * 0.55), (r * 0.85, z * 0.63), (r * 0.34, z * 0.78)]
    parts = [lathe([*body, (r * 0.3, z * 0.97), (r * 0.4, z)], (0, 0, 0), 0)]
    parts.append(cylinder(r * 1.02, z * 0.28, (0, 0, z * 0.16), 1))
    parts.append(cylinder(r * 0.28, 0.04, (0, 0, z), 2))
    return parts


def vase(rng: Random) -> list[Part]:
    """A vase of a random smooth profile."""
    z, base = rng.uniform(0.3, 0.5), rng.uniform(0.08, 0.13)
    heights = np.linspace(0, z, 14)
    waves = 1 + 0.35 * np.sin(heights / z * rng.uniform(3, 7) + rng.uniform(0, 6))
    outer = list(zip(base * waves, heights))
    inner = [(r * 0.85, h) for r, h in outer[::-1][:9]]
    rim = [ring(outer[-1][0] * 0.95, 0.015, (0, 0, z), 1)]
    return [lathe([*outer, *inner, (0.0, inner[-1][1])], (0, 0, 0), 0), *rim]


def bowl(rng: Random) -> list[Part]:
    """A bowl with balls of fruit."""
    r, z = rng.uniform(0.16, 0.22), rng.uniform(0.1, 0.14)
    shares = np.linspace(0.35, 1, 9)
    outer = [(r * s, z * ((s - 0.35) / 0.65) ** 2) for s in shares]
    inner = [(a * 0.92, b + 0.012) for a, b in outer[::-1]]
    parts = [lathe([*outer, *inner, (0.0, inner[-1][1])], (0, 0, 0), 0)]
    for angle in np.arange(4) * np.pi / 2 + rng.uniform(0, 1):
        size = rng.uniform(0.05, 0.07)
        at = (r * 0.42 * np.cos(angle), r * 0.42 * np.sin(angle), z * 0.8)
        parts.append(ball((size, size, size), at, int(rng.integers(1, 3))))
    parts.append(ball((0.06, 0.06, 0.06), (0, 0, z * 1.35), 1))
    return parts


def plant(rng: Random) -> list[Part]:
    """A pot with long leaves."""
    r, z = rng.uniform(0.1, 0.15), rng.uniform(0.17, 0.24)
    parts = [lathe([(r * 0.7, 0), (r, z), (r * 1.1, z), (r * 1.1, z + 0.03)], (0, 0, 0), 1)]
    parts.append(rod((0, 0, z), (0, 0, z + 0.2), 0.015, 2))
    length = rng.uniform(0.12, 0.18)
    for index in range(int(rng.integers(11, 17))):
        turn, rise = index * 2.4, rng.uniform(0.15, 1.3)
        way = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])
        foot = np.array([0, 0, z + 0.06 + 0.12 * rng.random()])
        parts.append(ball((0.045, 0.012, length), foot + way * length * 0.95, 0, way))
    return parts


def ring_stack(rng: Random) -> list[Part]:
    """A toy of rings on a stick, each smaller than the one below."""
    count, r = int(rng.integers(4, 6)), rng.uniform(0.14, 0.19)
    parts, z = [cylinder(r, 0.03, (0, 0, 0), 2)], 0.03
    for index in range(count):
        minor = 0.048 - 0.004 * index
        parts.append(ring(r * (1 - 0.13 * index) - minor, minor, (0, 0, z + minor), index % 2))
        z += 2 * minor * 0.93
    return [*parts, ball((0.05, 0.05, 0.05), (0, 0, z + 0.02), 2)]


def hoop(rng: Random) -> list[Part]:
    """An upright ring on a block."""
    r = rng.uniform(0.13, 0.18)
    minor = r * rng.uniform(0.25, 0.4)
    block = box((r * 1.5, r * 1.1, 0.07), (0, 0, 0), 1)
    return [block, ring(r, minor, (0, 0, 0.05 + r + minor), 0, (0, 1, 0))]


def star(rng: Random) -> list[Part]:
    """A star or a gear, cut from a board and stood on a foot."""
    points, r = int(rng.integers(5, 9)), rng.uniform(0.19, 0.27)
    inner = rng.uniform(0.45, 0.75)
    angles = np.arange(2 * points) * np.pi / points + np.pi / 2
    radii = np.where(np.arange(2 * points) % 2, r * inner, r)
    outline = np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]
    board = upright(prism(outline, 0.1, (0, 0, -0.05)), r * 0.95 + 0.05)
    hub = upright(cylinder(r * 0.3, 0.15, (0, 0, -0.075), 2), r * 0.95 + 0.05)
    return [board, hub, box((r * 1.1, 0.2, 0.06), (0, 0, 0), 1)]


def figure(rng: Random) -> list[Part]:
    """A turned wooden person with a hat."""
    r, z = rng.uniform(0.11, 0.15), rng.uniform(0.26, 0.34)
    body = [(r, 0), (r * 1.05, 0.03), (r * 0.8, z * 0.6), (r * 0.4, z)]
    head = r * 0.72
    parts = [lathe(body, (0, 0, 0), 0), ball((head, head, head), (0, 0, z + head * 0.8), 1)]
    top = z + head * 1.3
    parts.append(lathe([(head * 1.4, 0), (head * 1.4, 0.02), (0, head * 1.5)], (0, 0, top), 2))
    for side in (-1, 1):
        parts.append(ball((0.045, 0.045, 0.1), (side * r * 0.95, 0, z * 0.7), 2, (side, 0, -1.2)))
    return parts


def crate(rng: Random) -> list[Part]:
    """A box with frames on its edges, some with a smaller one on top."""
    s = rng.uniform(0.28, 0.42)
    parts = [box((s, s, s), (0, 0, 0), 0)]
    for sx in (-1, 1):
        for sy in (-1, 1):
            parts.append(box((0.05, 0.05, s + 0.02), (sx * s / 2, sy * s / 2, 0), 1))
    for z in (0, s - 0.03):
        parts.append(box((s + 0.045, s + 0.045, 0.05), (0, 0, z), 1))
    if rng.random() < 0.4:
        parts.append(box((s * 0.55, s * 0.45, s * 0.4), (0, 0, s + 0.02), 2))
    return parts


def mug(rng: Random) -> list[Part]:
    """A large mug with a handle."""
    r, z = rng.uniform(0.1, 0.13), rng.uniform(0.22, 0.3)
    wall = [(r, 0), (r, z), (r * 0.88, z), (r * 0.88, z * 0.3)]
    handle = ring(z * 0.28, 0.022, (r + z * 0.18, 0, z * 0.5), 1, (0, 1, 0))
    return [lathe(wall, (0, 0, 0), 0), handle, cylinder(r * 1.02, 0.05, (0, 0, z * 0.7), 2)]


def globe(rng: Random) -> list[Part]:
    """A globe in a tilted ring."""
    r = rng.uniform(0.13, 0.18)
    middle = (0, 0, r + 0.13)
    parts = [ball((r, r, r), middle, 0), ring(r * 1.12, 0.015, middle, 1, (0.2, 1, 0.1))]
    foot = [(r * 0.8, 0), (r * 0.7, 0.03), (0.025, 0.06), (0.025, 0.13)]
    return [*parts, lathe(foot, (0, 0, 0), 2)]


def car(rng: Random) -> list[Part]:
    """A toy car."""
    x, y, z = rng.uniform(0.4, 0.55), rng.uniform(0.2, 0.25), rng.uniform(0.1, 0.14)
    r = rng.uniform(0.06, 0.08)
    parts = [box((x, y, z), (0, 0, r * 0.8), 0)]
    roof = np.array([(-0.3, 0), (0.25, 0), (0.12, 0.3), (-0.22, 0.3)]) * x
    cabin = upright(prism(roof, y * 0.86, (0, 0, -y * 0.43), 1), r * 0.8 + z)
    for along in (-0.3, 0.3):
        ends = ((along * x, -y / 2 - 0.03, r), (along * x, y / 2 + 0.03, r))
        parts.append(rod(*ends, r, 2))
    return [*parts, cabin]


def _named(*builders: Callable[[Random], list[Part]]) -> dict[str, Callable[[Random], list[Part]]]:
    return {build.__name__: build for build in builders}


FURNITURE = _named(table, round_table, cabinet, bookcase, chair, armchair, stool, floor_lamp)
CARRIERS = ("table", "round_table", "cabinet", "stool")  # have a flat top
SMALL = (lamp, bottle, vase, bowl, plant, ring_stack, hoop, star, figure, crate, mug, globe, car)
THINGS = _named(*SMALL)
