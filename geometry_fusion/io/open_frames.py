"""Opening a user's frames: a folder of pictures or a video file.

Both kinds have `.size` (width, height), `.frame_rate` (Fraction) and `.stems`, and iterate upright
RGB uint8 [H, W, 3] frames, as often as wanted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.temporary import working_folder
from geometry_fusion.io.video_file import VideoFile


def open_frames(path: Path) -> VideoFile | FrameFolder:
    """Frames to iterate, of a folder of images or of a video file.

    Raises InputError for anything else.
    """
    return FrameFolder(path) if Path(path).is_dir() else VideoFile(path)


@contextmanager
def opened_frames(path: Path) -> Iterator[FrameFolder]:
    """The frames of a folder or of a video in any order (`len`, `[index]`).

    A video is extracted to a temporary folder for the block, without loss: its frames equal those
    that `open_frames` iterates. Raises InputError as `open_frames`.
    """
    if Path(path).is_dir():
        yield FrameFolder(path)
        return
    with working_folder("3am-frames") as folder:
        extract_frames(path, folder / "frames", every=1, size="keep", lossless=True)
        yield FrameFolder(folder / "frames")
