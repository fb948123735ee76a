"""Frames of a folder or of a video in any order, to look at a few of them without extracting."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import FrameFolder, Size
from geometry_fusion.io.video_file import VideoFile


class VideoBrowser:
    """A video file as `Frames`: RGB uint8 [H, W, 3] by index.

    A frame is found by decoding all frames before it. Steps forward continue from the latest frame
    and are fast; steps backward start again at the beginning.
    """

    def __init__(self, path: Path):
        self._video = VideoFile(path)
        self.size: Size = self._video.size
        self.stems = self._video.stems
        self._at = -1  # index of the latest frame, which is `_image`
        self._image: np.ndarray | None = None
        self._rest: Iterator[np.ndarray] = iter(())

    def __len__(self) -> int:
        return self._video.num_frames

    def __getitem__(self, index: int) -> np.ndarray:
        """RGB uint8 [H, W, 3]. Raises InputError for a frame that is lost in a damaged video."""
        if index != self._at:
            if index < self._at or self._at < 0:
                self._rest, self._at = iter(self._video), -1
            while self._at < index:
                image = next(self._rest, None)
                if image is None:
                    last = self._at
                    self._at = -1  # start again at the next call
                    raise InputError(
                        f"{self._video.path}: frame {index} cannot be read; the last one is {last}"
                    )
                self._at, self._image = self._at + 1, image
        return self._image


def browse(path: Path) -> FrameFolder | VideoBrowser:
    """Frames of a folder of images or of a video file. Raises InputError for anything else."""
    return FrameFolder(path) if Path(path).is_dir() else VideoBrowser(path)
