"""What a camera sees of an annotated triangle mesh: z-depth and ids by ray casting (trimesh with
Embree).

Annotations are ScanNet++'s: segments.json gives every vertex a segment, segments_anno.json objects
their segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.source import read_json
from geometry_fusion.data.scenes import SceneObject
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.mask_rule import VOID_16
from geometry_fusion.parsing import each, reading, whole

NEAR, FAR = 0.05, 20.0  # metres of z-depth, as others render ScanNet++
RAYS_AT_ONCE = 1 << 18  # bounds memory, about 100 MB


@dataclass(frozen=True)
class Surface:
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
        intrinsics: tuple[
            float, float, float, float
        ],  # fx, fy, cx, cy of a pinhole camera, pixel centres at integers
        size: tuple[int, int],  # (width, height)
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Depth [H, W] float32 (z, metres, 0 = nothing between NEAR and FAR) and ids [H, W] int32
        (0 = nothing).

        Faces are seen from both sides. Ids are None where the surface has none.
        """
        (width, height), (fx, fy, cx, cy) = size, intrinsics
        x, y = np.meshgrid((np.arange(width) - cx) / fx, (np.arange(height) - cy) / fy)
        # Rays have z = 1 in the camera, so that the distance along them is z-depth.
        rays = np.stack((x, y, np.ones_like(x)), -1).reshape(-1, 3) @ camera_to_world[:3, :3].T
        face, depth = np.empty(len(rays), int), np.zeros(len(rays), np.float32)
        for start in range(0, len(rays), RAYS_AT_ONCE):
            part = slice(start, start + RAYS_AT_ONCE)
            face[part], depth[part] = self._first(camera_to_world[:3, 3], rays[part])
        known = depth > 0
        ids = (
            None
            if self.ids is None
            else np.where(known, self.ids[self.faces[face, 0]], 0).astype(np.int32)
        )
        return depth.reshape(height, width), None if ids is None else ids.reshape(height, width)

    def _first(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First face behind NEAR of each ray, and its depth (0 = none)."""
        face = self._caster.intersects_first(eye + NEAR * rays, rays)
        a, b, c = np.moveaxis(self.vertices[self.faces[face]], 1, 0)
        normal = np.cross(b - a, c - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            # From the plane, in float64: Embree computes in float32.
            depth = np.einsum("rc,rc->r", a - eye, normal) / np.einsum("rc,rc->r", rays, normal)
        return face, np.where((face >= 0) & (depth > 0) & (depth <= FAR), depth, 0)


def read_mesh(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] and faces [F, 3] of a mesh file, in its order."""
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
    """A mesh, with ids where both files of its annotation are given."""
    vertices, faces = read_mesh(file)
    if segments is None or groups is None:
        return Surface(vertices, faces)
    with reading(segments, "a list of whole numbers segIndices", "copy it again"):
        segment_of = np.array(read_json(segments)["segIndices"])
        if segment_of.dtype.kind != "i":  # also where one of them is a fraction or text
            raise ValueError(f"they are of type {segment_of.dtype}")
    if segment_of.shape != (len(vertices),):
        raise InputError(
            f"{segments}: has {segment_of.size} vertices, {file.name} has {len(vertices)}; copy "
            "both of one release"
        )
    annotated = _groups(groups)
    ids = vertex_ids(segment_of, [(number, members) for number, _, members in annotated])
    if annotated and not ids.any():
        raise InputError(
            f"{groups}: none of its segments is in {segments.name}; copy both of one release"
        )
    return Surface(vertices, faces, ids)


def read_objects(groups: Path) -> list[SceneObject]:
    """What segments_anno.json names, by objectId."""
    names: dict[int, str] = {}
    for number, label, _ in _groups(groups):
        names.setdefault(number, label)
    return [SceneObject(number, name) for number, name in sorted(names.items())]


def _groups(file: Path) -> list[tuple[int, str, list[int]]]:
    """objectId, label and segments."""
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
    """Ids of vertices by membership in segments. Of groups that overlap, the one with the fewest
    vertices wins.
    """
    segments, where, counts = np.unique(segment_of, return_inverse=True, return_counts=True)
    members = []
    for group, named in groups:
        at = np.flatnonzero(np.isin(segments, named)) if len(named) else np.empty(0, int)
        members.append((counts[at].sum(), group, at))
    ids = np.zeros(len(segments), np.int64)
    for _, group, at in sorted(members, key=lambda member: member[0], reverse=True):
        ids[at] = group
    return ids[where]


def _trimesh():
    try:
        import trimesh
        import trimesh.ray.ray_pyembree  # needs embreex
    except ImportError as error:
        raise InputError(
            f"depth and ids of a mesh: {one_line(error)}; pip install -r requirements-data.txt"
        ) from None
    return trimesh
