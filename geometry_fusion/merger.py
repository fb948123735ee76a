"""FeatureMerger: adds multi-view geometry to an image feature, one frame at a time.

In: appearance [B, C, H, W] on a grid that covers the whole original frame, and its GeometryFrame
(one for the whole batch, or B of them). Out: [B, C, H, W]. The last convolution starts at zero: an
untrained merger returns the appearance unchanged. Formulas are those of 3AM (arXiv 2601.08831,
section 3.2):

    F <- SelfAttn(proj(F_0) + PE3D; PE2D)
    F <- FFN(CrossAttn(SelfAttn(F + PE3D), F_i + PE3D))      for the other levels i
    out = appearance + block([appearance, conv3x3(F)])

F_0, F_1, ... are the feature levels of the geometry. `PE3D` is the code of points and viewing rays;
it is zero where they are unknown or not finite. `PE2D` is MUSt3R's rotary position code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from geometry_fusion.merger_parts import (
    PE3D,
    POINT_LIMIT,
    MergeStage,
    runs_of_one_fit,
    to_appearance,
    to_own_grid,
    within_own_grid,
)
from geometry_fusion.nn import Attention, RoPE2D, grid_positions
from geometry_fusion.types import GeometryFrame

VARIANTS = ("paper", "add_conv", "concat_attention", "must3r_only")
GRIDS = ("geometry", "appearance", "mixed")
SOURCES = ("geometry", "appearance")


class FeatureMerger(nn.Module):
    """Fuses appearance [B, C, h, w] with the geometry of the same frames; see the module.

    channels: C of the appearance.
    level_dims: channels of the feature levels of a GeometryFrame.
    dim, num_heads: width and heads of the attention.
    grid: where attention runs.
        geometry: on the geometry's grid, as in the paper; the result is resampled to the grid of
            the appearance.
        appearance: on the grid of the appearance, to which levels are resampled first. For geometry
            that is coarser than the appearance.
        mixed: on the geometry's grid; position codes are computed on the grid of the appearance,
            pooled for attention, and added again after upsampling to keep detail.
    subsamples: points per side of a cell, whose codes are averaged.
    levels_from: "appearance" replaces all levels by the appearance: the control and oracle arms,
        with as many parameters and no multi-view features.
    variant: the ablations of the paper's table.
    pos_embed: rotary positions, RoPE and a base.

    Raises ValueError for unknown names, and for levels that are narrower than the appearance that
    replaces them.
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
        # Levels that are the appearance are already on its grid.
        self._grid = "appearance" if levels_from == "appearance" else grid
        self._subsamples = subsamples
        self._levels_from, self._variant = levels_from, variant
        self.code = PE3D(dim)
        self.level_proj = nn.ModuleList(nn.Linear(d, dim) for d in self.level_dims)
        self._add_stages(dim, num_heads, RoPE2D(pos_embed))
        self.smooth = nn.Conv2d(dim, dim, 3, padding=1)
        incoming = dim if variant == "must3r_only" else channels + dim
        self.block = nn.Sequential(
            nn.Conv2d(incoming, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        # Zero: an untrained merger returns the appearance. must3r_only has none to return.
        if variant != "must3r_only":
            nn.init.zeros_(self.block[-1].weight)
            nn.init.zeros_(self.block[-1].bias)

    def _add_stages(self, dim: int, num_heads: int, rope: RoPE2D) -> None:
        """Make the modules that join the levels, by variant."""
        if self._variant == "add_conv":
            self.convs = nn.Sequential(
                nn.Conv2d(dim, dim, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(dim, dim, 3, padding=1),
                nn.GELU(),
            )
            return
        if self._variant == "concat_attention":
            self.join = nn.Linear(len(self.level_dims) * dim, dim)
        else:
            self.norm_first = nn.LayerNorm(dim)
            self.first_attn = Attention(dim, num_heads, rope)
        self.stages = nn.ModuleList(MergeStage(dim, num_heads, rope) for _ in self.level_dims[1:])

    @property
    def reads_on_appearance(self) -> bool:
        """Whether points are read on the grid of the appearance (times subsamples)."""
        return self._grid != "geometry"

    def forward(
        self, appearance: Tensor, frames: GeometryFrame | Sequence[GeometryFrame]
    ) -> Tensor:
        """Fused features [B, C, h, w] from appearance [B, C, h, w] and geometry.

        frames: one GeometryFrame for all images, or one for each. Without levels (`NoGeometry`),
        and with an untrained merger, the result is the appearance bit for bit. Raises ValueError
        for another number of frames, and for levels of other widths than `level_dims`.
        """
        frames = [frames] if isinstance(frames, GeometryFrame) else list(frames)
        if len(frames) not in (1, len(appearance)):
            raise ValueError(
                f"{len(frames)} geometry frames for {len(appearance)} images; give 1 or one each"
            )
        if self._levels_from == "geometry" and not frames[0].levels:
            return appearance
        image_grid = appearance.shape[-2:]
        on_appearance = self._grid == "appearance"
        attention_grid = image_grid if on_appearance else frames[0].levels[0].shape[-2:]
        point_grid = image_grid if self.reads_on_appearance else attention_grid
        runs = runs_of_one_fit(frames)
        codes = [self._codes(run, point_grid) for run in runs]  # each [F, dim, *point_grid]
        attention_codes = codes
        if self._grid == "mixed":
            attention_codes = [
                to_own_grid(code, run[0], attention_grid) for code, run in zip(codes, runs)
            ]
        code = torch.cat(attention_codes).flatten(2).transpose(1, 2)  # [F, h * w, dim]
        levels = self._levels(appearance, runs, attention_grid, on_appearance)
        merged = self._merge(levels, code, attention_grid)  # [F, dim, *attention_grid]
        if not on_appearance:
            by_run = merged.split([len(run) for run in runs])
            merged = torch.cat(
                [to_appearance(part, run[0], image_grid) for part, run in zip(by_run, runs)]
            )
        if self._grid == "mixed":
            merged = merged + torch.cat(codes)
        merged = self.smooth(merged).expand(len(appearance), -1, -1, -1)
        if self._variant == "must3r_only":
            return self.block(merged)
        return appearance + self.block(torch.cat((appearance, merged.to(appearance.dtype)), 1))

    def _merge(self, levels: list[Tensor], code: Tensor, grid: tuple[int, int]) -> Tensor:
        """Join levels and code, each [F, h * w, dim], by the variant -> [F, dim, h, w]."""
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

    def _levels(
        self,
        appearance: Tensor,
        runs: list[list[GeometryFrame]],  # frames of one fit each
        grid: tuple[int, int],
        on_appearance: bool,
    ) -> list[Tensor]:
        """The projected levels, each [F, h * w, dim] on the grid where attention runs."""
        if self._levels_from == "appearance":
            padded = [
                nn.functional.pad(appearance, (0, 0, 0, 0, 0, d - self.channels))
                for d in self.level_dims
            ]
            return [
                proj(level.flatten(2).transpose(1, 2))
                for proj, level in zip(self.level_proj, padded)
            ]
        channels = tuple(level.shape[0] for level in runs[0][0].levels)
        if channels != self.level_dims:
            raise ValueError(
                f"geometry has levels of {channels} channels, the merger was made for "
                f"{self.level_dims}"
            )
        levels = []
        for number, proj in enumerate(self.level_proj):
            projected = []
            for run in runs:
                level = torch.stack(
                    [torch.nan_to_num(frame.levels[number], 0, 0, 0) for frame in run]
                )
                # Projected before it is resampled, while cells are few; both are linear. The bias
                # comes after: it also holds where the fit cropped the frame.
                level = nn.functional.linear(level.movedim(1, -1), proj.weight).movedim(-1, 1)
                projected.append(to_appearance(level, run[0], grid) if on_appearance else level)
            level = torch.cat(projected)
            levels.append(level.flatten(2).transpose(1, 2) + proj.bias)
        return levels

    def _codes(self, frames: Sequence[GeometryFrame], grid: tuple[int, int]) -> Tensor:
        """PE3D on the grid where points are read: [F, dim, *grid] for frames of one fit.

        Weighted by confidence, so that it is zero where the geometry is unknown.
        """
        s = self._subsamples
        fine = (grid[0] * s, grid[1] * s)
        sample = to_appearance if self.reads_on_appearance else within_own_grid
        maps = (
            torch.stack([frame.points / frame.scale for frame in frames]),
            torch.stack([frame.rays for frame in frames]),
            torch.stack([frame.confidence[None] for frame in frames]),
        )
        # Nearest only: between an object and the wall behind it there is no surface.
        geometry = torch.cat([sample(map_, frames[0], fine, mode="nearest") for map_ in maps], 1)
        geometry = torch.where(geometry.isfinite().all(1, keepdim=True), geometry, 0.0)
        points, rays, confidence = geometry.split((3, 3, 1), 1)
        code = self.code(
            points.clamp(-POINT_LIMIT, POINT_LIMIT).movedim(1, -1), rays.movedim(1, -1)
        ).movedim(-1, 1)
        return avg_pool2d(code * confidence, s)
