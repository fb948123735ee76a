"""Random picture patterns, drawn in batches on any device.

Every function returns [N, 3, S, S] in 0..1. Randomness comes from the generator alone.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate


def uniform(rng: Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform numbers of a shape on the generator's device."""
    return torch.rand(*shape, generator=rng, device=rng.device) * (high - low) + low


def integers(rng: Generator, low: int, high: int, *shape: int) -> Tensor:
    """Integers in low..high-1 of a shape on the generator's device."""
    return torch.randint(low, high, shape, generator=rng, device=rng.device)


def colours(rng: Generator, *shape: int) -> Tensor:
    """Colours [*shape, 3] in 0..1: half of them vivid, the others nearly grey."""
    grey = uniform(rng, *shape, 1)
    chroma = uniform(rng, *shape, 3, low=-0.5, high=0.5)
    strength = torch.where(uniform(rng, *shape, 1) < 0.5, 1.0, 0.2)
    return (grey + chroma * strength).clamp(0, 1)


def normalised(values: Tensor) -> Tensor:
    """[N, ..., S, S] -> the same with minimum 0 and maximum 1 per picture."""
    low = values.amin((-2, -1), keepdim=True)
    high = values.amax((-2, -1), keepdim=True)
    return (values - low) / (high - low).clamp(min=1e-6)


def spectral(rng: Generator, count: int, size: int) -> Tensor:
    """Noise [N, S, S] in 0..1 whose amplitude falls as 1 / frequency^a, a in 0.6..2.2.

    Natural pictures have such spectra with a near 1.
    """
    frequency = torch.fft.fftfreq(size, device=rng.device)
    stretch = torch.exp(uniform(rng, count, 1, 1, low=-0.7, high=0.7))
    fx, fy = frequency[None, None, :] * stretch, frequency[None, :, None] / stretch
    radius = (fx**2 + fy**2).sqrt().clamp(min=1 / size)
    amplitude = radius ** -uniform(rng, count, 1, 1, low=0.6, high=2.2)
    phase = uniform(rng, count, size, size, high=2 * torch.pi)
    return normalised(torch.fft.ifft2(torch.polar(amplitude, phase)).real)


def ramp(rng: Generator, values: Tensor, stops: int = 4) -> Tensor:
    """Values [N, S, S] in 0..1 coloured by a random palette of `stops` colours: [N, 3, S, S]."""
    palette = colours(rng, len(values), stops)
    place = values * (stops - 1)
    lower = place.long().clamp(0, stops - 2)
    share = (place - lower)[..., None]
    rows = torch.arange(len(values), device=values.device)[:, None, None]
    mixed = palette[rows, lower] * (1 - share) + palette[rows, lower + 1] * share
    return mixed.permute(0, 3, 1, 2)


def clouds(rng: Generator, count: int, size: int) -> Tensor:
    """Coloured spectral noise."""
    return ramp(rng, spectral(rng, count, size))


def flats(rng: Generator, count: int, size: int) -> Tensor:
    """One colour with faint noise and a faint gradient."""
    noise = (spectral(rng, count, size) - 0.5)[:, None]
    strength = uniform(rng, count, 1, 1, 1, high=0.25)
    return (colours(rng, count)[:, :, None, None] + noise * strength).clamp(0, 1)


def gradients(rng: Generator, count: int, size: int) -> Tensor:
    """A ramp of colours in one direction, bent by slow noise."""
    at = torch.linspace(-1, 1, size, device=rng.device)
    angle = uniform(rng, count, 1, 1, high=2 * torch.pi)
    wave = at[None, None, :] * angle.cos() + at[None, :, None] * angle.sin()
    slow = interpolate(uniform(rng, count, 1, 4, 4), size=(size, size), mode="bicubic")[:, 0]
    return ramp(rng, normalised(wave + slow), 3)


def cells(rng: Generator, count: int, size: int) -> Tensor:
    """Voronoi cells of random colours, with or without lines between them."""
    points = 40
    at = torch.arange(size, device=rng.device) / size
    centres = uniform(rng, count, points, 2)
    number = integers(rng, 5, points, count)
    far = torch.arange(points, device=rng.device)[None] >= number[:, None]
    centres = centres + far[..., None] * 10.0
    distance = (at[None, None, None, :] - centres[..., 0, None, None]) ** 2
    distance = (distance + (at[None, None, :, None] - centres[..., 1, None, None]) ** 2).sqrt()
    nearest = distance.topk(2, dim=1, largest=False)
    rows = torch.arange(count, device=rng.device)[:, None, None]
    picture = colours(rng, count, points)[rows, nearest.indices[:, 0]].permute(0, 3, 1, 2)
    gap = nearest.values[:, 1] - nearest.values[:, 0]
    width = uniform(rng, count, 1, 1, high=0.03) * (uniform(rng, count, 1, 1) < 0.6)
    line = (gap < width)[:, None]
    return torch.where(line, colours(rng, count)[:, :, None, None], picture)


def leaves(rng: Generator, count: int, size: int, layers: int = 60) -> Tensor:
    """Dead leaves: discs and rectangles of many sizes on top of each other."""
    at = torch.linspace(0, 1, size, device=rng.device)
    picture = colours(rng, count)[:, :, None, None].expand(-1, -1, size, size).clone()
    for _ in range(layers):
        centre = uniform(rng, count, 2)
        radius = 0.02 / uniform(rng, count, low=0.05, high=1.0)
        angle = uniform(rng, count, high=torch.pi)
        x = at[None, None, :] - centre[:, 0, None, None]
        y = at[None, :, None] - centre[:, 1, None, None]
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        u, v = (x * cos + y * sin).abs(), (y * cos - x * sin).abs()
        round_ = (uniform(rng, count) < 0.5)[:, None, None]
        distance = torch.where(round_, (u**2 + v**2).sqrt(), torch.maximum(u, 2 * v))
        inside = (distance < radius[:, None, None])[:, None]
        picture = torch.where(inside, colours(rng, count)[:, :, None, None], picture)
    return picture


def stripes(rng: Generator, count: int, size: int) -> Tensor:
    """Stripes, checks, bricks and dots of two or three colours."""
    at = torch.arange(size, device=rng.device) / size
    kind = integers(rng, 0, 4, count, 1, 1)
    fx = integers(rng, 2, 14, count, 1, 1)
    fy = torch.where(uniform(rng, count, 1, 1) < 0.5, fx, integers(rng, 2, 14, count, 1, 1))
    y = at[None, :, None] * fy
    shift = torch.where(kind == 2, 0.5 * (y.floor() % 2), 0.0)
    x = at[None, None, :] * fx + shift
    duty = uniform(rng, count, 1, 1, low=0.15, high=0.6)
    in_x, in_y = (x % 1) < duty, (y % 1) < duty
    dots = ((x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2).sqrt() < duty * 0.6
    wide = torch.ones_like(y, dtype=torch.bool)
    pattern = torch.where(kind == 0, in_x & wide, in_x ^ in_y)
    lines = (x % 1 < 0.1 * duty + 0.03) | (y % 1 < 0.1 * duty + 0.03)
    pattern = torch.where(kind == 2, lines, pattern)
    pattern = torch.where(kind == 3, dots, pattern)[:, None]
    first, second = colours(rng, 2, count)[..., None, None]
    noise = (spectral(rng, count, size) - 0.5)[:, None] * 0.15
    return (torch.where(pattern, first, second) + noise).clamp(0, 1)


def mixed(rng: Generator, one: Tensor, other: Tensor) -> Tensor:
    """Two batches of patterns [N, 3, S, S], one showing through irregular holes of the other."""
    mask = spectral(rng, len(one), one.shape[-1])[:, None]
    return torch.where(mask > uniform(rng, len(one), 1, 1, 1, low=0.35, high=0.65), one, other)
