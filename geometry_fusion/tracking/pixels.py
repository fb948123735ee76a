"""Frames as SAM2's image encoder takes them."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geometry_fusion.types import Frames

# SAM2's normalisation of RGB in 0..1 (sam2.utils.misc.load_video_frames).
IMAGE_MEAN = torch.tensor([0.485, 0.456, 0.406])
IMAGE_STD = torch.tensor([0.229, 0.224, 0.225])


def normalise(rgb: np.ndarray) -> np.ndarray:
    """RGB uint8 or float 0..255 [..., 3] -> float32 as SAM2's image encoder expects it."""
    # By torch, in place: the same numbers as numpy's in a third of the time.
    return torch.tensor(rgb, dtype=torch.float32).div_(255).sub_(IMAGE_MEAN).div_(IMAGE_STD).numpy()


class LazyFrames:
    """Frames as SAM2's inference state holds them, decoded on access: [i] -> [3, S, S] float32.

    If `frames` has `prepared` (frame number -> model-ready tensor), it is used instead of resizing
    again.
    """

    def __init__(self, frames: Frames, image_size: int):
        self._frames, self._size = frames, image_size

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        known = getattr(self._frames, "prepared", {}).get(index)
        return square(self._frames[index], self._size) if known is None else known


def square(image: np.ndarray, size: int) -> Tensor:
    """RGB uint8 [H, W, 3] -> [3, size, size] float32 as SAM2's image encoder expects it."""
    # PIL's default filter, because sam2.utils.misc.load_video_frames uses it: other filters change
    # masks.
    resized = Image.fromarray(image).resize((size, size))
    return torch.from_numpy(normalise(np.asarray(resized))).permute(2, 0, 1)
