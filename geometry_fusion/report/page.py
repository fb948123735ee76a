"""The report: one HTML file that opens anywhere, with plots, pictures and the player inside.

`write_report` reads masks from disk (one folder per arm) and the frames. All numbers of the page
are also in `metrics.json` and `per_frame.csv` beside it.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np

from geometry_fusion import __version__
from geometry_fusion.io.mask_writer import write_rgb
from geometry_fusion.player import SCENE_SCRIPT, SCRIPT, STYLE
from geometry_fusion.report.comparison import Arm, Truth
from geometry_fusion.report.geometry import GeometryFigures
from geometry_fusion.report.motion_pairs import PairPicture
from geometry_fusion.report.pictures import (
    prompt_in_words,
    prompt_picture,
    strip_picture,
    write_side_by_side,
)
from geometry_fusion.report.player import player_data
from geometry_fusion.report.plots import (
    Plot,
    agreement_plot,
    decisions_plot,
    iou_plot,
    presence_plot,
)
from geometry_fusion.report.rows import (
    STRIP_FRAMES,
    Agreement,
    arm_json,
    columns_of,
    measure_rows,
    object_rows,
    presence_rows,
    shown,
    write_csv,
)
from geometry_fusion.types import Frames, Prompt

TEMPLATE = Path(__file__).with_name("report.html.jinja")
MOST_PROMPT_PICTURES = 4
FILES = ("side_by_side.mp4", "per_frame.csv", "metrics.json", "strip.png")  # beside the page


@dataclass(frozen=True)
class Link:
    """A link to a file or folder of the results."""

    text: str
    href: str  # relative, so that the folder of results can be moved


@dataclass(frozen=True)
class PlayerParts:
    """What the page holds of the player, as text."""

    style: str
    scripts: list[str]
    data: str  # JSON


def relative_link(text: str, target: Path, report: Path) -> Link:
    """A link from a page in the folder `report` to `target`, whose name need not be UTF-8."""
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
    frames: Frames,  # with `stems` and `frame_rate`
    prompts: list[Prompt],
    arms: list[Arm],
    read_ids: Callable[[Arm, str], np.ndarray],  # (arm, stem) -> ids [H, W]
    # stem -> ids [H, W], or None where a frame has no ground truth
    truth_ids: Callable[[str], np.ndarray | None] | None = None,
    truth: Truth | None = None,
    agreement: Agreement | None = None,
    figures: GeometryFigures | None = None,
    summary: dict,
    weights: dict[str, str],
    notes: list[str],
    links: list[Link] = (),
    scene: dict | None = None,  # of the player's 3D view, as `SceneCloud.packed`
    motion: list[PairPicture] = (),  # the pairs that show that objects move
) -> Path:
    """Write the report of one or two arms into `folder`; returns the page, index.html.

    Also writes per_frame.csv, metrics.json, side_by_side.mp4 for two arms, and strip.png if it has
    frames. summary: JSON values, with the keys that the page shows. weights: part -> file or name.
    """
    prompted = sorted({prompt.frame for prompt in prompts})
    columns = columns_of(frames, arms, read_ids, truth_ids, agreement, prompted)
    if columns:
        write_rgb(folder / "strip.png", strip_picture(columns))
    if len(arms) == 2:
        write_side_by_side(folder / "side_by_side.mp4", frames, arms, read_ids)
    write_csv(folder / "per_frame.csv", frames.stems, arms, truth, agreement)
    _write_metrics(folder / "metrics.json", summary, weights, notes, arms)
    names = " and ".join(arm.title for arm in arms)
    has_objects = truth is not None and bool(truth.by_object)
    text = _template().render(
        title=f"{names} on {clip}",
        about=about,
        weights=weights | {"3AM": f"version {__version__}"},
        arms=arms,
        columns=columns,
        strip_frames=STRIP_FRAMES,
        videos=_videos(folder, arms, names),
        player=_player(player_data(frames, prompts, arms, read_ids, agreement, scene)),
        prompt_pictures=_prompt_pictures(frames, prompts),
        prompts_left_out=max(0, len(prompted) - MOST_PROMPT_PICTURES),
        summary=summary,
        notes=notes,
        measures=measure_rows(arms) if truth else None,
        object_rows=object_rows(arms) if has_objects and len(arms[0].objects) > 1 else None,
        truth_by_object=has_objects,
        presence_rows=presence_rows(arms, truth, agreement),
        plots=_plots(arms, truth, agreement, prompted),
        figures=figures,
        motion=motion,
        links=[*links, *(Link(name, name) for name in FILES if (folder / name).exists())],
    )
    (folder / "index.html").write_text(text, encoding="utf-8")
    return folder / "index.html"


def _player(data: str) -> PlayerParts:
    style, *scripts = (file.read_text(encoding="utf-8") for file in (STYLE, SCENE_SCRIPT, SCRIPT))
    return PlayerParts(style, scripts, data)


def _write_metrics(
    file: Path, summary: dict, weights: dict[str, str], notes: list[str], arms: list[Arm]
) -> None:
    data = {
        **summary,
        "version": __version__,
        "weights": weights,
        "notes": notes,
        "arms": {arm.key: arm_json(arm) for arm in arms},
    }
    file.write_text(json.dumps(data, indent=1, default=str))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _plots(
    arms: list[Arm], truth: Truth | None, agreement: Agreement | None, prompted: list[int]
) -> dict[str, Plot | None]:
    """The plots by their names in the template."""
    return {
        "iou": iou_plot(arms, truth, prompted) if truth else None,
        "agreement": agreement_plot(agreement, prompted) if agreement else None,
        "presence": presence_plot(arms, truth, prompted),
        "decisions": decisions_plot(arms[-1], prompted),
    }


def _videos(folder: Path, arms: list[Arm], names: str) -> list[Link]:
    """The video files of the comparison."""
    if len(arms) == 2:
        return [Link(f"{names}, side by side", "side_by_side.mp4")]
    return [Link(arm.title, quote(f"../{arm.video_name}")) for arm in arms]


def _prompt_pictures(frames: Frames, prompts: list[Prompt]) -> list[dict]:
    """Stem, picture and words of the first prompted frames."""
    pictures = []
    for index in sorted({prompt.frame for prompt in prompts})[:MOST_PROMPT_PICTURES]:
        here = [prompt for prompt in prompts if prompt.frame == index]
        picture = {
            "stem": frames.stems[index],
            "picture": prompt_picture(frames[index], here),
            "words": prompt_in_words(here),
        }
        pictures.append(picture)
    return pictures
