"""Frames of a folder or of a video in any order, for looking at a few of them: nothing is
extracted.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.frame_folder import FrameFolder, Size
from geometry_fusion.video import VideoFile


class VideoBrowser:
    """RGB uint8 [H, W, 3] by index, with `len`, `size` and `stems`. Frames before the wanted one
    are decoded too, so that steps forward are fast and steps backward start again.
    """

    def __init__(self, path: Path):
        self._video = VideoFile(path)
        self.size: Size = self._video.size
        self.stems = self._video.stems
        self._at, self._image = -1, None  # the latest frame
        self._rest: Iterator[np.ndarray] = iter(())

    def __len__(self) -> int:
        return self._video.num_frames

    def __getitem__(self, index: int) -> np.ndarray:
        """Raises InputError for a frame that a damaged video does not give."""
        if index != self._at:
            if index < self._at or self._at < 0:
                self._rest, self._at = iter(self._video), -1
            while self._at < index:
                image = next(self._rest, None)
                if image is None:
                    last, self._at = self._at, -1
                    raise InputError(
                        f"{self._video.path}: frame {index} cannot be read; the last one is {last}"
                    )
                self._at, self._image = self._at + 1, image
        return self._image


def browse(path: Path) -> FrameFolder | VideoBrowser:
    """Frames of a folder of images or of a video file."""
    return FrameFolder(path) if Path(path).is_dir() else VideoBrowser(path)
