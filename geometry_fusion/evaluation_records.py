"""Records of evaluate.py: one JSON object a line, written object by object, read again by the next
run.

A file of them may have been cut by a kill, edited, merged or come from elsewhere. A line that is no
whole record is left out, which is said once, and what it was of is computed again.
"""

import json
import math
from pathlib import Path

from geometry_fusion.data.tracks import SUBSETS
from geometry_fusion.files import json_record, read_json_lines, replacing_file
from geometry_fusion.parsing import is_number, is_whole

ARMS = ("sam2", "control", "3am", "oracle")
PROMPTS = ("mask", "click")
MEASURES = ("iou", "positive_iou", "accuracy", "success_rate", "jf")
MAY_BE_NONE = (
    "positive_iou",
    "accuracy",
    "jf",
)  # of an object that is never in view, or never found


def is_record(value: dict) -> bool:
    """Whether this is a whole record whose numbers agree with each other in kind, range and number
    of frames.
    """
    if not all(isinstance(value.get(key), str) for key in ("identity", "arm", "prompt", "object")):
        return False
    subsets = value.get("subsets")
    known = (
        isinstance(subsets, list)
        and all(subset in SUBSETS for subset in subsets)
        and "all" in subsets
    )
    if not known or value["arm"] not in ARMS or value["prompt"] not in PROMPTS:
        return False
    measures = all(
        _is_share(value.get(m)) or (value.get(m, 0) is None and m in MAY_BE_NONE) for m in MEASURES
    )
    frames, positive, ious = (
        value.get(key) for key in ("num_frames", "num_positive_frames", "frame_ious")
    )
    counts = is_whole(frames) and is_whole(positive) and 0 <= positive <= frames and frames > 0
    return (
        measures
        and counts
        and isinstance(ious, list)
        and len(ious) == frames
        and all(map(_is_share, ious))
    )


def _is_share(value: object) -> bool:
    return is_number(value) and math.isfinite(value) and 0 <= value <= 1


def read_records(file: Path) -> list[dict]:
    """The whole records of a file; says how many lines are none."""
    return read_json_lines(file, is_record)


def keep_records(file: Path) -> list[dict]:
    """As `read_records`, and makes `file` hold nothing else, so that more can be appended.

    Lines that are no records go to FILE.unreadable: they may be somebody's, but for the end that a
    kill cut off.
    """
    records = read_records(file)
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    unreadable = [line for line in lines if line.strip() and json_record(line, is_record) is None]
    if unreadable:
        with open(file.with_name(f"{file.name}.unreadable"), "ab") as handle:
            handle.write(b"\n".join(unreadable) + b"\n")
    with replacing_file(file) as fresh:
        fresh.write_text("".join(json.dumps(record) + "\n" for record in records))
    return records
