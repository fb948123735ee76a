"""Where everything is in a generated room: a pure function of a seed.

Rooms, halls and open ground with 6 to 16 things, of which pairs are identical; things stand on
the floor or on furniture; in some rooms things move. The camera walks, looks at one thing, turns
to others and comes back.
"""

from dataclasses import dataclass

import numpy as np

from geometry_fusion.data.generated.solids import BOX, MAKERS, Solid, Thing, rotation

LIMITS = (56, 28, 48)  # most boxes, ellipsoids and frustums of a room
GAP = 0.12  # metres between things


@dataclass
class Placed:
    """A thing in a room."""

    id: int  # 0: furniture of the room itself, which nobody asks for
    thing: Thing
    position: np.ndarray  # [3] metres
    yaw: float
    textures: np.ndarray  # [3] share of the bank, 0..1, of its parts
    scale: float  # texture repetitions a metre
    twin: int = 0


@dataclass
class Plan:
    """A room as it is drawn."""

    size: np.ndarray  # [3] metres
    placed: list[Placed]
    poses: np.ndarray  # [T, 4, 4] camera-to-world, OpenCV axes
    field_of_view: float  # degrees, of the longer side
    motion: dict[int, np.ndarray]  # id -> [T, 4, 4] how the thing has moved, in the world
    lights: np.ndarray  # [L, 6] position and colour
    ambient: float
    casts_shadows: bool
    surfaces: (
        np.ndarray
    )  # [6, 2] texture (share of the bank) and repetitions a metre: -x x -y y -z z
    open_air: bool


def draw_plan(seed: int, frames: int, moving_share: float = 0.25) -> Plan:
    """The room of `seed`, filmed in `frames` frames."""
    rng = np.random.default_rng([seed, 7])
    open_air = rng.random() < 0.15
    size = np.array([*rng.uniform(3.6, 7.5, 2), rng.uniform(2.3, 3.4)])
    eyes = _eyes(rng, size, frames)
    placed = _furnish(rng, size, eyes, float(rng.uniform(0.85, 1.5)))
    poses = _poses(rng, eyes, placed)
    motion = _motion(rng, placed, poses, frames) if rng.random() < moving_share else {}
    lights = np.concatenate(
        [
            np.append(
                rng.uniform(-0.45, 0.45, 2) * size[:2],
                [size[2] * rng.uniform(0.75, 0.98) + open_air * 4, *rng.uniform(0.6, 1.0, 3)],
            )[None]
            for _ in range(int(rng.integers(1, 4)))
        ]
    )
    surfaces = np.stack((rng.random(6), np.exp(rng.uniform(-1.6, 0.7, 6))), 1)
    if open_air:
        size = np.array([60.0, 60.0, 30.0])
        surfaces[:4, 0], surfaces[:, 1] = surfaces[0, 0], surfaces[:, 1] * 0.5
        surfaces[[0, 1, 2, 3, 5], 1] *= 0.1
    field_of_view = rng.uniform(40, 100)
    return Plan(
        size,
        placed,
        poses,
        field_of_view,
        motion,
        lights,
        float(rng.uniform(0.25, 0.65)),
        bool(rng.random() < 0.7),
        surfaces,
        open_air,
    )


def _curve(rng: np.random.Generator, frames: int, low: float, high: float) -> np.ndarray:
    """A smooth curve [T] between two bounds."""
    knots = rng.uniform(low, high, 4)
    t = np.linspace(0, 3, frames)
    left = np.minimum(t.astype(int), 2)
    share = t - left
    share = share * share * (3 - 2 * share)
    return knots[left] * (1 - share) + knots[left + 1] * share


def _eyes(rng: np.random.Generator, size: np.ndarray, frames: int) -> np.ndarray:
    """Camera positions [T, 3]: an arc around the middle of the room, or a stroll."""
    start, span = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1]) * np.radians(rng.uniform(20, 260))
    if rng.random() < 0.2:
        span *= 0.2
    angle = start + span * np.linspace(0, 1, frames) * min(1.0, frames / 24)
    radius = _curve(rng, frames, 0.08, 0.33)
    height = _curve(rng, frames, 0.7, 1.8)
    return np.stack((size[0] * radius * np.cos(angle), size[1] * radius * np.sin(angle), height), 1)


def _furnish(
    rng: np.random.Generator, size: np.ndarray, eyes: np.ndarray, scale: float
) -> list[Placed]:
    """Things at free places, twins far from each other, small things on furniture."""
    placed: list[Placed] = []
    budget = np.array(LIMITS) - (14, 0, 4)
    pairs, singles = int(rng.integers(2, 5)), int(rng.integers(4, 11))
    texture = rng.random()  # rooms where many things share a texture are harder
    for index in range(pairs + singles):
        thing = _scaled(MAKERS[rng.integers(len(MAKERS))](rng), scale * rng.uniform(0.7, 1.35))
        textures = rng.random(3)
        if rng.random() < 0.5:
            textures[:] = textures[0]
        if rng.random() < 0.15:
            textures[0] = texture
        repetitions = float(np.exp(rng.uniform(-0.7, 1.6)))
        need = np.bincount([s.kind for s in thing.solids], minlength=3)
        first = None
        for _ in range(2 if index < pairs else 1):
            if (need > budget).any():
                break
            position = _free(rng, size, eyes, placed, thing, first)
            if position is None:
                break
            budget = budget - need
            item = Placed(
                len(placed) + 1, thing, position, rng.uniform(0, 2 * np.pi), textures, repetitions
            )
            if first:
                item.twin, first.twin = first.id, item.id
            first = item
            placed.append(item)
    return placed + _fixtures(rng, size)


def _scaled(thing: Thing, by: float) -> Thing:
    solids = tuple(
        Solid(s.kind, s.centre * by, s.half * by, s.turn, s.taper, s.part) for s in thing.solids
    )
    return Thing(solids, thing.radius * by, thing.height * by, thing.has_top)


def _free(
    rng: np.random.Generator,
    size: np.ndarray,
    eyes: np.ndarray,
    placed: list[Placed],
    thing: Thing,
    twin: Placed | None,
) -> np.ndarray | None:
    """A free position [3], on the floor or on furniture; None after 60 tries."""
    tables = [p for p in placed if p.thing.has_top and p.position[2] == 0]
    for attempt in range(60):
        if tables and thing.height < 0.7 and attempt < 6 and rng.random() < 0.6:
            base = tables[rng.integers(len(tables))]
            reach = max(0.0, base.thing.radius * 0.55 - thing.radius * 0.5)
            spot = base.position + (*rng.uniform(-1, 1, 2) * reach, base.thing.height)
            others = [p for p in placed if p.position[2] > 0]
        else:
            room = size[:2] / 2 - thing.radius - 0.05
            if (room <= 0).any():
                return None
            spot = np.array([*rng.uniform(-1, 1, 2) * room, 0.0])
            others = placed
        gaps = np.linalg.norm(eyes[:, :2] - spot[:2], axis=1)
        if gaps.min() < thing.radius + 0.35:
            continue
        if any(
            np.linalg.norm(p.position[:2] - spot[:2]) < p.thing.radius + thing.radius + GAP * 0.5
            for p in others
        ):
            continue
        if twin is not None and np.linalg.norm(twin.position - spot) < 0.25 * size[:2].max():
            continue
        return spot
    return None


def _fixtures(rng: np.random.Generator, size: np.ndarray) -> list[Placed]:
    """Pictures, doors, windows and skirting on the walls; nobody asks for them."""
    fixtures = []
    for _ in range(int(rng.integers(0, 12))):
        axis, side = int(rng.integers(2)), rng.choice([-1, 1])
        half = np.array([rng.uniform(0.1, 0.7), 0.02, rng.uniform(0.1, 0.6)])
        at = np.zeros(3)
        at[axis] = side * (size[axis] / 2 - 0.01)
        at[1 - axis] = rng.uniform(-0.4, 0.4) * size[1 - axis]
        at[2] = rng.uniform(0.2, 0.8) * size[2]
        solid = Solid(BOX, np.zeros(3), half, np.eye(3))
        thing = Thing((solid,), float(half[0]), float(2 * half[2]))
        yaw = 0.0 if axis else np.pi / 2
        fixtures.append(
            Placed(0, thing, at, yaw, rng.random(3), float(np.exp(rng.uniform(-0.7, 0.7))))
        )
    return fixtures


def _poses(rng: np.random.Generator, eyes: np.ndarray, placed: list[Placed]) -> np.ndarray:
    """Camera-to-world poses [T, 4, 4]: looks at things in turn, and at the first again and again.

    A turn between two frames is at most 4 to 15 degrees. The camera rolls and shakes a little.
    """
    frames = len(eyes)
    things = [p for p in placed if p.id]
    order = rng.permutation(len(things))
    first = things[order[0]]
    others = [things[i] for i in order[1:4]] or [first]
    if first.twin and rng.random() < 0.6:
        others.insert(0, next(p for p in things if p.id == first.twin))
    stops = [first, others[0], first, others[1 % len(others)], first, others[2 % len(others)]]
    if rng.random() < 0.25:
        stops = [first]
    stops = stops[: max(1, round(frames / rng.uniform(3, 7)))] or [first]
    schedule = np.minimum(np.arange(frames) * len(stops) // frames, len(stops) - 1)
    limit = np.radians(rng.uniform(4, 15))
    roll = np.radians(_curve(rng, frames, -8, 8)) * rng.random()
    shake = np.radians(rng.normal(0, 0.5, (frames, 2))) * rng.random()
    poses = np.tile(np.eye(4), (frames, 1, 1))
    yaw = pitch = None
    for t, eye in enumerate(eyes):
        stop = stops[schedule[t]]
        look = stop.position + (0, 0, 0.5 * stop.thing.height) - eye
        wanted_yaw = np.arctan2(look[1], look[0])
        wanted_pitch = np.clip(np.arctan2(look[2], np.hypot(*look[:2])), -0.7, 0.2)
        if yaw is None:
            yaw, pitch = (
                wanted_yaw + rng.uniform(-0.35, 0.35),
                wanted_pitch + rng.uniform(-0.1, 0.1),
            )
        remaining = (wanted_yaw - yaw + np.pi) % (2 * np.pi) - np.pi
        yaw += np.clip(0.6 * remaining, -limit, limit) + shake[t, 0]
        pitch += np.clip(0.6 * (wanted_pitch - pitch), -limit / 2, limit / 2) + shake[t, 1]
        poses[t, :3, :3] = _facing(yaw, pitch, roll[t])
        poses[t, :3, 3] = eye
    return poses


def _facing(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Camera-to-world rotation [3, 3] with columns right, down, forward."""
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    level = np.stack([right, np.cross(forward, right), forward], 1)
    return rotation(forward, roll) @ level


def _motion(
    rng: np.random.Generator, placed: list[Placed], poses: np.ndarray, frames: int
) -> dict[int, np.ndarray]:
    """How some things move: slide, spin, swing like a door, hop, or only while nobody looks."""
    motion = {}
    things = [p for p in placed if p.id]
    for item in things:
        if rng.random() > 0.4:
            continue
        path = np.tile(np.eye(4), (frames, 1, 1))
        way = rng.integers(5)
        distance = _curve(rng, frames, 0, 1) * rng.uniform(0.3, 1.2)
        heading = rng.uniform(0, 2 * np.pi)
        up = np.array([0.0, 0.0, 1.0])
        if way in (1, 2):
            pivot = item.position + (item.thing.radius * float(way == 2), 0, 0)
            for t in range(frames):
                turn = rotation(up, distance[t] * 2.5)
                path[t, :3, :3], path[t, :3, 3] = turn, pivot - turn @ pivot
        else:
            if way == 3:
                path[:, 2, 3] = np.abs(distance) * 0.5
            if way == 4:
                hidden = ~_in_view(item, poses)
                distance = np.cumsum(hidden * rng.uniform(0, 0.15, frames))
            path[:, 0, 3] = distance * np.cos(heading)
            path[:, 1, 3] = distance * np.sin(heading)
        motion[item.id] = path
    return motion


def _in_view(item: Placed, poses: np.ndarray) -> np.ndarray:
    """Whether the camera of each frame roughly looks at the thing: bool [T]."""
    look = item.position - poses[:, :3, 3]
    cosine = (look * poses[:, :3, 2]).sum(1) / np.linalg.norm(look, axis=1)
    return cosine > 0.5
