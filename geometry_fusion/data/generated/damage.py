"""What cameras and codecs do to a clip: exposure, colour balance, blur, noise, JPEG blocks."""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, pad

from geometry_fusion.data.generated.noise import uniform

# Quantisation of luminance in JPEG (ITU-T T.81, table K.1), applied to every channel.
JPEG_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
BLUR = 7  # pixels of a side of the blur kernel


def damaged(rng: Generator, rgb: Tensor) -> Tensor:
    """Frames [V, T, 3, S, S] in 0..255 as a camera would deliver them, uint8.

    Each kind of damage affects a share of the clips, at a strength of its own, the same in all
    frames of a clip; exposure drifts over time.
    """
    rgb = _exposed(rng, rgb)
    rgb = _blurred(rng, rgb)
    count = len(rgb)
    wide = (count, 1, 1, 1, 1)
    grain = 12 * uniform(rng, *wide) ** 2 * (uniform(rng, *wide) < 0.7)
    noise = torch.randn(rgb.shape, generator=rng, device=rng.device)
    # Half of the noise grows with brightness, as photons do.
    rgb = rgb + grain * noise * (0.5 + 0.5 * (rgb / 255).clamp(min=0).sqrt())
    rgb = rgb.clamp(0, 255)
    step = uniform(rng, *wide, low=0.1, high=1.2) * (uniform(rng, *wide) < 0.6)
    return _jpeg(rgb, step).clamp(0, 255).round().to(torch.uint8)


def _exposed(rng: Generator, rgb: Tensor) -> Tensor:
    """Other gain, gamma and white balance; in a third of the clips gain drifts."""
    count, frames = rgb.shape[:2]
    wide = (count, 1, 1, 1, 1)
    gamma = torch.exp(uniform(rng, *wide, low=-0.35, high=0.35))
    balance = torch.exp(uniform(rng, count, 1, 3, 1, 1, low=-0.15, high=0.15))
    gain = torch.exp(uniform(rng, *wide, low=-0.3, high=0.3))
    drift = uniform(rng, *wide, low=-0.5, high=0.5) * (uniform(rng, *wide) < 0.35)
    time = torch.linspace(-0.5, 0.5, frames, device=rng.device)[None, :, None, None, None]
    level = (rgb / 255).clamp(0, 1) ** gamma
    return 255 * level * balance * gain * torch.exp(drift * time)


def _blurred(rng: Generator, rgb: Tensor) -> Tensor:
    """Out of focus in half of the clips; smeared by movement in a fifth of the frames."""
    count, frames, channels, size = rgb.shape[:4]
    focus = uniform(rng, count, 1, high=1.1) * (uniform(rng, count, 1) < 0.5)
    focus = focus.expand(count, frames) + 0.05
    smear = uniform(rng, count, frames, high=2.2) * (uniform(rng, count, frames) < 0.2)
    angle = uniform(rng, count, frames, high=math.pi)
    at = torch.arange(BLUR, device=rng.device) - BLUR // 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
    along, across = x * cos + y * sin, y * cos - x * sin
    long = (focus + smear)[..., None, None]
    kernel = torch.exp(-0.5 * (along / long) ** 2 - 0.5 * (across / focus[..., None, None]) ** 2)
    kernel = kernel / kernel.sum((-2, -1), keepdim=True)
    flat = rgb.reshape(1, -1, size, size)
    half = BLUR // 2
    flat = pad(flat, (half, half, half, half), mode="reflect")
    weights = kernel.flatten(0, 1).repeat_interleave(channels, 0)[:, None]
    return conv2d(flat, weights, groups=len(weights)).reshape(rgb.shape)


def _jpeg(rgb: Tensor, step: Tensor) -> Tensor:
    """Quantise the cosine transform of 8x8 blocks; step 1 is JPEG's table at quality 50.

    Colours are quantised channel by channel; step 0 changes nothing.
    """
    n = torch.arange(8, device=rgb.device)
    basis = torch.cos((2 * n[None] + 1) * n[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    table = torch.tensor(JPEG_TABLE, dtype=rgb.dtype, device=rgb.device)
    size = rgb.shape[-1]
    blocks = rgb.unflatten(-1, (size // 8, 8)).unflatten(-3, (size // 8, 8)).transpose(-3, -2)
    spectrum = basis @ blocks @ basis.T
    quantum = table * step[..., None, None].clamp(min=1e-3)
    spectrum = torch.where(
        step[..., None, None] > 0, (spectrum / quantum).round() * quantum, spectrum
    )
    blocks = basis.T @ spectrum @ basis
    return blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)
