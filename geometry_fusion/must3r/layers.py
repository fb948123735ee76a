"""The parts that encoder and decoder share: rotary positions, attention, MLP (SPEC sections 2.2, 3
and 4.2).

Tokens are [B, N, D], positions int64 [B, N, 2] as (row, column) of the patch. Module names are
those of the published state dicts.
"""

import re

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

NORM_EPS = 1e-6  # every norm but the decoder's feedback norm


def grid_positions(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(row, column) of every patch of a height x width grid, row-major: int64 [height * width,
    2].
    """
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return torch.cartesian_prod(rows, columns)


class RoPE2D:
    """Rotary code of 2D positions: the first half of a head's channels turns with the row, the
    second with the column.

    name: "RoPE100" (base 100), or "RoPE100_512:768": positions are compressed by 512/768, so that a
    grid made for 768 pixels covers the angles that 512 pixels had in training. Raises ValueError
    for other names.
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
        self._latest: tuple = (
            None,
            0,
            None,
        )  # positions, head_dim and their angles: all blocks of a network share them

    def angles(self, positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
        """cos and sin [B, 1, N, head_dim] for `__call__`: the row's angles, then the column's; sin
        signed.
        """
        if self._latest[0] is not positions or self._latest[1] != head_dim:
            self._latest = (positions, head_dim, self._angles(positions, head_dim))
        return self._latest[2]

    def _angles(self, positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
        quarter = head_dim // 4
        steps = torch.arange(quarter, device=positions.device, dtype=torch.float32) / quarter
        angles = positions[..., None].float() * (
            self.scale / self.base**steps
        )  # [B, N, 2, quarter]
        # Halves, not interleaved pairs: of a row's or a column's channels (u, v) become (u cos - v
        # sin, v cos + u sin).
        cos = angles.cos()[:, None, :, :, None].expand(
            -1, -1, -1, -1, 2, -1
        )  # [B, 1, N, 2, 2, quarter]
        sin = angles.sin()[:, None]
        return cos.flatten(3), torch.stack((-sin, sin), -2).flatten(3)

    def __call__(self, x: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """Rotate [B, heads, N, head_dim] by `angles` of its positions."""
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
    """Self-attention inside one image, rotary code on queries and keys."""

    def __init__(self, dim: int, num_heads: int, rope: RoPE2D):
        super().__init__()
        if num_heads < 1 or dim % (4 * num_heads):
            raise ValueError(f"num_heads {num_heads}: width {dim} must be a multiple of 4 times it")
        self.num_heads, self.rope = num_heads, rope
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        qkv = self.qkv(x)
        turned = split_heads(
            qkv[..., : -qkv.shape[-1] // 3], 2 * self.num_heads
        )  # queries and keys at once
        turned = self.rope(turned, self.rope.angles(positions, turned.shape[-1]))
        q, k = turned.chunk(2, dim=1)
        v = split_heads(qkv[..., -qkv.shape[-1] // 3 :], self.num_heads)
        x = scaled_dot_product_attention(q, k, v)
        return self.proj(merge_heads(x))


class CrossAttention(nn.Module):
    """Attention to memory tokens, without any position code. Keys and values are projected by the
    caller.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries [B, N, D] not yet projected; keys and values [B, M, D] projected."""
        q = self.projq(queries)
        q, k, v = (
            split_heads(t, self.num_heads) for t in (q, keys.to(q.dtype), values.to(q.dtype))
        )
        return self.proj(merge_heads(scaled_dot_product_attention(q, k, v)))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))
