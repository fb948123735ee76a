"""What `main.py segment` prints when it ends."""

from pathlib import Path

from geometry_fusion.motion import Decision
from geometry_fusion.tracking.segment_stream import StreamSummary
from geometry_fusion.types import Prompt


def print_moving(decisions: dict[int, Decision]) -> None:
    """Print which objects were left to SAM2 alone."""
    for object_id, decision in sorted(decisions.items()):
        if decision.dynamic:
            print(
                f"object {object_id} moves (score {decision.score:.1f}, 1 is enough): SAM2 alone "
                "for it; --fallback never keeps geometry"
            )


def print_summary(
    summary: StreamSummary, prompts: list[Prompt], object_ids: list[int], spec: str | Path
) -> None:
    """Print what the user should know about a stream that ended: gaps, and where it began."""
    if summary.first_frame:
        print(f"resumed an interrupted run at frame {summary.first_frame}")
    first = min((prompt.frame for prompt in prompts), default=0)
    if first:
        print(f"frames before {first} hold no masks: --mode full tracks backwards as well")
    if summary.closed_at is not None:
        print(
            f"ended at frame {summary.closed_at}, where the window was closed: later frames have "
            "no masks"
        )
    if not object_ids:
        print("no object was clicked: all masks are empty")
    for line in summary.lost:
        print(f"not read: {line}")
    if summary.dropped:
        print(f"{summary.dropped} frames were skipped to keep up with {spec}")
