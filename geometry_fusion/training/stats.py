"""Records of a training run, the lines of train_stats.json.

{"step": 10, "train": {"total": 0.5, ...}}      losses of a logged step
{"step": 40, "val": {"score": 0.7, ...}}        measures of a validation
"""

from pathlib import Path

from geometry_fusion.io.atomic import read_json_lines
from geometry_fusion.io.parsing import is_number, is_whole


def is_stats_record(value: dict) -> bool:
    """Whether a JSON object has the form of a record."""
    groups = [value[kind] for kind in ("train", "val") if kind in value]
    if not is_whole(value.get("step")) or not groups:
        return False
    if not all(isinstance(group, dict) for group in groups):
        return False
    return all(is_number(number) for group in groups for number in group.values())


def read_stats(file: Path) -> list[dict]:
    """The records of a run; prints how many lines are no records. Empty where there is no file."""
    return read_json_lines(file, is_stats_record)
