"""MUSt3R's decoder: pointmaps of images that talk to each other through memory (SPEC section 4).

In: encoder tokens [B, n, N, De] of n images of one size, or lists of those, one entry per size.
Out: the memory with these images added, raw maps [B, n, H, W, 7] (see `postprocess`), and on
request the features of every layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geometry_fusion.must3r.layers import NORM_EPS, Attention, CrossAttention, Mlp, RoPE2D
from geometry_fusion.must3r.memory import Memory
from geometry_fusion.must3r.postprocess import ACTIVATIONS

MAP_CHANNELS = 7  # pts3d, pts3d_local, confidence
FEEDBACK_TYPES = (None, "single_mlp", "single_linear")
MEMORY_MODES = ("norm_y", "kv", "raw")


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
        """Raw tokens [B, M, D] -> what memory stores of them (SPEC section 4.3)."""
        if mode == "raw":
            return tokens
        normed = self.norm_y(tokens).to(tokens.dtype)
        if mode == "norm_y":
            return normed
        return torch.cat((self.cross_attn.projk(normed), self.cross_attn.projv(normed)), -1)

    def keys_values(self, stored: Tensor, mode: str) -> tuple[Tensor, Tensor]:
        """What memory stores -> projected keys and values [B, M, D]."""
        if mode == "kv":
            return stored.chunk(2, dim=-1)
        if mode == "raw":
            stored = self.norm_y(stored).to(stored.dtype)
        return self.cross_attn.projk(stored), self.cross_attn.projv(stored)


@dataclass
class _Group:
    """Images of one size: tokens [B * n, N, D]."""

    x: Tensor
    positions: Tensor  # [B * n, N, 2]
    batch: int
    height: int
    width: int
    portrait: Tensor  # bool [B, n]
    features: list[Tensor]

    @property
    def num_images(self) -> int:
        return len(self.x) // self.batch

    @property
    def sequence(self) -> Tensor:
        """The images of an item one after another: [B, n * N, D]."""
        return self.x.reshape(self.batch, -1, self.x.shape[-1])


class MUSt3R(nn.Module):
    """The multi-view decoder. Arguments are those of the constructor strings in checkpoints (SPEC
    section 5).

    `memory_mode` trades memory for time and may be changed while no memory exists: all modes give
    the same maps. Raises ValueError for unknown variants.
    """

    def __init__(
        self,
        img_size: tuple[int, int] = (224, 224),
        enc_embed_dim: int = 1024,
        patch_size: int = 16,
        embed_dim: int = 768,
        output_dim: int | None = None,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        pos_embed: str = "RoPE100",
        landscape_only: bool = True,
        head: str = "Linear",
        feedback_type: str | None = None,
        memory_mode: str = "norm_y",
        pointmaps_activation: str = "norm_exp",
    ):
        super().__init__()
        output_dim = output_dim or MAP_CHANNELS * patch_size**2
        for argument, value, known in (
            ("head", head, ("Linear",)),
            ("feedback_type", feedback_type, FEEDBACK_TYPES),
            ("memory_mode", memory_mode, MEMORY_MODES),
            ("pointmaps_activation", pointmaps_activation, tuple(ACTIVATIONS)),
            ("output_dim", output_dim, (MAP_CHANNELS * patch_size**2,)),
        ):
            if value not in known:
                raise ValueError(
                    f"{argument} {value!r}: unknown; expected one of {', '.join(map(str, known))}"
                )
        self.img_size, self.patch_size, self.embed_dim = tuple(img_size), patch_size, embed_dim
        self.landscape_only, self.memory_mode = landscape_only, memory_mode
        self.pointmaps_activation = pointmaps_activation
        self.feat_embed_enc_to_dec = nn.Linear(enc_embed_dim, embed_dim)
        self.image2_embed = nn.Parameter(torch.zeros(1, 1, embed_dim))
        nn.init.normal_(self.image2_embed, std=0.02)
        rope = RoPE2D(pos_embed)
        self.blocks_dec = nn.ModuleList(
            DecoderBlock(embed_dim, num_heads, mlp_ratio, rope) for _ in range(depth)
        )
        self.norm_dec = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.head_dec = nn.ModuleDict({"proj": nn.Linear(embed_dim, output_dim)})
        self.feedback_layer = None
        if feedback_type:
            linear = feedback_type == "single_linear"
            self.feedback_layer = (
                nn.Linear(embed_dim, embed_dim) if linear else Mlp(embed_dim, 4 * embed_dim)
            )
            self.feedback_norm = nn.LayerNorm(embed_dim)  # eps 1e-5: the one norm that differs

    def forward(
        self,
        tokens: Tensor
        | Sequence[Tensor],  # [B, n, N, De] from the encoder; a list has one entry per image size
        positions: Tensor | Sequence[Tensor],  # int64 [B, n, N, 2]
        true_shape: Tensor
        | Sequence[Tensor],  # int64 [B, n, 2] as (height, width), equal inside an entry
        memory: Memory | None = None,
        render: bool = False,  # read the memory without adding to it
        return_feats: bool = False,
    ) -> tuple:
        """(memory, raw maps) or (memory, raw maps, features); maps and features are lists when the
        input is.

        Raw maps are [B, n, H, W, 7]. Features are depth + 1 tensors: the encoder's tokens [B, n, N,
        De], then every block's output [B, n, N, D], the last one after the final norm. Raises
        ValueError when `render` lacks a memory or sizes differ inside an entry.
        """
        if render and memory is None:
            raise ValueError("render=True needs a memory")
        listed = isinstance(tokens, (list, tuple))
        inputs = zip(tokens, positions, true_shape) if listed else [(tokens, positions, true_shape)]
        groups = [
            self._group(*entry, has_reference=memory is None and i == 0)
            for i, entry in enumerate(inputs)
        ]
        exposed = self._decode(groups, memory, render)
        if not render:
            lengths = [group.x.shape[1] for group in groups for _ in range(group.num_images)]
            memory = self._remember(exposed, lengths, memory)
        maps = [self._finish(group) for group in groups]
        results = [memory, maps if listed else maps[0]]
        if return_feats:
            features = [[f.unflatten(0, (g.batch, -1)) for f in g.features] for g in groups]
            results.append(features if listed else features[0])
        return tuple(results)

    def read_apart(
        self,
        tokens: Tensor,  # [B, n, N, De] from the encoder
        positions: Tensor,  # int64 [B, n, N, 2]
        true_shape: Tensor,  # int64 [B, n, 2]
        memory: Memory,
    ) -> tuple[Tensor, list[Tensor], Callable[[int, Memory], Memory]]:
        """n images at once, each as if it came next alone: raw maps, features as in `forward`, and
        a function that adds one of them, by its number, to a memory: to this one or one that came
        of it. For frames of which most will not be kept."""
        group = self._group(tokens, positions, true_shape, has_reference=False)
        exposed, length = self._decode([group], memory, render=True), group.x.shape[1]
        maps = self._finish(group)
        features = [f.unflatten(0, (group.batch, -1)) for f in group.features]

        def remembered(number: int, onto: Memory) -> Memory:
            own = slice(number * length, (number + 1) * length)
            return self._remember([[received[:, own]] for (received,) in exposed], [length], onto)

        return maps, features, remembered

    def _finish(self, group: _Group) -> Tensor:
        """After the last block: the final norm, into the features as well, and the raw maps."""
        group.features[-1] = self.norm_dec(group.x)
        return self._maps(group, group.features[-1])

    def _group(
        self, tokens: Tensor, positions: Tensor, true_shape: Tensor, has_reference: bool
    ) -> _Group:
        batch, num_images = tokens.shape[:2]
        height, width = (int(side) for side in true_shape.reshape(-1, 2)[0])
        portrait = true_shape[..., 1] < true_shape[..., 0]
        if not torch.equal(
            true_shape, true_shape.new_tensor([height, width]).expand_as(true_shape)
        ):
            raise ValueError(
                f"images of different sizes in one tensor; the first is {width}x{height}: use lists"
            )
        if (height // self.patch_size) * (width // self.patch_size) != tokens.shape[2]:
            raise ValueError(
                f"{tokens.shape[2]} tokens do not make an image of {width}x{height}; check "
                "true_shape"
            )
        x = self.feat_embed_enc_to_dec(tokens)
        # All but the reference image, also in renders of the reference itself (SPEC section 4.1).
        other = torch.ones(1, num_images, 1, 1, dtype=x.dtype, device=x.device)
        if has_reference:
            other[:, 0] = 0
        x = x + other * self.image2_embed.to(x.dtype)
        return _Group(
            x.flatten(0, 1),
            positions.flatten(0, 1),
            batch,
            height,
            width,
            portrait,
            [tokens.flatten(0, 1)],
        )

    def _decode(
        self, groups: list[_Group], memory: Memory | None, render: bool
    ) -> list[list[Tensor]]:
        """Run all blocks; per layer and group, the tokens [B, n * N, D] that the block received."""
        exposed = []
        alone = len(groups) == 1 and groups[0].num_images == 1
        for index, block in enumerate(self.blocks_dec):
            stored = memory.layers[index] if memory is not None else None
            inputs = [group.sequence for group in groups]
            exposed.append(inputs)
            # A single image reads the memory, or itself if there is none. Others also read each
            # other.
            if render or (alone and stored is not None):
                seen = [block.keys_values(stored, self.memory_mode)] * len(groups)
                for group, (keys, values) in zip(groups, seen):
                    self._read(block, group, [(keys, values)])
            else:
                new = [block.prepare(tokens, self.memory_mode) for tokens in inputs]
                together = torch.cat(new if stored is None else [stored.to(new[0].dtype), *new], 1)
                keys, values = block.keys_values(together, self.memory_mode)
                start = 0 if stored is None else stored.shape[1]
                for group in groups:
                    length, seen = group.x.shape[1], []
                    for _ in range(group.num_images):
                        own = slice(start, start + length)
                        seen.append(
                            (keys, values)
                            if alone
                            else (_without(keys, own), _without(values, own))
                        )
                        start += length
                    self._read(block, group, seen)
            for group in groups:
                group.features.append(group.x)
        return exposed

    def _read(self, block: DecoderBlock, group: _Group, seen: list[tuple[Tensor, Tensor]]) -> None:
        """One block on one group. seen: keys and values per image, or a single pair that all images
        read.
        """
        x = group.x + block.attn(block.norm1(group.x), group.positions)
        queries = block.norm2(x).reshape(group.batch, len(seen), -1, x.shape[-1])
        read = [
            block.cross_attn(queries[:, i], keys, values) for i, (keys, values) in enumerate(seen)
        ]
        x = x + (read[0] if len(read) == 1 else torch.stack(read, 1)).reshape(x.shape)
        group.x = x + block.mlp(block.norm3(x))

    def _remember(
        self, exposed: list[list[Tensor]], lengths: list[int], memory: Memory | None
    ) -> Memory:
        """exposed: per layer, tokens [B, n * N, D] of one or more groups; lengths: tokens of every
        image in them.
        """

        def layers() -> list[Tensor]:
            received = [torch.cat(tokens, 1) for tokens in exposed]
            if self.feedback_layer is not None:
                offset = self.feedback_layer(self.feedback_norm(received[-1])).to(
                    received[-1].dtype
                )
                received = [*(tokens + offset for tokens in received[:-1]), received[-1]]
            return [
                block.prepare(tokens, self.memory_mode)
                for block, tokens in zip(self.blocks_dec, received)
            ]

        first = memory.num_images if memory is not None else 0
        labels = torch.repeat_interleave(
            torch.arange(first, first + len(lengths)), torch.tensor(lengths)
        )
        labels = labels.to(exposed[0][0].device).expand(len(exposed[0][0]), -1).contiguous()
        if memory is None:
            return Memory(layers(), labels, len(lengths))
        return memory.appended(layers, labels, len(lengths))

    def _maps(self, group: _Group, normed: Tensor) -> Tensor:
        """Linear head and pixel shuffle, in fp32: [B, n, H, W, 7]."""
        patch = self.patch_size
        with torch.autocast(normed.device.type, enabled=False):
            out = self.head_dec["proj"](normed.float())
        out = out.reshape(
            group.batch, -1, group.height // patch, group.width // patch, MAP_CHANNELS, patch, patch
        )
        maps = out.permute(0, 1, 2, 5, 3, 6, 4).reshape(
            *out.shape[:2], group.height, group.width, MAP_CHANNELS
        )
        # Training batches store portrait maps in landscape.
        return maps.transpose(2, 3) if self.landscape_only and bool(group.portrait[0, 0]) else maps


def _without(tokens: Tensor, own: slice) -> Tensor:
    """[B, M, D] without the tokens of one image."""
    return torch.cat((tokens[:, : own.start], tokens[:, own.stop :]), 1)
