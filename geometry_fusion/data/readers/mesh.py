"""What a camera sees of an annotated triangle mesh: z-depth and ids, by ray casting.

Rays are cast by trimesh with Embree. Annotations are ScanNet++'s: segments.json gives every vertex
a segment, segments_anno.json every object its segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.source import Intrinsics, read_json
from geometry_fusion.data.scenes import SceneObject
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.geometry.cameras import directions_of, intrinsic_matrix
from geometry_fusion.io.mask_reader import VOID_16
from geometry_fusion.io.parsing import each, reading, whole

NEAR, FAR = 0.05, 20.0  # metres of z-depth, as others render ScanNet++
RAYS_AT_ONCE = 1 << 18  # bounds memory, about 100 MB


@dataclass(frozen=True)
class Surface:
    """A triangle mesh, with or without ids."""

    vertices: np.ndarray  # [V, 3] metres, in the order of the file
    faces: np.ndarray  # [F, 3]
    ids: np.ndarray | None = None  # [V] int; a face has the id of its first vertex

    @cached_property
    def _caster(self):
        trimesh = _trimesh()
        # Not processed: merging equal vertices would renumber vertices and faces.
        mesh = trimesh.Trimesh(self.vertices, self.faces, process=False, validate=False)
        return trimesh.ray.ray_pyembree.RayMeshIntersector(mesh)

    def seen(
        self,
        camera_to_world: np.ndarray,  # [4, 4] OpenCV axes, metres
        intrinsics: Intrinsics,  # of a pinhole camera
        size: tuple[int, int],  # (width, height)
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Depth [H, W] float32 and ids [H, W] int32 as a camera sees them.

        Depth is z in metres, 0 if there is nothing between NEAR and FAR; ids are 0 there. Faces are
        seen from both sides. Ids are None if the surface has none.
        """
        width, height = size
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        # Directions have z = 1 in the camera, so that the distance along a ray is z-depth.
        directions = directions_of(intrinsic_matrix(*intrinsics), u, v)
        rays = np.moveaxis(directions, 0, -1).reshape(-1, 3) @ camera_to_world[:3, :3].T
        face, depth = np.empty(len(rays), int), np.zeros(len(rays), np.float32)
        for start in range(0, len(rays), RAYS_AT_ONCE):
            chunk = slice(start, start + RAYS_AT_ONCE)
            face[chunk], depth[chunk] = self._first(camera_to_world[:3, 3], rays[chunk])
        depth_map = depth.reshape(height, width)
        if self.ids is None:
            return depth_map, None
        ids = np.where(depth > 0, self.ids[self.faces[face, 0]], 0).astype(np.int32)
        return depth_map, ids.reshape(height, width)

    def _first(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First face beyond NEAR on each ray, and its z-depth (0 = none)."""
        face = self._caster.intersects_first(eye + NEAR * rays, rays)
        a, b, c = np.moveaxis(self.vertices[self.faces[face]], 1, 0)
        normal = np.cross(b - a, c - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Computed from the face's plane in float64: Embree computes in float32.
            depth = np.einsum("rc,rc->r", a - eye, normal) / np.einsum("rc,rc->r", rays, normal)
        return face, np.where((face >= 0) & (depth > 0) & (depth <= FAR), depth, 0)


def read_mesh(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] and faces [F, 3] of a mesh file, in its order.

    Raises InputError if it is missing, damaged or empty.
    """
    trimesh = _trimesh()
    try:
        mesh = trimesh.load_mesh(file, process=False)
        vertices, faces = np.array(mesh.vertices, float), np.array(mesh.faces)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; copy the mesh") from None
    except Exception as error:  # trimesh's parsers raise many kinds
        raise InputError(
            f"{file}: not a readable mesh ({one_line(error)}); copy it again"
        ) from None
    if not len(faces) or not np.isfinite(vertices).all():
        raise InputError(
            f"{file}: has {len(faces)} faces, or vertices that are not finite; copy it again"
        )
    return vertices, faces


def read_surface(file: Path, segments: Path | None = None, groups: Path | None = None) -> Surface:
    """A mesh, with ids if both files of its annotation are given.

    Raises InputError if a file is damaged or the files are of different releases.
    """
    vertices, faces = read_mesh(file)
    if segments is None or groups is None:
        return Surface(vertices, faces)
    with reading(segments, "a list of whole numbers segIndices", "copy it again"):
        segment_of = np.array(read_json(segments)["segIndices"])
        if segment_of.dtype.kind != "i":  # also where one of them is a fraction or text
            raise ValueError(f"they are of type {segment_of.dtype}")
    if segment_of.shape != (len(vertices),):
        raise InputError(
            f"{segments}: has {segment_of.size} vertices, {file.name} has {len(vertices)}; "
            "copy both of one release"
        )
    annotated = _groups(groups)
    ids = vertex_ids(segment_of, [(number, members) for number, _, members in annotated])
    if annotated and not ids.any():
        raise InputError(
            f"{groups}: none of its segments is in {segments.name}; copy both of one release"
        )
    return Surface(vertices, faces, ids)


def read_objects(groups: Path) -> list[SceneObject]:
    """The objects of segments_anno.json, by objectId."""
    names: dict[int, str] = {}
    for number, label, _ in _groups(groups):
        names.setdefault(number, label)
    return [SceneObject(number, name) for number, name in sorted(names.items())]


def _groups(file: Path) -> list[tuple[int, str, list[int]]]:
    """objectId, label and segments of every object; InputError if they are damaged."""
    content = read_json(file)
    with reading(file, "segGroups with objectId, label and segments", "copy it again"):
        entries = each(dict, content["segGroups"], "segGroups")
        groups = [
            (whole(g["objectId"]), str(g["label"]), each(whole, g["segments"], "segments"))
            for g in entries
        ]
    for number, label, _ in groups:
        if not 0 < number < VOID_16:
            raise InputError(
                f"{file}: objectId {number} ({label}): not 1..{VOID_16 - 1}; give it another number"
            )
    return groups


def vertex_ids(
    segment_of: np.ndarray,  # [V] int: the segment that a vertex belongs to
    groups: Sequence[tuple[int, Sequence[int]]],  # an id and the segments of that object
) -> np.ndarray:  # [V] int64, 0 = in no group
    """Ids of vertices, by the group that their segment is in.

    Where groups overlap, the one with the fewest vertices wins.
    """
    segments, segment_index, counts = np.unique(segment_of, return_inverse=True, return_counts=True)
    members = []  # vertices, id and indices in `segments` of each group
    for group, group_segments in groups:
        if len(group_segments):
            indices = np.flatnonzero(np.isin(segments, group_segments))
        else:
            indices = np.empty(0, int)
        members.append((counts[indices].sum(), group, indices))
    ids = np.zeros(len(segments), np.int64)
    for _, group, indices in sorted(members, key=lambda member: member[0], reverse=True):
        ids[indices] = group
    return ids[segment_index]


def _trimesh():
    """trimesh with Embree; InputError if they are not installed."""
    try:
        import trimesh
        import trimesh.ray.ray_pyembree  # needs embreex
    except ImportError as error:
        raise InputError(
            f"depth and ids of a mesh: {one_line(error)}; pip install -r requirements-data.txt"
        ) from None
    return trimesh
