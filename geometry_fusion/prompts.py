"""Prompts from command lines and JSON files.

--point x,y          a click on the object; repeat for more clicks; ID:x,y names another object than
1
--negative x,y       a click beside the object (ID:x,y likewise)
--box x0,y0,x1,y1    a box around the object (ID:x0,... likewise)
--mask PNG           a mask; a palette PNG prompts every object id in it
--prompt-frame N     the frame that all of these refer to
--prompts FILE       JSON list of {"frame": 0, "object": 1, "points": [[x, y]], "negatives": [[x,
y]],
                     "box": [x0, y0, x1, y1], "mask": "a.png"}, every key optional
"""

import argparse
import json
import math
import os
import re
import shlex
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.files import replacing_file
from geometry_fusion.mask_rule import ONE_OBJECT, MaskFolder
from geometry_fusion.parsing import parse_json
from geometry_fusion.types import Prompt

SAME_CLICK = 3.0  # pixels: clicks of two objects this near mean one thing
SAME_AREA = 0.7  # IoU: so do masks or boxes this much alike


def _numbers(text: str, count: int, example: str) -> tuple[int, tuple[float, ...]]:
    head, colon, tail = text.rpartition(":")
    try:
        object_id = int(head) if colon else 1
        values = tuple(float(part) for part in tail.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: not numbers; write it like {example}"
        ) from None
    if len(values) != count or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected {count} numbers, like {example}")
    return object_id, values


def point_xy_px(text: str) -> tuple[int, tuple[float, ...]]:
    """'180,296' -> (1, (180.0, 296.0)); '2:180,296' -> object 2."""
    return _numbers(text, 2, '--point "180,296"')


def box_xyxy_px(text: str) -> tuple[int, tuple[float, ...]]:
    """'10,20,90,80' -> (1, (10.0, 20.0, 90.0, 80.0))."""
    return _numbers(text, 4, '--box "10,20,90,80"')


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "prompt (pixels of the frames; ID:x,y names an object other than 1)"
    )
    group.add_argument(
        "--point",
        action="append",
        type=point_xy_px,
        metavar="x,y",
        help="click on the object; repeatable",
    )
    group.add_argument(
        "--negative",
        action="append",
        type=point_xy_px,
        metavar="x,y",
        help="click beside the object; repeatable",
    )
    group.add_argument(
        "--box",
        action="append",
        type=box_xyxy_px,
        metavar="x0,y0,x1,y1",
        help="box around the object",
    )
    group.add_argument(
        "--mask",
        type=Path,
        metavar="PNG",
        help="mask of the object; palette ids are several objects",
    )
    group.add_argument(
        "--prompt-frame", type=int, default=0, metavar="N", help="frame that the prompt refers to"
    )
    group.add_argument(
        "--prompts",
        type=Path,
        metavar="JSON",
        help="several objects and frames, see docs/prompts.md",
    )


def prompts_from_arguments(args: argparse.Namespace) -> list[Prompt]:
    """All prompts of a command line, one per object and frame. Raises InputError when there is
    none.
    """
    prompts = read_prompts(args.prompts) if args.prompts else []
    if args.mask:
        prompts += [
            Prompt(args.prompt_frame, object_id, mask=mask, source=f"--mask {args.mask}")
            for object_id, mask in masks_by_id(args.mask).items()
        ]
    points, negatives = args.point or [], args.negative or []
    boxes = dict(args.box or [])
    if len(boxes) < len(args.box or []):
        raise InputError("--box: two boxes for one object; number them, like --box 2:10,20,90,80")
    for object_id in sorted({i for i, _ in (*points, *negatives)} | boxes.keys()):
        prompts.append(
            Prompt(
                args.prompt_frame,
                object_id,
                points=tuple(xy for i, xy in points if i == object_id),
                negatives=tuple(xy for i, xy in negatives if i == object_id),
                box=boxes.get(object_id),
                source=f"prompt of object {object_id}",
            )
        )
    if not prompts and args.prompts:
        raise InputError(
            f"--prompts {args.prompts}: the list is empty; see docs/prompts.md for its form"
        )
    if not prompts:
        raise InputError(
            'no prompt: give --point "x,y", --box, --mask or --prompts '
            "(python main.py pick finds a point)"
        )
    seen = set()
    for prompt in prompts:
        if (prompt.frame, prompt.object_id) in seen:
            raise InputError(
                f"{prompt.source}: object {prompt.object_id} has two prompts on frame "
                f"{prompt.frame}; keep one"
            )
        seen.add((prompt.frame, prompt.object_id))
    if warning := hidden_objects(prompts):
        print(f"warning: {warning}", file=sys.stderr)
    return prompts


def hidden_objects(prompts: list[Prompt]) -> str | None:
    """A line about objects that are prompted on the same place of a frame: one will hide the other
    in the masks.
    """
    marked = [(prompt, _area(prompt)) for prompt in prompts]
    doubles = [
        (a, b)
        for (a, of_a), (b, of_b) in combinations(marked, 2)
        if a.frame == b.frame and a.object_id != b.object_id and _on_one_place(a, of_a, b, of_b)
    ]
    if not doubles:
        return None
    (a, b), *more = doubles
    others = f" (and {len(more)} more pairs)" if more else ""
    return (
        f"objects {a.object_id} and {b.object_id} are prompted on the same place of frame "
        f"{a.frame}{others}: a pixel "
        "belongs to one object, the most confident one, so that one may hide the other "
        "(docs/prompts.md)"
    )


def _on_one_place(a: Prompt, area_a: tuple | None, b: Prompt, area_b: tuple | None) -> bool:
    if area_a and area_b:
        if a.mask is None or b.mask is None or a.mask.shape != b.mask.shape:
            return _box_iou(area_a, area_b) > SAME_AREA
        # The boxes first: a palette may hold many masks, and large ones take time.
        near = _box_iou(area_a, area_b) > SAME_AREA / 2
        return near and np.count_nonzero(a.mask & b.mask) > SAME_AREA * np.count_nonzero(
            a.mask | b.mask
        )
    if a.points and b.points:
        return any(math.dist(p, q) <= SAME_CLICK for p in a.points for q in b.points)
    mask, points = (a.mask, b.points) if a.mask is not None else (b.mask, a.points)
    return mask is not None and bool(points) and all(_shows(mask, point) for point in points)


def _area(prompt: Prompt) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 around what a box or a mask marks; None for clicks alone."""
    if prompt.mask is None or not prompt.mask.any():
        return prompt.box
    rows, columns = (np.flatnonzero(prompt.mask.any(axis)) for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _box_iou(a: tuple, b: tuple) -> float:
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    shared = max(width, 0) * max(height, 0)
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared
    return shared / both if both > 0 else 0.0


def _shows(mask: np.ndarray, point: tuple[float, float]) -> bool:
    column, row = (round(value) for value in point)
    return 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and bool(mask[row, column])


def write_prompts(file: Path, prompts: list[Prompt]) -> None:
    """Clicks and boxes as `read_prompts` reads them; a file that exists is replaced when the new
    one is complete.
    """
    entries = []
    for prompt in prompts:
        entry = {"frame": prompt.frame, "object": prompt.object_id, "points": prompt.points}
        entry |= {"negatives": prompt.negatives, "box": prompt.box}
        entries.append({key: value for key, value in entry.items() if value not in ((), None)})
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
    with replacing_file(file) as fresh:
        fresh.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def command_line(words: list[str]) -> str:
    """Words of a command as text to paste into a shell."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    is_plain = re.fullmatch(r"[\w@%+=:./-]+", word, re.ASCII) is not None
    # PowerShell splits 1,2 into two words.
    if (re.fullmatch(r"[\w:,.-]+", word, re.ASCII) and not is_plain) or (
        os.name == "nt" and not is_plain
    ):
        return f'"{word}"'
    return shlex.quote(word)


def mask_files(args: argparse.Namespace) -> list[Path]:
    """The mask files that the prompts of a command line name; call it after
    `prompts_from_arguments`.
    """
    entries = parse_json(Path(args.prompts).read_bytes(), args.prompts) if args.prompts else []
    named = [
        Path(args.prompts).parent / entry["mask"]
        for entry in entries
        if entry.get("mask") is not None
    ]
    return [*([args.mask] if args.mask else []), *named]


def check_prompts(prompts: list[Prompt], frames) -> None:
    """Raise InputError for the first prompt that does not fit `frames` (.size and .stems)."""
    for prompt in prompts:
        prompt.check(frames.size, len(frames.stems))


def masks_by_id(file: Path) -> dict[int, np.ndarray]:
    """Object id -> [H, W] bool of a mask file, read by the rule of all masks (docs/data.md).

    A mask of one object without an id, such as a black and white one, is object 1.
    """
    masks = MaskFolder([file])
    ids = masks.read(Path(file).stem)
    by_id = {i: ids == i for i in (masks.ids or [ONE_OBJECT]) if (ids == i).any()}
    if not by_id:
        raise InputError(f"--mask {file}: mask is empty; paint the object in a non-zero value")
    return by_id


def _integer(value) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _floats(values, count: int) -> tuple[float, ...]:
    # Strings are sequences too: "12" must not become the point 1, 2.
    if (
        not isinstance(values, list)
        or len(values) != count
        or any(isinstance(v, (str, bool)) for v in values)
    ):
        raise TypeError(values)
    numbers = tuple(float(v) for v in values)
    if not all(map(math.isfinite, numbers)):
        raise OverflowError(values)
    return numbers


def read_prompts(file: Path) -> list[Prompt]:
    """Prompts of a JSON file; masks are relative to the file. Raises InputError naming what is
    wrong where.
    """
    cure = "see docs/prompts.md for its form"
    try:
        entries = parse_json(Path(file).read_bytes(), f"--prompts {file}", cure)
    except FileNotFoundError:
        raise InputError(f"--prompts {file}: no such file; {cure}") from None
    except IsADirectoryError:
        raise InputError(f"--prompts {file}: is a folder; give a JSON file, {cure}") from None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise InputError(
            f"--prompts {file}: expected a list of objects like {{'frame': 0, 'points': [[x, y]]}}"
        )
    prompts = []
    for number, entry in enumerate(entries):
        source = f"--prompts {file} entry {number}"
        unknown = entry.keys() - {"frame", "object", "points", "negatives", "box", "mask"}
        if unknown:
            raise InputError(
                f"{source}: unknown key {sorted(unknown)[0]!r}; known are frame object points "
                "negatives box mask"
            )
        try:
            frame, object_id = _integer(entry.get("frame", 0)), _integer(entry.get("object", 1))
            points, negatives = (
                tuple(_floats(p, 2) for p in entry.get(k, ())) for k in ("points", "negatives")
            )
            box = _floats(entry["box"], 4) if entry.get("box") is not None else None
            mask = Path(file).parent / entry["mask"] if entry.get("mask") is not None else None
        except (TypeError, OverflowError):
            raise InputError(
                f"{source}: points are [[x, y], ...], box is [x0, y0, x1, y1], frame and object "
                "are integers, "
                "mask is a file name"
            ) from None
        masks = masks_by_id(mask) if mask else {}
        prompts.append(
            Prompt(
                frame,
                object_id,
                points,
                negatives,
                box,
                np.any(list(masks.values()), axis=0) if masks else None,
                source,
            )
        )
    return prompts
