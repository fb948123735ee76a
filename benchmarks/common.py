"""What the benchmarks share: the bundled `return` clip, for ever, and the tiny arms that ship."""

import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks/out"
CLIP = ROOT / "videos/samples/return/video.mp4"
CLICK = (158.0, 97.0)  # on the object that the clip is about
sys.path.insert(0, str(ROOT))


def endless_clip() -> Iterator[np.ndarray]:
    """The clip there and back again and again, RGB uint8 [H, W, 3]; decoded once, so that what
    grows is the tracker's."""
    from geometry_fusion.video import VideoFile

    images = list(VideoFile(CLIP))
    yield from cycle([*images, *images[-2:0:-1]])


def tiny_predictor(arm: str, precision: str = "auto", **options):
    """The predictor of "sam2" or "3am" on the CPU, with the weights that ship."""
    import fusion
    import sam2_model

    predictor = sam2_model.build_predictor("tiny", device="cpu", **options)
    if arm == "3am":
        checkpoint = fusion.DEFAULT_CHECKPOINTS["tiny", "tiny"]
        fusion.fuse_checkpoint(
            predictor, checkpoint, sam2="tiny", sam2_file=None, must3r="tiny", precision=precision
        )
    return predictor
