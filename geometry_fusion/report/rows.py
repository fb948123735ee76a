"""Tables of the report: measures, objects, presence; columns of the strip; the CSV file."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from geometry_fusion.io.mask_writer import colour, overlay
from geometry_fusion.names import shown_name
from geometry_fusion.report.comparison import (
    Arm,
    Truth,
    differences,
    frames_that_differ,
    frames_to_look_at,
)
from geometry_fusion.report.pictures import Column, Tile, tile_picture
from geometry_fusion.types import Frames

STRIP_FRAMES = 8
MOST_NAMED = 4  # objects whose IoU is listed in a caption
NO_VALUE = "\N{EN DASH}"
MEASURES = {  # measure -> what readers see
    "iou": "IoU, all frames",
    "positive_iou": "IoU where the object is in view",
    "accuracy": "IoU where it was found",
    "success_rate": "share of frames with IoU ≥ 0.5",
    "jf": "J&F (DAVIS)",
}


Agreement = dict[int, list[float]]  # object id -> IoU of the two arms' masks per frame


def shown(value):
    """A value for the page. Text may be a file name with bytes that are no UTF-8; markup of ours
    (a subclass of str) stays as it is.
    """
    return shown_name(value) if type(value) is str else value


def columns_of(
    frames: Frames,  # with `stems`
    arms: list[Arm],
    read_ids: Callable[[Arm, str], np.ndarray],  # (arm, stem) -> ids [H, W]
    truth_ids: Callable[[str], np.ndarray | None] | None,  # as `truth_of`
    agreement: Agreement | None,
    prompted: list[int],  # indices of the prompted frames, in order
) -> list[Column]:
    """The frames of the strip: where two arms differ most; of a single arm the prompted frame, the
    worst one, and evenly spread ones.
    """
    if len(arms) == 2:
        chosen = frames_that_differ(differences(arms, agreement), STRIP_FRAMES)
    else:
        chosen = frames_to_look_at(arms[0].ious, len(frames), prompted[0], STRIP_FRAMES)
    columns = []
    for index in chosen:
        stem, frame = frames.stems[index], frames[index]
        tiles = [tile(arm, index, stem, frame, read_ids(arm, stem), agreement) for arm in arms]
        if truth_ids:
            expected = truth_ids(stem)
            # A frame without ground truth gets a tile too, so that rows stay aligned.
            name = "not annotated" if expected is None else "ground truth"
            picture = frame if expected is None else overlay(frame, expected)
            tiles.insert(0, Tile(name, name, f"Frame {stem}, {name}", tile_picture(picture)))
        columns.append(Column(stem, index in prompted, tiles))
    return columns


def write_csv(
    file: Path, stems: list[str], arms: list[Arm], truth: Truth | None, agreement: Agreement | None
) -> None:
    """Write a row per frame: IoUs of the arms, pixels of every object's mask, and, of several
    objects, the IoU of each.
    """
    objects = list(arms[0].objects)
    columns: dict[str, list] = {"stem": [shown_name(stem) for stem in stems]}
    columns["object_present"] = truth.present if truth else [None] * len(stems)
    columns |= {f"iou_{arm.key}": arm.ious or [None] * len(stems) for arm in arms}
    if agreement:
        columns["agreement"] = np.mean(list(agreement.values()), axis=0).tolist()
    for i in objects:
        for arm in arms:
            if len(objects) > 1 and arm.objects[i].ious:
                columns[f"iou_{arm.key}_{i}"] = arm.objects[i].ious
            columns[f"pixels_{arm.key}_{i}"] = arm.objects[i].pixels
            if arm.objects[i].decisions:
                columns[f"decided_{arm.key}_{i}"] = arm.objects[i].decisions
    with open(file, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        writer.writerows(map(_cell, row) for row in zip(*columns.values()))


def _cell(value) -> str | int:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.6f}" if isinstance(value, float) else value


def measure_rows(arms: list[Arm]) -> list[dict]:
    """Up to two groups of rows (label, cells): all frames, and without the prompted ones."""
    groups = []
    for title, scores in (
        ("all frames with ground truth", [arm.scores for arm in arms]),
        ("without the prompted frames", [arm.unprompted for arm in arms]),
    ):
        if not all(scores):
            continue
        rows = [
            (label, _numbers([measures.get(key) for measures in scores]))
            for key, label in MEASURES.items()
        ]
        groups.append({"title": title, "rows": rows})
    return groups


def _numbers(values: list[float | None]) -> list[str]:
    """The values of the arms and, of two, the second minus the first, as text."""
    cells = [NO_VALUE if value is None else f"{value:.3f}" for value in values]
    if len(values) == 2:
        cells.append(NO_VALUE if None in values else f"{values[1] - values[0]:+.3f}")
    return cells


def object_rows(arms: list[Arm]) -> list[dict]:
    """IoU where the object is in view: a row per object, and their mean."""
    rows = []
    for object_id in arms[0].objects:
        scores = [arm.objects[object_id].scores for arm in arms]
        row = {
            "name": f"object {object_id}",
            "colour": css_colour(object_id),
            "count": scores[0]["num_positive_frames"],
            "cells": _numbers([measures.get("positive_iou") for measures in scores]),
        }
        rows.append(row)
    means = _numbers([arm.scores["positive_iou"] for arm in arms])
    return [*rows, {"name": "mean", "colour": None, "count": "", "cells": means}]


def presence_rows(arms: list[Arm], truth: Truth | None, agreement: Agreement | None) -> list[dict]:
    """How many frames of every arm show each object; cells are lists of lines.

    With ground truth, frames in which the object is in view and out of view are counted separately.
    """
    rows = []
    for i in arms[0].objects:
        flags = truth.by_object.get(i) if truth else None
        cells = [_presence_cell([n > 0 for n in arm.objects[i].pixels], flags) for arm in arms]
        if agreement:
            cells.append([f"{np.mean(agreement[i]):.3f}"])
        rows.append({"name": f"object {i}", "colour": css_colour(i), "cells": cells})
    if agreement and len(agreement) > 1:
        mean = f"{np.mean(list(agreement.values())):.3f}"
        cells = [*([NO_VALUE] for _ in arms), [mean]]
        rows.append({"name": "mean", "colour": None, "cells": cells})
    return rows


def _presence_cell(shown: list[bool], flags: list[bool | None] | None) -> list[str]:
    if flags is None:
        return [f"{sum(shown)} of {len(shown)}"]
    lines = []
    for wanted, name in ((True, "in view"), (False, "out of view")):
        subset = [is_shown for is_shown, flag in zip(shown, flags) if flag is wanted]
        if subset:
            lines.append(f"{sum(subset)} of {len(subset)} {name}")
    return lines


def css_colour(object_id: int) -> str:
    """The colour of an object's outline in overlays, as #rrggbb."""
    rgb = np.array(colour(object_id), float)
    return "#{:02x}{:02x}{:02x}".format(*np.rint(rgb * 255 / rgb.max()).astype(int))


def arm_json(arm: Arm) -> dict:
    """An arm's entry in metrics.json."""
    objects = {
        object_id: {"frames_shown": sum(n > 0 for n in result.pixels), "scores": result.scores}
        for object_id, result in arm.objects.items()
    }
    for object_id, result in arm.objects.items():
        if result.decisions:
            counts = Counter(decision for decision in result.decisions if decision)
            objects[object_id]["decisions"] = dict(counts)
    return {
        "title": arm.title,
        "video_name": arm.video_name,
        "seconds_per_frame": arm.seconds_per_frame,
        "scores": arm.scores,
        "unprompted": arm.unprompted,
        "objects": objects,
    }


def tile(
    arm: Arm,
    index: int,
    stem: str,
    frame: np.ndarray,  # [H, W, 3]
    ids: np.ndarray,  # [H, W]
    agreement: Agreement | None,
) -> Tile:
    """A frame with an arm's masks; caption and alternative text state which objects it shows, and
    its IoU.
    """
    score = _iou_in_words(arm, index)
    presence = _presence_in_words(arm, index)
    alt = f"Frame {stem}, {arm.title}: {presence}"
    if score:
        alt += f", {score}"
    if agreement:
        alt += f"; IoU of the arms {np.mean([ious[index] for ious in agreement.values()]):.2f}"
    caption = f"{arm.title}, {score}" if score else f"{arm.title} {presence}"
    return Tile(arm.title, caption, alt, tile_picture(overlay(frame, ids)))


def _iou_in_words(arm: Arm, index: int) -> str:
    """Text such as IoU 0.81 (object 1: 0.90, object 2: 0.72); empty without ground truth."""
    if not arm.ious or arm.ious[index] is None:
        return ""
    by_object = {i: result.ious[index] for i, result in arm.objects.items() if result.ious}
    listed = [f"object {i}: {iou:.2f}" for i, iou in by_object.items() if iou is not None]
    text = f"IoU {arm.ious[index]:.2f}"
    return f"{text} ({', '.join(listed)})" if 1 < len(listed) <= MOST_NAMED else text


def _presence_in_words(arm: Arm, index: int) -> str:
    visible = [str(i) for i, result in arm.objects.items() if result.pixels[index]]
    if not visible:
        return "shows no object"
    return "shows the object" if len(arm.objects) == 1 else f"shows objects {', '.join(visible)}"
