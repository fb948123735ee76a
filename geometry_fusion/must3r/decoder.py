"""MUSt3R's decoder: maps of images that attend to a memory of other images (SPEC section 4).

In: encoder tokens [B, n, N, De] of n images of one size, or lists with one entry per size.
Out: the memory with these images added, raw maps [B, n, H, W, 7] (see `postprocess`), and on
request the features of every layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geometry_fusion.must3r.decoder_block import DecoderBlock
from geometry_fusion.must3r.memory import Memory
from geometry_fusion.must3r.postprocess import ACTIVATIONS
from geometry_fusion.nn import NORM_EPS, Mlp, RoPE2D

MAP_CHANNELS = 7  # 3 of pts3d, 3 of pts3d_local, 1 of confidence
FEEDBACK_TYPES = (None, "single_mlp", "single_linear")
MEMORY_MODES = ("norm_y", "kv", "raw")


@dataclass
class _Group:
    """Images of one size on their way through the blocks."""

    x: Tensor  # tokens [B * n, N, D]
    positions: Tensor  # [B * n, N, 2]
    batch: int
    height: int
    width: int
    portrait: Tensor  # bool [B, n]
    features: list[Tensor]  # of every layer so far, [B * n, N, De or D]

    @property
    def num_images(self) -> int:
        """n, images per item of the batch."""
        return len(self.x) // self.batch

    @property
    def sequence(self) -> Tensor:
        """The tokens of all images of an item in one sequence: [B, n * N, D]."""
        return self.x.reshape(self.batch, -1, self.x.shape[-1])


class MUSt3R(nn.Module):
    """The multi-view decoder.

    Arguments are those of the constructor strings in checkpoints (SPEC section 5). `memory_mode`
    trades memory for time: all modes give the same maps. It may be changed while no memory exists.
    Raises ValueError for unknown variants.
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
        # [B, n, N, De] from the encoder; a list has one entry per image size
        tokens: Tensor | Sequence[Tensor],
        positions: Tensor | Sequence[Tensor],  # int64 [B, n, N, 2]
        # int64 [B, n, 2] as (height, width), equal inside an entry
        true_shape: Tensor | Sequence[Tensor],
        memory: Memory | None = None,
        render: bool = False,  # read the memory without adding to it
        return_feats: bool = False,
    ) -> tuple:
        """(memory, raw maps), with `return_feats` (memory, raw maps, features).

        Raw maps are [B, n, H, W, 7]. Features are depth + 1 tensors: the encoder's tokens
        [B, n, N, De], then every block's output [B, n, N, D], the last one after the final norm.
        Maps and features are lists if the input is. Raises ValueError if `render` lacks a memory
        or sizes differ inside an entry.
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
        """Decode n images in one call, each as if it alone came next; for frames of which most will
        not become keyframes.

        Returns raw maps and features as `forward`, and a function that adds one of the images, by
        its number, to a memory: `memory` or one made from it.
        """
        group = self._group(tokens, positions, true_shape, has_reference=False)
        exposed, length = self._decode([group], memory, render=True), group.x.shape[1]
        maps = self._finish(group)
        features = [f.unflatten(0, (group.batch, -1)) for f in group.features]

        def remembered(number: int, onto: Memory) -> Memory:
            image = slice(number * length, (number + 1) * length)
            return self._remember([[received[:, image]] for (received,) in exposed], [length], onto)

        return maps, features, remembered

    def _finish(self, group: _Group) -> Tensor:
        """After the last block: apply the final norm, also to the features; returns raw maps."""
        group.features[-1] = self.norm_dec(group.x)
        return self._maps(group, group.features[-1])

    def _group(
        self, tokens: Tensor, positions: Tensor, true_shape: Tensor, has_reference: bool
    ) -> _Group:
        """Check and project tokens of one size. has_reference: the first image is the reference."""
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
        # Added to all but the reference image; also in renders of that image (SPEC section 4.1).
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
        """Run all blocks; returns their inputs, [B, n * N, D] per block and group, for memory."""
        exposed = []
        alone = len(groups) == 1 and groups[0].num_images == 1
        for index, block in enumerate(self.blocks_dec):
            stored = memory.layers[index] if memory is not None else None
            inputs = [group.sequence for group in groups]
            exposed.append(inputs)
            # A single image attends to the memory, or to itself if there is none. Several images
            # also attend to each other.
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
                        image = slice(start, start + length)
                        seen.append(
                            (keys, values)
                            if alone
                            else (_without(keys, image), _without(values, image))
                        )
                        start += length
                    self._read(block, group, seen)
            for group in groups:
                group.features.append(group.x)
        return exposed

    def _read(self, block: DecoderBlock, group: _Group, seen: list[tuple[Tensor, Tensor]]) -> None:
        """Apply one block. seen: keys and values for each image, or a single pair for all."""
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
        """The memory with new images. exposed: by `_decode`; lengths: number of their tokens."""

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
        """Raw maps [B, n, H, W, 7] by linear head and pixel shuffle, in fp32."""
        patch = self.patch_size
        with torch.autocast(normed.device.type, enabled=False):
            out = self.head_dec["proj"](normed.float())
        out = out.reshape(
            group.batch, -1, group.height // patch, group.width // patch, MAP_CHANNELS, patch, patch
        )
        maps = out.permute(0, 1, 2, 5, 3, 6, 4).reshape(
            *out.shape[:2], group.height, group.width, MAP_CHANNELS
        )
        # Training batches store portrait images in landscape.
        return maps.transpose(2, 3) if self.landscape_only and bool(group.portrait[0, 0]) else maps


def _without(tokens: Tensor, image: slice) -> Tensor:
    """Tokens [B, M, D] without those of one image."""
    return torch.cat((tokens[:, : image.start], tokens[:, image.stop :]), 1)
