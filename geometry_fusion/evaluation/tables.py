"""The breakdowns of an evaluation as text."""

import itertools

from geometry_fusion.evaluation.breakdowns import GAPS, POLICY_MEASURES

HEADS = {"iou": "IoU", "recall": "recall", "accuracy": "accuracy", "positive_iou": "IoU+"}


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def spread(measured: dict, sign: str = "") -> str:
    """A mean with its interval, as far as there are any."""
    if measured["mean"] is None:
        return "-"
    text = f"{measured['mean']:{sign}.3f}"
    if "low" in measured:
        text += f" ({measured['low']:{sign}.3f}..{measured['high']:{sign}.3f})"
    return text


def gap_lines(by_gap: dict[str, list[dict]]) -> list[str]:
    """Recall and IoU by viewpoint gap, an arm a line. Empty where no frame has a known gap."""
    if not any(row["frames"] for rows in by_gap.values() for row in rows):
        return []
    bins = [f"{low}-{high}" for low, high in itertools.pairwise(GAPS)]
    first = next(iter(by_gap.values()))
    counts = [f"{row['frames']} frames, {row['iou']['n']} obj." for row in first]
    lines = [
        "by degrees between the prompted view and this one: recall (share of frames with IoU of "
        "0.5 or more) / IoU, frames with the object, mean over objects",
        f"{'arm':<24}" + "".join(f"{name:>22}" for name in bins),
        f"{'':<24}" + "".join(f"{count:>22}" for count in counts),
    ]
    for arm, rows in by_gap.items():
        cells = [f"{number(r['recall']['mean'])} / {number(r['iou']['mean'])}" for r in rows]
        lines.append(f"{arm:<24}" + "".join(f"{cell:>22}" for cell in cells))
    return [*lines, ""]


def recovery_lines(recovery: dict[str, dict]) -> list[str]:
    """Returns after an absence, and false area in absence, an arm a line."""
    lines = [
        "after a return into view: share found again, median frames until then; false area: share "
        "of the image in frames without the object",
        f"{'arm':<24}{'returns':>8}{'found again':>13}{'frames':>8}  false area",
    ]
    for arm, row in recovery.items():
        false = row["false_area"]
        area = "-" if false["mean"] is None else f"{100 * false['mean']:.2f}%, {false['n']} objects"
        lines.append(
            f"{arm:<24}{row['returns']:>8}{number(row['recovered']):>13}"
            f"{number(row['frames'], 1):>8}  {area}"
        )
    return [*lines, ""]


def control_lines(rows: list[dict]) -> list[str]:
    """What the controls leave of the gains over SAM2. Empty without controls."""
    if not rows:
        return []
    lines = [
        "what is left of the gain over sam2 in IoU+ when geometry is zero, or another scene's; a "
        "gain that stays is none of geometry",
        f"{'subset':<10}{'arm':<18}{'control':<10}{'gain':<26}{'gain under control':<26}left",
    ]
    for row in rows:
        left = "-" if row["left"] is None else f"{100 * row['left']:.0f}%"
        gain, under = spread(row["gain"], "+"), spread(row["gain_under_control"], "+")
        lines.append(
            f"{row['subset']:<10}{row['arm']:<18}{row['control']:<10}{gain:<26}{under:<26}{left}"
        )
    return [*lines, ""]


def policy_lines(rows: list[dict]) -> list[str]:
    """Memory policies in the shape of 3AM's table 7. Empty with a single policy."""
    if not rows:
        return []
    heads = "".join(f"{HEADS[name]:<24}" for name in POLICY_MEASURES)
    lines = [
        "memory policies; recall: share of frames with the object and IoU of 0.5 or more; gain: "
        "IoU+ over fifo, the same objects",
        f"{'subset':<10}{'arm':<14}{'memory':<10}{heads}gain",
    ]
    for row in rows:
        cells = "".join(f"{spread(row[name]):<24}" for name in POLICY_MEASURES)
        gain = spread(row["gain"], "+") if "gain" in row else ""
        if row.get("gain", {}).get("low", 0) <= 0 and gain:
            gain += "  no gain shown"
        lines.append(f"{row['subset']:<10}{row['arm']:<14}{row['memory']:<10}{cells}{gain}")
    return [*lines, ""]


def breakdown_lines(summary: dict) -> list[str]:
    """All breakdowns that the results of a prompt have."""
    makers = {
        "by_viewpoint_gap": gap_lines,
        "recovery": recovery_lines,
        "controls": control_lines,
        "memory_policies": policy_lines,
    }
    return [line for key, lines in makers.items() if key in summary for line in lines(summary[key])]
