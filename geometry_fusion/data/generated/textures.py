"""A bank of textures of many kinds, from which generated worlds take their surfaces."""

import math

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d

from geometry_fusion.data.generated import noise

# Photographs that ship with scikit-image and scikit-learn, all free; docs/data.md names their
# licences.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
KINDS = (noise.clouds, noise.flats, noise.gradients, noise.cells, noise.leaves, noise.stripes)
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
LEVELS = 4  # of the pyramid, each half as large as the one before


def photographs() -> list[np.ndarray]:
    """The photographs as RGB uint8 [H, W, 3]; a missing package leaves its pictures out."""
    pictures = []
    try:
        import skimage.data

        folder = skimage.data.__path__[0]
        pictures = [cv2.imread(f"{folder}/{name}") for name in PHOTOGRAPHS]
    except ImportError:
        pass
    try:
        from sklearn.datasets import load_sample_images

        pictures += [picture[..., ::-1] for picture in load_sample_images().images]
    except ImportError:
        pass
    return [np.ascontiguousarray(p[..., ::-1]) for p in pictures if p is not None]


def photograph_crops(seed: int, count: int, size: int) -> np.ndarray:
    """Random square cut-outs of the photographs, [N, S, S, 3] uint8; without photographs N is 0."""
    rng, pictures = np.random.default_rng([seed, 1]), photographs()
    crops = []
    for _ in range(count if pictures else 0):
        picture = pictures[rng.integers(len(pictures))]
        least = min(picture.shape[:2])
        side = int(least * math.exp(rng.uniform(math.log(0.12), 0)))
        top = int(rng.integers(picture.shape[0] - side + 1))
        left = int(rng.integers(picture.shape[1] - side + 1))
        crop = picture[top : top + side, left : left + side]
        crop = np.rot90(crop, int(rng.integers(4)))
        crops.append(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA))
    return np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8)


def lettering(seed: int, count: int, size: int) -> np.ndarray:
    """Lines of random letters, [N, S, S] in 0..1."""
    rng = np.random.default_rng([seed, 2])
    pictures = np.zeros((count, size, size), np.uint8)
    for picture in pictures:
        scale, line = rng.uniform(0.3, 2.0) * size / 256, 0
        font = FONTS[rng.integers(len(FONTS))]
        while line < size:
            line += int(30 * scale + rng.integers(2, 14))
            text = "".join(
                rng.choice(list("ABCDEFGHIKLMNOPRSTUVWXYZabcdefghiklmnoprstuvwxyz  12345"), 40)
            )
            start = (-int(rng.integers(20)), line)
            cv2.putText(
                picture, text, start, font, scale, 255, int(rng.integers(1, 4)), cv2.LINE_AA
            )
    return pictures.astype(np.float32) / 255


class TextureBank:
    """Textures at several resolutions on one device, a pure function of seed, count and size.

    levels: LEVELS tensors [count, side, side, 3] uint8; side is `size` at level 0 and halves.
    """

    def __init__(self, seed: int, device: torch.device, count: int = 768, size: int = 256):
        rng = torch.Generator(device=device).manual_seed(seed)
        pictures = self._draw(rng, seed, count, size)
        order = torch.randperm(len(pictures), generator=rng, device=device)
        pictures = _recoloured(rng, pictures[order])
        self.levels: list[Tensor] = []
        for _ in range(LEVELS):
            stored = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
            self.levels.append(stored)
            pictures = avg_pool2d(pictures, 2)
        self._flat = torch.cat([level.reshape(-1, 3) for level in self.levels])
        sides = [level.shape[1] for level in self.levels]
        starts = np.cumsum([0, *(len(level) * side**2 for level, side in zip(self.levels, sides))])
        self._sides = torch.tensor(sides, device=device)
        self._starts = torch.tensor(starts[:-1], device=device)

    def __len__(self) -> int:
        return len(self.levels[0])

    @property
    def device(self) -> torch.device:
        """Where the textures are."""
        return self._flat.device

    @staticmethod
    def _draw(rng: Generator, seed: int, count: int, size: int) -> Tensor:
        """[count, 3, S, S] of all kinds: a quarter photographs, an eighth with letters."""
        photos = torch.from_numpy(photograph_crops(seed, count // 4, size)).to(rng.device)
        photos = photos.permute(0, 3, 1, 2).float() / 255
        letters = torch.from_numpy(lettering(seed, count // 8, size)).to(rng.device)[:, None]
        share = -(-(count - len(photos)) // len(KINDS))
        drawn = []
        for kind in KINDS:
            # In parts, because Voronoi cells keep a distance to every centre.
            for start in range(0, share, 32):
                drawn.append(kind(rng, min(32, share - start), size))
        drawn = torch.cat(drawn)
        drawn = drawn[torch.randperm(len(drawn), generator=rng, device=rng.device)]
        drawn = drawn[: count - len(photos)]
        quarter = len(drawn) // 4
        drawn[:quarter] = noise.mixed(rng, drawn[:quarter], drawn[quarter : 2 * quarter])
        ink = noise.colours(rng, len(letters))[:, :, None, None]
        written = drawn[-len(letters) :] if len(letters) else drawn[:0]
        drawn[len(drawn) - len(letters) :] = written * (1 - letters) + ink * letters
        return torch.cat((photos, drawn))

    def sample(self, index: Tensor, u: Tensor, v: Tensor, texels: Tensor) -> Tensor:
        """Colours [..., 3] in 0..1, bilinear at one level, mirrored at every second repetition.

        index: textures, int [...]. u, v: places in textures, 1 is a whole one. texels: of level 0
        that one pixel covers; they choose the level.
        """
        level = texels.clamp(min=1).log2().round().long().clamp(0, LEVELS - 1)
        side = self._sides[level]
        colour = 0.0
        x, y = _mirrored(u) * side - 0.5, _mirrored(v) * side - 0.5
        left, top = x.floor(), y.floor()
        share_x, share_y = (x - left)[..., None], (y - top)[..., None]
        base = self._starts[level] + index * side**2
        for dx, weight_x in ((0, 1 - share_x), (1, share_x)):
            for dy, weight_y in ((0, 1 - share_y), (1, share_y)):
                column = torch.minimum((left.long() + dx).clamp(min=0), side - 1)
                row = torch.minimum((top.long() + dy).clamp(min=0), side - 1)
                texel = self._flat[base + row * side + column]
                colour = colour + texel * (weight_x * weight_y)
        return colour / 255


def _mirrored(place: Tensor) -> Tensor:
    """Places on a line folded into 0..1, back and forth."""
    return 1 - (place % 2 - 1).abs()


def _recoloured(rng: Generator, pictures: Tensor) -> Tensor:
    """[N, 3, S, S] with permuted channels, other gain, contrast and saturation."""
    order = torch.stack([torch.randperm(3, generator=rng, device=rng.device) for _ in pictures])
    pictures = pictures.take_along_dim(order[:, :, None, None], 1)
    count = len(pictures)
    grey = pictures.mean(1, keepdim=True)
    pictures = grey + (pictures - grey) * noise.uniform(rng, count, 1, 1, 1, low=0.3, high=1.3)
    middle = pictures.mean((1, 2, 3), keepdim=True)
    contrast = noise.uniform(rng, count, 1, 1, 1, low=0.5, high=1.2)
    moved = middle + noise.uniform(rng, count, 1, 1, 1, low=-0.2, high=0.2)
    return (moved + (pictures - middle) * contrast).clamp(0, 1)
