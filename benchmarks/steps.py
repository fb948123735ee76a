"""What the parts of a frame cost:  python benchmarks/steps.py [--threads 1] [--precision bf16]

Streams the bundled `return` clip, forwards and backwards again and again, one object, tiny models,
and prints the milliseconds a frame that each part takes after memory has filled (means: some parts
run once for several frames). Parts are indented under what they belong to; calling them through a
clock adds some microseconds each. Writes benchmarks/out/steps.json. `make bench` compares whole
passes.
"""

import argparse
import json
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from itertools import islice

import torch
from common import CLICK, OUT, endless_clip, tiny_predictor

from geometry_fusion.geometry import Must3rStream
from geometry_fusion.session import Session
from geometry_fusion.types import Prompt

FILLED = 120  # frames after which memory and keyframes have filled


def parts_of(predictor) -> list[tuple[str, object, str]]:
    """(label, owner, method) in the order of a frame."""
    return [
        ("tracking one frame", predictor, "track_frame"),
        ("  SAM2 image encoder", predictor, "forward_image"),
        ("  MUSt3R stream", Must3rStream, "push_all"),
        ("    encoder", Must3rStream, "_encode"),
        ("    decoder", Must3rStream, "_read_apart"),
        ("    points, focal length, pose", Must3rStream, "_views"),
        ("    overlap rule: reading", Must3rStream, "_sights"),
        ("    overlap rule: judging", Must3rStream, "_is_keyframe"),
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
    """Append what every call of `owner.method` took to `seconds`."""
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
    """Milliseconds a frame per part, and of a whole frame."""
    predictor = tiny_predictor(arm, precision, compile=compile)
    session = Session(predictor, precision=precision)
    session.add(Prompt(points=(CLICK,)))
    seconds = defaultdict(list)
    with ExitStack() as stack:
        for label, owner, method in parts_of(predictor):
            stack.enter_context(clocked(owner, method, seconds[label]))
        for number, _ in enumerate(session.track(islice(endless_clip(), frames)), 1):
            if number == FILLED:
                began = time.perf_counter()
                for spent in seconds.values():
                    spent.clear()
    a_frame = lambda spent: round(1000 * spent / (frames - FILLED), 2)  # noqa: E731
    whole = a_frame(time.perf_counter() - began)
    return {"whole frame": whole} | {
        label: a_frame(sum(spent)) for label, spent in seconds.items() if spent
    }


def main() -> None:
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
    found = {arm: measure(arm, args.frames, args.compile, args.precision) for arm in args.arms}
    labels = list(dict.fromkeys(label for parts in found.values() for label in parts))
    print(f"{f'milliseconds, {args.threads} threads':<34}" + "".join(f"{arm:>8}" for arm in found))
    for label in labels:
        print(f"{label:<34}" + "".join(f"{parts.get(label, ''):>8}" for parts in found.values()))
    facts = {
        "threads": args.threads,
        "compile": args.compile,
        "precision": args.precision,
        "torch": torch.__version__,
    }
    facts["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    OUT.mkdir(exist_ok=True)
    (OUT / "steps.json").write_text(
        json.dumps({"milliseconds": found, "measured_on": facts}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
