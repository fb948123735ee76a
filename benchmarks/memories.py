"""Time and memory of each memory policy (`make bench`), with one candidate mask and with three.

    python benchmarks/memories.py                    SAM2 alone, the bundled clip, one object
    python benchmarks/memories.py --geometry must3r --objects 4

Each measurement is a process of its own, because peak memory is a process's. The policies take
turns. Processor time (of all threads) says more than time where others use the machine. Weights
are the shipped ones; the two further candidates of the tiny model are untrained, so that only times
mean something. Writes benchmarks/out/memories.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

from common import CLIP, OUT

THREE_CANDIDATES = {
    "multimask_output_in_sam": True,
    "multimask_min_pt_num": 0,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
}
WARM_UP = 8  # frames


def measure_here(args: argparse.Namespace) -> None:
    """Measure one policy in this process; prints a JSON line."""
    from geometry_fusion import Prompt, load
    from geometry_fusion.io.extract import extract_frames
    from geometry_fusion.tracking.stream_session import StreamSession

    options = THREE_CANDIDATES if args.candidates == 3 else {}
    tracker = load("tiny", geometry=args.geometry, device="cpu", memory=args.policy, **options)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames"
        extract_frames(CLIP, frames, every=1, progress=False)
        session = StreamSession(tracker.predictor)
        for number in range(args.objects):
            click = (158.0 - 20 * number, 97.0 + 8 * number)
            session.add(Prompt(object_id=number + 1, points=(click,)))
        tracked = session.track(frames)
        for _ in islice(tracked, WARM_UP):
            pass
        began, used = time.perf_counter(), time.process_time()
        count = sum(1 for _ in islice(tracked, args.frames))
        used = (time.process_time() - used) / count
        seconds = (time.perf_counter() - began) / count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    times = {"ms": 1000 * seconds, "cpu_ms": 1000 * used}
    print(json.dumps({**times, "peak_mib": peak, "frames": count}))


def main() -> None:
    """Measure all policies; prints a table."""
    from geometry_fusion.choices import MEMORY_POLICIES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--geometry", default="none", help="none or must3r")
    add("--objects", type=int, default=1)
    add("--frames", type=int, default=40)
    add("--rounds", type=int, default=3)
    add("--policy", help=argparse.SUPPRESS)
    add("--candidates", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.policy:
        measure_here(args)
        return
    kinds = [(policy, k) for k in (1, 3) for policy in MEMORY_POLICIES]
    results: dict[tuple[str, int], list[dict]] = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        for policy, candidates in kinds:
            command = [sys.executable, __file__, *sys.argv[1:]]
            command += ["--policy", policy, "--candidates", str(candidates)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            line = done.stdout.strip().splitlines()[-1]
            results[policy, candidates].append(json.loads(line))
    rows = []
    print(f"{'policy':<10}{'candidates':>11}{'ms/frame':>10}{'cpu ms':>8}{'peak MiB':>10}")
    for (policy, candidates), measured in results.items():
        row = {"policy": policy, "candidates": candidates}
        row |= {name: median(m[name] for m in measured) for name in ("ms", "cpu_ms")}
        row["peak_mib"] = max(m["peak_mib"] for m in measured)
        rows.append(row)
        print(
            f"{policy:<10}{candidates:>11}{row['ms']:>10.1f}{row['cpu_ms']:>8.1f}"
            f"{row['peak_mib']:>10.0f}"
        )
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "memories.json").write_text(json.dumps({"options": vars(args), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
