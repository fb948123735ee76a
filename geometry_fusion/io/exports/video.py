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
        for index, (image, mask) in enumerate(cut_outs(clip, doing)):
            frame = av.VideoFrame.from_ndarray(_rgba(image, mask), format="rgba").reformat(
                format=pixels, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            _set_alpha(frame, mask)
            frame.pts, frame.time_base = index, 1 / rate
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return []


def _set_alpha(frame: av.VideoFrame, mask: np.ndarray) -> None:
    """Write a mask [H, W] bool to the alpha plane of a frame, its padding included: FFmpeg's scaler
    leaves what lay in memory in it now and then, which spoils the last rows of small pictures.
    """
    plane = frame.planes[3]
    deep = frame.format.components[3].bits > 8
    opaque = 2 ** frame.format.components[3].bits - 1
    rows = plane.buffer_size // plane.line_size
    alpha = np.zeros((rows, plane.line_size // (2 if deep else 1)), "<u2" if deep else np.uint8)
    alpha[: mask.shape[0], : mask.shape[1]] = mask * np.uint16(opaque)
    plane.update(alpha.tobytes())


def _rgba(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[H, W, 4] uint8, not premultiplied."""
    window = np.ones((2 * MARGIN + 1,) * 2, np.uint8)
    near = cv2.dilate(mask.astype(np.uint8), window)
    return np.dstack([image * near[..., None], mask.astype(np.uint8) * 255])
