"""Memory and speed over 20,000 frames of streamed tracking (`make soak`).

    python benchmarks/soak.py --arm 3am

Tracks one object of the bundled `return` clip, forwards and backwards again and again. Prints
resident memory after 500 frames and at the end, and the cost of a frame around frame 200, around
frame 2000 and at the end. Writes benchmarks/out/soak_ARM.json.
"""

import argparse
import gc
import json
import time
from itertools import islice

import numpy as np
import psutil
from common import CLICK, OUT, endless_clip, tiny_predictor
from tqdm import tqdm

from geometry_fusion.tracking.encoder import FRAMES_AT_ONCE
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Prompt

SETTLED = 500  # frames after which memory no longer grows
# Frames over which the cost is taken; longer than the clip there and back, and whole batches.
WINDOW = 128
COST_AT = (200, 2000)  # frames around which the cost is taken, besides the end


def typical_ms(stamps: list[float]) -> float:
    """Milliseconds per frame: the median over batches, of the mean of each batch.

    Frames are encoded in batches, so that single frames differ in cost.
    """
    steps = np.diff(stamps)
    return round(1000 * float(np.median(steps.reshape(-1, FRAMES_AT_ONCE).mean(1))), 2)


def main() -> None:
    """Track, then print and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--arm", default="sam2", choices=("sam2", "3am"))
    args = parser.parse_args()
    if args.frames < 2 * SETTLED:
        raise SystemExit(f"--frames {args.frames}: give at least {2 * SETTLED}")
    session = StreamSession(tiny_predictor(args.arm))
    session.add(Prompt(points=(CLICK,)))
    memory_mb, cost_ms = {}, {}
    stamps = [time.perf_counter()]  # of the last WINDOW frames
    windows = {at + WINDOW // 2: f"frame {at}" for at in COST_AT} | {args.frames: "the end"}
    tracked = session.track(islice(endless_clip(), args.frames))
    for done, _ in enumerate(tqdm(tracked, total=args.frames, mininterval=5), 1):
        stamps.append(time.perf_counter())
        del stamps[: -WINDOW - 1]
        if done in windows:
            cost_ms[windows[done]] = typical_ms(stamps)
        if done in (SETTLED, args.frames):
            gc.collect()
            memory_mb[done] = psutil.Process().memory_info().rss / 2**20
    early, end = memory_mb[SETTLED], memory_mb[args.frames]
    result = {
        "arm": args.arm,
        "frames": args.frames,
        "mb_after_500": round(early, 1),
        "mb_at_the_end": round(end, 1),
        "end_over_500": round(end / early, 4),
        "ms_a_frame_around": cost_ms,
        "cost_over_frame_200": {
            at: round(ms / cost_ms["frame 200"], 3) for at, ms in cost_ms.items()
        },
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"soak_{args.arm}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
