"""A folder of images as frames, in natural order; and the check that it may be replaced.

`extract_frames` writes 0000.jpg, 0001.jpg, ... and beside them frames.json, which states their
rate.
"""

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from natsort import natsorted

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.atomic import CLUTTER
from geometry_fusion.io.mask_writer import image_size, read_rgb
from geometry_fusion.io.parsing import load_json

Size = tuple[int, int]  # (width, height)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Files that users may also mean by frames, for messages: other pictures, and videos.
OTHER_IMAGES = (
    ".tif",
    ".tiff",
    ".heic",
    ".heif",
    ".avif",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".exr",
    ".gif",
)
OTHER_IMAGES += (".jp2", ".jxl", ".ppm", ".pgm", ".tga", ".psd", ".raw", ".jfif")
VIDEOS = (
    ".mp4",
    ".mov",
    ".mkv",
    ".avi",
    ".webm",
    ".m4v",
    ".mts",
    ".m2ts",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".3gp",
)
FRAMES_JSON = "frames.json"
# Frames per second that frames.json may state.
LEAST_RATE = Fraction(1, 1000)
MOST_RATE = Fraction(1000)
UNSTATED_RATE = Fraction(10)  # of folders without frames.json: slow enough to judge masks


class FrameFolder:
    """The images of a folder as `Frames`, in natural order (frame2 before frame10).

    They are decoded when they are read, and EXIF orientation is applied. The frame rate is that of
    frames.json, else 10. Raises InputError for folders without images, sizes that differ, two
    images of one stem, and unreadable images. damaged_allowed: raise it for an unreadable image
    only when that image is read; at least one must be readable.
    """

    def __init__(self, path: Path, damaged_allowed: bool = False):
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{path}: no such folder; give a folder of frames or a video")
        if not self.path.is_dir():
            raise InputError(f"{path}: is a file, not a folder of frames; give the folder")
        self.files = natsorted(filter(_is_image, self.path.iterdir()), key=lambda file: file.name)
        if not self.files:
            raise InputError(
                f"{path}: holds no frames ({' '.join(IMAGE_SUFFIXES)}); {_cure(self.path)}"
            )
        self.stems = [file.stem for file in self.files]
        by_stem: dict[str, Path] = {}
        for file in self.files:
            if (other := by_stem.setdefault(file.stem, file)) is not file:
                raise InputError(
                    f"{path}: {other.name} and {file.name} are the same frame twice; remove one"
                )
        self.size: Size = self._one_size(damaged_allowed)
        self.frame_rate = self._stated_rate()

    def _one_size(self, damaged_allowed: bool) -> Size:
        """The size of all readable images. Raises InputError where sizes differ."""
        first: tuple[Path, Size] | None = None
        damage: InputError | None = None
        for file in self.files:
            try:
                size = image_size(file)
            except InputError as error:
                if not damaged_allowed:
                    raise
                damage = damage or error
                continue
            if first is None:
                first = file, size
            elif size != first[1]:
                raise InputError(
                    f"{self.path}: {file.name} is {size[0]}x{size[1]}, {first[0].name} is "
                    f"{first[1][0]}x{first[1][1]}; frames must have one size"
                )
        if first is None:
            raise damage
        return first[1]

    def _stated_rate(self) -> Fraction:
        """The rate of frames.json. Raises InputError where it states none that can be used."""
        file = self.path / FRAMES_JSON
        if not file.exists():
            return UNSTATED_RATE
        try:
            stated = load_json(file)["frame_rate"]
            # Checked before conversion: Fraction would spend hours on "1e999999999".
            if isinstance(stated, str) and not re.fullmatch(r"\d{1,12}([/.]\d{1,12})?", stated):
                raise ValueError(f"{stated[:20]!r} is no number")
            rate = Fraction(stated)
            if not LEAST_RATE <= rate <= MOST_RATE:
                raise ValueError(f"frame_rate is {rate}, not 0.001..1000")
        except (ValueError, KeyError, TypeError, ZeroDivisionError, OverflowError) as error:
            raise InputError(
                f"{file}: no usable frame_rate ({one_line(error)}); extract again or delete the "
                "file"
            ) from None
        return rate

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        """RGB uint8 [H, W, 3]. Raises InputError for an unreadable image."""
        return read_rgb(self.files[index])

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(read_rgb, self.files)


def _is_image(file: Path) -> bool:
    is_named = file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    return is_named and file.is_file()


def _cure(folder: Path) -> str:
    """What a user can do about a folder without frames, depending on its contents."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    suffixes = Counter(entry.suffix.lower() for entry in entries if entry.is_file())
    for suffix, count in suffixes.most_common():
        if suffix in OTHER_IMAGES:
            return (
                f"its {count} {suffix} files are not read, convert them: magick mogrify "
                f"-format png *{suffix}"
            )
        if suffix in VIDEOS:
            video = next(entry for entry in entries if entry.suffix.lower() == suffix)
            return f"it holds the video {video.name}, give that file"
    for inner in filter(Path.is_dir, entries):
        if any(file.suffix.lower() in IMAGE_SUFFIXES for file in inner.iterdir()):
            return f"did you mean its folder {inner.name}?"
    return "extract them from a video first: python main.py frames VIDEO"


def frame_stem(index: int, count: int) -> str:
    """The stem of an extracted frame: four digits, or more where `count` frames need them."""
    return f"{index:0{max(4, len(str(count - 1)))}d}"


def check_holds_only_frames(out: Path) -> None:
    """Raise InputError unless `out` is new or holds nothing but extracted frames.

    Stricter than `check_replaceable`: pictures in it could be the user's photos or masks.
    """
    try:
        resolved = out.resolve()
    except (RuntimeError, OSError) as error:  # a loop of symbolic links
        raise InputError(
            f"{out}: not a usable folder ({one_line(error)}); choose another"
        ) from None
    if Path.cwd().is_relative_to(resolved):
        raise InputError(
            f"{out}: is the folder you are in or above it; choose a new folder for the frames"
        )
    if resolved.is_dir():
        for entry in sorted(resolved.iterdir()):
            # Masks are PNGs and photos have names: a wrong path must not delete them.
            is_frame = entry.suffix == ".jpg" and entry.stem.isdecimal() and entry.is_file()
            if not is_frame and entry.name not in (FRAMES_JSON, *CLUTTER):
                raise InputError(
                    f"{out}: holds {entry.name}, which is not an extracted frame; choose a new "
                    "folder"
                )
    elif resolved.exists():
        raise InputError(f"{out}: is a file; choose a folder for the frames")
