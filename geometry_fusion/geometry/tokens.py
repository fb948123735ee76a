"""Fits images to MUSt3R's encoder and encodes them to tokens."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.errors import InputError
from geometry_fusion.fit import Fit, fit_crop

ENCODED_BYTES = 256 * 2**20  # at most, of tokens that are kept for frames that come again

# Of one image: tokens [1, 1, N, De], positions [1, 1, N, 2] and image shape [1, 1, 2].
Tokens = tuple[Tensor, Tensor, Tensor]


class FrameTokens:
    """Encodes the frames of one video, all of one size, and keeps the tokens of the first ones.

    side: pixels of the long side to which images are resized; square: crop the centre square.
    """

    def __init__(self, encoder: torch.nn.Module, side: int, square: bool):
        self._encoder, self._side, self._square = encoder, side, square
        self._device = next(encoder.parameters()).device
        self.patch_size: int = encoder.patch_size
        self.reset()

    def reset(self) -> None:
        """Forget the video and its size."""
        self.fit: Fit | None = None
        self._kept: dict[int, Tokens] = {}

    def forget(self) -> None:
        """Drop the tokens that are kept."""
        self._kept.clear()

    def start(self, size: tuple[int, int]) -> None:
        """Set the size (width, height) of the frames. Raises InputError for very thin frames."""
        self.fit = fit_crop(size, self._side, square=self._square)

    def of(self, frames: Mapping[int, np.ndarray]) -> list[Tokens]:
        """Tokens of each frame, given as RGB uint8 images [H, W, 3] by frame number, in that order.

        Raises InputError if the size of a frame differs from that of the first.
        """
        if self.fit is None:
            first = next(iter(frames.values()))
            self.start(first.shape[1::-1])
        for image in frames.values():
            size = image.shape[1::-1]
            if self.fit.original != size:
                width, height = self.fit.original
                raise InputError(
                    f"frame of {size[0]}x{size[1]}: the video started with {width}x{height}; "
                    "frames must not change size"
                )
        tokens = {index: self._kept[index] for index in frames if index in self._kept}
        new = [index for index in frames if index not in tokens]
        if new:
            tokens |= self._encode(new, [frames[index] for index in new])
        return [tokens[index] for index in frames]

    def _encode(self, indices: list[int], images: list[np.ndarray]) -> dict[int, Tokens]:
        """Tokens of a batch of frames by their numbers; those of the first frames are kept."""
        # The encoder takes values in -1..1 (SPEC section 8).
        pixels = np.stack([self.fit.apply(image) for image in images])
        pixels = torch.from_numpy(pixels).to(self._device)
        pixels = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        shape = torch.tensor([pixels.shape[-2:]] * len(indices))
        encoded = (*self._encoder(pixels, shape), shape)
        tokens = {}
        for i, index in enumerate(indices):
            tokens[index] = tuple(tensor[i : i + 1, None].transpose(0, 1) for tensor in encoded)
            room = ENCODED_BYTES // (encoded[0][i].numel() * encoded[0].element_size())
            # The first frames, since frames are rendered in their order.
            if len(self._kept) < room:
                self._kept[index] = tuple(tensor.clone() for tensor in tokens[index])
        return tokens
