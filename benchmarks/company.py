"""What a run costs when another one shares the cores: frames a second alone, and of each of two.

    python benchmarks/company.py                  about three minutes on two cores
    python benchmarks/company.py --frames 120

OpenMP's idle threads spin by default, and two programs then take the cores from each other. The
commands of this project set OMP_WAIT_POLICY=passive before torch is loaded
(geometry_fusion/threads.py), unless the user has set it. Prints a table and writes
benchmarks/out/company.json; all numbers of a table come from one run.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from common import OUT, ROOT

POLICIES = {"as torch sets it": None, "passive": "passive"}
# Tracks one object with geometry through the clip, again and again; prints frames a second.
PROGRAM = """
import sys, time
from itertools import islice
sys.path.insert(0, "benchmarks")
from common import CLICK, endless_clip, tiny_predictor
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Prompt

count = int(sys.argv[1])
session = StreamSession(tiny_predictor("3am"))
session.add(Prompt(points=(CLICK,)))
warm_up = 16
for number, _ in enumerate(session.track(islice(endless_clip(), warm_up + count)), 1):
    if number == warm_up:
        began = time.perf_counter()
print(count / (time.perf_counter() - began))
"""


def frames_a_second(programs: int, policy: str | None, frames: int) -> list[float]:
    """Pace of each of several programs that run at the same time."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, "-c", PROGRAM, str(frames)]
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(programs)
    ]
    return [float(process.communicate()[0]) for process in running]


def table(rows: Sequence[dict]) -> str:
    """Frames a second by policy, alone and in company, and what company leaves of the pace."""
    lines = [f"{'OMP_WAIT_POLICY':<18}{'alone':>8}{'each of two':>13}{'share':>8}"]
    for row in rows:
        share = row["each_of_two"] / row["alone"]
        lines.append(
            f"{row['policy']:<18}{row['alone']:>8.2f}{row['each_of_two']:>13.2f}{share:>8.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=60, help="frames that are timed")
    args = parser.parse_args()
    rows = []
    for name, policy in POLICIES.items():
        (alone,) = frames_a_second(1, policy, args.frames)
        both = frames_a_second(2, policy, args.frames)
        rows.append({"policy": name, "alone": alone, "each_of_two": sum(both) / 2})
    print(table(rows))
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {"frames": args.frames, "cores": os.cpu_count(), "rows": rows}
    (OUT / "company.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
