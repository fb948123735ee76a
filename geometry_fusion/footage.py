"""What the tiny weights were made for, and what to say where they meet other footage.

The tiny SAM2 and the tiny MUSt3R were trained on rooms that this project renders. The bundled
samples are such rooms; they are recognised by their pictures, in whatever file, size or folder they
come.
"""

import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.downloads import file_digest
from geometry_fusion.video import VideoFile

SAMPLES = Path(__file__).resolve().parents[1] / "videos/samples"
SIDE = 16  # pixels of the thumbnails that are compared
# Mean difference of two thumbnails, 0..255, up to which they show one picture. Sample frames as
# JPEG, in half and in double size differ from themselves by at most 0.8, frames of other rooms and
# of real clips from them by 20 or more.
SAME_PICTURE = 4.0
ROOM_FOLDER = re.compile(r"room_\d{6}")  # geometry_fusion.data.rooms writes these


def is_rendered_room(image: np.ndarray, path: Path | str | None = None) -> bool:
    """Whether a frame [H, W, 3] uint8 is one of a bundled sample, or `path` the frames of a
    rendered room.
    """
    return _is_room_folder(path) or _is_of_a_sample(image)


def note_on_sam2(
    name: str, checkpoint: Path | None, shipped: Path, image: np.ndarray, path: Path | str
) -> str:
    """For the end of a run over footage that `image` [H, W, 3] uint8 is of: what to expect of the
    tiny SAM2 there, and what to do. Empty for rendered rooms, and for other weights.

    name, checkpoint: of SAM2, None for the model's own file; shipped: the tiny model's; path: where
    frames come from.
    """
    if name != "tiny" or not _is_shipped(checkpoint, shipped) or is_rendered_room(image, path):
        return ""
    return (
        f"The tiny weights were made for rendered rooms, and {path} is other footage: expect "
        "poor masks. For real "
        "footage: python main.py weights --sam2 l, then add --sam2 l; geometry does not run with "
        "it until you "
        "fine-tune it (README), as no merger weights are published."
    )


def note_on_must3r(file: Path, shipped: Path, image: np.ndarray, path: Path | str) -> str:
    """As `note_on_sam2`, for a reconstruction by the MUSt3R weights in `file`."""
    if not _is_shipped(file, shipped) or is_rendered_room(image, path):
        return ""
    return (
        f"The tiny weights were made for rendered rooms, and {path} is other footage: expect a "
        "poor shape. For real "
        "footage: python main.py weights --must3r 512 --accept-licence, then add --must3r 512."
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
    known = _sample_thumbnails()
    if not len(known):
        return False
    return bool(np.abs(known - _thumbnail(image)).mean((1, 2, 3)).min() <= SAME_PICTURE)


@cache
def _sample_thumbnails() -> np.ndarray:
    """[N, SIDE, SIDE, 3] of all frames of the bundled samples."""
    files = sorted(SAMPLES.glob("*/video.mp4"))
    thumbnails = [_thumbnail(image) for file in files for image in VideoFile(file)]
    return np.stack(thumbnails) if thumbnails else np.empty((0, SIDE, SIDE, 3))


def _thumbnail(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
