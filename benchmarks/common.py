"""What the benchmarks share: the bundled `return` clip, endlessly, and the tiny arms that ship.

Importing this module makes `geometry_fusion` of this repository importable.
"""

import os
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks/out"
CLIP = ROOT / "videos/samples/return/video.mp4"
ARMS = ("upstream", "baseline", "3am", "places", "both")  # of speed.py
WARM_UP = 24  # frames before speed is measured; full batches among them
CLICK = (158.0, 97.0)  # x, y on the object that the clip is about
sys.path.insert(0, str(ROOT))


def there_and_back(frames: list) -> Iterator:
    """The frames forwards and backwards, again and again, without repeating the turning points."""
    yield from cycle([*frames, *frames[-2:0:-1]])


def write_clip(folder: Path, length: int) -> None:
    """`length` frames of the sample, forwards and backwards, as JPEG files in `folder`/clip.

    The first WARM_UP of them are in `folder`/warm as well.
    """
    from geometry_fusion.io.extract import extract_frames

    files = extract_frames(CLIP, folder / "once", every=1, progress=False)
    (folder / "clip").mkdir()
    (folder / "warm").mkdir()
    for index, file in enumerate(islice(there_and_back(files), length)):
        os.link(file, folder / "clip" / f"{index:05d}.jpg")
        if index < WARM_UP:
            os.link(file, folder / "warm" / f"{index:05d}.jpg")


def endless_clip() -> Iterator[np.ndarray]:
    """The clip's frames, RGB uint8 [H, W, 3], forwards and backwards again and again.

    Decoded once, so that memory which grows is the tracker's.
    """
    from geometry_fusion.io.video_file import VideoFile

    yield from there_and_back(list(VideoFile(CLIP)))


def tiny_predictor(arm: str, precision: str = "auto", **options):
    """The predictor of "sam2", "3am" or "places" on the CPU, with the weights that ship."""
    from geometry_fusion import load

    mode = {"3am": "merger", "places": "places"}.get(arm, "off")
    tracker = load("tiny", mode=mode, device="cpu", precision=precision, **options)
    return tracker.predictor
