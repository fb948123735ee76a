"""How a resized image lies on its original, and the way back.

Sizes are (width, height). Points are x, y in pixels with pixel centres at integers, so a resize by
s maps x to (x + 0.5) * s - 0.5; the crop offset is subtracted after that.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from geometry_fusion.errors import InputError

Size = tuple[int, int]  # (width, height)

OUTSIDE_LOGIT = -1024.0  # SAM2's own "no object" logit, for pixels that the crop cut away


@dataclass(frozen=True)
class Fit:
    """Resize `original` to `resized`, then cut the window of `size` whose top left pixel is
    `crop`.
    """

    original: Size
    resized: Size
    crop: tuple[int, int]  # (left, top) in the resized image
    size: Size
    # The filters are part of the fit because pretrained networks expect the pixels that theirs
    # made.
    shrink_filter: Image.Resampling = Image.Resampling.BICUBIC

    @property
    def scale(self) -> tuple[float, float]:
        """Resized pixels per original pixel, (x, y)."""
        return self.resized[0] / self.original[0], self.resized[1] / self.original[1]

    def points_to(self, points_xy) -> np.ndarray:
        """Original -> fitted pixels, [..., 2]."""
        return (np.asarray(points_xy, float) + 0.5) * self.scale - 0.5 - self.crop

    def points_back(self, points_xy) -> np.ndarray:
        """Fitted -> original pixels, [..., 2]."""
        return (np.asarray(points_xy, float) + self.crop + 0.5) / self.scale - 0.5

    def seen_at(self, axis: int, cells: int) -> np.ndarray:
        """Where the centres of `cells` equal cells along the original's axis (0 = x) lie in the
        fitted image.

        Relative positions [cells]: 0 is its left or upper edge, 1 the other; outside of 0..1 the
        crop cut them away.
        """
        centres = (np.arange(cells) + 0.5) / cells * self.original[axis]
        return (centres * self.scale[axis] - self.crop[axis]) / self.size[axis]

    def lies_at(self, axis: int, cells: int) -> np.ndarray:
        """The way back of `seen_at`: where the centres of `cells` equal cells along the fitted
        image's axis (0 = x) lie in the original. Relative positions [cells]: 0 is its left or upper
        edge, 1 the other."""
        centres = (np.arange(cells) + 0.5) / cells * self.size[axis] + self.crop[axis]
        return centres / self.scale[axis] / self.original[axis]

    def apply(self, image_rgb: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 of the original size -> uint8 of the fitted size."""
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
        """Floats are read bilinearly, bool and ids at the nearest pixel.

        Where the crop cut the original away there is no answer: False, 0, or `OUTSIDE_LOGIT`.
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
        """For each original pixel along `axis` (0 = x): the coordinate among `cells`, and whether
        the crop holds it.
        """
        fitted = (np.arange(self.original[axis]) + 0.5) * self.scale[axis] - self.crop[axis]
        seen = (fitted >= 0) & (fitted <= self.size[axis])
        return np.clip(fitted * cells / self.size[axis] - 0.5, 0, cells - 1), seen


def _lerp(
    values: np.ndarray,  # [N, M]
    positions: np.ndarray,  # [K] in 0..N-1
) -> np.ndarray:  # [K, M]
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    weight = (positions - low).astype(np.float32)[:, None]
    return values[low] * (1 - weight) + values[high] * weight


def fit_to_square(size: Size, side: int) -> Fit:
    """SAM2's rule: squash the whole image to side x side, whatever its shape."""
    return Fit(size, (side, side), (0, 0), (side, side))


def fit_crop(size: Size, side: int, multiple: int = 16, square: bool = False) -> Fit:
    """MUSt3R's rule for streams (must3r/SPEC.md section 8): keep the aspect ratio, cut the centre.

    The long side becomes `side` and both sides are cut to multiples of `multiple`; with `square`
    the short side becomes `side` and the centre square remains. Raises InputError when the image is
    too thin for that.
    """
    longest = max(size)
    target = longest / min(size) * side if square else side
    width, height = (round(length * target / longest) for length in size)
    # The window is centred on pixel (width // 2, height // 2) and has equal halves on both sides of
    # it.
    half_x, half_y = (
        (side // 2,) * 2
        if square
        else (length // 2 * 2 // multiple * multiple // 2 for length in (width, height))
    )
    if min(half_x, half_y) == 0:
        raise InputError(
            f"frames of {size[0]}x{size[1]} are too thin: at long side {side} less than "
            f"{multiple} pixels of the "
            "short side remain; crop the frames"
        )
    crop = (width // 2 - half_x, height // 2 - half_y)
    return Fit(size, (width, height), crop, (2 * half_x, 2 * half_y), Image.Resampling.LANCZOS)
