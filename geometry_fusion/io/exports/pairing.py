"""Frames that belong to masks: paired by stem, read in the order of the masks."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import UNSTATED_RATE, FrameFolder, Size, frame_stem
from geometry_fusion.io.mask_writer import is_turned, write_rgb
from geometry_fusion.io.open_frames import open_frames
from geometry_fusion.io.video_file import VideoFile


class PairedFrames:
    """The frames of masks, each the size (width, height) of the masks.

    places: stem of each mask, or number of its frame.
    source: a video file, a folder of pictures, or `Frames` (`len`, `[i]`, `size`, maybe `stems` and
    `frame_rate`).
    Raises InputError where a mask has no frame, and for other sizes.
    """

    def __init__(self, source, places: Sequence[str] | Sequence[int], size: Size):
        self._frames = open_frames(Path(source)) if isinstance(source, str | Path) else source
        self._name = str(source) if isinstance(source, str | Path) else "frames"
        stems = self._all_stems()
        position_of = {stem: position for position, stem in enumerate(stems)}
        position_of |= {position: position for position in range(len(stems))}
        if missing := [place for place in places if place not in position_of]:
            raise InputError(
                f"{self._name}: has no frame {missing[0]}, which the masks show; give the frames "
                "that the masks were made for"
            )
        if tuple(self._frames.size) != tuple(size):
            width, height = self._frames.size
            raise InputError(
                f"{self._name}: frames are {width}x{height}, masks {size[0]}x{size[1]}; give the "
                "frames that the masks were made for"
            )
        self.count = len(stems)  # of the whole video
        self.positions = [position_of[place] for place in places]  # of each mask's frame in it
        self.stems = [stems[position] for position in self.positions]
        self.frame_rate = getattr(self._frames, "frame_rate", UNSTATED_RATE)

    def _all_stems(self) -> list[str]:
        if stems := getattr(self._frames, "stems", None):
            return list(stems)
        return [frame_stem(index, len(self._frames)) for index in range(len(self._frames))]

    @property
    def image_names(self) -> list[str]:
        """File name of each mask's picture; STEM.jpg where the frames are no files."""
        if isinstance(self._frames, FrameFolder):
            return [self._frames.files[position].name for position in self.positions]
        return [f"{stem}.jpg" for stem in self.stems]

    def images(self) -> Iterator[np.ndarray]:
        """The frame of each mask, RGB uint8 [H, W, 3]. A video is decoded once, in order.

        Raises InputError where a frame cannot be decoded.
        """
        if not isinstance(self._frames, VideoFile):
            for position in self.positions:
                yield self._frames[position]
            return
        wanted = iter(self.positions)
        position = next(wanted)
        for index, image in enumerate(self._frames):
            if index == position:
                yield image
                position = next(wanted, None)
                if position is None:
                    return
        raise InputError(
            f"{self._name}: frame {position} cannot be decoded; the file is damaged, copy it again"
        )

    def write_images(self, folder: Path) -> Iterator[str]:
        """Write the picture of each mask to `folder`; yields their names as they are written.

        Files are copied, other frames become JPEG. A picture that is turned by its EXIF data is
        written upright, because not every tool turns it.
        """
        is_folder = isinstance(self._frames, FrameFolder)
        for place, name in enumerate(self.image_names):
            file = self._frames.files[self.positions[place]] if is_folder else None
            if file is None:
                break
            if is_turned(file):
                write_rgb(folder / name, self._frames[self.positions[place]])
            else:
                shutil.copyfile(file, folder / name)
            yield name
        if not is_folder:
            for name, image in zip(self.image_names, self.images()):
                write_rgb(folder / name, image)
                yield name
