"""Renders rooms of the second world by casting rays with Embree: colour, ids, depth.

Colour is the mean of 2 x 2 samples a pixel, lit by rectangles with soft shadows and from all
around, less in corners. Ids and depth are those at the pixel's centre.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from geometry_fusion.data.second_world_layout import Light, Placed
from geometry_fusion.data.second_world_shapes import turn_about_z
from geometry_fusion.errors import InputError

LIFT_M = 2e-3  # of a shadow ray's start above the surface
NOOK_M = 0.7  # how far ambient light is blocked
SKY, GROUND = np.array((0.25, 0.265, 0.29)), np.array((0.14, 0.125, 0.11))  # ambient light
EXPOSURE = 2.0  # of the sensor
SAMPLES = 2  # a pixel and side
FILTER = 4  # pixels of the supersampled image, on each side, that share their shadow rays


class Renderer:
    """One room, ready to be looked at."""

    def __init__(
        self,
        things: Sequence[Placed],
        lights: Sequence[Light],
        width: int,  # pixels
        height: int,
        focal: float,  # pixels
        seed: int,  # of the light rays and of the sensor's noise
    ):
        self._things, self._lights = things, lights
        self._size, self._focal, self._seed = (width, height), focal, seed
        corners, normals = zip(*(_moved(thing) for thing in things))
        self._normals = np.concatenate(normals)
        self._face_thing = np.repeat(np.arange(len(things)), [len(part) for part in corners])
        self._face_slot = np.concatenate([thing.solid.slots for thing in things])
        self._ids = np.array([thing.id for thing in things], np.uint16)
        self._caster = _caster(np.concatenate(corners))
        shape = (SAMPLES * height * SAMPLES * width, len(lights) + 1, 2)
        self._jitter = np.random.default_rng([seed, 71]).random(shape, np.float32)
        self._sensor = np.random.default_rng([seed, 72]).uniform((0.35, 0.004), (0.75, 0.016))

    def render(self, pose: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RGB [H, W, 3] uint8, ids [H, W] uint16 and z-depth [H, W] metres of one pose [4, 4].

        index: number of the frame, for the sensor's noise.
        """
        width, height = self._size
        _, faces, depth = self._look(pose, 1)
        ids = np.where(faces >= 0, self._ids[self._face_thing[faces]], 0).astype(np.uint16)
        colour = self._colour(pose).reshape(height, SAMPLES, width, SAMPLES, 3).mean((1, 3))
        rgb = self._develop(colour, index)
        return rgb, ids.reshape(height, width), depth.reshape(height, width)

    def _develop(self, colour: np.ndarray, index: int) -> np.ndarray:
        """Linear light [H, W, 3] as a camera's picture, uint8: blurred, compressed, with noise."""
        blur, grain = self._sensor
        colour = cv2.GaussianBlur(colour.astype(np.float32), (0, 0), blur)
        screen = (1 - np.exp(-EXPOSURE * colour)) ** (1 / 2.2)
        noise = np.random.default_rng([self._seed, 73, index]).standard_normal(screen.shape)
        return ((screen + grain * noise).clip(0, 1) * 255 + 0.5).astype(np.uint8)

    def _look(self, pose: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directions [N, 3] to `samples` x `samples` points a pixel, faces hit [N] and z-depth [N].

        Face -1 and depth 0 where nothing is hit. Directions have length 1 along the camera's z.
        """
        width, height = self._size
        x = (np.arange(width * samples) + 0.5) / samples - 0.5 - (width - 1) / 2
        y = (np.arange(height * samples) + 0.5) / samples - 0.5 - (height - 1) / 2
        u, v = np.meshgrid(x / self._focal, y / self._focal)
        rays = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3) @ pose[:3, :3].T
        hits = self._caster.run(_single(pose[:3, 3], rays), rays.astype(np.float32), output=True)
        faces = hits["primID"]
        self._uv = np.column_stack([hits["u"], hits["v"]])
        return rays, faces, np.where(faces >= 0, hits["tfar"], 0).astype(float)

    def _colour(self, pose: np.ndarray) -> np.ndarray:
        """Linear light [N, 3] at the supersampled pixels of one pose."""
        rays, faces, depth = self._look(pose, SAMPLES)
        u, v = self._uv.T[..., None]
        of_corners = self._normals[faces]
        normals = (1 - u - v) * of_corners[:, 0] + u * of_corners[:, 1] + v * of_corners[:, 2]
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        points = pose[:3, 3] + rays * depth[:, None]
        thing, slot = self._face_thing[faces], self._face_slot[faces]
        group = thing * 8 + slot
        albedo, gloss = self._materials(points, normals, group)
        starts = (points + LIFT_M * normals).astype(np.float32)
        to_eye = -rays / np.linalg.norm(rays, axis=1, keepdims=True)
        light = self._ambient(starts, normals, group)
        shine = np.zeros_like(light)
        for number, lamp in enumerate(self._lights):
            way, cosine, power = _towards(lamp, starts, normals, self._jitter[:, number])
            free = self._unblocked(starts, way * 0.98, cosine * power)
            free = self._shared(free, group)
            strength = (free * cosine * power)[:, None] * lamp.colour
            light += strength
            half = way / np.linalg.norm(way, axis=1, keepdims=True) + to_eye
            half /= np.linalg.norm(half, axis=1, keepdims=True)
            peak = np.einsum("nk,nk->n", half, normals).clip(0) ** 50
            shine += (peak * gloss * free * power)[:, None] * lamp.colour
        return albedo * light + 0.5 * shine

    def _materials(
        self, points: np.ndarray, normals: np.ndarray, group: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Colours [N, 3] and gloss [N], evaluated in the coordinates of each thing."""
        albedo, gloss = np.zeros_like(points), np.zeros(len(points))
        order = np.argsort(group, kind="stable")
        bounds = np.flatnonzero(np.diff(group[order])) + 1
        for where in np.split(order, bounds):
            thing, slot = divmod(int(group[where[0]]), 8)
            placed = self._things[thing]
            turn = turn_about_z(placed.yaw)
            local = (points[where] - placed.position) @ turn
            material = placed.materials[slot]
            albedo[where] = material.colour(local, normals[where] @ turn)
            gloss[where] = material.gloss
        return albedo.clip(0, 1), gloss

    def _ambient(self, starts: np.ndarray, normals: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Light [N, 3] from all around, less in nooks."""
        turn, height = self._jitter[:, -1].T
        radius = np.sqrt(height)
        local = [radius * np.cos(2 * np.pi * turn), radius * np.sin(2 * np.pi * turn)]
        helper = np.where(np.abs(normals[:, :1]) > 0.7, (0, 1.0, 0), (1.0, 0, 0))
        first = np.cross(normals, helper)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second = np.cross(normals, first)
        way = local[0][:, None] * first + local[1][:, None] * second
        way += np.sqrt(1 - height)[:, None] * normals
        free = self._shared(self._unblocked(starts, way * NOOK_M), group)
        upward = 0.5 + 0.5 * normals[:, 2:]
        return (0.15 + 0.85 * free[:, None]) * (GROUND + (SKY - GROUND) * upward)

    def _unblocked(
        self, starts: np.ndarray, ways: np.ndarray, needed: np.ndarray | None = None
    ) -> np.ndarray:
        """1 where nothing is between start and start + way, else 0: float32 [N].

        Rays whose `needed` [N] is 0 are not cast: 0.
        """
        cast = slice(None) if needed is None else np.flatnonzero(needed > 0)
        reach = np.ones(len(starts[cast]), np.float32)
        blocked = self._caster.run(
            np.ascontiguousarray(starts[cast]), ways[cast].astype(np.float32), reach, "OCCLUDED"
        )
        free = np.zeros(len(starts), np.float32)
        free[cast] = blocked < 0
        return free

    def _shared(self, values: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Values [N], averaged with their neighbours in the same group [N]: less grain.

        First along rows, then along columns.
        """
        width, height = (SAMPLES * side for side in self._size)
        image, groups = values.reshape(height, width), group.reshape(height, width)
        for _ in range(2):
            image, groups = _mean_of_rows(image, groups).T, groups.T
        return image.reshape(-1)


def _mean_of_rows(image: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean [H, W] over the neighbours to the left and right that are of the same group [H, W]."""
    total, count = image.astype(np.float32), np.ones(image.shape, np.float32)
    for step in range(1, FILTER + 1):
        left, right = (slice(None), slice(None, -step)), (slice(None), slice(step, None))
        same = groups[left] == groups[right]
        total[left] += image[right] * same
        total[right] += image[left] * same
        count[left] += same
        count[right] += same
    return total / count


def _moved(thing: Placed) -> tuple[np.ndarray, np.ndarray]:
    """Corners and normals, each [F, 3, 3], in the room."""
    turn = turn_about_z(thing.yaw)
    return thing.solid.corners @ turn.T + thing.position, thing.solid.normals @ turn.T


def _single(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """One origin [3] for every ray, float32 [N, 3]."""
    return np.tile(origin.astype(np.float32), (len(rays), 1))


def _towards(
    lamp: Light, starts: np.ndarray, normals: np.ndarray, jitter: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From each start: the way [N, 3] to a random point of a light, cosine [N] and power [N]."""
    way = lamp.corner + jitter @ lamp.sides - starts
    squared = np.einsum("nk,nk->n", way, way)
    distance = np.sqrt(squared)
    cosine = (np.einsum("nk,nk->n", way, normals) / distance).clip(0)
    leaving = (-(way @ lamp.normal) / distance).clip(0)
    area = np.linalg.norm(np.cross(*lamp.sides))
    return way, cosine, area * leaving / (squared + 0.3)


def _caster(corners: np.ndarray):
    """An Embree scene of triangles [F, 3, 3]; InputError where Embree is not installed."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as error:
        raise InputError(
            f"rooms of the second world: {error}; pip install -r requirements-data.txt"
        ) from None
    scene = EmbreeScene()
    TriangleMesh(scene, corners.astype(np.float32))
    return scene
