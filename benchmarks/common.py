"""What the benchmarks share: the bundled `return` clip, endlessly, and the tiny arms that ship.

Importing this module makes `geometry_fusion` of this repository importable.
"""

import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks/out"
CLIP = ROOT / "videos/samples/return/video.mp4"
ARMS = ("upstream", "baseline", "3am", "places", "both")  # of speed.py
CLICK = (158.0, 97.0)  # x, y on the object that the clip is about
sys.path.insert(0, str(ROOT))


def there_and_back(frames: list) -> Iterator:
    """The frames forwards and backwards, again and again, without repeating the turning points."""
    yield from cycle([*frames, *frames[-2:0:-1]])


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
