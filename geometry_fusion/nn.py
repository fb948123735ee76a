"""Layers that MUSt3R and the merger share: rotary positions, attention, MLP.

They follow docs/must3r_spec.md (SPEC), sections 2.2, 3 and 4.2. Tokens are [B, N, D], positions
int64 [B, N, 2] as (row, column) of the patch. Module names are those of the published state dicts.
"""

import re

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

NORM_EPS = 1e-6  # of all norms in MUSt3R except the decoder's feedback norm


def grid_positions(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(row, column) of all patches of a grid, row-major: int64 [height * width, 2]."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return torch.cartesian_prod(rows, columns)


class RoPE2D:
    """Rotary code of 2D positions: the first half of a head's channels is rotated by the row, the
    second half by the column.

    name: "RoPE100" (base 100), or "RoPE100_512:768": positions are multiplied by 512/768, so that a
    grid of 768 pixels spans the same angles as 512 pixels did in training. Raises ValueError for
    other names.
    """

    def __init__(self, name: str):
        parsed = re.fullmatch(r"RoPE(\d{1,6}(?:\.\d{0,6})?)(?:_(\d{1,6}):(\d{1,6}))?", name)
        if not parsed or not all(float(number) for number in parsed.groups("1")):
            raise ValueError(
                f"pos_embed {name!r}: unknown; expected RoPE<base> or RoPE<base>_<old>:<new>"
            )
        base, old, new = parsed.groups()
        self.base = float(base)
        self.scale = float(old) / float(new) if old else 1.0
        # (positions, head_dim, their angles) of the latest call: all blocks of a network have the
        # same positions.
        self._latest: tuple = (None, 0, None)

    def angles(self, positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
        """cos and signed sin for `__call__`, each [B, 1, N, head_dim]: row first, then column."""
        if self._latest[0] is not positions or self._latest[1] != head_dim:
            self._latest = (positions, head_dim, self._angles(positions, head_dim))
        return self._latest[2]

    def _angles(self, positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
        quarter = head_dim // 4
        steps = torch.arange(quarter, device=positions.device, dtype=torch.float32) / quarter
        frequencies = self.scale / self.base**steps
        angles = positions[..., None].float() * frequencies  # [B, N, 2, quarter]
        # Halves, not interleaved pairs: the two halves (u, v) of a row's or a column's channels
        # become (u cos - v sin, v cos + u sin).
        cos = angles.cos()[:, None, :, :, None]
        cos = cos.expand(-1, -1, -1, -1, 2, -1)  # [B, 1, N, 2, 2, quarter]
        sin = angles.sin()[:, None]
        return cos.flatten(3), torch.stack((-sin, sin), -2).flatten(3)

    def __call__(self, x: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """Rotate queries or keys [B, heads, N, head_dim]. cos_sin: `angles` of their positions."""
        cos, sin = (t.to(x.dtype) for t in cos_sin)
        u, v = x.unflatten(-1, (2, 2, -1)).unbind(-2)
        swapped = torch.stack((v, u), -2).flatten(-3)  # several times as fast as `flip`
        return torch.addcmul(x * cos, swapped, sin)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, N, heads * d] -> [B, heads, N, d]."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, heads, N, d] -> [B, N, heads * d]."""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention inside one image, with rotary codes on queries and keys.

    Raises ValueError unless `dim` is a multiple of 4 * num_heads, which the rotary code needs.
    """

    def __init__(self, dim: int, num_heads: int, rope: RoPE2D):
        super().__init__()
        if num_heads < 1 or dim % (4 * num_heads):
            raise ValueError(f"num_heads {num_heads}: width {dim} must be a multiple of 4 times it")
        self.num_heads, self.rope = num_heads, rope
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x [B, N, D] and positions int64 [B, N, 2] -> [B, N, D]."""
        qkv = self.qkv(x)
        # Queries and keys are rotated in one call.
        rotated = split_heads(qkv[..., : -qkv.shape[-1] // 3], 2 * self.num_heads)
        rotated = self.rope(rotated, self.rope.angles(positions, rotated.shape[-1]))
        q, k = rotated.chunk(2, dim=1)
        v = split_heads(qkv[..., -qkv.shape[-1] // 3 :], self.num_heads)
        x = scaled_dot_product_attention(q, k, v)
        return self.proj(merge_heads(x))


class CrossAttention(nn.Module):
    """Attention to memory tokens, without position codes. The caller projects keys and values, so
    that the memory can store them projected.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries [B, N, D] not yet projected; keys and values [B, M, D] projected -> [B, N, D]."""
        q = self.projq(queries)
        k = split_heads(keys.to(q.dtype), self.num_heads)
        v = split_heads(values.to(q.dtype), self.num_heads)
        q = split_heads(q, self.num_heads)
        return self.proj(merge_heads(scaled_dot_product_attention(q, k, v)))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.fc2(gelu(self.fc1(x)))
