"""A block of MUSt3R's decoder, and the forms in which memory stores its tokens."""

import torch
from torch import Tensor, nn

from geometry_fusion.nn import NORM_EPS, Attention, CrossAttention, Mlp, RoPE2D


class DecoderBlock(nn.Module):
    """Self-attention inside each image, cross-attention to memory, MLP."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, rope: RoPE2D):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, rope)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.cross_attn = CrossAttention(dim, num_heads)
        self.norm_y = nn.LayerNorm(dim, eps=NORM_EPS)
        self.norm3 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def prepare(self, tokens: Tensor, mode: str) -> Tensor:
        """Raw tokens [B, M, D] -> the form that memory stores (SPEC section 4.3).

        mode: raw, norm_y (normalised) or kv (projected keys and values, [B, M, 2 D]).
        """
        if mode == "raw":
            return tokens
        normed = self.norm_y(tokens).to(tokens.dtype)
        if mode == "norm_y":
            return normed
        return torch.cat((self.cross_attn.projk(normed), self.cross_attn.projv(normed)), -1)

    def keys_values(self, stored: Tensor, mode: str) -> tuple[Tensor, Tensor]:
        """The form that memory stores -> projected keys and values, each [B, M, D]."""
        if mode == "kv":
            return stored.chunk(2, dim=-1)
        if mode == "raw":
            stored = self.norm_y(stored).to(stored.dtype)
        return self.cross_attn.projk(stored), self.cross_attn.projv(stored)
