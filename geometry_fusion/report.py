"""What a person looks at after a run: one HTML file that opens anywhere, with curves, strips and the video inside.

`write_report` needs masks on disk (one folder per arm), the frames, and optionally ground truth; it computes nothing
that is not also in `metrics.json` and `per_frame.csv` beside it.
"""

import base64
import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import jinja2
import matplotlib
import numpy as np

from geometry_fusion.mask_files import PALETTE, overlay, write_rgb
from geometry_fusion.report_geometry import GeometryFigures, write_side_by_side

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt

TEMPLATE = Path(__file__).with_name("report.html.jinja")
EMBED_LIMIT = 12 * 2**20  # bytes of video inside the page; larger ones are linked
STRIP_FRAMES, STRIP_HEIGHT = 8, 150
ARM_COLOURS = ("#c2571a", "#1f6fb2")


@dataclass
class Arm:
    """One run over the clip. Lists run over all frames."""

    key: str  # "baseline", "geom"
    title: str  # what readers see
    masks: Path  # folder of STEM.png
    video: Path
    video_name: str  # its final name, which the page links when the video is too large to embed
    seconds_per_frame: float
    ious: list[float] | None = None  # against ground truth, None for frames without it
    scores: dict = field(default_factory=dict)  # measure -> value
    unprompted: dict = field(default_factory=dict)  # the same without the prompted frame


def frames_to_show(series: list[list[float]], prompted: int, count: int = STRIP_FRAMES) -> list[int]:
    """Frames worth a look, in order: where two arms differ most, else the prompt, the worst and evenly spread ones."""
    num_frames = len(series[0])
    count = min(count, num_frames)
    chosen: list[int] = []
    if len(series) == 2:
        # Neighbouring frames show the same thing: keep apart.
        for index in np.argsort(-np.abs(np.subtract(*series)), kind="stable").tolist():
            if len(chosen) < count and all(abs(index - c) >= max(1, num_frames // (2 * count)) for c in chosen):
                chosen.append(index)
    else:
        chosen = list(dict.fromkeys([prompted, int(np.argmin(series[0]))]))[:count]
    while len(chosen) < count:
        distance = np.abs(np.arange(num_frames)[:, None] - np.array(chosen)).min(1)
        chosen.append(int(distance.argmax()))
    return sorted(chosen)


def _jpeg(rgb: np.ndarray) -> str:
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _small(rgb: np.ndarray, height: int = STRIP_HEIGHT) -> np.ndarray:
    scale = min(height / rgb.shape[0], 4 * height / rgb.shape[1])  # panoramas must not blow up
    return cv2.resize(
        rgb, (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))), interpolation=cv2.INTER_AREA
    )


def iou_plot(arms: list[Arm], present: list[bool], prompted: int) -> str:
    """SVG of IoU over frames, one line per arm; frames without the object are shaded."""
    figure, axes = plt.subplots(figsize=(9.5, 2.9), layout="constrained")
    frames = np.arange(len(present))
    axes.fill_between(
        frames, 0, 1, where=~np.array(present), step="mid", color="#8888", alpha=0.25, lw=0, label="object not in view"
    )
    for arm, colour_name in zip(arms, ARM_COLOURS):
        axes.plot(frames, [np.nan if v is None else v for v in arm.ious], color=colour_name, lw=1.8, label=arm.title)
    axes.axvline(prompted, color="#333", lw=1, ls=":", label="prompted frame")
    axes.set(xlim=(0, max(1, len(present) - 1)), ylim=(-0.02, 1.02), xlabel="frame", ylabel="IoU")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize=9)
    return _svg(figure)


def _prompt_picture(frame: np.ndarray, prompts, frame_index: int) -> str:
    picture = frame.copy()
    size = max(4, round(max(frame.shape) / 90))
    for prompt in prompts:
        if prompt.frame != frame_index:
            continue
        if prompt.mask is not None:
            picture = overlay(picture, prompt.mask.astype(np.int32) * prompt.object_id)
        if prompt.box is not None:
            x0, y0, x1, y1 = (round(v) for v in prompt.box)
            cv2.rectangle(picture, (x0, y0), (x1, y1), PALETTE[prompt.object_id].tolist(), max(2, size // 3))
        for points, fill in ((prompt.points, (40, 190, 60)), (prompt.negatives, (220, 40, 40))):
            for x, y in points:
                cv2.circle(picture, (round(x), round(y)), size, (255, 255, 255), -1, cv2.LINE_AA)
                cv2.circle(picture, (round(x), round(y)), max(2, size - 2), fill, -1, cv2.LINE_AA)
    return _jpeg(
        picture if picture.shape[1] <= 960 else _small(picture, round(960 * picture.shape[0] / picture.shape[1]))
    )


def _strip(strips: list[dict]) -> np.ndarray:
    """The shown frames side by side, one row per arm, labelled: RGB uint8."""
    columns = []
    for entry in strips:
        rows = []
        for name, iou, tile in entry["tiles"]:
            label = name if iou is None else f"{name} {iou:.2f}"
            bar = np.full((22, tile.shape[1], 3), 255, np.uint8)
            text = f"{entry['stem']} {label}" if not rows else label
            cv2.putText(bar, text, (3, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
            rows += [bar, tile]
        columns.append(np.pad(np.vstack(rows), ((0, 4), (2, 2), (0, 0)), constant_values=255))
    return np.hstack(columns)


def write_report(
    folder: Path,
    *,
    title: str,
    frames,  # sequence of RGB [H, W, 3] with .stems
    prompts: list,
    arms: list[Arm],
    read_ids,  # (arm, stem) -> ids [H, W]
    truth_ids=None,  # (stem) -> ids [H, W] or None where a frame has no ground truth
    present: list[bool] | None = None,
    agreement: list[float] | None = None,  # IoU between the two arms per frame, where there is no ground truth
    figures: GeometryFigures | None = None,
    summary: dict,
    notes: list[str],
) -> Path:
    """Write index.html, strip.png, per_frame.csv, metrics.json and, of two arms, side_by_side.mp4 into `folder`.

    Returns the page.
    """
    prompted = min(p.frame for p in prompts)
    num_frames = len(frames)
    if truth_ids:
        series = [[1.0 if v is None else v for v in arm.ious] for arm in arms]
    elif agreement:
        series = [agreement, [1.0] * num_frames]
    else:
        series = [[1.0] * num_frames]
    shown = frames_to_show(series, prompted)
    strips = []
    for index in shown:
        stem, frame = frames.stems[index], frames[index]
        tiles = [
            (arm.title, arm.ious[index] if arm.ious else None, _small(overlay(frame, read_ids(arm, stem))))
            for arm in arms
        ]
        if truth_ids:
            expected = truth_ids(stem)
            unknown = expected is None  # the frame has no ground truth: a tile keeps the columns alike
            picture = frame if unknown else overlay(frame, expected)
            tiles.insert(0, ("not annotated" if unknown else "ground truth", None, _small(picture)))
        strips.append({"stem": stem, "prompted": index == prompted, "tiles": tiles})
    write_rgb(folder / "strip.png", _strip(strips))
    for entry in strips:
        entry["tiles"] = [(name, iou, _jpeg(tile)) for name, iou, tile in entry["tiles"]]
    if len(arms) == 2:
        together = folder / "side_by_side.mp4"
        write_side_by_side(together, frames, arms, read_ids)
        videos = [(" and ".join(arm.title for arm in arms), _video(together, together.name))]
    else:
        videos = [(arm.title, _video(arm.video, f"../{arm.video_name}")) for arm in arms]
    with open(folder / "per_frame.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(
            ["stem", "object_present", *(f"iou_{arm.key}" for arm in arms), *(["agreement"] if agreement else [])]
        )
        for index, stem in enumerate(frames.stems):
            values = [f"{arm.ious[index]:.6f}" if arm.ious and arm.ious[index] is not None else "" for arm in arms]
            here = int(present[index]) if present else ""
            writer.writerow([stem, here, *values, *([f"{agreement[index]:.6f}"] if agreement else [])])
    data = {**summary, "notes": notes, "arms": {arm.key: _arm_json(arm) for arm in arms}}
    (folder / "metrics.json").write_text(json.dumps(data, indent=1, default=str))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        arms=arms,
        strips=strips,
        videos=videos,
        prompt_picture=_prompt_picture(frames[prompted], prompts, prompted),
        plot=iou_plot(arms, present, prompted) if truth_ids else None,
        summary=summary,
        notes=notes,
        differences=_differences(arms),
        figures=figures,
        agreement=agreement_plot(agreement, prompted) if agreement else None,
    )
    # File names may hold bytes that are no text.
    (folder / "index.html").write_text(page, encoding="utf-8", errors="replace")
    return folder / "index.html"


def agreement_plot(agreement: list[float], prompted: int) -> str:
    """SVG of the IoU between the two arms over frames."""
    figure, axes = plt.subplots(figsize=(9.5, 2.4), layout="constrained")
    axes.plot(agreement, color="#555", lw=1.8)
    axes.axvline(prompted, color="#333", lw=1, ls=":")
    axes.set(xlim=(0, max(1, len(agreement) - 1)), ylim=(-0.02, 1.02), xlabel="frame", ylabel="IoU of the arms")
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _svg(figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg")
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _video(file: Path, link: str) -> str:
    """The video itself if it is small, else a link to it."""
    if file.stat().st_size > EMBED_LIMIT:
        return link
    return "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode()


def _arm_json(arm: Arm) -> dict:
    entry = {k: v for k, v in asdict(arm).items() if k not in ("ious", "masks", "video", "key")}
    return entry


def _differences(arms: list[Arm]) -> dict[str, float]:
    if len(arms) != 2:
        return {}
    first, second = (arm.scores for arm in arms)
    return {k: second[k] - first[k] for k in first if isinstance(first[k], float) and isinstance(second.get(k), float)}
