"""Records of evaluate.py: one JSON object per line and object, written as each is finished.

The next run reads them and resumes. A file of records may have been cut by a kill, edited, merged
or copied from elsewhere. A line that is not a complete record is ignored, which is reported once,
and its object is evaluated again.
"""

import json
import math
from pathlib import Path

from geometry_fusion.evaluation.arm_names import is_arm
from geometry_fusion.evaluation.objects import SUBSETS
from geometry_fusion.io.atomic import json_record, read_json_lines, replacing_file
from geometry_fusion.io.parsing import is_number, is_whole

PROMPTS = ("mask", "click")
MEASURES = ("iou", "positive_iou", "accuracy", "success_rate", "jf")
# Measures that are None for an object that is never in view, or never found.
MAY_BE_NONE = ("positive_iou", "accuracy", "jf")


def is_record(value: dict) -> bool:
    """Whether this is a complete record.

    All values must have the right type and range, and the numbers of frames must agree.
    """
    if not all(isinstance(value.get(key), str) for key in ("identity", "arm", "prompt", "object")):
        return False
    if not is_arm(value["arm"]) or value["prompt"] not in PROMPTS:
        return False
    subsets = value.get("subsets")
    if not isinstance(subsets, list) or "all" not in subsets:
        return False
    if not all(subset in SUBSETS for subset in subsets):
        return False
    if not all(_is_measure(measure, value) for measure in MEASURES):
        return False
    frames, positive = value.get("num_frames"), value.get("num_positive_frames")
    if not (is_whole(frames) and is_whole(positive) and 0 <= positive <= frames and frames > 0):
        return False
    # Records of earlier versions have no areas; they stay valid.
    lists = [value.get("frame_ious"), *([value["frame_areas"]] if "frame_areas" in value else [])]
    return all(isinstance(v, list) and len(v) == frames and all(map(_is_share, v)) for v in lists)


def _is_measure(name: str, record: dict) -> bool:
    if name in MAY_BE_NONE and name in record and record[name] is None:
        return True
    return _is_share(record.get(name))


def _is_share(value: object) -> bool:
    """Whether this is a number from 0 to 1."""
    return is_number(value) and math.isfinite(value) and 0 <= value <= 1


def read_records(file: Path) -> list[dict]:
    """The complete records of a file; prints how many lines are not."""
    return read_json_lines(file, is_record)


def keep_records(file: Path) -> list[dict]:
    """As `read_records`, and removes all other lines from `file`, so that more can be appended.

    The removed lines go to FILE.unreadable, because someone may need them; only a last line without
    its end, which a kill cut off, is dropped.
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
