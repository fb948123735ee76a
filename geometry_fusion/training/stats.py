"""Records of a training run: a line of train_stats.json is {"step": 10, "train" or "val": {name:
number}}.
"""

from pathlib import Path

from geometry_fusion.files import read_json_lines
from geometry_fusion.parsing import is_number, is_whole


def is_stats_record(value: dict) -> bool:
    """Whether this is a record of a step."""
    kinds = [kind for kind in ("train", "val") if kind in value]
    numbers = [value[kind] for kind in kinds]
    if (
        not is_whole(value.get("step"))
        or not kinds
        or not all(isinstance(group, dict) for group in numbers)
    ):
        return False
    return all(is_number(number) for group in numbers for number in group.values())


def read_stats(file: Path) -> list[dict]:
    """The records of a run; says how many lines are none."""
    return read_json_lines(file, is_stats_record)
