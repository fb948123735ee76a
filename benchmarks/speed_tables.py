"""The summary, the table and the figure of benchmarks/speed.py.

A row is one measurement: arm, frames, objects, cores, programs, seconds_per_frame,
processor_s_per_frame, first_mask_s, peak_mb and, for long videos, ms_early and ms_late.
"""

import statistics
from pathlib import Path

import numpy as np
from common import ARMS

PAIRS = (
    ("baseline", "upstream"),
    ("3am", "upstream"),
    ("3am", "baseline"),
    ("places", "baseline"),
    ("both", "baseline"),
)


def summarise(rows: list[dict]) -> dict:
    """Ratios of time, slopes of peak memory over length, and late over early cost of a frame.

    A ratio is [median, least, largest] over rounds; a round is one measurement of each arm.
    """
    plain = [row for row in rows if row["cores"] is None and row["programs"] == 1]
    lengths = sorted({row["frames"] for row in plain if row["objects"] == 1})
    counts = sorted({row["objects"] for row in plain})
    shortest, longest = lengths[0], lengths[-1]
    ratios = {}
    for arm, other in PAIRS:
        name = f"{arm}_over_{other}"
        ratios[f"{name}_by_length"] = {n: _ratio(plain, arm, other, n, 1) for n in lengths}
        ratios[f"{name}_by_objects"] = {n: _ratio(plain, arm, other, shortest, n) for n in counts}
        one_core = [row for row in rows if row["cores"] == 1]
        ratios[f"{name}_on_one_core"] = _ratio(one_core, arm, other, shortest, 1)
    late_over_early = {}
    for row in plain:
        if row["frames"] == longest and "ms_late" in row:
            late_over_early[row["arm"]] = round(row["ms_late"] / row["ms_early"], 3)
    short = [row for row in plain if row["frames"] == shortest and row["objects"] == 1]
    return {
        "time_ratio": ratios,
        "pace_of_each_of_two_programs": _pace_in_company(rows, short),
        "processor_ms_per_frame": _medians(short, "processor_s_per_frame", 1000),
        "first_mask_s": _medians(short, "first_mask_s", 1),
        "memory_slope_mb_per_frame": _memory_slopes(plain, lengths),
        "late_over_early": {arm: late_over_early[arm] for arm in ARMS if arm in late_over_early},
    }


def _ratio(rows: list[dict], arm: str, other: str, length: int, objects: int) -> list | None:
    """[median, least, largest] over rounds; None where one of the arms was not measured."""
    times = _values(rows, arm, "seconds_per_frame", length, objects)
    other_times = _values(rows, other, "seconds_per_frame", length, objects)
    ratios = [x / y for x, y in zip(times, other_times)]
    if not ratios:
        return None
    return [round(value, 3) for value in (statistics.median(ratios), min(ratios), max(ratios))]


def _pace_in_company(rows: list[dict], alone: list[dict]) -> dict[str, float]:
    """Arm -> frames a second of each of two programs, as a share of one alone; medians."""
    paces = {}
    for arm in ARMS:
        times = [row["seconds_per_frame"] for row in alone if row["arm"] == arm]
        both = [r["seconds_per_frame"] for r in rows if r["arm"] == arm and r["programs"] == 2]
        if times and both:
            paces[arm] = round(statistics.median(times) / statistics.median(both), 3)
    return paces


def _medians(rows: list[dict], key: str, scale: float) -> dict[str, float]:
    """Arm -> median over rounds."""
    by_arm = {arm: [row[key] for row in rows if row["arm"] == arm] for arm in ARMS}
    return {arm: round(scale * statistics.median(v), 2) for arm, v in by_arm.items() if v}


def _values(rows: list[dict], arm: str, key: str, length: int, objects: int) -> list[float]:
    """The values of `key` over the rounds of one measurement."""
    wanted = (arm, length, objects)
    return [row[key] for row in rows if (row["arm"], row["frames"], row["objects"]) == wanted]


def _memory_slopes(rows: list[dict], lengths: list[int]) -> dict[str, float]:
    """Arm -> peak MB per frame of a video, with one object; empty for a single length."""
    if len(lengths) < 2:
        return {}
    slopes = {}
    for arm in [a for a in ARMS if _values(rows, a, "peak_mb", lengths[-1], 1)]:
        peaks = [min(_values(rows, arm, "peak_mb", n, 1)) for n in lengths]
        slopes[arm] = round(float(np.polyfit(lengths, peaks, 1)[0]), 4)
    return slopes


def table(rows: list[dict], summary: dict) -> str:
    """Milliseconds per frame and peak memory of every measurement, then the summary, as text."""
    titles = "".join(f"{arm + ' ms':>12}{'peak MB':>8}" for arm in ARMS)
    lines = [f"{'frames':>6} {'objects':>7} {'cores':>5} {'programs':>8}{titles}"]
    keys = ("frames", "objects", "cores", "programs")
    measured = list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))
    for plan in measured:
        length, objects, cores, programs = plan
        line = f"{length:>6} {objects:>7} {cores or 'all':>5} {programs:>8}"
        for arm in ARMS:
            here = [r for r in rows if r["arm"] == arm and tuple(r[key] for key in keys) == plan]
            if not here:
                line += f"{'-':>12}{'-':>8}"
                continue
            seconds = statistics.median(row["seconds_per_frame"] for row in here)
            peak = statistics.median(row["peak_mb"] for row in here)
            line += f"{1000 * seconds:>12.1f}{peak:>8.0f}"
        lines.append(line)
    lines += ["", "ratios of time: median (least..largest) over rounds"]
    for name, by in summary["time_ratio"].items():
        values = by if isinstance(by, dict) else {"": by}
        texts = [f"{n} {v[0]} ({v[1]}..{v[2]})".strip() for n, v in values.items() if v]
        lines.append(f"{name}: {', '.join(texts)}")
    others = [name for name in summary if name != "time_ratio"]
    return "\n".join([*lines, *(f"{name}: {summary[name]}" for name in others)])


def draw(rows: list[dict], file: Path) -> None:
    """Write the figure: time and memory over length, time over objects, one line per arm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["cores"] is None and row["programs"] == 1]
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    shortest = min(row["frames"] for row in rows)
    one_object = [row for row in rows if row["objects"] == 1]
    short = [row for row in rows if row["frames"] == shortest]
    panels[0].set_title("time, one object (ms a frame)")
    _draw_lines(panels[0], one_object, "frames", "seconds_per_frame", scale=1000)
    panels[1].set_title("peak memory, one object (MB)")
    _draw_lines(panels[1], one_object, "frames", "peak_mb", scale=1)
    panels[2].set_title(f"time, {shortest} frames (ms a frame)")
    _draw_lines(panels[2], short, "objects", "seconds_per_frame", scale=1000)
    figure.savefig(file, dpi=110)


def _draw_lines(axes, rows: list[dict], x: str, y: str, scale: float) -> None:
    """Medians over rounds as a line, and every round as a point."""
    for number, arm in enumerate(ARMS):
        points = [(row[x], scale * row[y]) for row in rows if row["arm"] == arm]
        if not points:
            continue
        places = sorted({place for place, _ in points})
        medians = [
            statistics.median(value for place, value in points if place == at) for at in places
        ]
        axes.plot(places, medians, "-", color=f"C{number}", label=arm)
        axes.plot(*zip(*points), ".", color=f"C{number}")
    axes.set(xlabel=x, ylim=(0, None))
    axes.legend()
