"""What one setting of evaluate.py costs: two of its runs, object by object.

    python benchmarks/compare_evaluations.py eval_logs/every_1 eval_logs/every_2

Both folders are the `out` of runs over the same objects. Prints, per arm and prompt of both, the
mean positive IoU of each run, and the mean difference with a 95% interval (bootstrap over objects).
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from common import ROOT  # noqa: F401  (makes geometry_fusion importable)

from geometry_fusion.measure.scores import interval


def scores_of(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(arm, prompt) -> object -> positive IoU of a run. SystemExit where there is none."""
    file = folder / "objects.csv"
    if not file.is_file():
        sys.exit(f"{file}: no such file; give the `out` of a finished run of evaluate.py")
    scores: dict[tuple[str, str], dict[str, float]] = {}
    with open(file, newline="") as rows:
        for row in csv.DictReader(rows):
            of_arm = scores.setdefault((row["arm"], row["prompt"]), {})
            of_arm[row["object"]] = float(row["positive_iou"])
    return scores


def main() -> None:
    """Compare the runs and print a line per arm and prompt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    args = parser.parse_args()
    first, second = scores_of(args.first), scores_of(args.second)
    for arm, prompt in [key for key in first if key in second]:
        before, after = first[arm, prompt], second[arm, prompt]
        if before.keys() != after.keys():
            sys.exit(f"{args.second}: has other objects than {args.first} for {arm}")
        gains = [after[name] - before[name] for name in sorted(before)]
        low, high = interval(gains) or (0.0, 0.0)
        means = [np.mean(list(values.values())) for values in (before, after)]
        print(
            f"{arm:<12}{prompt:<7}{len(gains):>4} objects {means[0]:.3f} -> {means[1]:.3f}  "
            f"{np.mean(gains):+.3f} ({low:+.3f}..{high:+.3f})"
        )


if __name__ == "__main__":
    main()
