"""The summary, the table and the figure of benchmarks/speed.py.

A row is one measurement: arm, frames, objects, seconds_per_frame, peak_mb and, for long videos,
ms_early and ms_late.
"""

import statistics
from pathlib import Path

import numpy as np
from common import ARMS

PAIRS = (("baseline", "upstream"), ("3am", "baseline"), ("places", "baseline"))


def summarise(rows: list[dict]) -> dict:
    """Ratios of time, slopes of peak memory over length, and late over early cost of a frame.

    Ratios are medians over rounds; a round is one measurement of each arm.
    """
    lengths = sorted({row["frames"] for row in rows if row["objects"] == 1})
    counts = sorted({row["objects"] for row in rows})
    shortest, longest = lengths[0], lengths[-1]
    most = counts[-1]

    def ratio(arm: str, other: str, length: int, objects: int) -> float:
        times = _values(rows, arm, "seconds_per_frame", length, objects)
        other_times = _values(rows, other, "seconds_per_frame", length, objects)
        return round(statistics.median(x / y for x, y in zip(times, other_times)), 3)

    times = {
        "baseline_over_upstream": ratio("baseline", "upstream", longest, 1),
        "3am_over_baseline": ratio("3am", "baseline", longest, 1),
        "places_over_baseline": ratio("places", "baseline", longest, 1),
        f"objects{most}_over_upstream{most}": ratio("baseline", "upstream", shortest, most),
    }
    for arm, other in PAIRS:
        by_length = {n: ratio(arm, other, n, 1) for n in lengths}
        times[f"{arm}_over_{other}_by_length"] = by_length
    for arm, other in PAIRS:
        by_objects = {n: ratio(arm, other, shortest, n) for n in counts}
        times[f"{arm}_over_{other}_by_objects"] = by_objects
    late_over_early = {}
    for row in rows:
        if row["frames"] == longest and "ms_late" in row:
            late_over_early[row["arm"]] = round(row["ms_late"] / row["ms_early"], 3)
    return {
        "time_ratio": times,
        "memory_slope_mb_per_frame": _memory_slopes(rows, lengths),
        "late_over_early": {arm: late_over_early[arm] for arm in ARMS if arm in late_over_early},
    }


def _values(rows: list[dict], arm: str, key: str, length: int, objects: int) -> list[float]:
    """The values of `key` over the rounds of one measurement."""
    wanted = (arm, length, objects)
    return [row[key] for row in rows if (row["arm"], row["frames"], row["objects"]) == wanted]


def _memory_slopes(rows: list[dict], lengths: list[int]) -> dict[str, float]:
    """Arm -> peak MB per frame of a video, with one object; empty for a single length."""
    if len(lengths) < 2:
        return {}
    slopes = {}
    for arm in ARMS:
        peaks = [min(_values(rows, arm, "peak_mb", n, 1)) for n in lengths]
        slopes[arm] = round(float(np.polyfit(lengths, peaks, 1)[0]), 4)
    return slopes


def table(rows: list[dict], summary: dict) -> str:
    """Milliseconds per frame and peak memory of every measurement, then the summary, as text."""
    titles = "".join(f"{arm + ' ms':>14}{'peak MB':>10}" for arm in ARMS)
    lines = [f"{'frames':>6} {'objects':>7}{titles}"]
    measured = {(row["frames"], row["objects"]) for row in rows}
    for length, objects in sorted(measured, key=lambda key: key[::-1]):
        line = f"{length:>6} {objects:>7}"
        for arm in ARMS:
            seconds = statistics.median(_values(rows, arm, "seconds_per_frame", length, objects))
            peak = statistics.median(_values(rows, arm, "peak_mb", length, objects))
            line += f"{1000 * seconds:>14.1f}{peak:>10.0f}"
        lines.append(line)
    ratios = {k: v for k, v in summary["time_ratio"].items() if not isinstance(v, dict)}
    lines += ["", *(f"{name}: {value}" for name, value in ratios.items())]
    lines += [f"memory slope, MB per frame: {summary['memory_slope_mb_per_frame']}"]
    lines += [f"cost of a frame, late over early: {summary['late_over_early']}"]
    return "\n".join(lines)


def draw(rows: list[dict], file: Path) -> None:
    """Write the figure: time and memory over length, time over objects, one line per arm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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
        places = sorted({place for place, _ in points})
        medians = [
            statistics.median(value for place, value in points if place == at) for at in places
        ]
        axes.plot(places, medians, "-", color=f"C{number}", label=arm)
        axes.plot(*zip(*points), ".", color=f"C{number}")
    axes.set(xlabel=x, ylim=(0, None))
    axes.legend()
