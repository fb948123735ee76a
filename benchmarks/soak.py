"""Memory over 20,000 frames of streamed tracking:  make soak

Tracks one object of the bundled `return` clip, forwards and backwards again and again.
Prints resident memory after 500 frames and at the end, and what a frame cost early and late; writes
benchmarks/out/soak.json.
"""

import argparse
import gc
import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import fusion  # noqa: E402
import sam2_model  # noqa: E402
from geometry_fusion.predictor import FRAMES_AT_ONCE  # noqa: E402
from geometry_fusion.session import Session  # noqa: E402
from geometry_fusion.types import Prompt  # noqa: E402
from geometry_fusion.video import VideoFile  # noqa: E402

SETTLED = 500  # frames after which memory has its size
WINDOW = 200  # frames over which cost is taken; full batches of frames


def frames_for_ever():
    """The clip there and back, decoded once: what grows is then the tracker's."""
    images = list(VideoFile(ROOT / "videos/samples/return/video.mp4"))
    yield from cycle([*images, *images[-2:0:-1]])


def typical_ms(stamps: list[float]) -> float:
    """Median over runs of frames that are encoded at once, the mean of each, milliseconds."""
    steps = np.diff(stamps[-WINDOW - 1 :])
    return round(1000 * float(np.median(steps.reshape(-1, FRAMES_AT_ONCE).mean(1))), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--arm", default="sam2", choices=("sam2", "3am"))
    args = parser.parse_args()
    if args.frames < 2 * SETTLED:
        raise SystemExit(f"--frames {args.frames}: give at least {2 * SETTLED}")
    predictor = sam2_model.build_predictor("tiny", device="cpu")
    if args.arm == "3am":
        fusion.fuse_checkpoint(
            predictor, fusion.DEFAULT_CHECKPOINTS["tiny", "tiny"], sam2="tiny", sam2_file=None, must3r="tiny"
        )
    session = Session(predictor)
    session.add(Prompt(points=((158.0, 97.0),)))
    memory, stamps = {}, [time.perf_counter()]
    for index, _ in tqdm(session.track(islice(frames_for_ever(), args.frames)), total=args.frames, mininterval=5):
        stamps.append(time.perf_counter())
        del stamps[: -WINDOW - 1]
        if index + 1 == SETTLED:
            early = typical_ms(stamps)
        if index + 1 in (SETTLED, args.frames):
            gc.collect()
            memory[index + 1] = psutil.Process().memory_info().rss / 2**20
    result = {
        "frames": args.frames,
        "arm": args.arm,
        "mb_after_500": round(memory[SETTLED], 1),
        "mb_at_the_end": round(memory[args.frames], 1),
        "end_over_500": round(memory[args.frames] / memory[SETTLED], 4),
        "ms_early": early,
        "ms_late": typical_ms(stamps),
    }
    out = ROOT / "benchmarks/out/soak.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
