"""Score folders of PNG masks: the IoU family and DAVIS 2017 J&F (docs/measures.md).

    python metrics.py --pred-a DIR --pred-b DIR --gt DIR     two arms and their differences, B - A
    python metrics.py --pred DIR --gt DIR                    one arm

From Python: `from metrics import iou, boundary_f, score_masks, score_folders`.
"""

from geometry_fusion.interrupts import loading, watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while packages load ends without a traceback

import sys

from geometry_fusion.commands.console import parse, run_script
from geometry_fusion.measure.folders import FolderScores, check_ground_truth, score_folders
from geometry_fusion.measure.masks import BOUNDARY_RADIUS, FrameScore, boundary_f, iou, score_frame
from geometry_fusion.measure.scores import (
    MEASURES,
    Scores,
    bootstrap_interval,
    interval,
    mean_scores,
    score_masks,
    summarise,
)
from geometry_fusion.measure.tables import score_differences, score_table

__all__ = [
    "BOUNDARY_RADIUS",
    "MEASURES",
    "FolderScores",
    "FrameScore",
    "Scores",
    "bootstrap_interval",
    "boundary_f",
    "check_ground_truth",
    "interval",
    "iou",
    "main",
    "mean_scores",
    "score_differences",
    "score_folders",
    "score_frame",
    "score_masks",
    "score_table",
    "summarise",
]


def main(argv=None) -> int | None:
    """Run with these words of a command line. Raises InputError for bad input."""
    args = parse("metrics", argv, __doc__)
    with loading():  # after parsing, so that help and errors come at once
        from geometry_fusion.commands.metrics import run
    return run(args)


if __name__ == "__main__":
    sys.exit(run_script(main))
