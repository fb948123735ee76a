"""Videos with an alpha channel: ProRes 4444 in QuickTime, VP9 in WebM."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from geometry_fusion.io.exports.clip import Clip
from geometry_fusion.io.exports.pictures import cut_outs

# Pixels around an object that keep their colour: encoders mix the colours of neighbouring pixels.
# Farther away the picture is black, so that nothing else of it is given away.
MARGIN = 8


def write_prores(clip: Clip, out: Path, polygons: bool) -> list[str]:
    """Write a .mov: 10 bits, colours at full resolution, alpha of 16 bits without loss."""
    options = {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}
    return _write(clip, out, "mov", "prores_ks", "yuva444p10le", options, "prores")


def write_vp9(clip: Clip, out: Path, polygons: bool) -> list[str]:
    """Write a .webm that browsers play with its transparency."""
    # auto-alt-ref makes frames that are not shown, for which there would be no alpha.
    options = {"crf": "18", "b": "0", "auto-alt-ref": "0", "row-mt": "1", "cpu-used": "4"}
    return _write(clip, out, "webm", "libvpx-vp9", "yuva420p", options, "vp9")


def _write(
    clip: Clip, out: Path, container: str, codec: str, pixels: str, options: dict, doing: str
) -> list[str]:
    rate = Fraction(clip.frames.frame_rate).limit_denominator(65535)
    with av.open(str(out), "w", format=container) as video:
        stream = video.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = clip.size
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        # With several threads, alpha in the last rows of a ProRes frame was wrong now and then.
        context.thread_count = 1 if codec == "prores_ks" else 0
        for index, (image, mask) in enumerate(cut_outs(clip, doing)):
            frame = av.VideoFrame.from_ndarray(_rgba(image, mask), format="rgba").reformat(
                format=pixels, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base = index, 1 / rate
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return []


def _rgba(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[H, W, 4] uint8, not premultiplied."""
    window = np.ones((2 * MARGIN + 1,) * 2, np.uint8)
    near = cv2.dilate(mask.astype(np.uint8), window)
    return np.dstack([image * near[..., None], mask.astype(np.uint8) * 255])
