"""MUSt3R's image encoder: a ViT with rotary 2D positions (SPEC section 2).

In: images [B, 3, H, W] in -1..1, H and W multiples of the patch. Out: tokens [B, N, De] and
positions [B, N, 2].
"""

import torch
from torch import Tensor, nn

from geometry_fusion.nn import NORM_EPS, Attention, Mlp, RoPE2D, grid_positions

PATCH_EMBEDS = ("PatchEmbedDust3R", "ManyAR_PatchEmbed")


class PatchEmbed(nn.Module):
    """Patches to tokens, by one strided convolution; row-major. Images are read as they are stored.

    PatchEmbedDust3R of the official code.
    """

    def __init__(self, patch_size: int, embed_dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor, true_shape: Tensor | None) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] -> tokens [B, N, De], positions int64 [B, N, 2].

        true_shape is not read. Raises ValueError if a side is no multiple of the patch size.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"image of {width}x{height}: both sides must be multiples of {self.patch_size}"
            )
        grid = self.proj(images)
        positions = grid_positions(*grid.shape[-2:], device=images.device)
        return grid.flatten(2).transpose(1, 2), positions.expand(len(images), -1, -1)


class ManyAspectRatioPatchEmbed(PatchEmbed):
    """As PatchEmbed, for batches in which all images are stored in landscape.

    Images whose `true_shape` (height, width) is portrait are transposed back first.
    ManyAR_PatchEmbed of the official code.
    """

    def forward(self, images: Tensor, true_shape: Tensor | None) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W], true_shape [B, 2] -> tokens [B, N, De], positions int64 [B, N, 2].

        Raises ValueError if images are stored in portrait, and without `true_shape`.
        """
        if true_shape is None or images.shape[-1] < images.shape[-2]:
            raise ValueError("ManyAR_PatchEmbed takes images stored in landscape, with true_shape")
        portrait = true_shape[:, 1] < true_shape[:, 0]
        tokens, positions = super().forward(images, None)
        if not portrait.any():
            return tokens, positions
        turned, turned_positions = super().forward(images.transpose(-2, -1), None)
        # Both orientations are computed for the whole batch, and the right one is chosen.
        choose = portrait[:, None, None]
        return torch.where(choose, turned, tokens), torch.where(choose, turned_positions, positions)


class EncoderBlock(nn.Module):
    """Self-attention and MLP, pre-norm, with skips."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, rope: RoPE2D):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, rope)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Tokens [B, N, De], positions int64 [B, N, 2] -> tokens [B, N, De]."""
        x = x + self.attn(self.norm1(x), positions)
        return x + self.mlp(self.norm2(x))


class Dust3rEncoder(nn.Module):
    """The Siamese encoder, always computed in fp32, under autocast as well (SPEC section 2.3).

    Arguments are those of the constructor strings in published checkpoints (SPEC section 5).
    `img_size` is the training size; other multiples of the patch are accepted. Raises ValueError
    for an unknown variant.
    """

    def __init__(
        self,
        img_size: tuple[int, int] = (224, 224),
        patch_size: int = 16,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4,
        patch_embed: str = "PatchEmbedDust3R",
        pos_embed: str = "RoPE100",
    ):
        super().__init__()
        if patch_embed not in PATCH_EMBEDS:
            raise ValueError(
                f"patch_embed {patch_embed!r}: unknown; expected one of {', '.join(PATCH_EMBEDS)}"
            )
        self.img_size, self.patch_size, self.embed_dim = tuple(img_size), patch_size, embed_dim
        embed = PatchEmbed if patch_embed == "PatchEmbedDust3R" else ManyAspectRatioPatchEmbed
        self.patch_embed = embed(patch_size, embed_dim)
        rope = RoPE2D(pos_embed)
        self.blocks_enc = nn.ModuleList(
            EncoderBlock(embed_dim, num_heads, mlp_ratio, rope) for _ in range(depth)
        )
        self.norm_enc = nn.LayerNorm(embed_dim, eps=NORM_EPS)

    def forward(self, images: Tensor, true_shape: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W], float in -1..1 -> tokens [B, N, De], positions int64 [B, N, 2].

        true_shape: int64 [B, 2], (height, width) of each image before it was stored.
        """
        with torch.autocast(images.device.type, enabled=False):
            x, positions = self.patch_embed(images.float(), true_shape)
            for block in self.blocks_enc:
                x = block(x, positions)
            return self.norm_enc(x), positions
