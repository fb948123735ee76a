"""What moves in a room of moving objects, and how: one motion script, drawn from the room's seed.

A script starts from the still room of the same seed (`draw_layout`, `draw_path`), whose camera it
keeps. Three or four of its objects move, each in another way:

* `translate`: along a free, straight line on the floor, forwards and backwards;
* `spin`: turns around its vertical axis;
* `carry`: a small object that the camera holds in front of itself, from the first frame on;
* `door`: the panel of a cupboard opens and closes;
* `teleport`: stands somewhere else after a time out of view.

Speeds are in object sizes per second. The random draws and their order are part of every room.
"""

from dataclasses import dataclass, replace

import numpy as np

from geometry_fusion.data import meshes
from geometry_fusion.data.motion_record import KINDS, STILL, ObjectMotion
from geometry_fusion.data.room_layout import (
    DEFAULT_FRAMES,
    EYE_CLEARANCE_M,
    Layout,
    PlacedObject,
    draw_layout,
    draw_path,
)

FRAME_RATE = 5.0  # frames per second: every sixth of a video with 30
SPEEDS = (0.02, 0.1, 0.5, 1.0)  # object sizes per second
LONGEST_PATH_M = 2.5
CARRIED_SIZE_M = 0.3
DOOR_OPEN = np.radians(100)  # the widest angle of a door
MIN_UNSEEN = 3  # frames out of view in which an object may change its place


@dataclass(frozen=True)
class MovingRoom:
    """A room, its camera, and where every body is in every frame."""

    layout: Layout  # its objects are the bodies: those of the room, then parts with the same ids
    camera_to_world: np.ndarray  # [T, 4, 4]
    motions: tuple[ObjectMotion, ...]  # one per object of the room
    body_to_world: np.ndarray  # [bodies, T, 4, 4]


@dataclass(frozen=True)
class _Script:
    """The motion of one object, as it is drawn."""

    item: PlacedObject  # the object; mesh and yaw may differ from those in the still room
    poses: np.ndarray  # [T, 4, 4]
    start: int
    speed: float | None = None
    part: PlacedObject | None = None
    part_poses: np.ndarray | None = None  # [T, 4, 4]
    discs: tuple[tuple[float, float, float], ...] = ()  # x, y, radius: floor that it takes up


def size_of(mesh: meshes.Mesh) -> float:
    """The size of an object in metres: the geometric mean of its width and height."""
    return float(np.sqrt(2 * mesh.radius * mesh.height))


def draw_moving_room(seed: int, num_frames: int = DEFAULT_FRAMES) -> MovingRoom:
    """The room of `seed` with three or four moving objects; fewer where there is no place."""
    layout = draw_layout(seed, num_frames)
    cameras = draw_path(seed, layout)
    rng = np.random.default_rng([seed, 2_000_003])
    kinds = rng.permutation(KINDS)[: int(rng.integers(3, 5))]
    scripts: dict[int, tuple[str, _Script]] = {}
    for kind in map(str, kinds):
        for item in _candidates(rng, layout, cameras, scripts, kind):
            moved = [script for _, script in scripts.values()]
            script = DRAW[kind](rng, item, layout, cameras, moved)
            if script is not None:
                scripts[item.id] = (kind, script)
                break
    return _moving_room(layout, cameras, scripts)


def _moving_room(
    layout: Layout, cameras: np.ndarray, scripts: dict[int, tuple[str, _Script]]
) -> MovingRoom:
    items, parts, poses, part_poses, motions = [], [], [], [], []
    for item in layout.objects:
        still = _Script(item, np.tile(_pose(*item.position, item.yaw), (len(cameras), 1, 1)), 0)
        kind, script = scripts.get(item.id, (STILL, still))
        items.append(script.item)
        poses.append(script.poses)
        if script.part is not None:
            parts.append(script.part)
            part_poses.append(script.part_poses)
        size, moving = size_of(script.item.mesh), kind != STILL
        motions.append(
            ObjectMotion(
                item.id,
                moving,
                kind,
                script.speed,
                script.start,
                size,
                script.poses,
                script.part_poses,
            )
        )
    bodies = replace(layout, objects=(*items, *parts))
    return MovingRoom(bodies, cameras, tuple(motions), np.array([*poses, *part_poses]))


def _candidates(
    rng: np.random.Generator,
    layout: Layout,
    cameras: np.ndarray,
    scripts: dict[int, tuple[str, _Script]],
    kind: str,
) -> list[PlacedObject]:
    """Objects that may move in this way, in a random order, those first that are long in view.

    One of two twins stays where it is. Objects whose mesh is changed must have no twin.
    """
    half_angle = np.radians(layout.field_of_view_deg) / 2

    def seen(item: PlacedObject) -> int:
        centre = np.array([*item.position, item.mesh.height / 2])
        return int((_depth_in_view(cameras, centre, half_angle) > 0).sum())

    free = [o for o in layout.objects if o.id not in scripts and o.twin_of not in scripts]
    if kind in ("carry", "door"):
        free = [o for o in free if o.twin_of is None]
    order = [free[i] for i in rng.permutation(len(free))]
    return sorted(order, key=lambda item: seen(item) < 10)


def _pose(x: float, y: float, yaw: float) -> np.ndarray:
    """Object-to-world [4, 4] of something that stands on the floor."""
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:2, 3] = x, y
    return pose


def _depth_in_view(cameras: np.ndarray, point: np.ndarray, half_angle: float) -> np.ndarray:
    """z-depth [T] of a point [3] in the cameras that see it; 0 in the others."""
    x, y, z = np.einsum("tij,ti->jt", cameras[:, :3, :3], point - cameras[:, :3, 3])
    return np.where(np.maximum(abs(x), abs(y)) < np.tan(half_angle) * z, z, 0)


def _out_of_view(
    cameras: np.ndarray, place: tuple[float, float], mesh: meshes.Mesh, half_angle: float
) -> np.ndarray:
    """Frames, bool [T], in which no point of an object's bounding sphere can be seen."""
    centre, radius = np.array([*place, mesh.height / 2]), np.hypot(mesh.radius, mesh.height / 2)
    x, y, z = np.einsum("tij,ti->jt", cameras[:, :3, :3], centre - cameras[:, :3, 3])
    side = np.maximum(abs(x), abs(y)) * np.cos(half_angle) - z * np.sin(half_angle)
    return side > radius


def _is_free(layout: Layout, item: PlacedObject, place: np.ndarray, others: list[_Script]) -> bool:
    """Whether an object can stand at `place` (x, y): clear of walls, camera and other objects."""
    if (np.abs(place) > np.array(layout.size[:2]) / 2 - item.radius - 0.05).any():
        return False
    eyes = layout.camera_path[:, :2]
    if np.linalg.norm(eyes - place, axis=1).min() < item.radius + EYE_CLEARANCE_M:
        return False
    discs = [(*o.position, o.radius) for o in layout.objects if o.id != item.id]
    discs += [disc for other in others for disc in other.discs]
    return all(np.hypot(x - place[0], y - place[1]) > r + item.radius + 0.05 for x, y, r in discs)


def _there_and_back(distance: np.ndarray, length: float) -> np.ndarray:
    """Positions on a path of `length` after `distance` along it, forwards and backwards."""
    return length - np.abs(distance % (2 * length) - length)


def _start_and_distance(
    rng: np.random.Generator, num_frames: int, size_m: float
) -> tuple[int, float, np.ndarray]:
    """A random start in the first half, a random speed, and metres gone [T]."""
    start, speed = int(rng.integers(0, max(1, num_frames // 2))), float(rng.choice(SPEEDS))
    seconds = np.maximum(np.arange(num_frames) - start, 0) / FRAME_RATE
    return start, speed, seconds * speed * size_m


def _translate(rng, item, layout, cameras, others) -> _Script | None:
    start, speed, distance = _start_and_distance(rng, len(cameras), size_of(item.mesh))
    here = np.array(item.position)
    steps = np.arange(1, round(LONGEST_PATH_M / 0.1) + 1) * 0.1
    best_length, best = 0.0, None
    for angle in rng.uniform(0, 2 * np.pi, 24):
        along = np.array([np.cos(angle), np.sin(angle)])
        free = [_is_free(layout, item, here + step * along, others) for step in steps]
        length = 0.1 * (free.index(False) if False in free else len(free))
        if length > best_length:
            best_length, best = length, along
    if best_length < 0.4:
        return None
    gone = _there_and_back(distance, best_length)
    poses = np.array([_pose(*(here + step * best), item.yaw) for step in gone])
    path = [here + step * best for step in steps[steps <= best_length + 1e-9]]
    discs = tuple((float(x), float(y), item.radius) for x, y in path)
    return _Script(item, poses, start, speed, discs=discs)


def _spin(rng, item, layout, cameras, others) -> _Script:
    start, speed, distance = _start_and_distance(rng, len(cameras), size_of(item.mesh))
    turn = rng.choice([-1, 1]) * distance / item.mesh.radius  # the rim goes at the given speed
    poses = np.array([_pose(*item.position, item.yaw + angle) for angle in turn])
    return _Script(item, poses, start, speed)


def _carry(rng, item, layout, cameras, others) -> _Script:
    scale = CARRIED_SIZE_M / size_of(item.mesh)
    mesh = replace(item.mesh, vertices=item.mesh.vertices * scale)
    upright = np.eye(4)
    upright[:3, :3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).T  # its z up, its y forwards
    offset = upright @ _pose(0, 0, item.yaw)
    offset[:3, 3] = rng.uniform(-0.12, 0.12), rng.uniform(0.1, 0.3), rng.uniform(0.75, 1.0)
    held = replace(item, mesh=mesh, radius=mesh.radius)
    return _Script(held, cameras @ offset, 0)


def _door(rng, item, layout, cameras, others) -> _Script:
    width, height = min(1.3 * item.radius, 0.7), rng.uniform(0.8, 1.2)
    depth = 0.5 * width
    yaw = np.arctan2(-item.position[0], item.position[1])  # its front looks at the room's centre
    body = replace(item, mesh=meshes.box((width, depth, height), 0), yaw=yaw)
    panel = meshes.box((width, 0.04, 0.94 * height), 1).moved((width / 2, 0, 0.03 * height))
    start, speed, distance = _start_and_distance(rng, len(cameras), size_of(body.mesh))
    pose = _pose(*item.position, yaw)
    hinge = pose @ _pose(-width / 2, -depth / 2 - 0.03, 0)
    angles = _there_and_back(distance / width, DOOR_OPEN)  # its edge goes at the given speed
    part_poses = np.array([hinge @ _pose(0, 0, -angle) for angle in angles])
    poses = np.tile(pose, (len(cameras), 1, 1))
    return _Script(body, poses, start, speed, replace(body, mesh=panel), part_poses)


def _teleport(rng, item, layout, cameras, others) -> _Script | None:
    """Moves in a frame before and after which it has been out of view and comes into view again."""
    half_angle = np.radians(layout.field_of_view_deg) / 2
    hidden = _out_of_view(cameras, item.position, item.mesh, half_angle)
    seen = np.flatnonzero(~hidden)
    if len(seen) == 0:
        return None
    limits = np.array(layout.size[:2]) / 2
    for _ in range(300):
        place = rng.uniform(-1, 1, 2) * limits
        far = np.hypot(*(place - item.position)) > 1.0
        if not far or not _is_free(layout, item, place, others):
            continue
        both_hidden = hidden & _out_of_view(cameras, tuple(place), item.mesh, half_angle)
        centre = np.array([*place, item.mesh.height / 2])
        visible_there = _depth_in_view(cameras, centre, half_angle) > 0
        frames = [
            t
            for t in range(seen[0] + 1, len(cameras) - 3)
            if both_hidden[t - 1 : t + MIN_UNSEEN - 1].all() and visible_there[t:].any()
        ]
        if frames:
            start = int(rng.choice(frames))
            before, after = _pose(*item.position, item.yaw), _pose(*place, item.yaw)
            poses = np.array([before if t < start else after for t in range(len(cameras))])
            return _Script(item, poses, start, discs=((*map(float, place), item.radius),))
    return None


DRAW = {
    "translate": _translate,
    "spin": _spin,
    "carry": _carry,
    "door": _door,
    "teleport": _teleport,
}
