"""Resizing and cropping an image for a network, and mapping results back to the original.

Sizes are (width, height). Points are x, y in pixels with pixel centres at integers. So a resize by
s maps x to (x + 0.5) * s - 0.5; the crop offset is subtracted after that.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from geometry_fusion.errors import InputError

Size = tuple[int, int]  # (width, height)

OUTSIDE_LOGIT = -1024.0  # SAM2's "no object" logit, for pixels that were cropped away


@dataclass(frozen=True)
class Fit:
    """How an image was fitted to a network: resized to `resized`, then cropped to `size`."""

    original: Size
    resized: Size
    crop: tuple[int, int]  # (left, top) of the cropped window in the resized image
    size: Size  # of the fitted image
    # The filter is part of the fit: a pretrained network expects images resized as in its training.
    shrink_filter: Image.Resampling = Image.Resampling.BICUBIC

    @property
    def scale(self) -> tuple[float, float]:
        """Resized pixels per original pixel, (x, y)."""
        return self.resized[0] / self.original[0], self.resized[1] / self.original[1]

    def points_to(self, points_xy) -> np.ndarray:
        """Points [..., 2] in pixels of the original -> in pixels of the fitted image."""
        return (np.asarray(points_xy, float) + 0.5) * self.scale - 0.5 - self.crop

    def points_back(self, points_xy) -> np.ndarray:
        """Points [..., 2] in pixels of the fitted image -> in pixels of the original."""
        return (np.asarray(points_xy, float) + self.crop + 0.5) / self.scale - 0.5

    def seen_at(self, axis: int, cells: int) -> np.ndarray:
        """Positions in the fitted image of the centres of `cells` equal cells along an axis (0 = x)
        of the original.

        Relative positions [cells]: 0 is the left or upper edge of the fitted image, 1 the right or
        lower edge. Cells outside 0..1 were cropped away.
        """
        centres = (np.arange(cells) + 0.5) / cells * self.original[axis]
        return (centres * self.scale[axis] - self.crop[axis]) / self.size[axis]

    def lies_at(self, axis: int, cells: int) -> np.ndarray:
        """The inverse of `seen_at`: positions in the original of the centres of `cells` equal cells
        along an axis (0 = x) of the fitted image.

        Relative positions [cells]: 0 is the left or upper edge of the original, 1 the other.
        """
        centres = (np.arange(cells) + 0.5) / cells * self.size[axis] + self.crop[axis]
        return centres / self.scale[axis] / self.original[axis]

    def apply(self, image_rgb: np.ndarray) -> np.ndarray:
        """Resize and crop an image: uint8 [H, W, 3] of the original size -> of the fitted size."""
        assert image_rgb.shape[1::-1] == self.original, (image_rgb.shape, self.original)
        shrinks = max(self.original) > max(self.resized)
        image = Image.fromarray(image_rgb).resize(
            self.resized, self.shrink_filter if shrinks else Image.Resampling.BICUBIC
        )
        left, top = self.crop
        return np.asarray(image)[top : top + self.size[1], left : left + self.size[0]]

    def mask_to_original(
        self,
        mask: np.ndarray,  # [h, w] bool, ids or logits; any resolution, covering the fitted image
    ) -> np.ndarray:  # [H, W], same dtype
        """A mask of the fitted image, resampled to the original size.

        Floats are interpolated bilinearly; bools and ids are read at the nearest pixel. Pixels that
        were cropped away become False, 0, or `OUTSIDE_LOGIT`.
        """
        mask = np.asarray(mask)
        columns, column_seen = self._reading_positions(0, mask.shape[1])
        rows, row_seen = self._reading_positions(1, mask.shape[0])
        seen = row_seen[:, None] & column_seen
        if np.issubdtype(mask.dtype, np.floating):
            lerped = _lerp(_lerp(mask, rows).T, columns).T
            return np.where(seen, lerped, OUTSIDE_LOGIT).astype(mask.dtype)
        nearest = mask[
            np.ix_(np.floor(rows + 0.5).astype(int), np.floor(columns + 0.5).astype(int))
        ]
        return np.where(seen, nearest, 0).astype(mask.dtype)

    def _reading_positions(self, axis: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
        """For each original pixel along `axis` (0 = x): its coordinate in a row of `cells`, and
        whether the fitted image shows it.
        """
        fitted = (np.arange(self.original[axis]) + 0.5) * self.scale[axis] - self.crop[axis]
        seen = (fitted >= 0) & (fitted <= self.size[axis])
        return np.clip(fitted * cells / self.size[axis] - 0.5, 0, cells - 1), seen


def _lerp(
    values: np.ndarray,  # [N, M]
    positions: np.ndarray,  # [K] in 0..N-1
) -> np.ndarray:  # [K, M]
    """Linear interpolation along the first axis."""
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    weight = (positions - low).astype(np.float32)[:, None]
    return values[low] * (1 - weight) + values[high] * weight


def fit_to_square(size: Size, side: int) -> Fit:
    """SAM2's rule: resize the whole image to side x side, whatever its aspect ratio."""
    return Fit(size, (side, side), (0, 0), (side, side))


def fit_crop(size: Size, side: int, multiple: int = 16, square: bool = False) -> Fit:
    """MUSt3R's rule for streams (docs/must3r_spec.md section 8): keep the aspect ratio, crop the
    centre.

    The long side becomes `side` and both sides are cut to multiples of `multiple`; with `square`
    the short side becomes `side` and the centre square remains. Raises InputError when the image is
    too thin for that.
    """
    longest = max(size)
    target = longest / min(size) * side if square else side
    width = round(size[0] * target / longest)
    height = round(size[1] * target / longest)
    # The window is centred on pixel (width // 2, height // 2), with equal halves on both sides.
    if square:
        half_x = half_y = side // 2
    else:
        half_x = width // 2 * 2 // multiple * multiple // 2
        half_y = height // 2 * 2 // multiple * multiple // 2
    if min(half_x, half_y) == 0:
        raise InputError(
            f"frames of {size[0]}x{size[1]} are too thin: at long side {side} less than {multiple} "
            "pixels of the short side remain; crop the frames"
        )
    crop = (width // 2 - half_x, height // 2 - half_y)
    return Fit(size, (width, height), crop, (2 * half_x, 2 * half_y), Image.Resampling.LANCZOS)
