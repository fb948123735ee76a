"""Where everything is in a rendered room: walls, objects and the camera's path.

The random draws and their order define the rooms of every seed: changing them changes all data.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicSpline

from geometry_fusion.data import meshes, textures

DEFAULT_FRAMES, DEFAULT_SIZE = 60, 256
EYE_CLEARANCE_M = 0.4  # smallest distance from the camera to an object's bounding circle
MAX_TURN_DEG = 11.0  # largest yaw step between frames


@dataclass(frozen=True)
class PlacedObject:
    """An object that stands in the room."""

    id: int
    kind: str  # a key of meshes.PART_KINDS
    twin_of: int | None  # id of the object with the same mesh and texture
    mesh: meshes.Mesh
    texture: np.ndarray  # [256, 256, 3] uint8
    position: tuple[float, float]  # x, y in metres
    yaw: float  # radians
    radius: float  # metres, of its bounding circle on the floor


@dataclass(frozen=True)
class Layout:
    """A furnished room and where the camera goes in it."""

    size: tuple[float, float, float]  # metres along x, y, z
    objects: tuple[PlacedObject, ...]
    camera_path: np.ndarray  # [T, 3] camera positions, metres
    surfaces: tuple[np.ndarray, ...]  # textures of floor, ceiling and four walls
    light: tuple[float, float, float]  # direction towards the light
    field_of_view_deg: float


def _draw_camera_path(rng: np.random.Generator, room_size, num_frames: int) -> np.ndarray:
    """Camera positions [T, 3] in metres: part of a loop around the room's centre.

    Radius and height vary smoothly along it.
    """
    start = rng.uniform(0, 2 * np.pi)
    span = rng.choice([-1, 1]) * np.radians(rng.uniform(100, 350))
    if rng.random() < 0.2:
        span *= 0.2  # stands almost still and looks around
    knots = np.linspace(0, 1, 6)
    fraction = CubicSpline(knots, rng.uniform(0.17, 0.27, 6))
    height = CubicSpline(knots, rng.uniform(1.25, 1.75, 6))
    t = np.linspace(0, 1, num_frames)
    angle = start + span * t
    x = room_size[0] * fraction(t) * np.cos(angle)
    y = room_size[1] * fraction(t) * np.sin(angle)
    return np.stack([x, y, height(t)], -1)


def _free_spot(
    rng: np.random.Generator,
    room_size: tuple[float, float, float],
    radius: float,  # of the object
    camera_path: np.ndarray,  # [T, 3] camera positions
    placed: list[PlacedObject],
    apart_from: tuple[float, float] | None = None,  # where its twin stands
) -> tuple[float, float] | None:
    """A place (x, y) clear of camera path and objects, far from the twin; None after 200 tries."""
    for _ in range(200):
        x = rng.uniform(-1, 1) * (room_size[0] / 2 - radius - 0.05)
        y = rng.uniform(-1, 1) * (room_size[1] / 2 - radius - 0.05)
        if np.hypot(camera_path[:, 0] - x, camera_path[:, 1] - y).min() < radius + EYE_CLEARANCE_M:
            continue
        if any(
            np.hypot(o.position[0] - x, o.position[1] - y) < radius + o.radius + 0.15
            for o in placed
        ):
            continue
        if apart_from and np.hypot(apart_from[0] - x, apart_from[1] - y) < 0.3 * max(room_size):
            continue
        return x, y
    return None


def draw_layout(seed: int, num_frames: int = DEFAULT_FRAMES) -> Layout:
    """The room of `seed`: 8 to 14 objects, two or three of which have an identical twin.

    Raises RuntimeError if 100 attempts found no room for them.
    """
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt])
        size = (*rng.uniform(5.5, 8.0, 2), rng.uniform(2.6, 3.2))
        camera_path = _draw_camera_path(rng, size, num_frames)
        placed: list[PlacedObject] = []
        num_pairs, num_singles = int(rng.integers(2, 4)), int(rng.integers(4, 9))
        for index in range(num_pairs + num_singles):
            _place(rng, size, camera_path, placed, copies=2 if index < num_pairs else 1)
        if 8 <= len(placed) <= 14 and any(o.twin_of for o in placed):
            flat = [textures.texture(rng, 256, vivid=False) for _ in range(2)]
            walls = [textures.poster_wall(rng, 768, 320) for _ in range(4)]
            light = (*rng.uniform(-1.2, 1.2, 2), 2.5)
            field_of_view = rng.uniform(62, 75)
            return Layout(size, tuple(placed), camera_path, (*flat, *walls), light, field_of_view)
    raise RuntimeError(f"seed {seed}: no room could be furnished in 100 attempts")


def _place(
    rng: np.random.Generator,
    room_size: tuple[float, float, float],
    camera_path: np.ndarray,  # [T, 3] camera positions
    placed: list[PlacedObject],  # receives the new objects
    copies: int,  # 2 for a pair of twins
) -> None:
    """Draw an object and add it, and its twin, as far as there are free places."""
    kind = str(rng.choice(list(meshes.PART_KINDS)))
    mesh = meshes.PART_KINDS[kind](rng)
    atlas = np.block([[[textures.texture(rng)] for _ in range(2)] for _ in range(2)])
    first = None
    for _ in range(copies):
        apart_from = first.position if first else None
        spot = _free_spot(rng, room_size, mesh.radius, camera_path, placed, apart_from)
        if spot is None:
            return
        new_id, twin_of = len(placed) + 1, first.id if first else None
        yaw = rng.uniform(0, 2 * np.pi)
        if first:
            placed[-1] = replace(first, twin_of=new_id)
        first = PlacedObject(new_id, kind, twin_of, mesh, atlas, spot, yaw, mesh.radius)
        placed.append(first)


def draw_path(seed: int, layout: Layout) -> np.ndarray:
    """Camera-to-world poses [T, 4, 4]: looks at an object, turns to others, comes back to it."""
    rng = np.random.default_rng([seed, 1_000_003])
    targets = _targets(rng, layout)
    holds = np.cumsum(rng.uniform(0.7, 1.3, len(targets)))  # how long each is looked at
    times = np.linspace(0, 0.999, len(layout.camera_path))
    schedule = np.searchsorted(holds / holds[-1], times)

    poses = np.tile(np.eye(4), (len(layout.camera_path), 1, 1))
    limit = np.radians(MAX_TURN_DEG)
    yaw = pitch = None
    turn = tilt = 0.0  # radians per frame
    for t, eye in enumerate(layout.camera_path):
        target = targets[schedule[t]]
        look = np.array([*target.position, 0.55 * target.mesh.height]) - eye
        wanted_yaw = np.arctan2(look[1], look[0])
        wanted_pitch = np.arctan2(look[2], np.hypot(look[0], look[1]))
        wanted_pitch = np.clip(wanted_pitch, np.radians(-32), np.radians(4))
        if yaw is None:
            yaw, pitch = wanted_yaw + rng.uniform(-0.3, 0.3), wanted_pitch
        # Smooth turns: the speed follows the remaining angle with some inertia.
        remaining = (wanted_yaw - yaw + np.pi) % (2 * np.pi) - np.pi
        turn = np.clip(0.5 * turn + 0.25 * remaining, -limit, limit)
        tilt = 0.5 * tilt + 0.25 * (wanted_pitch - pitch)
        yaw, pitch = yaw + turn, pitch + np.clip(tilt, -limit / 2, limit / 2)
        poses[t, :3, :3] = _rotation(yaw, pitch)
        poses[t, :3, 3] = eye
    return poses


def _targets(rng: np.random.Generator, layout: Layout) -> list[PlacedObject]:
    """What the camera looks at, in order: one object, others, and the first again, twice.

    The first often has a twin, which is then often among the others.
    """
    with_twin = [o for o in layout.objects if o.twin_of]
    first = rng.choice(with_twin if rng.random() < 0.6 else layout.objects)
    others = list(rng.permutation([o for o in layout.objects if o.id != first.id]))
    if first.twin_of and rng.random() < 0.5:
        others.insert(int(rng.integers(0, 2)), layout.objects[first.twin_of - 1])
    return [first, others[0], others[1], first, others[2], first]


def _rotation(yaw: float, pitch: float) -> np.ndarray:
    """Camera-to-world rotation [3, 3] of a camera without roll; columns right, down, forward."""
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    return np.stack([right, np.cross(forward, right), forward], 1)
