"""Meshes of the synthetic rooms: numpy arrays with normals and texture coordinates.

z is up, and objects stand on z = 0. An object's texture is an atlas of 2 x 2 tiles; every part of
an object uses one tile. `PART_KINDS` names the builders of objects; each takes a random generator
and returns one `Mesh` of roughly 0.4 to 1.6 m. The order of their random draws is part of every
room.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

ATLAS_TILES = 2  # tiles per side of an object's texture atlas


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh."""

    vertices: np.ndarray  # [V, 3] metres
    normals: np.ndarray  # [V, 3] unit, outwards
    uvs: np.ndarray  # [V, 2] in 0..1
    faces: np.ndarray  # [F, 3] counter-clockwise from outside

    def moved(self, offset: tuple[float, float, float]) -> "Mesh":
        """The mesh shifted by `offset`, metres."""
        return Mesh(self.vertices + np.asarray(offset), self.normals, self.uvs, self.faces)

    @property
    def radius(self) -> float:
        """Largest distance from the vertical axis, metres."""
        return float(np.hypot(self.vertices[:, 0], self.vertices[:, 1]).max())

    @property
    def height(self) -> float:
        """Largest z, metres."""
        return float(self.vertices[:, 2].max())


def merge(parts: list[Mesh]) -> Mesh:
    """One mesh of several."""
    offsets = np.cumsum([0] + [len(p.vertices) for p in parts[:-1]])
    return Mesh(
        np.concatenate([p.vertices for p in parts]),
        np.concatenate([p.normals for p in parts]),
        np.concatenate([p.uvs for p in parts]),
        np.concatenate([p.faces + o for p, o in zip(parts, offsets)]),
    )


def _in_tile(uvs: np.ndarray, tile: int) -> np.ndarray:
    """Coordinates [V, 2] in 0..1 of one tile as coordinates in the atlas."""
    corner = np.array([tile % ATLAS_TILES, tile // ATLAS_TILES])
    # The margin keeps nearest-neighbour look-ups from reading the neighbouring tile.
    return (corner + 0.02 + 0.96 * uvs) / ATLAS_TILES


def box(size: Sequence[float], tile: int = 0) -> Mesh:
    """Axis-aligned box of `size` (x, y, z) metres, centred in x and y, standing on z = 0."""
    vertices, normals, uvs, faces = [], [], [], []
    half = np.array(size) / 2
    for axis in range(3):
        for sign in (-1, 1):
            normal = np.zeros(3)
            normal[axis] = sign
            u = np.roll(np.array([0.0, 1.0, 0.0]), axis)
            v = np.cross(normal, u)
            corners = [normal + a * u + b * v for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            start = 4 * (2 * axis + (sign > 0))
            vertices += [c * half for c in corners]
            normals += [normal] * 4
            uvs += [(0, 0), (1, 0), (1, 1), (0, 1)]
            faces += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
    mesh = Mesh(
        np.array(vertices), np.array(normals), _in_tile(np.array(uvs, float), tile), np.array(faces)
    )
    return mesh.moved((0, 0, half[2]))


def revolve(
    profile: np.ndarray | list[tuple[float, float]],  # [P, 2] radius and z, from bottom to top
    tile: int = 0,
    segments: int = 20,
    bumps: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,  # (angle, z) -> scale
) -> Mesh:
    """Surface of revolution of `profile` around z; `bumps` scales the radius where given.

    A point that is in the profile twice makes a sharp edge.
    """
    profile = np.asarray(profile, float)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    radius, z = profile[:, :1], np.broadcast_to(profile[:, 1:], (len(profile), segments + 1))
    if bumps is not None:
        radius = radius * bumps(angle[None], z)
    vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], -1)
    du, dv = np.gradient(vertices, axis=1), np.gradient(vertices, axis=0)
    # Both ends of the seam are the same points, so differences are periodic there.
    du[:, 0] = du[:, -1] = vertices[:, 1] - vertices[:, -2]
    normals = np.cross(du, dv)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    upright = np.where(z[..., None] > z.mean(), [0, 0, 1.0], [0, 0, -1.0])
    normals = np.where(length > 1e-9, normals / np.maximum(length, 1e-9), upright)
    u, v = np.meshgrid(np.linspace(0, 1, segments + 1), np.linspace(0, 1, len(profile)))
    index = np.arange(len(profile) * (segments + 1)).reshape(len(profile), segments + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    uvs = _in_tile(np.stack([u, v], -1).reshape(-1, 2), tile)
    return Mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), uvs, faces)


def cylinder(radius: float, height: float, tile: int = 0, segments: int = 16) -> Mesh:
    """Closed cylinder that stands on z = 0, metres."""
    return revolve(_with_caps(radius, 0, radius, height), tile, segments)


def _with_caps(bottom: float, low: float, top: float, high: float) -> list[tuple[float, float]]:
    """Profile of a closed cone section with sharp edges: radius and z at its bottom and top."""
    return [(0, low), (bottom, low), (bottom, low), (top, high), (top, high), (0, high)]


def table(rng: np.random.Generator) -> Mesh:
    """A top, four legs and a shelf below."""
    width, depth, height = rng.uniform(0.8, 1.4), rng.uniform(0.6, 0.9), rng.uniform(0.55, 0.8)
    parts = [box((width, depth, 0.09), 0).moved((0, 0, height - 0.09))]
    for x in (-1, 1):
        for y in (-1, 1):
            leg = box((0.09, 0.09, height - 0.09), 1)
            parts.append(leg.moved((x * (width / 2 - 0.07), y * (depth / 2 - 0.07), 0)))
    parts.append(box((width * 0.8, depth * 0.7, 0.06), 2).moved((0, 0, height * 0.3)))
    return merge(parts)


def chair(rng: np.random.Generator) -> Mesh:
    """A box for the legs, a seat and a back."""
    side, seat, back = rng.uniform(0.45, 0.6), rng.uniform(0.4, 0.5), rng.uniform(0.45, 0.65)
    legs = box((side, side, seat - 0.12), 1).moved((0, 0, 0))
    cushion = box((side + 0.04, side + 0.04, 0.12), 0).moved((0, 0, seat - 0.12))
    return merge([legs, cushion, box((0.1, side, back), 2).moved((-side / 2, 0, seat))])


def sofa(rng: np.random.Generator) -> Mesh:
    """A seat, a back and two arms."""
    width, depth, seat = rng.uniform(1.0, 1.5), rng.uniform(0.6, 0.75), rng.uniform(0.35, 0.45)
    parts = [
        box((depth, width, seat), 0),
        box((0.18, width, 0.4), 1).moved((-depth / 2 + 0.09, 0, seat)),
    ]
    parts += [box((depth, 0.16, 0.2), 2).moved((0, s * (width / 2 - 0.08), seat)) for s in (-1, 1)]
    return merge(parts)


def shelf(rng: np.random.Generator) -> Mesh:
    """A back, two sides and three or four compartments with blocks."""
    width, depth, height = rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.4), rng.uniform(1.0, 1.6)
    levels = int(rng.integers(3, 5))
    parts = [box((0.05, width, height), 0).moved((-depth / 2, 0, 0))]
    parts += [box((depth, 0.06, height), 1).moved((0, s * width / 2, 0)) for s in (-1, 1)]
    for level in range(levels + 1):
        z = level * (height - 0.06) / levels
        parts.append(box((depth, width, 0.06), 2).moved((0, 0, z)))
        if level < levels:
            block = (depth * 0.7, rng.uniform(0.3, 0.8) * width, 0.6 * height / levels)
            parts.append(box(block, 3).moved((0, rng.uniform(-0.08, 0.08), z + 0.06)))
    return merge(parts)


def cabinet(rng: np.random.Generator) -> Mesh:
    """A box with two drawers and a top."""
    size = rng.uniform((0.5, 0.6, 0.6), (0.7, 1.0, 1.2))
    drawers = []
    for i in (0, 1):
        drawer = box((0.04, size[1] * 0.85, size[2] * 0.35), 1)
        drawers.append(drawer.moved((size[0] / 2 + 0.02, 0, size[2] * (0.1 + 0.45 * i))))
    top = box((size[0] * 1.1, size[1] * 1.05, 0.06), 2).moved((0, 0, size[2]))
    return merge([box(size, 0), *drawers, top])


def lamp(rng: np.random.Generator) -> Mesh:
    """A foot, a pole and a shade."""
    height, shade = rng.uniform(1.0, 1.5), rng.uniform(0.22, 0.34)
    top = rng.uniform(0.4, 0.9) * shade
    cone = _with_caps(shade, height - 0.4, top, height)
    foot, pole = cylinder(shade * 0.9, 0.1, 1), cylinder(0.07, height - 0.3, 2)
    return merge([foot, pole, revolve(cone, 0)])


def plant(rng: np.random.Generator) -> Mesh:
    """A pot, a stem and a crown."""
    pot, crown, height = rng.uniform(0.2, 0.3), rng.uniform(0.35, 0.5), rng.uniform(0.9, 1.4)
    pot_mesh = revolve([(0, 0), (pot * 0.7, 0), (pot, 0.35), (0, 0.35)], 1)
    stem = cylinder(0.06, height - crown, 2)
    leaves = blob(rng, crown, 0).moved((0, 0, height - 1.6 * crown))
    return merge([pot_mesh, stem, leaves])


def vase(rng: np.random.Generator) -> Mesh:
    """A surface of revolution with a random profile."""
    height, radius = rng.uniform(0.5, 1.0), rng.uniform(0.22, 0.4)
    z = np.linspace(0, 1, 14)
    knots = rng.uniform(0.35, 1.0, 5)
    profile = np.interp(z, np.linspace(0, 1, 5), knots / knots.max()) * radius
    rows = [(0, 0), *zip(profile, z * height), (0, height)]
    return revolve(rows, 0)


def blob(rng: np.random.Generator, radius: float | None = None, tile: int = 0) -> Mesh:
    """A sphere with bumps, about `radius` metres (random if None), that stands on z = 0."""
    radius = rng.uniform(0.3, 0.5) if radius is None else radius
    stretch = rng.uniform(0.8, 1.2)
    phase = rng.uniform(0, 6.28, 2)
    lobes = rng.integers(2, 6)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 14)
    profile = np.stack([radius * np.cos(angle), radius * stretch * (1 + np.sin(angle))], -1)
    depth = rng.uniform(0.08, 0.22)

    def wave(angle: np.ndarray, z: np.ndarray) -> np.ndarray:
        across = np.sin(lobes * angle + phase[0])
        return 1 + depth * across * np.cos(4 * z / radius + phase[1])

    return revolve(profile, tile, 24, wave)


def prism(rng: np.random.Generator) -> Mesh:
    """A prism or pyramid section with three to six sides."""
    sides, radius, height = int(rng.integers(3, 7)), rng.uniform(0.3, 0.45), rng.uniform(0.5, 1.1)
    taper = rng.uniform(0.1, 1.0)
    return revolve(_with_caps(radius, 0, radius * taper, height), 0, sides)


def stack(rng: np.random.Generator) -> Mesh:
    """Two to four boxes and cylinders on top of each other."""
    parts, z = [], 0.0
    for tile in range(int(rng.integers(2, 5))):
        height = rng.uniform(0.2, 0.4)
        if rng.random() < 0.5:
            part = box((*rng.uniform(0.3, 0.6, 2), height), tile)
        else:
            part = cylinder(rng.uniform(0.16, 0.3), height, tile)
        parts.append(part.moved((*rng.uniform(-0.06, 0.06, 2), z)))
        z += height
    return merge(parts)


def arch(rng: np.random.Generator) -> Mesh:
    """Two legs and a beam."""
    span, height, thick = rng.uniform(0.6, 0.9), rng.uniform(0.7, 1.2), rng.uniform(0.16, 0.26)
    legs = [
        box((thick * 1.2, thick, height), i).moved((0, s * span / 2, 0))
        for i, s in enumerate((-1, 1))
    ]
    return merge([*legs, box((thick * 1.4, span + 2 * thick, thick), 2).moved((0, 0, height))])


PART_KINDS = {
    builder.__name__: builder
    for builder in (table, chair, sofa, shelf, cabinet, lamp, plant, vase, blob, prism, stack, arch)
}
