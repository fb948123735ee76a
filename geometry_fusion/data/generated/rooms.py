"""Generated rooms: the plans of geometry_fusion.data.generated.plan, ray cast on any device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from geometry_fusion.data.generated.cast import NOTHING, nearest
from geometry_fusion.data.generated.clip import GeneratedClips
from geometry_fusion.data.generated.noise import uniform
from geometry_fusion.data.generated.plan import LIMITS, Plan, draw_plan
from geometry_fusion.data.generated.textures import TextureBank

OVERSAMPLE = 1.5  # rays along a side of a pixel; colours are averaged, ids and depth are not


@dataclass
class Scene:
    """A plan as tensors. P are all solids: boxes, then ellipsoids, then frustums, padded."""

    inverse: Tensor  # [T, P, 3, 4] from the world into a solid's frame
    half: Tensor  # [P, 3] metres
    taper: Tensor  # [P]
    owner: Tensor  # [P] id of the thing
    texture: Tensor  # [P] index into the bank
    scale: Tensor  # [P] repetitions a metre
    shift: Tensor  # [P] where the texture starts
    size: Tensor  # [3] metres, of the room
    surfaces: Tensor  # [6, 2] texture index and repetitions a metre
    lights: Tensor  # [L, 6]
    poses: Tensor  # [T, 4, 4]
    gloss: Tensor  # [P] strength of highlights


def _scene_of(plan: Plan, textures: int, device: torch.device) -> Scene:
    """The plan as tensors on a device."""
    frames, total = len(plan.poses), sum(LIMITS)
    rng = np.random.default_rng(int(plan.size.sum() * 1e6))
    inverse = np.zeros((frames, total, 3, 4))
    inverse[:, :, 2, 3] = 1e4  # of unused solids: far outside, whatever the ray
    numbers = {name: np.zeros(total) for name in ("taper", "owner", "texture", "scale", "gloss")}
    half = np.ones((total, 3))
    used = np.cumsum([0, *LIMITS[:2]])
    for item in plan.placed:
        place = np.eye(4)
        cos, sin = np.cos(item.yaw), np.sin(item.yaw)
        place[:2, :2] = [[cos, -sin], [sin, cos]]
        place[:3, 3] = item.position
        moved = plan.motion.get(item.id)
        gloss = rng.uniform(0, 0.6) * (rng.random() < 0.4)
        for solid in item.thing.solids:
            row = used[solid.kind]
            if row >= sum(LIMITS[: solid.kind + 1]):
                continue
            used[solid.kind] += 1
            own = np.eye(4)
            own[:3, :3] = solid.turn * solid.half
            own[:3, 3] = solid.centre
            world = place @ own if moved is None else moved @ place @ own
            inverse[:, row] = np.linalg.inv(world)[..., :3, :]
            half[row] = solid.half
            values = (solid.taper, item.id, item.textures[solid.part], item.scale, gloss)
            for name, value in zip(numbers, values):
                numbers[name][row] = value
    surfaces = np.stack((plan.surfaces[:, 0] * textures, plan.surfaces[:, 1]), 1)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return Scene(
        tensor(inverse),
        tensor(half),
        tensor(numbers["taper"]),
        torch.tensor(numbers["owner"], dtype=torch.int64, device=device),
        torch.tensor(numbers["texture"] * textures, device=device).long(),
        tensor(numbers["scale"]),
        tensor(rng.random(total) * 5),
        tensor(plan.size),
        tensor(surfaces),
        tensor(plan.lights),
        tensor(plan.poses),
        tensor(numbers["gloss"]),
    )


class RoomWorld:
    """Draws generated rooms on the device of a texture bank.

    compile: whether the search for the nearest solid is compiled.
    """

    def __init__(self, bank: TextureBank, compile: bool = False):
        self._bank = bank
        self._nearest = torch.compile(nearest, dynamic=False) if compile else nearest

    def clips(
        self,
        rng: Generator,
        seed: int,
        frames: int,
        size: int,
        shape: tuple[int, int],
        moving_share: float = 0.25,
    ) -> GeneratedClips:
        """The room of `seed` as one clip of `frames` frames with `size` pixels a side.

        shape: width and height of the picture before it is squashed to a square. rng: of soft
        shadows' grain; the rest follows from the seed.
        """
        plan = draw_plan(seed, frames, moving_share)
        scene = _scene_of(plan, len(self._bank), self._bank.device)
        focal = _focal(plan.field_of_view, size, shape)
        rgb, ids, depth = [], [], []
        for t in range(frames):
            colour, id_map, z = self._frame(rng, scene, plan, t, size, focal)
            rgb.append(colour)
            ids.append(id_map)
            depth.append(z)
        twins = torch.zeros(1, 64, dtype=torch.int64, device=rng.device)
        for item in plan.placed:
            if item.id:
                twins[0, item.id] = item.twin
        k = torch.tensor(
            [[focal[0], 0, (size - 1) / 2], [0, focal[1], (size - 1) / 2], [0, 0, 1]],
            dtype=torch.float32,
            device=rng.device,
        )
        return GeneratedClips(
            torch.stack(rgb)[None],
            torch.stack(ids)[None],
            twins,
            shape,
            torch.stack(depth)[None],
            scene.poses[None],
            k.expand(1, frames, 3, 3),
            torch.tensor([bool(plan.motion)], device=rng.device),
        )

    def _frame(
        self, rng: Generator, scene: Scene, plan: Plan, t: int, size: int, focal
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(colour [3, S, S] in 0..255, ids [S, S] uint8, depth [S, S] float16) of a frame."""
        fine = int(size * OVERSAMPLE)
        directions = _directions(scene.poses[t], fine, focal, size)
        eye = scene.poses[t, :3, 3]
        first, second = LIMITS[0], LIMITS[0] + LIMITS[1]
        inverse = scene.inverse[t : t + 1]
        parts = (inverse[:, :first], inverse[:, first:second], inverse[:, second:])
        taper = scene.taper[None, second:]
        depth, index = self._nearest(eye[None], directions[None], parts, taper)
        depth, index = depth[0], index[0]
        wall, face = _walls(scene.size, eye, directions)
        is_wall = wall < depth
        depth = torch.minimum(depth, wall)
        points = eye + directions * depth[:, None]
        texels = depth / (focal[0] * OVERSAMPLE) * self._bank.levels[0].shape[1]
        colour, normal = self._solids(scene, inverse[0], index, points, texels)
        wall_colour, wall_normal = self._surfaces(scene, face, points, texels)
        colour = torch.where(is_wall[:, None], wall_colour, colour)
        normal = torch.where(is_wall[:, None], wall_normal, normal)
        # Both sides of a surface are lit: thin solids may be seen from inside.
        normal = torch.where((normal * directions).sum(1, keepdim=True) > 0, -normal, normal)
        gloss = torch.where(is_wall, 0.0, scene.gloss[index])
        light = self._light(rng, scene, plan, points, normal, directions, gloss, parts, taper)
        if plan.open_air:  # the sky shines by itself
            sky = is_wall & (face != 4)
            light = torch.where(sky[:, None], torch.ones_like(light), light)
        colour = (colour * light).clamp(0, 1) * 255
        colour = colour.T.unflatten(1, (fine, fine))[None]
        colour = interpolate(colour, size=(size, size), mode="bilinear", antialias=True)[0]
        ids = torch.where(is_wall, 0, scene.owner[index]).unflatten(0, (fine, fine))
        at = ((torch.arange(size, device=depth.device) + 0.5) * OVERSAMPLE).long()
        z = depth.unflatten(0, (fine, fine))[at][:, at]
        return colour, ids[at][:, at].to(torch.uint8), z.half()

    def _solids(
        self, scene: Scene, inverse: Tensor, index: Tensor, points: Tensor, texels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(colour [R, 3], normal [R, 3] in the world) of hits on solids."""
        maps = inverse[index]
        own = (maps[..., :3] @ points[..., None])[..., 0] + maps[..., 3]
        half = scene.half[index]
        first, second = LIMITS[0], LIMITS[0] + LIMITS[1]
        is_box, is_cone = index < first, index >= second
        along = own.abs().argmax(1)
        box = torch.nn.functional.one_hot(along, 3) * own.sign()
        slope = (scene.taper[index] - 1) / 2
        radius = (1 + slope + slope * own[:, 2]).clamp(min=1e-6)
        side = torch.stack((own[:, 0], own[:, 1], -slope * radius), 1)
        on_cap = own[:, 2].abs() > 0.9995
        cap = torch.stack((own[:, 0] * 0, own[:, 0] * 0, own[:, 2].sign()), 1)
        cone = torch.where(on_cap[:, None], cap, side)
        normal = torch.where(is_box[:, None], box, torch.where(is_cone[:, None], cone, own))
        # Normals are mapped by the transpose of the inverse.
        world = (maps[..., :3].transpose(-2, -1) @ normal[..., None])[..., 0]
        world = torch.nn.functional.normalize(world, dim=-1)
        u, v = _flattened(own * half, normal / half)
        scale, shift = scene.scale[index], scene.shift[index]
        sampled = self._bank.sample(
            scene.texture[index], u * scale + shift, v * scale + 1.3 * shift, texels * scale
        )
        return sampled, world

    def _surfaces(
        self, scene: Scene, face: Tensor, points: Tensor, texels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(colour [R, 3], normal [R, 3]) of walls, floor and ceiling."""
        normal = torch.zeros_like(points)
        inward = 1.0 - 2.0 * (face % 2)
        normal.scatter_(1, (face // 2)[:, None], inward[:, None])
        u, v = _flattened(points, normal)
        texture, scale = scene.surfaces[face].unbind(1)
        return self._bank.sample(texture.long(), u * scale, v * scale, texels * scale), normal

    def _light(
        self, rng: Generator, scene, plan, points, normal, directions, gloss, parts, taper
    ) -> Tensor:
        """Light [R, 3] that arrives at points: ambient, and what each lamp sends."""
        up = 0.5 + 0.5 * normal[:, 2:]
        total = plan.ambient * (0.7 + 0.3 * up).expand(-1, 3)
        strength = (1.5 - plan.ambient) / len(scene.lights) ** 0.7
        ahead = torch.nn.functional.normalize(directions, dim=-1)
        for number, lamp in enumerate(scene.lights):
            at = lamp[:3]
            # Lamps are about 15 cm large: each ray aims at another place of them.
            grain = uniform(rng, len(points), 3, low=-0.08, high=0.08)
            ray = points + grain - at
            facing = -(torch.nn.functional.normalize(ray, dim=-1) * normal).sum(1)
            lit = facing.clamp(min=0)
            if plan.casts_shadows and number < 2:
                blocked, _ = self._nearest(at[None], ray[None], parts, taper)
                lit = lit * (blocked[0] > 0.995)
            half_way = torch.nn.functional.normalize(
                -torch.nn.functional.normalize(ray, dim=-1) - ahead, dim=-1
            )
            shine = gloss * (half_way * normal).sum(1).clamp(min=0) ** 24 * (lit > 0)
            total = total + strength * (lit + shine)[:, None] * lamp[3:]
        return total


def _focal(degrees: float, size: int, shape: tuple[int, int]) -> tuple[float, float]:
    """Focal lengths in pixels of the squashed picture; the angle is that of the longer side."""
    half = np.tan(np.radians(degrees) / 2)
    longer = max(shape)
    wide, high = half * shape[0] / longer, half * shape[1] / longer
    return 0.5 * size / wide, 0.5 * size / high


def _directions(pose: Tensor, fine: int, focal, size: int) -> Tensor:
    """Rays [R, 3] in the world through all places of a frame; t is depth along the axis."""
    at = (torch.arange(fine, device=pose.device) + 0.5) / fine * size - 0.5 - (size - 1) / 2
    v, u = torch.meshgrid(at / focal[1], at / focal[0], indexing="ij")
    rays = torch.stack((u, v, torch.ones_like(u)), -1).flatten(0, 1)
    return rays @ pose[:3, :3].T


def _walls(size: Tensor, eye: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """(t [R], face [R]: 2 * axis + 1 at the upper end) at which rays leave the room."""
    low = torch.stack((-size[0] / 2, -size[1] / 2, size[2] * 0))
    high = torch.stack((size[0] / 2, size[1] / 2, size[2]))
    safe = torch.where(directions.abs() < 1e-9, 1e-9, directions)
    ends = torch.where(safe > 0, (high - eye) / safe, (low - eye) / safe)
    t, axis = ends.clamp(max=NOTHING).min(1)
    positive = directions.gather(1, axis[:, None])[:, 0] > 0
    return t, 2 * axis + positive


def _flattened(points: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """Texture coordinates in metres: the two axes across the one that the normal follows most."""
    axis = normal.abs().argmax(1)
    x, y, z = points.unbind(1)
    u = torch.where(axis == 0, y, x)
    v = torch.where(axis == 2, y, z)
    return u, v
