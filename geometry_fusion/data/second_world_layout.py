"""What is in a room of the second world: walls, furniture, things on it, twins, lights.

Metres, z up, origin at the centre of the floor. The random draws and their order define the rooms
of every seed: changing them changes all data.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from geometry_fusion.data import second_world_look as look
from geometry_fusion.data.second_world_floor import Floor
from geometry_fusion.data.second_world_shapes import Part, Solid, assemble, box, turn_about_z
from geometry_fusion.data.second_world_things import CARRIERS, FURNITURE, THINGS

MOST_OBJECTS, FEWEST_OBJECTS = 12, 8
TWINS_APART_M = 1.3
WALL_YAWS = (0, np.pi, np.pi / 2, -np.pi / 2)  # of things with their backs at a wall
THINGS_SCALE = 1.2  # things are a little larger than at home, so that they show


@dataclass(frozen=True)
class Placed:
    """A solid in the room; id 0 is the room itself and what belongs to no object."""

    id: int
    kind: str
    twin_of: int | None  # id of the object with the same solid and materials
    solid: Solid
    materials: tuple[look.Material, ...]
    position: tuple[float, float, float]  # metres, of the point that stands on floor or furniture
    yaw: float  # radians

    @property
    def middle(self) -> np.ndarray:
        """The centre [3] of the object, metres."""
        return np.array(self.position) + (0, 0, self.solid.half_extents[2])


@dataclass(frozen=True)
class Light:
    """A rectangle that shines to one side."""

    corner: np.ndarray  # [3] metres
    sides: np.ndarray  # [2, 3] metres, from the corner
    normal: np.ndarray  # [3], unit, where it shines to
    colour: np.ndarray  # [3] linear RGB, power included


@dataclass
class Room:
    """A room while it is being furnished."""

    size: tuple[float, float, float]  # metres along x, y, z
    blocks: list[tuple[float, float, float, float]]  # walls and pillars: x0, x1, y0, y1
    floor: Floor
    shell: list[Placed] = field(default_factory=list)
    objects: list[Placed] = field(default_factory=list)
    lights: list[Light] = field(default_factory=list)


def furnish(rng: np.random.Generator) -> Room | None:
    """A furnished room with 8 to 12 objects and at least two pairs of twins; None if that fails."""
    size = (*rng.uniform((4.4, 4.0), (6.6, 5.8)), rng.uniform(2.4, 3.0))
    blocks = _blocks(rng, size)
    room = Room(size, blocks, Floor(size[:2], blocks))
    _add_shell(rng, room)
    pairs = int(rng.integers(2, 4))
    kinds = list(rng.permutation(list(CARRIERS))[:2])
    kinds += list(rng.permutation([kind for kind in FURNITURE if kind not in kinds])[:2])
    for index, kind in enumerate(kinds[: int(rng.integers(3, 5))]):
        _add(rng, room, str(kind), copies=1 + (index == 2 and pairs == 3))
    things = rng.permutation(list(THINGS))
    most = int(rng.integers(FEWEST_OBJECTS + 1, MOST_OBJECTS + 1))
    for index, kind in enumerate(things):
        if len(room.objects) >= most - (index < 2):
            break
        _add(rng, room, str(kind), copies=1 + (index < 2))
    paired = sum(item.twin_of is not None for item in room.objects)
    return room if len(room.objects) >= FEWEST_OBJECTS and paired >= 4 else None


def _blocks(rng: np.random.Generator, size) -> list[tuple[float, float, float, float]]:
    """What makes a room more than a box: nothing, a wall, a pillar, or a corner that is cut out."""
    x, y = size[0] / 2, size[1] / 2
    kind, side = rng.random(), rng.choice([-1, 1], 2)
    if kind < 0.3:
        return []
    if kind < 0.55:  # a short wall from one side into the room
        at, reach = rng.uniform(-0.3, 0.3) * x, rng.uniform(0.25, 0.42) * 2 * y
        ends = sorted((side[1] * y, side[1] * (y - reach)))
        return [(at - 0.07, at + 0.07, *ends)]
    if kind < 0.75:
        at, half = rng.uniform(-0.4, 0.4, 2) * (x, y), rng.uniform(0.14, 0.24)
        return [(at[0] - half, at[0] + half, at[1] - half, at[1] + half)]
    cut = rng.uniform(0.22, 0.38, 2) * size[:2]
    along = sorted((side[0] * x, side[0] * (x - cut[0])))
    return [(*along, *sorted((side[1] * y, side[1] * (y - cut[1]))))]


def _scenery(
    kind: str, part: Part, materials: tuple[look.Material, ...], inside_out: bool = False
) -> Placed:
    """A part of the room itself, where its mesh is."""
    if inside_out:
        part.mesh.invert()
    corners = np.asarray(part.mesh.vertices[part.mesh.faces])
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    slots = np.full(len(corners), part.slot)
    solid = Solid(corners, np.repeat(across[:, None], 3, axis=1), slots)
    return Placed(0, kind, None, solid, materials, (0.0, 0.0, 0.0), 0.0)


def _add_shell(rng: np.random.Generator, room: Room) -> None:
    """Floor, walls, ceiling, skirting, a rug, pictures, a door and the lights."""
    x, y, z = room.size
    floor, wall = look.surface(rng, look.ON_FLOORS), look.surface(rng, look.ON_WALLS)
    other, ceiling = look.surface(rng, look.ON_WALLS), look.surface(rng, ["plain"])
    ceiling = replace(ceiling, colours=0.35 * ceiling.colours + 0.6)
    shell = _scenery("shell", box((x, y, z), (0, 0, 0)), (floor, ceiling, wall, other), True)
    up, sideways = shell.solid.normals[:, 0, 2], shell.solid.normals[:, 0, 0]
    # Slots: floor, ceiling, most walls, one wall of another kind.
    shell.solid.slots[:] = np.select([up > 0.5, up < -0.5, sideways > 0.5], [0, 1, 3], 2)
    room.shell.append(shell)
    for x0, x1, y0, y1 in room.blocks:
        middle = ((x0 + x1) / 2, (y0 + y1) / 2, 0)
        block = box((x1 - x0, y1 - y0, z), middle)
        room.shell.append(_scenery("block", block, (wall if rng.random() < 0.6 else other,)))
    trim = look.surface(rng, ["plain", "planks"])
    for side in (-1, 1):
        boards = [box((x, 0.02, 0.09), (0, side * (y / 2 - 0.01), 0))]
        boards.append(box((0.02, y, 0.09), (side * (x / 2 - 0.01), 0, 0)))
        room.shell += [_scenery("skirting", board, (trim,)) for board in boards]
    if rng.random() < 0.6:
        rug = box((*rng.uniform(1.2, 2.2, 2), 0.012), (*rng.uniform(-0.6, 0.6, 2), 0))
        fabric = look.material(rng, look.ON_RUGS, 1.0)
        room.shell.append(_scenery("rug", rug, (replace(fabric, gloss=0.0),)))
    _add_wall_things(rng, room, trim)
    _add_lights(rng, room)


def _add_wall_things(rng: np.random.Generator, room: Room, trim: look.Material) -> None:
    """Framed pictures and a door, flat on the outer walls."""
    x, y, _ = room.size
    for side in range(4):
        turn = np.eye(4)
        turn[:3, :3] = turn_about_z(WALL_YAWS[side])
        length, away = (x, y / 2) if side < 2 else (y, x / 2)
        for share in (-0.28, 0.28):
            chosen = rng.random()
            width, high, low = rng.uniform(0.4, 0.8), rng.uniform(0.35, 0.6), rng.uniform(1.1, 1.4)
            inner = look.material(rng, look.ON_PICTURES, 0.8)
            if chosen < 0.25:
                continue
            if chosen > 0.85:  # a door
                width, high, low, inner = 0.85, 2.0, 0.0, look.surface(rng, ["planks", "plain"])
            for thick, material in ((0.03, trim), (0.04, inner)):
                wider = 0.08 * (material is trim)
                size = (width + wider, thick, high + wider)
                part = box(size, (length * share, away - thick / 2, low - wider / 2))
                part.mesh.apply_transform(turn)
                room.shell.append(_scenery("picture", part, (material,)))


def _add_lights(rng: np.random.Generator, room: Room) -> None:
    """Two panels at the ceiling, and often a window."""
    x, y, z = room.size
    warm, cold = np.array((1.0, 0.86, 0.68)), np.array((0.8, 0.92, 1.0))
    for side in (-1, 1):
        half = rng.uniform(0.25, 0.5, 2)
        place = (side * rng.uniform(0.15, 0.3) * x, rng.uniform(-0.25, 0.25) * y)
        middle = np.array((*place, z - 0.03))
        corner, sides = middle - (*half, 0), np.diag((*(2 * half), 0))[:2]
        colour = (warm + (cold - warm) * rng.uniform(0, 0.6)) * rng.uniform(3.5, 6.0) * z / 2.7
        room.lights.append(Light(corner, sides, np.array((0, 0, -1.0)), colour))
    if rng.random() < 0.75:
        side, wide, at = rng.choice([-1, 1]), rng.uniform(0.9, 1.6), rng.uniform(-0.15, 0.15) * y
        corner = np.array((side * (x / 2 - 0.05), at - wide / 2, 0.9))
        sides = np.array([(0, wide, 0), (0, 0, 1.2)])
        inward = np.array((-float(side), 0, 0))
        room.lights.append(Light(corner, sides, inward, cold * rng.uniform(4, 9)))


def _add(rng: np.random.Generator, room: Room, kind: str, copies: int) -> None:
    """Draw an object and place it, and its twin if there are two copies, where there is room."""
    big = kind in FURNITURE
    solid = assemble((FURNITURE if big else THINGS)[kind](rng))
    if not big:
        solid = replace(solid, corners=THINGS_SCALE * solid.corners)
    manner = (look.ON_FURNITURE, 0.7, look.MUTED) if big else (look.ON_THINGS, 0.42, look.VIVID)
    materials = tuple(look.material(rng, *manner) for _ in range(3))
    first = None
    for _ in range(copies):
        spot = _spot(rng, room, solid, big, first)
        if spot is None:
            return
        new_id = len(room.objects) + 1
        if first:
            room.objects[first.id - 1] = replace(first, twin_of=new_id)
        twin_of = first.id if first else None
        first = Placed(new_id, kind, twin_of, solid, materials, *spot)
        room.objects.append(first)
        if first.position[2] == 0:
            half = solid.half_extents
            room.floor.taken |= room.floor.box(first.position, half, first.yaw, 0.0)


def _spot(
    rng: np.random.Generator, room: Room, solid: Solid, big: bool, twin: Placed | None
) -> tuple[tuple[float, float, float], float] | None:
    """Position and yaw for an object; None where 150 tries found no place."""
    on_top = not big and rng.random() < 0.6
    for attempt in range(150):
        if on_top and attempt < 40:
            spot = _top_spot(rng, room, solid)
        elif big and rng.random() < 0.75:
            spot = _wall_spot(rng, room, solid)
        else:
            x, y = rng.uniform(-0.5, 0.5, 2) * (np.array(room.size[:2]) - 0.3)
            spot = ((float(x), float(y), 0.0), float(rng.uniform(0, 2 * np.pi)))
        if spot is None:
            continue
        (x, y, z), yaw = spot
        if twin and np.hypot(twin.position[0] - x, twin.position[1] - y) < TWINS_APART_M:
            continue
        if z > 0:
            return spot
        cells = room.floor.box((x, y), solid.half_extents, yaw, 0.06)
        reach = np.abs(solid.half_extents[:2]).max() + 0.02
        inside = all(abs(v) < s / 2 - reach for v, s in zip((x, y), room.size)) or big
        if inside and not room.floor.taken[cells].any():
            return spot
    return None


def _wall_spot(rng, room: Room, solid: Solid) -> tuple[tuple[float, float, float], float]:
    """A place with the object's back at an outer wall."""
    side, half = int(rng.integers(4)), solid.half_extents
    yaw = WALL_YAWS[side]
    length, depth = (room.size[0], room.size[1]) if side < 2 else (room.size[1], room.size[0])
    along = rng.uniform(-1, 1) * (length / 2 - half[0] - 0.05)
    away = depth / 2 - half[1] - 0.06
    x = along * np.cos(yaw) - away * np.sin(yaw)
    y = along * np.sin(yaw) + away * np.cos(yaw)
    return (float(x), float(y), 0.0), yaw


def _top_spot(rng, room: Room, solid: Solid) -> tuple[tuple[float, float, float], float] | None:
    """A place on a piece of furniture that has a flat top with space left."""
    carriers = [item for item in room.objects if item.kind in CARRIERS]
    if not carriers:
        return None
    item = carriers[int(rng.integers(len(carriers)))]
    radius = float(np.hypot(*solid.half_extents[:2])) * 0.85
    top = item.solid.half_extents[:2] * (0.7 if item.kind in ("round_table", "stool") else 1)
    if radius > top.min():
        return None
    x, y = rng.uniform(-1, 1, 2) * (top - radius)
    c, s = np.cos(item.yaw), np.sin(item.yaw)
    x, y = item.position[0] + c * x - s * y, item.position[1] + s * x + c * y
    for other in room.objects:
        apart = radius + float(np.hypot(*other.solid.half_extents[:2])) * 0.85 + 0.02
        if other.position[2] > 0 and np.hypot(x - other.position[0], y - other.position[1]) < apart:
            return None
    height = 2 * item.solid.half_extents[2]
    return (float(x), float(y), float(height)), float(rng.uniform(0, 2 * np.pi))
