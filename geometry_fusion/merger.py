"""FeatureMerger: adds multi-view geometry to an image feature, one frame at a time.

In: appearance [B, C, H, W] on a grid that covers the whole original frame, and its GeometryFrame
(one for the whole batch, or B of them). Out: [B, C, H, W]. The last convolution starts at zero: an
untrained merger returns the appearance unchanged. Formulas are those of 3AM (arXiv 2601.08831,
section 3.2):

    F <- SelfAttn(proj(F_0) + PE3D; PE2D)
    F <- FFN(CrossAttn(SelfAttn(F + PE3D), F_i + PE3D))      for the other levels i
    out = appearance + block([appearance, conv3x3(F)])

`PE3D` codes points and viewing rays; where they are unknown or not finite it is zero. `PE2D` is
MUSt3R's rotary code.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, scaled_dot_product_attention

from geometry_fusion.must3r.layers import (
    Attention,
    Mlp,
    RoPE2D,
    grid_positions,
    merge_heads,
    split_heads,
)
from geometry_fusion.types import GeometryFrame

VARIANTS = ("paper", "add_conv", "concat_attention", "must3r_only")
GRIDS = ("geometry", "appearance", "mixed")
SOURCES = ("geometry", "appearance")
POINT_LIMIT = 16.0  # in scales of the scene; what lies farther is as far


class PE3D(nn.Module):
    """Code of places and viewing directions: [..., 3] points in scales of the scene and unit rays
    -> [..., dim].

    Sines and cosines at octaves, the slowest turning half way from 0 to `POINT_LIMIT`, then an MLP.
    It starts louder than the levels it is added to (std 2 beside 0.45): with torch's own
    initialisation (0.09) places went unheard.
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
        coded = []
        for values, octaves in zip((points / POINT_LIMIT, rays), self._octaves):
            angles = values[..., None] * (
                torch.pi * 2.0 ** torch.arange(octaves, device=values.device)
            )
            coded += [angles.sin().flatten(-2), angles.cos().flatten(-2)]
        return self.mlp(torch.cat(coded, -1))


class MergeStage(nn.Module):
    """FFN(CrossAttn(SelfAttn(F + PE3D), F_i + PE3D)), pre-norm, with skips."""

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
        """x, level (already dim wide) and code [B, N, dim], positions int64 [B, N, 2]."""
        x = x + code
        x = x + self.self_attn(self.norm_self(x), positions)
        queries = split_heads(self.query(self.norm_query(x)), self.num_heads)
        seen = self.key_value(self.norm_level(level + code))
        keys, values = (split_heads(t, self.num_heads) for t in seen.chunk(2, dim=-1))
        x = x + self.proj(merge_heads(scaled_dot_product_attention(queries, keys, values)))
        return x + self.ffn(self.norm_ffn(x))


class FeatureMerger(nn.Module):
    """See the module's description. Raises ValueError for unknown variants and frames that do not
    fit.

    level_dims: channels of the levels a GeometryFrame brings. grid: where attention runs: on the
    geometry's own grid ("geometry", as the paper; the result is resampled to the appearance), on
    the appearance's ("appearance": the levels are resampled first; for geometry coarser than the
    appearance), or on the geometry's with places on the appearance's ("mixed": codes are read
    there, their means join the tokens, and after the result was resampled they are added to it
    again, which gives back the places that the coarse grid blurred). subsamples: points per side of
    a cell whose codes are averaged. levels_from "appearance": the appearance itself stands in for
    all levels (the control and oracle arms of the tables: as many parameters, no multi-view
    features). variant: the ablations of the paper's table.
    """

    def __init__(
        self,
        *,
        channels: int,
        level_dims: Sequence[int],
        dim: int,
        num_heads: int,
        grid: str = "geometry",
        subsamples: int = 1,
        levels_from: str = "geometry",
        variant: str = "paper",
        pos_embed: str = "RoPE100",
    ):
        super().__init__()
        for argument, value, known in (
            ("grid", grid, GRIDS),
            ("levels_from", levels_from, SOURCES),
            ("variant", variant, VARIANTS),
        ):
            if value not in known:
                raise ValueError(
                    f"merger {argument} {value!r}: unknown; expected one of {', '.join(known)}"
                )
        if levels_from == "appearance" and channels > min(level_dims):
            raise ValueError(f"levels_from=appearance needs levels of at least {channels} channels")
        self.channels, self.level_dims = channels, tuple(level_dims)
        # The appearance lies on its own grid, whatever the geometry's is.
        self._grid, self._subsamples = (
            "appearance" if levels_from == "appearance" else grid,
            subsamples,
        )
        self._levels_from, self._variant = levels_from, variant
        rope = RoPE2D(pos_embed)
        self.code = PE3D(dim)
        self.level_proj = nn.ModuleList(nn.Linear(d, dim) for d in self.level_dims)
        if variant in ("paper", "must3r_only"):
            self.norm_first = nn.LayerNorm(dim)
            self.first_attn = Attention(dim, num_heads, rope)
            self.stages = nn.ModuleList(
                MergeStage(dim, num_heads, rope) for _ in self.level_dims[1:]
            )
        elif variant == "concat_attention":
            self.join = nn.Linear(len(self.level_dims) * dim, dim)
            self.stages = nn.ModuleList(
                MergeStage(dim, num_heads, rope) for _ in self.level_dims[1:]
            )
        else:
            self.convs = nn.Sequential(
                nn.Conv2d(dim, dim, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(dim, dim, 3, padding=1),
                nn.GELU(),
            )
        self.smooth = nn.Conv2d(dim, dim, 3, padding=1)
        incoming = dim if variant == "must3r_only" else channels + dim
        self.block = nn.Sequential(
            nn.Conv2d(incoming, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        if variant != "must3r_only":  # that one has no appearance to fall back on
            nn.init.zeros_(self.block[-1].weight)
            nn.init.zeros_(self.block[-1].bias)

    @property
    def reads_on_appearance(self) -> bool:
        """Whether points are read on the appearance's grid (times subsamples), not on that of the
        levels.
        """
        return self._grid != "geometry"

    def forward(
        self, appearance: Tensor, frames: GeometryFrame | Sequence[GeometryFrame]
    ) -> Tensor:
        frames = [frames] if isinstance(frames, GeometryFrame) else list(frames)
        if len(frames) not in (1, len(appearance)):
            raise ValueError(
                f"{len(frames)} geometry frames for {len(appearance)} images; give one or as many"
            )
        if self._levels_from == "geometry" and not frames[0].levels:
            return appearance  # nothing is known
        onto, on_appearance = appearance.shape[-2:], self._grid == "appearance"
        grid = onto if on_appearance else frames[0].levels[0].shape[-2:]
        alike = _runs_of_one_fit(frames)
        # [F, dim, h, w] where points are read, and where attention runs.
        codes = [self._codes(run, onto if self.reads_on_appearance else grid) for run in alike]
        own = (
            [to_own_grid(c, run[0], grid) for c, run in zip(codes, alike)]
            if self._grid == "mixed"
            else codes
        )
        levels = self._levels(appearance, alike, grid, on_appearance)  # per level [F, h * w, dim]
        merged = self._merge(levels, torch.cat(own).flatten(2).transpose(1, 2), grid)
        if not on_appearance:
            parts = merged.split([len(run) for run in alike])
            merged = torch.cat(
                [to_appearance(part, run[0], onto) for part, run in zip(parts, alike)]
            )
        if self._grid == "mixed":
            merged = merged + torch.cat(codes)
        merged = self.smooth(merged).expand(len(appearance), -1, -1, -1)
        if self._variant == "must3r_only":
            return self.block(merged)
        return appearance + self.block(torch.cat((appearance, merged.to(appearance.dtype)), 1))

    def _merge(self, levels: list[Tensor], code: Tensor, grid: tuple[int, int]) -> Tensor:
        """[F, h * w, dim] per level -> [F, dim, h, w]."""
        positions = grid_positions(*grid, device=code.device).expand(len(code), -1, -1)
        if self._variant == "add_conv":
            x = sum(levels) + code
            return self.convs(x.transpose(1, 2).unflatten(2, grid))
        if self._variant == "concat_attention":
            x = self.join(torch.cat(levels, -1))
            for stage in self.stages:
                x = stage(x, x, code, positions)
        else:
            x = levels[0] + code
            x = x + self.first_attn(self.norm_first(x), positions)
            for stage, level in zip(self.stages, levels[1:]):
                x = stage(x, level, code, positions)
        return x.transpose(1, 2).unflatten(2, grid)

    def _levels(self, appearance, alike, grid, on_appearance) -> list[Tensor]:
        """Per level [F, h * w, dim]. alike: runs of frames of one fit."""
        if self._levels_from == "appearance":
            padded = [
                nn.functional.pad(appearance, (0, 0, 0, 0, 0, d - self.channels))
                for d in self.level_dims
            ]
            return [
                proj(level.flatten(2).transpose(1, 2))
                for proj, level in zip(self.level_proj, padded)
            ]
        found = tuple(level.shape[0] for level in alike[0][0].levels)
        if found != self.level_dims:
            raise ValueError(
                f"geometry has levels of {found} channels, the merger was made for "
                f"{self.level_dims}"
            )
        levels = []
        for number, proj in enumerate(self.level_proj):
            parts = []
            for run in alike:
                level = torch.stack(
                    [torch.nan_to_num(frame.levels[number], 0, 0, 0) for frame in run]
                )
                # Projected before it is resampled, where cells are few; both are linear. The bias
                # is everywhere.
                level = nn.functional.linear(level.movedim(1, -1), proj.weight).movedim(-1, 1)
                parts.append(to_appearance(level, run[0], grid) if on_appearance else level)
            level = torch.cat(parts)
            levels.append(level.flatten(2).transpose(1, 2) + proj.bias)
        return levels

    def _codes(self, frames: Sequence[GeometryFrame], grid: tuple[int, int]) -> Tensor:
        """PE3D of the cells of the grid on which points are read: [F, dim, h, w] for frames of one
        fit; zero where nothing is known."""
        s = self._subsamples
        fine = (grid[0] * s, grid[1] * s)
        # Nearest only: between an object and the wall behind it there is nothing.
        sample = to_appearance if self.reads_on_appearance else _within_own_grid
        maps = (
            (f.points / f.scale for f in frames),
            (f.rays for f in frames),
            (f.confidence[None] for f in frames),
        )
        geometry = torch.cat(
            [sample(torch.stack(list(m)), frames[0], fine, mode="nearest") for m in maps], 1
        )
        geometry = torch.where(geometry.isfinite().all(1, keepdim=True), geometry, 0.0)
        points, rays, confidence = geometry.split((3, 3, 1), 1)
        code = self.code(
            points.clamp(-POINT_LIMIT, POINT_LIMIT).movedim(1, -1), rays.movedim(1, -1)
        ).movedim(-1, 1)
        return avg_pool2d(code * confidence, s)


def _runs_of_one_fit(frames: Sequence[GeometryFrame]) -> list[list[GeometryFrame]]:
    """Neighbours that lie alike on their originals, as all frames of a video do, go through
    everything together.
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
    """Follow `frame.fit` from cells of the original to what the geometry saw of them; zero where it
    cut them away.
    """
    return _read(values, *(frame.fit.seen_at(axis, grid[1 - axis]) for axis in (0, 1)), mode)


def to_own_grid(
    values: Tensor,  # [F, C, H, W] on a grid that covers the whole original frame
    frame: GeometryFrame,
    grid: tuple[int, int],
) -> Tensor:  # [F, C, *grid] on a grid that covers the fitted image
    """The way back of `to_appearance`, bilinear."""
    return _read(values, *(frame.fit.lies_at(axis, grid[1 - axis]) for axis in (0, 1)), "bilinear")


def _within_own_grid(
    values: Tensor, frame: GeometryFrame, grid: tuple[int, int], mode: str
) -> Tensor:
    return _read(values, *((torch.arange(n) + 0.5) / n for n in grid[::-1]), mode)


def _read(values: Tensor, columns, rows, mode: str) -> Tensor:
    """Values at relative positions 0..1 of their grid; zero outside, or not finite where the
    nearest value is not.
    """
    where, inside = _sampling(
        tuple(map(float, columns)), tuple(map(float, rows)), tuple(values.shape[-2:])
    )
    where, inside = where.to(values), inside.to(values.device)
    return (
        grid_sample(
            values,
            where.expand(len(values), -1, -1, -1),
            mode=mode,
            padding_mode="zeros",
            align_corners=False,
        )
        * inside
    )


@lru_cache(maxsize=64)
def _sampling(columns: tuple, rows: tuple, cells: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where `grid_sample` reads and what lies inside: the same for all frames of a video."""
    with torch.inference_mode(False):  # training reads them as well
        x, y = torch.tensor(columns), torch.tensor(rows)
        inside = ((y >= 0) & (y <= 1))[:, None] & ((x >= 0) & (x <= 1))
        where = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None] * 2 - 1
        # Half a cell at the edges reads the edge's own cell. As padding_mode="border", which
        # Apple's devices lack.
        edge = 1 - 1 / torch.tensor(cells[::-1])
        return torch.maximum(torch.minimum(where, edge), -edge), inside
