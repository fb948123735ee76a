"""Notes for users who run the tiny weights on footage that these were not trained for.

The tiny SAM2 and the tiny MUSt3R were trained on rooms that this project renders. The bundled
samples are such rooms. They are recognised by their images, so that a copy in another file, size or
folder counts as well.
"""

import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.assets import SAMPLES
from geometry_fusion.io.digests import file_digest
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.names import MUST3R_MODELS, OWN_MODELS, SAM2_MODELS

SIDE = 16  # pixels of the thumbnails that are compared
# Mean difference of two thumbnails, 0..255, up to which they show the same image. Frames of the
# samples as JPEG, in half and in double size differ from the originals by at most 0.8, frames of
# other rooms and of real clips by 20 or more.
SAME_PICTURE = 4.0
ROOM_FOLDER = re.compile(r"room_\d{6}")  # geometry_fusion.data.rooms writes these


def is_rendered_room(image: np.ndarray, path: Path | str | None = None) -> bool:
    """Whether a frame [H, W, 3] uint8 belongs to a bundled sample, or `path` holds the frames of a
    rendered room.
    """
    return _is_room_folder(path) or _is_of_a_sample(image)


def note_on_sam2(name: str, checkpoint: Path | None, image: np.ndarray, path: Path | str) -> str:
    """A note for the end of a run: what to expect of a shipped SAM2 on this footage, and the cure.

    Empty for rendered rooms, and for other weights. name, checkpoint: SAM2's model name and file,
    None for the default one; image: a frame, uint8 [H, W, 3]; path: the source of the frames.
    """
    if name not in OWN_MODELS or not _is_shipped(checkpoint, SAM2_MODELS[name][1]):
        return ""
    if is_rendered_room(image, path):
        return ""
    expected = {
        "tiny": "poor masks (--sam2 tiny2 does better)",
        "tiny2": "masks that are rough and last for some frames",
    }
    return (
        f"The tiny weights were made for rendered rooms, and {path} is other footage: expect "
        f"{expected[name]}. For real footage: python main.py weights --sam2 l, then add --sam2 l. "
        "For geometry with it: python main.py weights --must3r 512, or --geometry PATH "
        "(docs/own_geometry.md)."
    )


def note_on_must3r(file: Path, image: np.ndarray, path: Path | str) -> str:
    """As `note_on_sam2`, for a reconstruction with the MUSt3R weights in `file`."""
    if not _is_shipped(file, MUST3R_MODELS["tiny"]) or is_rendered_room(image, path):
        return ""
    return (
        f"The tiny weights were made for rendered rooms, and {path} is other footage: expect a "
        "poor shape. For real footage: python main.py weights --must3r 512 --accept-licence, then "
        "add --must3r 512."
    )


def _is_shipped(file: Path | None, shipped: Path) -> bool:
    if file is None:
        return True
    same_size = Path(file).stat().st_size == shipped.stat().st_size
    return same_size and file_digest(file) == file_digest(shipped)


def _is_room_folder(path: Path | str | None) -> bool:
    folder = Path(path).resolve() if path is not None else None
    if folder is None or folder.name != "rgb" or not ROOM_FOLDER.fullmatch(folder.parent.name):
        return False
    return (folder.parent / "scene.json").is_file()


def _is_of_a_sample(image: np.ndarray) -> bool:
    thumbnails = _sample_thumbnails()
    if not len(thumbnails):
        return False
    differences = np.abs(thumbnails - _thumbnail(image)).mean((1, 2, 3))
    return bool(differences.min() <= SAME_PICTURE)


@cache
def _sample_thumbnails() -> np.ndarray:
    """Thumbnails [N, SIDE, SIDE, 3] of all frames of the bundled samples."""
    files = sorted(SAMPLES.glob("*/video.mp4"))
    thumbnails = [_thumbnail(image) for file in files for image in VideoFile(file)]
    return np.stack(thumbnails) if thumbnails else np.empty((0, SIDE, SIDE, 3))


def _thumbnail(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
