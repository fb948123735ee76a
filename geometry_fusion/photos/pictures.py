"""Photos of any size as `Frames` of one size, and masks back in each photo's own pixels.

The canvas has the shape of the prompted photo. Other photos are scaled to fit into it and centred,
so that their optical axis stays in the middle; the rest is filled with their mean colour.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from natsort import natsorted
from PIL import Image

from geometry_fusion.errors import InputError
from geometry_fusion.fit import Fit, Size
from geometry_fusion.geometry.must3r_photos import Area
from geometry_fusion.io.frame_folder import IMAGE_SUFFIXES
from geometry_fusion.io.mask_writer import EXIF_ORIENTATION, is_turned, open_image, read_rgb
from geometry_fusion.types import Prompt

HEIC_SUFFIXES = (".heic", ".heif")
PHOTO_SUFFIXES = (*IMAGE_SUFFIXES, ".tif", ".tiff", *HEIC_SUFFIXES)
LONGEST = 2048  # pixels of the canvas; masks are mapped back to the full size
# EXIF orientation -> Pillow's transposition from the upright picture back to the stored one.
BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Photo:
    """One file. Sizes and contents are those of the upright picture."""

    path: Path
    size: Size
    orientation: int  # EXIF, 1..8: how the file stores the picture
    digest: str  # of the pixels

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def stored(self, mask: np.ndarray) -> np.ndarray:
        """An upright mask [H, W] uint8 as the file stores the picture."""
        if self.orientation not in BACK:
            return mask
        return np.asarray(Image.fromarray(mask).transpose(BACK[self.orientation]))


def photo_files(given: Sequence[Path]) -> list[Path]:
    """The photos of a folder in natural order, or files as they are given.

    Raises InputError where there are none, for two of one stem, and for HEIC without its package.
    """
    files = list(map(Path, given))
    if len(files) == 1 and files[0].is_dir():
        entries = files[0].iterdir()
        files = [
            f for f in entries if f.suffix.lower() in PHOTO_SUFFIXES and not f.name.startswith(".")
        ]
        files = natsorted(filter(Path.is_file, files), key=lambda file: file.name)
        if not files:
            raise InputError(
                f"{given[0]}: holds no photos ({' '.join(PHOTO_SUFFIXES)}); give a folder that does"
            )
    by_stem: dict[str, Path] = {}
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such photo; give a folder, or photos one by one")
        if (other := by_stem.setdefault(file.stem, file)) is not file:
            raise InputError(
                f"{file}: {other.name} has the same name, and so would its mask; rename one"
            )
    heic = [file for file in files if file.suffix.lower() in HEIC_SUFFIXES]
    if heic and not can_read_heic():
        raise InputError(
            f"{heic[0]}: HEIC needs another package; pip install 'geometry-fusion-3am[photos]', or "
            "convert it to JPEG"
        )
    return files


def can_read_heic() -> bool:
    """Whether HEIC can be read; from then on Pillow opens it, upright."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        return True
    return False


def read_photo(path: Path) -> Photo:
    """The facts of a photo. Raises InputError for unreadable ones."""
    pixels = read_rgb(path)
    orientation = 1
    if is_turned(path):
        with open_image(path) as image:
            orientation = image.getexif()[EXIF_ORIENTATION]
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{width}x{height}".encode() + pixels.tobytes()).hexdigest()
    return Photo(path, (width, height), orientation, digest)


def by_content(photos: Sequence[Photo]) -> list[Photo]:
    """Photos in an order that does not depend on their names, but for those of equal pixels."""
    return sorted(photos, key=lambda photo: (photo.digest, photo.name))


class PhotoFrames:
    """Photos as `Frames`: all of the canvas's size, by number. like: whose shape the canvas has."""

    def __init__(self, photos: Sequence[Photo], like: int):
        self.photos = list(photos)
        width, height = self.photos[like].size
        shrink = min(1.0, LONGEST / max(width, height))
        self.size: Size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        self.fits = [fit_into(photo.size, self.size) for photo in self.photos]

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> np.ndarray:
        """RGB uint8 [H, W, 3] of the canvas's size."""
        return padded(read_rgb(self.photos[index].path), self.fits[index])

    @property
    def one_camera(self) -> bool:
        """Whether all photos have one size, as those of one camera held one way do."""
        return len({photo.size for photo in self.photos}) == 1

    def area(self, index: int) -> Area:
        """The part of the canvas that shows a photo."""
        fit, (width, height) = self.fits[index], self.size
        left, top = -fit.crop[0], -fit.crop[1]
        right, bottom = left + fit.resized[0], top + fit.resized[1]
        return left / width, top / height, right / width, bottom / height

    def prompt(self, prompt: Prompt) -> Prompt:
        """A prompt in a photo's pixels as one on the canvas."""
        fit = self.fits[prompt.frame]
        if fit.original == fit.size:
            return prompt
        clipped = [
            tuple(
                tuple(float(v) for v in np.clip(fit.points_to(xy), 0, np.array(self.size) - 1))
                for xy in points
            )
            for points in (prompt.points, prompt.negatives)
        ]
        box = prompt.box
        if box is not None:  # its edges lie between pixels
            corners = np.reshape(box, (2, 2)) * fit.scale - fit.crop
            box = tuple(float(v) for v in corners.ravel())
        mask = prompt.mask
        if mask is not None:
            grey = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, 2)
            mask = padded(grey, fit, fill=0)[..., 0] > 127
        return replace(prompt, points=clipped[0], negatives=clipped[1], box=box, mask=mask)

    def back(self, index: int, logits: np.ndarray) -> np.ndarray:
        """Mask logits [H, W] of the canvas -> in the pixels of a photo, upright."""
        fit = self.fits[index]
        return logits if fit.original == fit.size else fit.mask_to_original(logits)


class CanvasFrames(PhotoFrames):
    """Photos that were fitted into one canvas before, by `fit_into` and `padded`. Masks and prompts
    are in the pixels of the canvas.

    photos: the pictures of the canvas. sizes: by path, those that the photos had.
    """

    def __init__(self, photos: Sequence[Photo], sizes: Mapping[Path, Size]):
        self.photos = list(photos)
        self._sizes = [sizes[photo.path] for photo in self.photos]
        self.size = self.photos[0].size
        self.fits = [fit_into(size, self.size) for size in self._sizes]

    def __getitem__(self, index: int) -> np.ndarray:
        return read_rgb(self.photos[index].path)

    @property
    def one_camera(self) -> bool:
        return len(set(self._sizes)) == 1

    def prompt(self, prompt: Prompt) -> Prompt:
        return prompt

    def back(self, index: int, logits: np.ndarray) -> np.ndarray:
        return logits


def fit_into(size: Size, canvas: Size) -> Fit:
    """The whole picture, as large as the canvas allows, in its middle; the crop is negative."""
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    resized = tuple(min(c, max(1, round(s * scale))) for s, c in zip(size, canvas))
    left, top = ((c - r) // 2 for c, r in zip(canvas, resized))
    return Fit(size, resized, (-left, -top), canvas)


def padded(image: np.ndarray, fit: Fit, fill: int | None = None) -> np.ndarray:
    """An image [H, W, 3] uint8 on its canvas. fill: grey value; default: its mean colour."""
    if fit.original == fit.size:
        return image
    resized = np.asarray(Image.fromarray(image).resize(fit.resized, fit.shrink_filter))
    canvas = np.empty((fit.size[1], fit.size[0], 3), np.uint8)
    canvas[:] = image.reshape(-1, 3).mean(0).round() if fill is None else fill
    left, top = -fit.crop[0], -fit.crop[1]
    canvas[top : top + fit.resized[1], left : left + fit.resized[0]] = resized
    return canvas
