"""Pictures: DAVIS palette PNGs, cut-out PNGs with alpha, and a cut-out GIF."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from geometry_fusion.errors import InputError
from geometry_fusion.io.exports.clip import Clip
from geometry_fusion.io.mask_reader import LARGEST_ID
from geometry_fusion.io.mask_writer import palette_index, write_palette_mask
from geometry_fusion.io.source_record import as_text

TRANSPARENT = 255  # the colour of a GIF that is not painted
TICK = 10  # milliseconds, GIF's unit of time
LEAST_TICKS = 2  # of a GIF's frame; players slow shorter ones down


def write_davis(clip: Clip, folder: Path, polygons: bool) -> list[str]:
    """Write STEM.png per frame, whose index is the object id; void is 255.

    Raises InputError for ids that a palette cannot hold.
    """
    largest = max(clip.names)
    if largest > LARGEST_ID:
        raise InputError(
            f"davis: object {largest} does not fit, ids are 1..{LARGEST_ID} (255 is void); choose "
            "objects, or a format such as ytvis"
        )
    for index in clip.each("davis"):
        file = folder / f"{clip.stems[index]}.png"
        write_palette_mask(file, palette_index(clip.ids(index)), as_text(clip.record))
    return []


def cut_outs(clip: Clip, doing: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The frame of each mask, RGB uint8 [H, W, 3], and its objects, [H, W] bool."""
    for index, image in zip(clip.each(doing), clip.frames.images()):
        yield image, clip.ids(index) > 0


def write_png_alpha(clip: Clip, folder: Path, polygons: bool) -> list[str]:
    """Write STEM.png per frame, RGBA: the objects opaque, all else transparent and black."""
    for (image, mask), stem in zip(cut_outs(clip, "png-alpha"), clip.stems):
        alpha = mask[..., None].astype(np.uint8)
        pixels = np.concatenate([image * alpha, alpha * 255], axis=2)
        Image.fromarray(pixels).save(folder / f"{stem}.png", compress_level=3)
    return []


def write_gif(clip: Clip, out: Path, polygons: bool) -> list[str]:
    """Write an animated GIF of the objects on a transparent background, repeated for ever."""
    ends = [round(100 * (place + 1) / clip.frames.frame_rate) for place in range(len(clip))]
    ticks = np.maximum(np.diff([0, *ends]), LEAST_TICKS)
    pictures = (_with_palette(image, mask) for image, mask in cut_outs(clip, "gif"))
    first = next(pictures)
    first.save(
        out,
        save_all=True,
        append_images=pictures,
        duration=(ticks * TICK).tolist(),
        loop=0,
        transparency=TRANSPARENT,
        disposal=2,  # each frame begins transparent
        optimize=False,  # or unused colours would be dropped, and with them the transparent index
    )
    return ["gif: 255 colours per frame, times in hundredths of a second"]


def _with_palette(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    """A palette picture of at most 255 colours, TRANSPARENT where the mask is False."""
    # The background is black for the choice of colours, which all go to the objects.
    picture = Image.fromarray(image * mask[..., None]).quantize(TRANSPARENT)
    pixels = np.where(mask, np.asarray(picture), TRANSPARENT).astype(np.uint8)
    result = Image.fromarray(pixels)
    result.putpalette(picture.getpalette() + [0] * (768 - len(picture.getpalette())))
    return result
