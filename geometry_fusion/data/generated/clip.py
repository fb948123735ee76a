"""What a generated world hands over: a batch of clips with everything that is known about them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class GeneratedClips:
    """V clips of T frames, S x S pixels, squashed to a square as SAM2 squashes a picture.

    Geometry is None where a world has none (layered clips). Poses are camera-to-world with OpenCV
    axes, metres; pixel centres are at integers.
    """

    rgb: Tensor  # [V, T, 3, S, S] in 0..255, uint8 once it is damaged
    ids: Tensor  # [V, T, S, S] uint8, 0 is nothing
    twin_of: Tensor  # [V, 64] int64: the id of an object's twin, 0 where it has none
    shape: tuple[int, int]  # width and height of the picture before it is squashed, as a ratio
    depth: Tensor | None = None  # [V, T, S, S] float16 metres along the camera's axis
    camera_to_world: Tensor | None = None  # [V, T, 4, 4]
    intrinsics: Tensor | None = None  # [V, T, 3, 3] pixels of the squashed picture
    moves: Tensor | None = None  # [V] bool: whether objects move
    overlap: np.ndarray | None = None  # [T, T] of the first clip, measured when it is needed
    _areas: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of every id in every frame: int [V, T, 64]. Counted once."""
        if self._areas is None:
            count, frames = self.ids.shape[:2]
            row = torch.arange(count * frames, device=self.ids.device)[:, None] * 64
            flat = (self.ids.flatten(0, 1).flatten(1).long() + row).flatten()
            table = torch.bincount(flat, minlength=count * frames * 64)
            self._areas = table.reshape(count, frames, 64).cpu().numpy()
        return self._areas
