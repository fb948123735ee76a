"""Parts of the feature merger: 3D position codes, a stage of cross-attention, resampling."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, scaled_dot_product_attention

from geometry_fusion.nn import Attention, Mlp, RoPE2D, merge_heads, split_heads
from geometry_fusion.types import GeometryFrame

POINT_LIMIT = 16.0  # in scales of the scene; coordinates are clamped to it


class PE3D(nn.Module):
    """3D position code of points and viewing rays: sines and cosines at octaves, then an MLP.

    The slowest wave makes half a turn from 0 to `POINT_LIMIT`. The initial weights give the code a
    larger standard deviation (2) than that of the feature levels it is added to (0.45): with
    torch's default (0.09) the merger did not use positions.
    """

    def __init__(self, dim: int, point_octaves: int = 7, ray_octaves: int = 3):
        super().__init__()
        self._octaves = (point_octaves, ray_octaves)
        self.mlp = nn.Sequential(
            nn.Linear(3 * 2 * (point_octaves + ray_octaves), 2 * dim),
            nn.GELU(),
            nn.Linear(2 * dim, dim),
        )
        for linear in (self.mlp[0], self.mlp[2]):
            nn.init.normal_(linear.weight, std=1.5 * (2 / linear.in_features) ** 0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, points: Tensor, rays: Tensor) -> Tensor:
        """points [..., 3] in scales of the scene, unit rays [..., 3] -> code [..., dim]."""
        coded = []
        for values, octaves in zip((points / POINT_LIMIT, rays), self._octaves):
            angles = values[..., None] * (
                torch.pi * 2.0 ** torch.arange(octaves, device=values.device)
            )
            coded += [angles.sin().flatten(-2), angles.cos().flatten(-2)]
        return self.mlp(torch.cat(coded, -1))


class MergeStage(nn.Module):
    """Adds one feature level: FFN(CrossAttn(SelfAttn(F + PE3D), F_i + PE3D)), pre-norm, with skips.

    Source: 3AM (arXiv 2601.08831, section 3.2).
    """

    def __init__(self, dim: int, num_heads: int, rope: RoPE2D):
        super().__init__()
        self.norm_self = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, num_heads, rope)
        self.norm_query, self.norm_level = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.num_heads = num_heads
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, level: Tensor, code: Tensor, positions: Tensor) -> Tensor:
        """x, level and code, each [B, N, dim], positions int64 [B, N, 2] -> [B, N, dim]."""
        x = x + code
        x = x + self.self_attn(self.norm_self(x), positions)
        queries = split_heads(self.query(self.norm_query(x)), self.num_heads)
        seen = self.key_value(self.norm_level(level + code))
        keys, values = (split_heads(t, self.num_heads) for t in seen.chunk(2, dim=-1))
        x = x + self.proj(merge_heads(scaled_dot_product_attention(queries, keys, values)))
        return x + self.ffn(self.norm_ffn(x))


def runs_of_one_fit(frames: Sequence[GeometryFrame]) -> list[list[GeometryFrame]]:
    """Group neighbouring frames with the same fit and grid, which can be computed as one batch.

    All frames of a video have the same.
    """
    return [
        list(run)
        for _, run in groupby(frames, key=lambda frame: (frame.fit, frame.confidence.shape))
    ]


def to_appearance(
    values: Tensor,  # [F, C, h, w] on a grid that covers the fitted image
    frame: GeometryFrame,
    grid: tuple[int, int],
    mode: str = "bilinear",
) -> Tensor:  # [F, C, *grid] on a grid that covers the whole original frame
    """Resample from the fitted image to the original frame; zero where the fit cropped it.

    Only `frame.fit` is read.
    """
    return _read(values, *(frame.fit.seen_at(axis, grid[1 - axis]) for axis in (0, 1)), mode)


def to_own_grid(
    values: Tensor,  # [F, C, H, W] on a grid that covers the whole original frame
    frame: GeometryFrame,
    grid: tuple[int, int],
) -> Tensor:  # [F, C, *grid] on a grid that covers the fitted image
    """The inverse of `to_appearance`, bilinear."""
    return _read(values, *(frame.fit.lies_at(axis, grid[1 - axis]) for axis in (0, 1)), "bilinear")


def within_own_grid(
    values: Tensor,  # [F, C, h, w] on a grid that covers the fitted image
    frame: GeometryFrame,
    grid: tuple[int, int],
    mode: str,
) -> Tensor:  # [F, C, *grid] on a grid that covers the fitted image
    """Resample inside the fitted image, with the arguments of `to_appearance`."""
    return _read(values, *((torch.arange(n) + 0.5) / n for n in grid[::-1]), mode)


def _read(values: Tensor, columns, rows, mode: str) -> Tensor:
    """Values [F, C, h, w] at relative positions 0..1 of their grid; zero outside it.

    Where the nearest value is not finite, the result outside is not finite either.
    """
    where, inside = _sampling(
        tuple(map(float, columns)), tuple(map(float, rows)), tuple(values.shape[-2:])
    )
    sampled = grid_sample(
        values,
        where.to(values).expand(len(values), -1, -1, -1),
        mode=mode,
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled * inside.to(values.device)


@lru_cache(maxsize=64)
def _sampling(columns: tuple, rows: tuple, cells: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The positions that `grid_sample` reads, and which of them are inside the grid.

    Cached, because they are the same for all frames of a video.
    """
    with torch.inference_mode(False):  # training reads the cached tensors as well
        x, y = torch.tensor(columns), torch.tensor(rows)
        inside = ((y >= 0) & (y <= 1))[:, None] & ((x >= 0) & (x <= 1))
        where = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None] * 2 - 1
        # The outer half of an edge cell reads that cell alone, as with padding_mode="border", which
        # Apple's devices lack.
        edge = 1 - 1 / torch.tensor(cells[::-1])
        return torch.maximum(torch.minimum(where, edge), -edge), inside
