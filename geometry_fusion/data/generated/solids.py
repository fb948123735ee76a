"""Things made of simple solids: boxes, ellipsoids and frustums (cylinders and cones among them).

A thing stands on the plane z = 0 around the origin; z points up. Numbers are metres.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BOX, ELLIPSOID, FRUSTUM = range(3)
NO_TURN = np.eye(3)


@dataclass(frozen=True)
class Solid:
    """One solid of a thing. Its own frame spans -1..1 along each axis."""

    kind: int  # BOX, ELLIPSOID or FRUSTUM
    centre: np.ndarray  # [3] metres
    half: np.ndarray  # [3] metres: half its size along its own axes
    turn: np.ndarray  # [3, 3] rotation from its own axes
    taper: float = 1.0  # of a frustum: radius at the top as a share of that at the bottom
    part: int = 0  # solids of one part have one texture


@dataclass(frozen=True)
class Thing:
    """An object: its solids, and how much room it takes."""

    solids: tuple[Solid, ...]
    radius: float  # of a circle around the z axis that holds it
    height: float
    has_top: bool = False  # whether other things can stand on it


def _solid(kind: int, centre, half, taper: float = 1.0, part: int = 0, turn=NO_TURN) -> Solid:
    return Solid(kind, np.array(centre, float), np.array(half, float), turn, taper, part)


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation matrix [3, 3] by `angle` radians around a unit axis (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _random_turn(rng: np.random.Generator) -> np.ndarray:
    axis = rng.normal(size=3)
    return rotation(axis / np.linalg.norm(axis), rng.uniform(0, np.pi))


def _finish(solids: list[Solid], has_top: bool = False) -> Thing:
    """Put the solids onto the ground and measure them by their corners."""
    corners = np.stack(np.meshgrid((-1, 1), (-1, 1), (-1, 1)), -1).reshape(-1, 3)
    points = np.concatenate([s.centre + (corners * s.half) @ s.turn.T for s in solids])
    drop = points[:, 2].min()
    solids = [
        Solid(s.kind, s.centre - (0, 0, drop), s.half, s.turn, s.taper, s.part) for s in solids
    ]
    radius = float(np.linalg.norm(points[:, :2], axis=1).max())
    return Thing(tuple(solids), radius, float(np.ptp(points[:, 2])), has_top)


def simple(rng: np.random.Generator) -> Thing:
    """One solid, standing or lying."""
    kind = int(rng.integers(3))
    half = rng.uniform(0.1, 0.4, 3)
    if kind != BOX:
        half[1] = half[0] * rng.uniform(0.7, 1.3)
    taper = float(rng.choice([1.0, 0.0, rng.uniform(0.3, 1.6)]))
    turn = _random_turn(rng) if rng.random() < 0.2 else NO_TURN
    return _finish([_solid(kind, (0, 0, 0), half, taper, turn=turn)])


def table(rng: np.random.Generator) -> Thing:
    """A top on four legs, on one column, or on two boards."""
    width, depth, height = rng.uniform(0.3, 0.8), rng.uniform(0.25, 0.5), rng.uniform(0.35, 0.85)
    thick, leg = rng.uniform(0.015, 0.05), rng.uniform(0.02, 0.05)
    kind = FRUSTUM if rng.random() < 0.3 else BOX
    solids = [_solid(kind, (0, 0, height), (width, depth, thick))]
    style = rng.random()
    if style < 0.5:
        for x in (-1, 1):
            for y in (-1, 1):
                at = (x * (width * 0.7 - leg), y * (depth * 0.7 - leg), height / 2)
                solids.append(_solid(BOX, at, (leg, leg, height / 2), part=1))
    elif style < 0.75:
        solids.append(_solid(FRUSTUM, (0, 0, height / 2), (leg, leg, height / 2), part=1))
        solids.append(_solid(FRUSTUM, (0, 0, leg), (width / 2, width / 2, leg), 0.5, part=1))
    else:
        for x in (-1, 1):
            at = (x * (width - leg), 0, height / 2)
            solids.append(_solid(BOX, at, (leg, depth * 0.95, height / 2), part=1))
    return _finish(solids, has_top=True)


def chair(rng: np.random.Generator) -> Thing:
    """A seat with a back, on legs or a block, with or without arms."""
    width, height = rng.uniform(0.2, 0.4), rng.uniform(0.25, 0.5)
    back, thick = rng.uniform(0.2, 0.45), rng.uniform(0.02, 0.09)
    solids = [
        _solid(BOX, (0, 0, height), (width, width, thick)),
        _solid(BOX, (0, -width + thick, height + back), (width, thick, back)),
    ]
    if rng.random() < 0.6:
        for x in (-1, 1):
            for y in (-1, 1):
                at = (x * (width - 0.03), y * (width - 0.03), height / 2)
                solids.append(_solid(BOX, at, (0.025, 0.025, height / 2), part=1))
    else:
        solids.append(_solid(BOX, (0, 0, height / 2), (width * 0.95, width * 0.95, height / 2)))
    if rng.random() < 0.4:
        for x in (-1, 1):
            at = (x * (width - thick), 0, height + 0.6 * back)
            solids.append(_solid(BOX, at, (thick, width * 0.9, thick), part=1))
    return _finish(solids)


def lathed(rng: np.random.Generator) -> Thing:
    """A vase, bottle, lamp or cup: frustums on top of each other."""
    rings = int(rng.integers(2, 6))
    radii = rng.uniform(0.04, 0.3, rings + 1)
    if rng.random() < 0.4:
        radii[1:-1] = rng.uniform(0.03, 0.06)
    solids, base = [], 0.0
    striped = rng.random() < 0.4
    for ring in range(rings):
        half = rng.uniform(0.04, 0.22)
        solids.append(
            _solid(
                FRUSTUM,
                (0, 0, base + half),
                (radii[ring], radii[ring], half),
                radii[ring + 1] / radii[ring],
                ring % 2 if striped else 0,
            )
        )
        base += 2 * half
    if rng.random() < 0.3:
        solids.append(_solid(ELLIPSOID, (0, 0, base), (radii[-1],) * 3, part=1))
    return _finish(solids)


def plant(rng: np.random.Generator) -> Thing:
    """A pot or a trunk with leaves or a crown."""
    pot = rng.uniform(0.08, 0.25)
    stem = rng.uniform(0.1, 0.5)
    solids = [
        _solid(FRUSTUM, (0, 0, pot), (pot * 0.8, pot * 0.8, pot), 1.3),
        _solid(FRUSTUM, (0, 0, 2 * pot + stem), (0.025, 0.025, stem), part=1),
    ]
    for _ in range(int(rng.integers(2, 7))):
        at = rng.normal(0, 0.13, 3) + (0, 0, 2 * pot + 2 * stem)
        half = rng.uniform(0.05, 0.22, 3) * (1, 1, rng.uniform(0.2, 1))
        solids.append(_solid(ELLIPSOID, at, half, part=2, turn=_random_turn(rng)))
    return _finish(solids)


def shelf(rng: np.random.Generator) -> Thing:
    """Open boards between two sides, or a closed chest with a lid."""
    width, depth, height = rng.uniform(0.25, 0.6), rng.uniform(0.12, 0.3), rng.uniform(0.2, 0.9)
    if rng.random() < 0.4:
        lid = rng.uniform(0.03, 0.08)
        solids = [
            _solid(BOX, (0, 0, height / 2), (width, depth, height / 2)),
            _solid(BOX, (0, 0, height + lid), (width * 1.04, depth * 1.04, lid), part=1),
        ]
        return _finish(solids, has_top=True)
    solids = [_solid(BOX, (x * width, 0, height), (0.02, depth, height), part=1) for x in (-1, 1)]
    boards = int(rng.integers(2, 5))
    for board in range(boards):
        at = (0, 0, 2 * height * board / (boards - 1) * 0.97 + 0.02)
        solids.append(_solid(BOX, at, (width, depth, 0.02)))
    return _finish(solids, has_top=True)


def arch(rng: np.random.Generator) -> Thing:
    """Letters of beams: an L, a T, a U, an arch or a cross."""
    thick, wide, high = rng.uniform(0.05, 0.12), rng.uniform(0.15, 0.4), rng.uniform(0.15, 0.5)
    upright = [
        _solid(BOX, (x * wide, 0, high), (thick, thick, high))
        for x in rng.choice([[-1], [0], [-1, 1]][rng.integers(3)], 2)
    ]
    level = float(rng.choice([0.05, 1.0, 1.95]))
    beam = _solid(BOX, (0, 0, high * level), (wide + thick, thick, thick), part=rng.integers(2))
    return _finish([*upright, beam])


def cluster(rng: np.random.Generator) -> Thing:
    """Two to six solids that touch, in any position: toys, figures, rubble, sculptures."""
    solids, at = [], np.zeros(3)
    for _ in range(int(rng.integers(2, 7))):
        half = rng.uniform(0.06, 0.24, 3)
        kind = int(rng.integers(3))
        if kind != BOX:
            half[1] = half[0] * rng.uniform(0.7, 1.3)
        taper = float(rng.uniform(0, 1.4))
        solids.append(_solid(kind, at, half, taper, int(rng.integers(3)), turn=_random_turn(rng)))
        parent = solids[rng.integers(len(solids))]
        direction = rng.normal(size=3)
        at = parent.centre + direction / np.linalg.norm(direction) * parent.half.mean() * 1.1
    return _finish(solids)


MAKERS: tuple[Callable[[np.random.Generator], Thing], ...] = (
    simple,
    simple,
    table,
    chair,
    lathed,
    lathed,
    plant,
    shelf,
    arch,
    cluster,
    cluster,
)
