"""Prompts in files: JSON lists and mask pictures. docs/prompts.md describes the JSON."""

import json
import math
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.io.mask_reader import ONE_OBJECT, MaskFolder
from geometry_fusion.io.mask_writer import write_mask
from geometry_fusion.io.parsing import is_whole, parse_json
from geometry_fusion.types import Prompt

CURE = "see docs/prompts.md for its form"
KEYS = ("frame", "object", "points", "negatives", "box", "mask")


def write_prompts(file: Path, prompts: list[Prompt], masks: bool = False) -> None:
    """Write clicks and boxes as `read_prompts` reads them; an older file is replaced at the end.

    masks: write the masks of prompts as well, as pictures beside the file.
    """
    entries = []
    for prompt in prompts:
        picture = None
        if masks and prompt.mask is not None:
            picture = f"prompt_{prompt.frame:04d}_{prompt.object_id}.png"
            write_mask(file.with_name(picture), prompt.mask)
        entry = {
            "frame": prompt.frame,
            "object": prompt.object_id,
            "points": prompt.points,
            "negatives": prompt.negatives,
            "box": prompt.box,
            "mask": picture,
        }
        entries.append({key: value for key, value in entry.items() if value not in ((), None)})
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
    with replacing_file(file) as fresh:
        fresh.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def masks_by_id(file: Path) -> dict[int, np.ndarray]:
    """Object id -> [H, W] bool of a mask file, read by the rule of all masks (docs/data.md).

    A mask of one object without an id, such as a black and white one, is object 1. Raises
    InputError for unreadable, ambiguous and empty masks.
    """
    masks = MaskFolder([file])
    ids = masks.read(Path(file).stem)
    by_id = {i: ids == i for i in (masks.ids or [ONE_OBJECT]) if (ids == i).any()}
    if not by_id:
        raise InputError(f"{file}: mask is empty; paint the object in a non-zero value")
    return by_id


def read_prompts(file: Path) -> list[Prompt]:
    """Prompts of a JSON file; paths of masks are relative to it.

    Raises InputError naming the entry and what is wrong in it.
    """
    try:
        entries = parse_json(Path(file).read_bytes(), f"{file}", CURE)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; {CURE}") from None
    except IsADirectoryError:
        raise InputError(f"{file}: is a folder; give a JSON file, {CURE}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(
            f"{file}: expected a list of objects like {{'frame': 0, 'points': [[x, y]]}}"
        )
    return [
        _prompt_of(entry, f"{file} entry {number}", Path(file).parent)
        for number, entry in enumerate(entries)
    ]


def _prompt_of(entry: dict, source: str, folder: Path) -> Prompt:
    """The prompt of one entry. source: names it in messages. folder: of its mask."""
    if unknown := sorted(entry.keys() - set(KEYS)):
        raise InputError(f"{source}: unknown key {unknown[0]!r}; known are {' '.join(KEYS)}")
    try:
        frame = _integer(entry.get("frame", 0))
        object_id = _integer(entry.get("object", 1))
        points = tuple(_floats(point, 2) for point in entry.get("points", ()))
        negatives = tuple(_floats(point, 2) for point in entry.get("negatives", ()))
        box = _floats(entry["box"], 4) if entry.get("box") is not None else None
        mask_file = folder / entry["mask"] if entry.get("mask") is not None else None
    except (TypeError, OverflowError):
        raise InputError(
            f"{source}: points are [[x, y], ...], box is [x0, y0, x1, y1], frame and object are "
            "integers, mask is a file name"
        ) from None
    mask = None
    if mask_file:
        # The entry names the object; all ids in the file belong to it.
        mask = np.any(list(masks_by_id(mask_file).values()), axis=0)
    return Prompt(frame, object_id, points, negatives, box, mask, source)


def _integer(value) -> int:
    if not is_whole(value):
        raise TypeError(value)
    return value


def _floats(values, count: int) -> tuple[float, ...]:
    """A JSON list of `count` finite numbers. Raises TypeError or OverflowError for other values."""
    # Checked for a list first: text is a sequence too, and "12" must not become the point 1, 2.
    if not isinstance(values, list) or len(values) != count:
        raise TypeError(values)
    if any(isinstance(value, (str, bool)) for value in values):
        raise TypeError(values)
    numbers = tuple(float(value) for value in values)
    if not all(map(math.isfinite, numbers)):
        raise OverflowError(values)
    return numbers
