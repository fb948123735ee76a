"""Solids of the second world: trimesh primitives, lathed profiles and prisms, put together.

Metres, z up. A `Part` is one mesh with a number that says which of its object's materials it has; a
`Solid` is what the ray caster needs of several parts. Nothing here is random.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geometry_fusion.errors import InputError

CREASE_COSINE = np.cos(np.radians(38))  # faces that meet at a larger angle keep a sharp edge
UP = (0.0, 0.0, 1.0)


def load_trimesh():
    """trimesh, which only drawing rooms needs; InputError if it is not installed."""
    try:
        import trimesh
    except ImportError as error:
        raise InputError(
            f"rooms of the second world: {error}; pip install -r requirements-data.txt"
        ) from None
    return trimesh


@dataclass(frozen=True)
class Part:
    """A mesh and the number of its material in the object."""

    mesh: Any  # trimesh.Trimesh; reading data needs no trimesh
    slot: int


@dataclass(frozen=True)
class Solid:
    """Triangles of an object in its own coordinates; it stands on z = 0."""

    corners: np.ndarray  # [F, 3, 3] metres
    normals: np.ndarray  # [F, 3, 3] unit, outwards, one for each corner
    slots: np.ndarray  # [F] material numbers

    @property
    def half_extents(self) -> np.ndarray:
        """Half of the size [3] of the bounding box that is centred on the vertical axis, metres."""
        points = self.corners.reshape(-1, 3)
        return np.array([*np.abs(points[:, :2]).max(0), points[:, 2].max() / 2])


def assemble(parts: Sequence[Part]) -> Solid:
    """One solid of several parts, shifted to stand on z = 0 around its vertical axis."""
    corners = np.concatenate([part.mesh.vertices[part.mesh.faces] for part in parts])
    normals = np.concatenate([corner_normals(part.mesh) for part in parts])
    slots = np.concatenate([np.full(len(part.mesh.faces), part.slot) for part in parts])
    low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
    middle = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]
    return Solid(corners - middle, normals, slots)


def corner_normals(mesh) -> np.ndarray:
    """Normals [F, 3, 3] of a mesh: smooth where faces meet at a small angle, sharp at creases."""
    around = np.asarray(mesh.vertex_faces)[mesh.faces]  # [F, 3, D], padded with -1
    weighted = mesh.face_normals * mesh.area_faces[:, None]
    alike = np.einsum("fcdk,fk->fcd", mesh.face_normals[around], mesh.face_normals)
    keep = (around >= 0) & (alike > CREASE_COSINE)
    total = (weighted[around] * keep[..., None]).sum(2)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    own = np.repeat(mesh.face_normals[:, None], 3, axis=1)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), own)


def box(size: Sequence[float], at: Sequence[float], slot: int = 0) -> Part:
    """A box of `size` whose bottom centre is `at`."""
    trimesh = load_trimesh()
    mesh = trimesh.creation.box(extents=size)
    mesh.apply_translation((at[0], at[1], at[2] + size[2] / 2))
    return Part(mesh, slot)


def cylinder(radius: float, height: float, at: Sequence[float], slot: int = 0) -> Part:
    """An upright cylinder whose bottom centre is `at`."""
    trimesh = load_trimesh()
    mesh = trimesh.creation.cylinder(radius=radius, height=height, sections=28)
    mesh.apply_translation((at[0], at[1], at[2] + height / 2))
    return Part(mesh, slot)


def rod(start: Sequence[float], end: Sequence[float], radius: float, slot: int = 0) -> Part:
    """A round bar between two points."""
    trimesh = load_trimesh()
    mesh = trimesh.creation.cylinder(radius=radius, segment=np.array([start, end]), sections=14)
    return Part(mesh, slot)


def lathe(profile: Sequence[tuple[float, float]], at: Sequence[float], slot: int = 0) -> Part:
    """The solid that a profile of (radius, height) points, from bottom to top, turns into.

    Profiles that do not begin and end on the axis are closed by flat lids.
    """
    trimesh = load_trimesh()
    line = [tuple(map(float, point)) for point in profile]
    line = [(0.0, line[0][1])] * (line[0][0] > 0) + line + [(0.0, line[-1][1])] * (line[-1][0] > 0)
    mesh = trimesh.creation.revolve(np.array(line), sections=36)
    mesh.apply_translation(at)
    return Part(mesh, slot)


def prism(outline: np.ndarray, height: float, at: Sequence[float], slot: int = 0) -> Part:
    """An outline [N, 2], counter-clockwise and seen whole from its mean, drawn out upwards."""
    trimesh = load_trimesh()
    count = len(outline)
    ring = np.column_stack([outline, np.zeros(count)])
    middle = np.array([[*outline.mean(0), 0.0]])
    raise_by = np.array([0, 0, height])
    vertices = np.concatenate([ring, ring + raise_by, middle, middle + raise_by])
    a = np.arange(count)
    b = (a + 1) % count
    sides = [np.column_stack([a, b, b + count]), np.column_stack([a, b + count, a + count])]
    lids = [
        np.column_stack([b, a, np.full(count, 2 * count)]),
        np.column_stack([a + count, b + count, np.full(count, 2 * count + 1)]),
    ]
    mesh = trimesh.Trimesh(vertices, np.concatenate([*sides, *lids]), process=False)
    mesh.apply_translation(at)
    return Part(mesh, slot)


def ring(major: float, minor: float, at: Sequence[float], slot: int = 0, axis=UP) -> Part:
    """A torus around `axis`, centred at `at`."""
    trimesh = load_trimesh()
    mesh = trimesh.creation.torus(major, minor, major_sections=36, minor_sections=16)
    mesh.apply_transform(trimesh.geometry.align_vectors(UP, axis))
    mesh.apply_translation(at)
    return Part(mesh, slot)


def ball(radii: Sequence[float], at: Sequence[float], slot: int = 0, axis=UP) -> Part:
    """An ellipsoid with `radii` along x, y, z, its z turned to `axis`, centred at `at`."""
    trimesh = load_trimesh()
    mesh = trimesh.creation.icosphere(subdivisions=3)
    mesh.apply_scale(radii)
    mesh.apply_transform(trimesh.geometry.align_vectors(UP, axis))
    mesh.apply_translation(at)
    return Part(mesh, slot)


def upright(part: Part, lift: float) -> Part:
    """A part that lay on z = 0, stood up: its y axis becomes z; then lifted by `lift` metres."""
    trimesh = load_trimesh()
    mesh = part.mesh.copy()
    mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    mesh.apply_translation((0, 0, lift))
    return Part(mesh, part.slot)


def turn_about_z(yaw: float) -> np.ndarray:
    """Rotation [3, 3] by `yaw` radians about z: things to room."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
