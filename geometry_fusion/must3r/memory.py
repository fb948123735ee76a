"""MUSt3R's memory: the tokens of earlier images, per decoder layer (SPEC sections 4.3 to 4.6).

A `Memory` never changes: an update returns a new one. Both share one buffer with room to spare, so
that adding an image writes its own tokens and copies no others; the buffer doubles when it is full.
The new tokens are computed and written when the new memory is first read, so that a memory that is
thrown away (the frame is no keyframe) costs nothing.

A `Memory` is also the sequence of five items that the published classes exchange: layers, labels,
number of images, protected images, protected tokens.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


class _Buffer:
    """Storage that several memories share: a tensor [B, capacity, D] per layer, then the labels
    [B, capacity]. Its first `used` tokens belong to some memory.
    """

    def __init__(self, tensors: list[Tensor], used: int):
        self.tensors, self.used = tensors, used

    @property
    def capacity(self) -> int:
        return self.tensors[0].shape[1]

    def grown(self, length: int, capacity: int) -> "_Buffer":
        """A copy of the first `length` tokens with room for `capacity`."""
        fresh = []
        for tensor in self.tensors:
            larger = tensor.new_empty((tensor.shape[0], capacity, *tensor.shape[2:]))
            larger[:, :length] = tensor[:, :length]
            fresh.append(larger)
        return _Buffer(fresh, length)


class Memory(Sequence):
    """Tokens of every layer [B, M, D] in the order of the images, labels [B, M], and the number of
    images so far, evicted ones included.
    """

    def __init__(self, layers: Sequence[Tensor], labels: Tensor, num_images: int):
        self._buffer = _Buffer([*layers, labels], labels.shape[1])
        self._length = labels.shape[1]
        self._pending: tuple[Callable[[], list[Tensor]], Tensor] | None = None
        self.num_images = num_images

    @classmethod
    def of(cls, items: Sequence) -> "Memory":
        """A Memory of the five items of a published class; a Memory is returned as it is."""
        return items if isinstance(items, cls) else cls(items[0], items[1], items[2])

    @property
    def num_tokens(self) -> int:
        """M, with the tokens that are not computed yet."""
        return self._length + (self._pending[1].shape[1] if self._pending else 0)

    @property
    def layers(self) -> list[Tensor]:
        """Per layer [B, M, D] (or [B, M, 2 D] for keys and values); views, not to be written to."""
        return self._settled()[:-1]

    @property
    def labels(self) -> Tensor:
        """int64 [B, M]: the number of the image each token came from."""
        return self._settled()[-1]

    def appended(
        self, layers: Callable[[], list[Tensor]], labels: Tensor, num_images: int
    ) -> "Memory":
        """A memory with these tokens and new ones; this memory does not change.

        layers: computes the new tokens, one [B, N, D] per layer, when they are first read. labels:
        int64 [B, N]. num_images: number of new images.
        """
        self._settled()
        longer = Memory.__new__(Memory)
        longer._buffer, longer._length = self._buffer, self._length
        longer._pending = (layers, labels)
        longer.num_images = self.num_images + num_images
        return longer

    def settle(self) -> None:
        """Compute and write the new tokens now, not when this memory is first read."""
        self._settled()

    def without(self, image_labels: Sequence[int]) -> "Memory":
        """A copy without the tokens of these images (eviction), for every item of the batch."""
        labels = self.labels
        keep = ~torch.isin(labels[0], torch.tensor(list(image_labels), device=labels.device))
        left = Memory([layer[:, keep] for layer in self.layers], labels[:, keep], self.num_images)
        # As large as before, because another image will take the place of the evicted one.
        left._buffer = left._buffer.grown(left._length, self._buffer.capacity)
        return left

    def _settled(self) -> list[Tensor]:
        """Layers, then labels, with all tokens computed."""
        if self._pending:
            layers, labels = self._pending
            self._write([*layers(), labels])
            self._pending = None
        return [tensor[:, : self._length] for tensor in self._buffer.tensors]

    def _write(self, new: list[Tensor]) -> None:
        """Append tokens of every layer, then labels, to the buffer."""
        end = self._length + new[-1].shape[1]
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*new, *self._buffer.tensors)):
            # Writing in place would overwrite what the backward pass still needs.
            joined = [
                torch.cat((t[:, : self._length], n), 1) for t, n in zip(self._buffer.tensors, new)
            ]
            self._buffer = _Buffer(joined, end)
        else:
            # If another memory has written behind our tokens, they must not be overwritten.
            if self._buffer.used != self._length or end > self._buffer.capacity:
                self._buffer = self._buffer.grown(self._length, max(2 * self._buffer.capacity, end))
            for tensor, tokens in zip(self._buffer.tensors, new):
                tensor[:, self._length : end] = tokens
            self._buffer.used = end
        self._length = end

    def _items(self) -> tuple:
        return self.layers, self.labels, self.num_images, self.num_images, self.num_tokens

    def __getitem__(self, index):
        return self._items()[index]

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator:
        return iter(self._items())
