"""Layered clips: textured sprites that move over a moving background and hide each other.

There is no camera and no third dimension, so that nothing but looks and movement can be learnt
from them. A clip has 2 to 12 sprites with their own shape and texture; pairs of them may be
identical. They move smoothly, leave the picture and return, and cast soft shadows.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from geometry_fusion.data.generated.clip import GeneratedClips
from geometry_fusion.data.generated.noise import integers, uniform
from geometry_fusion.data.generated.shapes import shape_bank
from geometry_fusion.data.generated.textures import TextureBank

MOST_SPRITES = 12
SHAPE_SIZE = 128  # pixels of a side of a stored shape
SHAPES = ((1, 1), (4, 3), (16, 9), (3, 4), (9, 16))


class LayeredWorld:
    """Draws layered clips on the device of a texture bank.

    shapes: how many different outlines there are.
    """

    def __init__(self, bank: TextureBank, seed: int = 0, shapes: int = 1024):
        self._bank = bank
        self._shapes = shape_bank(seed, shapes, SHAPE_SIZE).to(bank.device)

    def clips(
        self, rng: Generator, count: int, frames: int, size: int, shape: tuple[int, int]
    ) -> GeneratedClips:
        """`count` clips of `frames` frames with `size` pixels a side.

        shape: width and height of the picture before it is squashed. Sprites and textures are
        squashed with it.
        """
        path = _camera_path(rng, count, frames)
        rgb = self._background(rng, path, size, shape)
        ids = torch.zeros(count, frames, size, size, dtype=torch.uint8, device=rng.device)
        number = integers(rng, 2, MOST_SPRITES + 1, count)
        looks, twins = _looks(rng, count, len(self._shapes), len(self._bank))
        large = 0.12 * (1.0 / 0.12) ** uniform(rng, count, MOST_SPRITES, high=0.75)
        stretch = math.sqrt(shape[0] / shape[1])
        for sprite in range(int(number.max())):
            matrix = _sprite_path(rng, path, large[:, sprite], stretch)
            cover, colour = self._sprite(rng, matrix, [look[:, sprite] for look in looks], size)
            shown = (sprite < number)[:, None, None, None]
            cover = cover * shown
            shade = _shadow(rng, cover)
            rgb = rgb * (1 - shade)[:, :, None] * (1 - cover)[:, :, None]
            rgb = rgb + colour * cover[:, :, None]
            ids = torch.where(cover > 0.5, sprite + 1, ids)
        lit = _lighting(rng, count, frames, size)
        # Not rounded yet: damage comes before that.
        return GeneratedClips((rgb * lit).clamp(0, 1) * 255, ids, twins, shape)

    def _background(
        self, rng: Generator, path: Tensor, size: int, shape: tuple[int, int]
    ) -> Tensor:
        """[V, T, 3, S, S] in 0..1: one texture, seen through the camera's path."""
        count = len(path)
        index = integers(rng, 0, len(self._bank), count)
        at = torch.linspace(-1, 1, size, device=rng.device)
        ratio = math.sqrt(shape[0] / shape[1])
        y, x = torch.meshgrid(at / ratio, at * ratio, indexing="ij")
        places = torch.stack((x, y, torch.ones_like(x)), -1)
        moved = torch.einsum("vtij,hwj->vthwi", path, places)[..., :2]
        scale = torch.exp(uniform(rng, count, 1, 1, 1, 1, low=-1.2, high=0.5)) * 0.5
        u, v = (moved * scale).unbind(-1)
        texels = self._bank.levels[0].shape[1] / size * scale[..., 0] * 2
        index = index[:, None, None, None].expand(u.shape)
        return self._bank.sample(index, u, v, texels.expand(u.shape)).movedim(-1, 2)

    def _sprite(
        self, rng: Generator, matrix: Tensor, look: list[Tensor], size: int
    ) -> tuple[Tensor, Tensor]:
        """(cover [V, T, S, S] in 0..1, colour [V, T, 3, S, S]) of one sprite of each clip.

        matrix: [V, T, 2, 3] from the picture to the sprite. look: number of the shape, of the
        texture, and scale, phase and slant of the texture on the sprite.
        """
        outline, texture, scale, phase, slant = look
        count, frames = matrix.shape[:2]
        grid = affine_grid(
            matrix.flatten(0, 1), [count * frames, 1, size, size], align_corners=False
        )
        grid = grid + _bend(rng, count, frames, size)
        masks = self._shapes[outline].repeat_interleave(frames, 0)[:, None]
        cover = grid_sample(masks, grid, align_corners=False)[:, 0]
        # The stored outline is soft over one of its own pixels; enlarged it would look blurred.
        enlarged = 1 / matrix.flatten(0, 1)[:, :, :2].norm(dim=(1, 2)).clamp(min=0.1)
        sharp = (enlarged * size / SHAPE_SIZE).clamp(min=1)[:, None, None]
        cover = ((cover - 0.5) * sharp + 0.5).clamp(0, 1).unflatten(0, (count, frames))
        x, y = grid.unflatten(0, (count, frames)).unbind(-1)
        wide = (slice(None), None, None, None)
        u = (x * slant.cos()[wide] + y * slant.sin()[wide]) * scale[wide] + phase[wide]
        v = (y * slant.cos()[wide] - x * slant.sin()[wide]) * scale[wide] + 1.7 * phase[wide]
        step = matrix[:, :, :, :2].norm(dim=(2, 3))[..., None, None] * scale[wide]
        texels = self._bank.levels[0].shape[1] * step / size * 1.4
        index = texture[wide].expand(u.shape)
        colour = self._bank.sample(index, u, v, texels.expand(u.shape)).movedim(-1, 2)
        # A faint light from one side, which turns with the sprite's own frame, gives it body.
        light = uniform(rng, count, 1, 1, 1, low=-0.35, high=0.35)
        side = uniform(rng, count, 1, 1, 1, low=-0.35, high=0.35)
        return cover, colour * (1 + light * x + side * y)[:, :, None].clamp(0.3, 1.6)


def _smooth(rng: Generator, count: int, frames: int, knots: int = 4) -> Tensor:
    """Smooth random curves [N, T] in about -1..1, through `knots` random values."""
    values = uniform(rng, count, 1, knots, low=-1, high=1)
    return interpolate(values, size=frames, mode="linear", align_corners=True)[:, 0]


def _camera_path(rng: Generator, count: int, frames: int) -> Tensor:
    """[V, T, 3, 3] from the picture (-1..1) to the background: pan, zoom and turn."""
    calm = uniform(rng, count, 1) ** 2
    zoom = torch.exp(0.5 * calm * _smooth(rng, count, frames))
    angle = 0.4 * calm * _smooth(rng, count, frames)
    shake = 0.02 * calm * uniform(rng, count, frames, low=-1, high=1)
    matrix = torch.zeros(count, frames, 3, 3, device=rng.device)
    matrix[..., 0, 0] = matrix[..., 1, 1] = zoom * angle.cos()
    matrix[..., 0, 1], matrix[..., 1, 0] = -zoom * angle.sin(), zoom * angle.sin()
    matrix[..., 0, 2] = 1.5 * calm * _smooth(rng, count, frames) + shake
    matrix[..., 1, 2] = 0.8 * calm * _smooth(rng, count, frames) - shake
    matrix[..., 2, 2] = 1
    return matrix


def _looks(rng: Generator, count: int, shapes: int, textures: int) -> tuple[list[Tensor], Tensor]:
    """(looks of all sprites, each [V, MOST_SPRITES]; twins as GeneratedClips has them).

    A third of the clips has identical pairs, a sixth has sprites of one texture and many shapes.
    """
    total = (count, MOST_SPRITES)
    looks = [
        integers(rng, 0, shapes, *total),
        integers(rng, 0, textures, *total),
        0.25 * torch.exp(uniform(rng, *total, low=0, high=1.5)),
        uniform(rng, *total, high=2),
        uniform(rng, *total, high=2 * math.pi),
    ]
    kind = uniform(rng, count, 1)
    partner = torch.arange(MOST_SPRITES, device=rng.device) // 2 * 2
    pairs = (kind < 0.35) & (uniform(rng, count, MOST_SPRITES) < 0.6)
    looks = [torch.where(pairs, look[:, partner], look) for look in looks]
    looks[1] = torch.where((kind > 0.85), looks[1][:, :1], looks[1])
    twins = torch.zeros(count, 64, dtype=torch.int64, device=rng.device)
    for second in range(1, MOST_SPRITES, 2):
        twin = pairs[:, second]
        twins[:, second + 1] = torch.where(twin, second, 0)
        twins[:, second] = torch.where(twin, second + 1, 0)
    return looks, twins


def _sprite_path(rng: Generator, path: Tensor, large: Tensor, stretch: float) -> Tensor:
    """[V, T, 2, 3]: from the picture (-1..1) to a sprite's own square (-1..1).

    large: half the sprite's size as a share of the picture's. A third of the sprites stands still
    in the background, a third swings far enough to leave the picture.
    """
    count, frames = path.shape[:2]
    kind = uniform(rng, count, 1)
    reach = torch.where(kind < 0.33, 0.0, torch.where(kind < 0.66, 0.35, 1.3))
    home = uniform(rng, count, 1, 2, low=-1.0, high=1.0)
    place = home + torch.stack(
        (reach * _smooth(rng, count, frames), reach * _smooth(rng, count, frames)), -1
    )
    # Nearer sprites move more than the background.
    parallax = torch.exp(uniform(rng, count, 1, low=-0.1, high=0.5))
    zoom = path[..., :2, 0].norm(dim=-1)
    size = large[:, None] / zoom * torch.exp(0.5 * kind * _smooth(rng, count, frames))
    angle = uniform(rng, count, 1, high=2 * math.pi) + 1.2 * kind * _smooth(rng, count, frames)
    thin = torch.exp(
        uniform(rng, count, 1, low=-0.5, high=0.5) + 0.3 * kind * _smooth(rng, count, frames)
    )
    shift = (place - path[..., :2, 2] * parallax[..., None]) / zoom[..., None]
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.zeros(count, frames, 2, 3, device=rng.device)
    wide, high = size * thin / stretch, size / thin * stretch
    matrix[..., 0, 0], matrix[..., 0, 1] = cos / wide, sin / high
    matrix[..., 1, 0], matrix[..., 1, 1] = -sin / wide, cos / high
    matrix[..., 2] = -(matrix[..., :2] @ shift[..., None])[..., 0]
    return matrix


def _bend(rng: Generator, count: int, frames: int, size: int) -> Tensor:
    """[V * T, S, S, 2]: a slow bending of the sprite's frame that changes over time."""
    strength = 0.25 * uniform(rng, count, 1, 1, 1, 1) ** 2
    first, last = uniform(rng, 2, count, 2, 3, 3, low=-1, high=1)
    share = torch.linspace(0, 1, frames, device=rng.device)[None, :, None, None, None]
    knots = strength * (first[:, None] * (1 - share) + last[:, None] * share)
    bent = interpolate(knots.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=True)
    return bent.movedim(1, -1)


def _shadow(rng: Generator, cover: Tensor) -> Tensor:
    """[V, T, S, S]: how much of the light below a sprite its soft shadow takes, 0..0.6."""
    count, size = len(cover), cover.shape[-1]
    strength = uniform(rng, count, 1, 1, 1, high=0.6) * (uniform(rng, count, 1, 1, 1) < 0.5)
    small = avg_pool2d(cover, 8)
    soft = avg_pool2d(small, 3, stride=1, padding=1)
    soft = interpolate(soft, size=(size, size), mode="bilinear", align_corners=False)
    shift = integers(rng, -size // 24, size // 24 + 1, 2).tolist()
    return strength * torch.roll(soft, shift, (2, 3))


def _lighting(rng: Generator, count: int, frames: int, size: int) -> Tensor:
    """[V, T, 1, S, S]: slow changes of brightness over the picture and over time."""
    knots = torch.exp(0.3 * uniform(rng, count, 1, 3, 3, low=-1, high=1))
    field = interpolate(knots, size=(size, size), mode="bilinear", align_corners=True)
    flicker = torch.exp(0.15 * _smooth(rng, count, frames))
    return field[:, None] * flicker[:, :, None, None, None]
