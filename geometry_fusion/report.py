"""What a person looks at after a run: one HTML file that opens anywhere, with curves, strips and
the video inside.

`write_report` needs masks on disk (one folder per arm), the frames, and optionally ground truth; it
computes nothing that is not also in `metrics.json` and `per_frame.csv` beside it.
"""

import base64
import csv
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np

from geometry_fusion import __version__
from geometry_fusion.comparison import (
    Arm,
    Truth,
    differences,
    frames_that_differ,
    frames_to_look_at,
)
from geometry_fusion.mask_files import colour, overlay, write_rgb
from geometry_fusion.names import shown_name
from geometry_fusion.report_geometry import GeometryFigures
from geometry_fusion.report_pictures import (
    Column,
    Tile,
    prompt_in_words,
    prompt_picture,
    strip_picture,
    tile_picture,
    write_side_by_side,
)
from geometry_fusion.report_plots import agreement_plot, iou_plot, presence_plot

TEMPLATE = Path(__file__).with_name("report.html.jinja")
EMBED_LIMIT = 12 * 2**20  # bytes of video inside the page; larger ones are linked
STRIP_FRAMES = 8
NO_VALUE = "\N{EN DASH}"
MOST_PROMPT_PICTURES = 4
MOST_NAMED = 4  # objects whose IoU a caption tells
MEASURES = {
    "iou": "IoU, all frames",
    "positive_iou": "IoU where the object is in view",
    "accuracy": "IoU where it was found",
    "success_rate": "share of frames with IoU ≥ 0.5",
    "jf": "J&F (DAVIS)",
}


@dataclass(frozen=True)
class Link:
    """A file or folder beside the report. `href` is relative, so that a folder of results can be
    moved.
    """

    text: str
    href: str


@dataclass(frozen=True)
class Video:
    caption: str
    source: str  # data URI, or a link where it is too large
    href: str


def relative_link(text: str, target: Path, report: Path) -> Link:
    """A link from a page in the folder `report` to `target`, whatever bytes its name has."""
    try:
        path = os.path.relpath(Path(target).absolute(), Path(report).absolute())
    except ValueError:  # on another drive of Windows
        return Link(text, Path(target).absolute().as_uri())
    return Link(text, quote(os.fsencode(Path(path).as_posix())))


def write_report(
    folder: Path,
    *,
    clip: str,
    about: str | None = None,  # the clip, in a sentence
    frames,  # sequence of RGB [H, W, 3] with .stems
    prompts: list,
    arms: list[Arm],
    read_ids: Callable,  # (arm, stem) -> ids [H, W]
    truth_ids: Callable
    | None = None,  # stem -> ids [H, W], or None where a frame has no ground truth
    truth: Truth | None = None,
    agreement: dict[int, list[float]] | None = None,  # object -> IoU between the two arms per frame
    figures: GeometryFigures | None = None,
    summary: dict,
    weights: dict[str, str],
    notes: list[str],
    links: list[Link] = (),
) -> Path:
    """Write index.html, per_frame.csv, metrics.json, of two arms side_by_side.mp4, and strip.png if
    it shows a frame, into `folder`. Returns the page."""
    prompted = sorted({p.frame for p in prompts})
    columns = _columns(frames, arms, read_ids, truth_ids, agreement, prompted)
    if columns:
        write_rgb(folder / "strip.png", strip_picture(columns))
    if len(arms) == 2:
        write_side_by_side(folder / "side_by_side.mp4", frames, arms, read_ids)
    _write_csv(folder / "per_frame.csv", frames.stems, arms, truth, agreement)
    version = {"version": __version__}
    data = {
        **summary,
        **version,
        "weights": weights,
        "notes": notes,
        "arms": {a.key: _arm_json(a) for a in arms},
    }
    (folder / "metrics.json").write_text(json.dumps(data, indent=1, default=str))
    names = " and ".join(arm.title for arm in arms)
    own = ["side_by_side.mp4", "per_frame.csv", "metrics.json", "strip.png"]
    options = {
        "autoescape": True,
        "trim_blocks": True,
        "lstrip_blocks": True,
        "undefined": jinja2.StrictUndefined,
    }
    environment = jinja2.Environment(**options, finalize=_shown)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"{names} on {clip}",
        about=about,
        weights=weights | {"3AM": f"version {__version__}"},
        arms=arms,
        columns=columns,
        strip_frames=STRIP_FRAMES,
        videos=_videos(folder, arms, names),
        prompt_pictures=_prompt_pictures(frames, prompts),
        prompts_left_out=max(0, len(prompted) - MOST_PROMPT_PICTURES),
        summary=summary,
        notes=notes,
        measures=_measures(arms) if truth else None,
        object_rows=_object_rows(arms)
        if truth and len(arms[0].objects) > 1 and truth.by_object
        else None,
        truth_by_object=truth is not None and bool(truth.by_object),
        presence_rows=_presence_rows(arms, truth, agreement),
        plots={
            "iou": iou_plot(arms, truth, prompted) if truth else None,
            "agreement": agreement_plot(agreement, prompted) if agreement else None,
            "presence": presence_plot(arms, truth, prompted),
        },
        figures=figures,
        links=[*links, *(Link(name, name) for name in own if (folder / name).exists())],
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder / "index.html"


def _shown(value):
    """Names of files may hold bytes that are no text. Markup is ours."""
    return shown_name(value) if type(value) is str else value


def _columns(frames, arms, read_ids, truth_ids, agreement, prompted) -> list[Column]:
    """The frames worth a look: where two arms differ, of one arm the prompted, the worst and evenly
    spread ones.
    """
    if len(arms) == 2:
        shown = frames_that_differ(differences(arms, agreement), STRIP_FRAMES)
    else:
        shown = frames_to_look_at(arms[0].ious, len(frames), prompted[0], STRIP_FRAMES)
    columns = []
    for index in shown:
        stem, frame = frames.stems[index], frames[index]
        tiles = [_tile(arm, index, stem, frame, read_ids(arm, stem), agreement) for arm in arms]
        if truth_ids:
            expected = truth_ids(stem)
            # A frame without ground truth gets a tile as well: it keeps the columns alike.
            name = "not annotated" if expected is None else "ground truth"
            picture = frame if expected is None else overlay(frame, expected)
            tiles.insert(0, Tile(name, name, f"Frame {stem}, {name}", tile_picture(picture)))
        columns.append(Column(stem, index in prompted, tiles))
    return columns


def _tile(arm: Arm, index: int, stem: str, frame, ids, agreement) -> Tile:
    objects = arm.objects
    named = {i: o.ious[index] for i, o in objects.items() if o.ious and o.ious[index] is not None}
    said = ""
    if arm.ious and arm.ious[index] is not None:
        said = f"IoU {arm.ious[index]:.2f}"
        if 1 < len(named) <= MOST_NAMED:
            said += f" ({', '.join(f'object {i}: {iou:.2f}' for i, iou in named.items())})"
    shown = [i for i, o in objects.items() if o.pixels[index]]
    which = ", ".join(map(str, shown))
    seen = (
        "shows no object"
        if not shown
        else "shows the object"
        if len(objects) == 1
        else f"shows objects {which}"
    )
    same = np.mean([values[index] for values in agreement.values()]) if agreement else None
    alike = "" if same is None else f"; IoU of the arms {same:.2f}"
    alt = f"Frame {stem}, {arm.title}: {seen}{', ' + said if said else ''}{alike}"
    caption = f"{arm.title}, {said}" if said else f"{arm.title} {seen}"
    return Tile(arm.title, caption, alt, tile_picture(overlay(frame, ids)))


def _write_csv(
    file: Path, stems: list[str], arms: list[Arm], truth: Truth | None, agreement: dict | None
) -> None:
    """One row a frame; of every object the pixels of its mask, and of several objects the IoU of
    each.
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
    with open(file, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        writer.writerows(map(_cell, row) for row in zip(*columns.values()))


def _cell(value) -> str | int:
    if value is None:
        return ""
    return (
        int(value)
        if isinstance(value, bool)
        else f"{value:.6f}"
        if isinstance(value, float)
        else value
    )


def _videos(folder: Path, arms: list[Arm], names: str) -> list[Video]:
    if len(arms) == 2:
        files = [(f"{names}, side by side", folder / "side_by_side.mp4", "side_by_side.mp4")]
    else:
        files = [(arm.title, arm.video, quote(f"../{arm.video_name}")) for arm in arms]
    videos = []
    for caption, file, href in files:
        source = href
        if file.stat().st_size <= EMBED_LIMIT:
            source = "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode()
        videos.append(Video(caption, source, href))
    return videos


def _prompt_pictures(frames, prompts: list) -> list[dict]:
    pictures = []
    for frame in sorted({p.frame for p in prompts})[:MOST_PROMPT_PICTURES]:
        here = [p for p in prompts if p.frame == frame]
        pictures.append(
            {
                "stem": frames.stems[frame],
                "picture": prompt_picture(frames[frame], here),
                "words": prompt_in_words(here),
            }
        )
    return pictures


def _measures(arms: list[Arm]) -> list[dict]:
    """Two groups of rows, with all frames and without the prompted ones; numbers as text."""
    groups = []
    for title, scores in (
        ("all frames with ground truth", [arm.scores for arm in arms]),
        ("without the prompted frames", [arm.unprompted for arm in arms]),
    ):
        if all(scores):
            rows = [
                (label, _numbers([s.get(key) for s in scores])) for key, label in MEASURES.items()
            ]
            groups.append({"title": title, "rows": rows})
    return groups


def _numbers(values: list[float | None]) -> list[str]:
    """The values of the arms and, of two, what the second has more."""
    cells = [NO_VALUE if value is None else f"{value:.3f}" for value in values]
    if len(values) == 2:
        cells.append(NO_VALUE if None in values else f"{values[1] - values[0]:+.3f}")
    return cells


def _object_rows(arms: list[Arm]) -> list[dict]:
    """IoU where an object is in view, per object and as mean."""
    rows = []
    for i in arms[0].objects:
        scores = [arm.objects[i].scores for arm in arms]
        cells = _numbers([s.get("positive_iou") for s in scores])
        rows.append(
            {
                "name": f"object {i}",
                "colour": css_colour(i),
                "count": scores[0]["num_positive_frames"],
                "cells": cells,
            }
        )
    return [
        *rows,
        {
            "name": "mean",
            "colour": None,
            "count": "",
            "cells": _numbers([a.scores["positive_iou"] for a in arms]),
        },
    ]


def _presence_rows(arms: list[Arm], truth: Truth | None, agreement: dict | None) -> list[dict]:
    """How many frames of every arm show an object, with ground truth in view and out of view apart.
    Cells are lines.
    """
    rows = []
    for i in arms[0].objects:
        flags = truth.by_object.get(i) if truth else None
        cells = [_presence_cell([n > 0 for n in arm.objects[i].pixels], flags) for arm in arms]
        cells += [[f"{np.mean(agreement[i]):.3f}"]] if agreement else []
        rows.append({"name": f"object {i}", "colour": css_colour(i), "cells": cells})
    if agreement and len(agreement) > 1:
        mean = f"{np.mean(list(agreement.values())):.3f}"
        rows.append(
            {"name": "mean", "colour": None, "cells": [*([NO_VALUE] for _ in arms), [mean]]}
        )
    return rows


def _presence_cell(shown: list[bool], flags: list[bool | None] | None) -> list[str]:
    if flags is None:
        return [f"{sum(shown)} of {len(shown)}"]
    lines = []
    for wanted, name in ((True, "in view"), (False, "out of view")):
        some = [here for here, flag in zip(shown, flags) if flag is wanted]
        lines += [f"{sum(some)} of {len(some)} {name}"] if some else []
    return lines


def css_colour(object_id: int) -> str:
    """The colour of an object's outline in overlays."""
    rgb = np.array(colour(object_id), float)
    return "#{:02x}{:02x}{:02x}".format(*np.rint(rgb * 255 / rgb.max()).astype(int))


def _arm_json(arm: Arm) -> dict:
    objects = {
        i: {"frames_shown": sum(n > 0 for n in o.pixels), "scores": o.scores}
        for i, o in arm.objects.items()
    }
    return {
        "title": arm.title,
        "video_name": arm.video_name,
        "seconds_per_frame": arm.seconds_per_frame,
        "scores": arm.scores,
        "unprompted": arm.unprompted,
        "objects": objects,
    }
