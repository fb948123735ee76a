"""What each step of a frame costs.

    python benchmarks/steps.py [--threads 1] [--precision bf16]

Streams the bundled `return` clip, forwards and backwards again and again, with one object and the
tiny models, and prints the milliseconds per frame of each step after memory has filled. These are
means, because some steps run once for several frames. Steps are indented under the one that they
are part of; the clock adds some microseconds to each. Writes benchmarks/out/steps.json.
`make bench` compares whole passes.
"""

import argparse
import json
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from itertools import islice

import torch
from common import CLICK, OUT, endless_clip, tiny_predictor

from geometry_fusion.geometry.keyframes import Keyframes
from geometry_fusion.geometry.must3r_stream import Must3rStream
from geometry_fusion.geometry.tokens import FrameTokens
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Prompt

FILLED = 120  # frames after which SAM2's and MUSt3R's memory are full


def steps_of(predictor) -> list[tuple[str, object, str]]:
    """(label, owner, method) of all steps, in the order of a frame."""
    return [
        ("tracking one frame", predictor, "track_frame"),
        ("  SAM2 image encoder", predictor, "forward_image"),
        ("  MUSt3R stream", Must3rStream, "push_all"),
        ("    encoder", FrameTokens, "of"),
        ("    decoder", Must3rStream, "_read_apart"),
        ("    points, focal length, pose", Must3rStream, "_decoded"),
        ("    overlap rule: reading", Keyframes, "views_of"),
        ("    overlap rule: judging", Keyframes, "judge"),
        ("    keyframes", Must3rStream, "_keep"),
        ("    answer", Must3rStream, "_answers"),
        ("  merger", predictor.merger, "forward"),
        ("  SAM2 memory attention", predictor, "_prepare_memory_conditioned_features"),
        ("  SAM2 mask decoder", predictor, "_forward_sam_heads"),
        ("  SAM2 memory encoder", predictor, "_encode_memory_in_output"),
        ("  masks at the video's size", predictor, "_get_orig_video_res_output"),
    ]


@contextmanager
def clocked(owner, method: str, seconds: list[float]):
    """Inside the `with`, append the duration of every call of `owner.method` to `seconds`."""
    original = getattr(owner, method)
    inherited = method not in vars(owner)

    def timed(*args, **kwargs):
        began = time.perf_counter()
        answer = original(*args, **kwargs)
        seconds.append(time.perf_counter() - began)
        return answer

    setattr(owner, method, timed)
    try:
        yield
    finally:
        if inherited:
            delattr(owner, method)
        else:
            setattr(owner, method, original)


def measure(arm: str, frames: int, compile: bool, precision: str) -> dict[str, float]:
    """Milliseconds per frame of each step, and of the whole frame."""
    predictor = tiny_predictor(arm, precision, compile=compile)
    session = StreamSession(predictor, precision=precision)
    session.add(Prompt(points=(CLICK,)))
    seconds = defaultdict(list)
    with ExitStack() as stack:
        for label, owner, method in steps_of(predictor):
            stack.enter_context(clocked(owner, method, seconds[label]))
        for number, _ in enumerate(session.track(islice(endless_clip(), frames)), 1):
            if number == FILLED:
                began = time.perf_counter()
                for spent in seconds.values():
                    spent.clear()

    def per_frame(spent: float) -> float:
        return round(1000 * spent / (frames - FILLED), 2)

    whole = per_frame(time.perf_counter() - began)
    steps = {label: per_frame(sum(spent)) for label, spent in seconds.items() if spent}
    return {"whole frame": whole} | steps


def main() -> None:
    """Measure the arms, print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--arms", nargs="+", default=["sam2", "3am"], choices=("sam2", "3am"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    args = parser.parse_args()
    if args.frames < 2 * FILLED:
        raise SystemExit(f"--frames {args.frames}: give at least {2 * FILLED}")
    torch.set_num_threads(args.threads)
    steps = {arm: measure(arm, args.frames, args.compile, args.precision) for arm in args.arms}
    labels = list(dict.fromkeys(label for of_arm in steps.values() for label in of_arm))
    title = f"milliseconds, {args.threads} threads"
    print(f"{title:<34}" + "".join(f"{arm:>8}" for arm in steps))
    for label in labels:
        values = "".join(f"{of_arm.get(label, ''):>8}" for of_arm in steps.values())
        print(f"{label:<34}{values}")
    facts = {
        "threads": args.threads,
        "compile": args.compile,
        "precision": args.precision,
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    OUT.mkdir(exist_ok=True)
    results = {"milliseconds": steps, "measured_on": facts}
    (OUT / "steps.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
