"""Plots of a report as SVG in the colours of the page: IoU, agreement, and presence of objects.

Each is drawn twice, for wide pages and for phones, on which a shrunk wide plot would be illegible.
CSS shows one of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from geometry_fusion.report.comparison import Arm, Truth, in_words
from geometry_fusion.report.pyplot import BLUE, GREY, ORANGE, PAGE_STYLE, plt, svg_of
from geometry_fusion.tracking.places import ABSENT, ASKED, MOVING, OWN, VETOED

ARM_COLOURS = (ORANGE, BLUE)
DECISION_COLOURS = {
    OWN: ORANGE,
    ASKED: BLUE,
    VETOED: "#c23a6b",
    ABSENT: GREY,
    MOVING: "#3a9a5b",
}
TRUTH_COLOUR = GREY
WIDE, NARROW = 11.5, 4.3  # inches; letters have the same size in both
MOST_PANELS = 6  # more objects than this share one IoU plot
NEUTRAL = "#8888"  # legible on light and dark pages


@dataclass(frozen=True)
class Plot:
    """SVG for wide pages and for phones, and its content in words."""

    wide: str
    narrow: str
    words: str


def _plot(name: str, words: str, draw: Callable) -> Plot:
    """draw: width in inches -> figure."""
    with plt.rc_context(PAGE_STYLE):
        wide = svg_of(draw(WIDE), f"{name}-wide")
        narrow = svg_of(draw(NARROW), f"{name}-narrow")
    return Plot(wide, narrow, words)


def _frame_axis(axes, num_frames: int, label: bool = True) -> None:
    axes.set_xlim(-0.5, max(1, num_frames) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    if label:
        axes.set_xlabel("frame")


def _mark_prompts(axes, prompted: list[int]) -> None:
    style = {"color": PAGE_STYLE["text.color"], "lw": 1, "ls": ":", "label": "prompted frame"}
    for frame in prompted:
        axes.axvline(frame, **style)


def _steps(flags: list[bool | None], wanted: bool | None) -> list[tuple[float, float]]:
    """(start, width) of every stretch of the wanted flag; frame i covers i - 0.5 to i + 0.5."""
    same = np.array([flag is wanted for flag in [*flags, not wanted]])
    edges = np.flatnonzero(np.diff(np.r_[False, same]))
    return [(start - 0.5, end - start) for start, end in zip(edges[::2], edges[1::2])]


def iou_plot(arms: list[Arm], truth: Truth, prompted: list[int]) -> Plot:
    """IoU over frames: a panel per object, a line per arm; frames without the object are shaded.

    prompted: indices of the prompted frames.
    """
    objects = [i for i in truth.by_object if arms[0].objects[i].ious]
    panels = [("", truth.present, [arm.ious for arm in arms])]
    if 1 < len(objects) <= MOST_PANELS:
        panels = [
            (f"object {i}", truth.by_object[i], [arm.objects[i].ious for arm in arms])
            for i in objects
        ]

    def draw(width: float):
        figure, rows = plt.subplots(
            len(panels),
            1,
            figsize=(width, 1.1 + 1.7 * len(panels)),
            layout="constrained",
            sharex=True,
            squeeze=False,
        )
        for axes, (title, present, series) in zip(rows[:, 0], panels):
            shade = {"color": NEUTRAL, "alpha": 0.25, "lw": 0, "label": "not in view"}
            for start, length in _steps(present, False):
                axes.axvspan(start, start + length, **shade)
            for arm, colour, ious in zip(arms, ARM_COLOURS, series):
                values = [np.nan if v is None else v for v in ious]
                # With markers, because sparse ground truth has no neighbours to draw a line to.
                axes.plot(values, color=colour, lw=1.8, marker="o", ms=2.5, label=arm.title)
            _mark_prompts(axes, prompted)
            axes.set(ylim=(-0.02, 1.04), ylabel=f"IoU, {title}" if title else "IoU")
            _frame_axis(axes, len(present), label=axes is rows[-1, 0])
        # By label, so that each is listed once.
        handles = dict(zip(*reversed(rows[0, 0].get_legend_handles_labels())))
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper center",
            ncols=4 if width == WIDE else 2,
            frameon=False,
        )
        return figure

    means = [f"{arm.title} {np.mean([v for v in arm.ious if v is not None]):.2f}" for arm in arms]
    words = f"IoU over frames. Mean over frames with ground truth: {', '.join(means)}. "
    words += f"The ground truth shows an object {in_words(truth.present)}."
    return _plot("iou", words, draw)


def agreement_plot(agreement: dict[int, list[float]], prompted: list[int]) -> Plot:
    """The IoU between the masks of two arms over frames, mean over objects."""
    mean = np.mean(list(agreement.values()), axis=0)

    def draw(width: float):
        figure, axes = plt.subplots(figsize=(width, 2.4), layout="constrained")
        axes.plot(mean, color=TRUTH_COLOUR, lw=1.8, marker="o", ms=2.5)
        _mark_prompts(axes, prompted)
        axes.set(ylim=(-0.02, 1.04), ylabel="IoU of the arms")
        _frame_axis(axes, len(mean))
        return figure

    worst = int(mean.argmin())
    words = (
        f"IoU of the two arms' masks over frames: mean {mean.mean():.2f}, lowest "
        f"{mean[worst]:.2f} in frame {worst}."
    )
    return _plot("agreement", words, draw)


def presence_plot(arms: list[Arm], truth: Truth | None, prompted: list[int]) -> Plot:
    """Which frames show each object: a bar per arm, and one of ground truth that has ids."""
    rows: list[tuple[str, str, list]] = []  # name, colour, flag per frame
    words = []
    objects = list(arms[0].objects)
    for i in objects:
        bars = []
        if truth and i in truth.by_object:
            bars.append(("truth", TRUTH_COLOUR, truth.by_object[i]))
        for arm, colour in zip(arms, ARM_COLOURS):
            bars.append((arm.title, colour, [n > 0 for n in arm.objects[i].pixels]))
        phrases = []
        for name, colour, shown in bars:
            rows.append((f"{i}: {name}" if len(objects) > 1 else name, colour, shown))
            verb = "has" if name == "truth" else "shows"
            phrases.append(f"{name} {verb} it {in_words(shown)}")
        words.append(f"Object {i}: {'; '.join(phrases)}.")

    def draw(width: float):
        per_object = len(rows) // len(objects)
        figure, axes = plt.subplots(figsize=(width, 0.75 + 0.27 * len(rows)), layout="constrained")
        places = [row + 0.5 * (row // per_object) for row in range(len(rows))]
        for place, (_, colour, shown) in zip(places, rows):
            axes.axhline(place, color=colour, lw=0.6, alpha=0.5)
            axes.broken_barh(_steps(shown, True), (place - 0.36, 0.72), color=colour, lw=0)
            axes.broken_barh(_steps(shown, None), (place - 0.1, 0.2), color=NEUTRAL, lw=0)
        _mark_prompts(axes, prompted)
        axes.set_yticks(places, [name for name, _, _ in rows])
        axes.set_ylim(places[-1] + 0.6, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _frame_axis(axes, len(rows[0][2]))
        return figure

    return _plot("presence", " ".join(words), draw)


def decisions_plot(arm: Arm, prompted: list[int]) -> Plot | None:
    """What decided each object's mask over frames; None for an arm without places."""
    rows = {i: result.decisions for i, result in arm.objects.items() if result.decisions}
    if not rows:
        return None

    def draw(width: float):
        figure, axes = plt.subplots(figsize=(width, 1.15 + 0.3 * len(rows)), layout="constrained")
        for place, decisions in enumerate(rows.values()):
            for name, colour in DECISION_COLOURS.items():
                spans = _steps([decision == name for decision in decisions], True)
                if not spans:
                    continue
                axes.broken_barh(spans, (place - 0.36, 0.72), color=colour, lw=0, label=name)
        _mark_prompts(axes, prompted)
        axes.set_yticks(range(len(rows)), [f"object {i}" for i in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _frame_axis(axes, len(next(iter(rows.values()))))
        handles = dict(zip(*reversed(axes.get_legend_handles_labels())))
        columns = 5 if width == WIDE else 2
        style = {"loc": "outside upper center", "ncols": columns, "frameon": False}
        figure.legend(handles.values(), handles.keys(), **style)
        return figure

    words = []
    for i, decisions in rows.items():
        counts = [
            f"{name} in {decisions.count(name)}" for name in DECISION_COLOURS if name in decisions
        ]
        words.append(f"Object {i}: {', '.join(counts)} of {len(decisions)} frames.")
    return _plot("decisions", " ".join(words), draw)
