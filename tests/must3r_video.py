"""A whole video through MUSt3R at once, with a window of recent images in memory (SPEC sections
10.1 and 10.2).

For offline use, where keyframes are known or cheap to name and every image may help the next few.
Streams that must answer at once, with a bounded memory, are
geometry_fusion.geometry.must3r_stream.Must3rStream.
"""

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geometry_fusion.must3r.memory import Memory

Image = tuple[
    Tensor, Tensor, Tensor
]  # tokens [1, 1, N, De], positions [1, 1, N, 2], true shape [1, 1, 2]


@torch.no_grad()
def process_video(
    decoder: torch.nn.Module,
    images: Sequence[Image],  # of one size
    is_keyframe: Callable[
        [int, Tensor], bool
    ],  # (number, raw map [H, W, 7]) of images after the first batch
    *,
    window: int = 25,
    first: int = 2,
    refinements: int = 0,
) -> tuple[Memory, list[Tensor]]:
    """The memory of the keyframes, labelled by image number, and the raw map [H, W, 7] of every
    image.

    The first `first` images are decoded jointly and are keyframes; the others follow one by one. An
    image that is no keyframe stays in memory for the next `window` images. A refinement repeats the
    pass with the memory present: keyframes replace their own tokens, all but the reference, whose
    tokens stay. Maps are those of the last pass.
    """
    batches = [list(range(min(first, len(images)))), *([i] for i in range(first, len(images)))]
    keyframes = set(batches[0])
    memory, maps = None, [None] * len(images)
    for turn in range(1 + refinements):
        recent: deque[int] = deque()
        for batch in batches:
            joined = [torch.cat(parts, 1) for parts in zip(*(images[i] for i in batch))]
            seen = memory
            memory, raw = decoder(*joined, memory)
            for number, raw_map in zip(batch, raw[0]):
                maps[number] = raw_map
                if turn == 0 and number >= first and is_keyframe(number, raw_map):
                    keyframes.add(number)
            memory = _settled(seen, memory, batch) if seen is not None else memory
            recent.extend(batch)
            gone = [recent.popleft() for _ in range(max(0, len(recent) - window))]
            memory = _without(memory, [i for i in gone if i not in keyframes])
        memory = _without(memory, [i for i in recent if i not in keyframes])
    return memory, maps


def _settled(before: Memory, after: Memory, batch: list[int]) -> Memory:
    """`after` with the tokens of `batch` under their own numbers: over the old ones where there are
    such, else behind them; those of image 0 are dropped."""
    length, tokens = before.num_tokens, (after.num_tokens - before.num_tokens) // len(batch)
    layers, labels = [layer[:, :length].clone() for layer in after.layers], before.labels.clone()
    known, num_images = set(before.labels[0].tolist()), max(before.num_images, max(batch) + 1)
    for place, number in enumerate(batch):
        new = slice(length + place * tokens, length + (place + 1) * tokens)
        if number not in known:
            layers = [
                torch.cat((kept, layer[:, new]), 1) for kept, layer in zip(layers, after.layers)
            ]
            labels = torch.cat((labels, torch.full_like(after.labels[:, new], number)), 1)
        elif number:
            own = before.labels[0] == number
            for kept, layer in zip(layers, after.layers):
                kept[:, : len(own)][:, own] = layer[:, new]
    return Memory(layers, labels, num_images)


def _without(memory: Memory, numbers: list[int]) -> Memory:
    return memory.without(numbers) if numbers else memory
