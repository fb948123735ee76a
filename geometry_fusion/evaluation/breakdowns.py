"""Breakdowns of an evaluation: by viewpoint, after returns, under controls, by memory policy."""

import itertools
from collections.abc import Sequence

import numpy as np

from geometry_fusion.evaluation.arm_names import (
    CONTROLS,
    FIFO,
    memory_of,
    parts_of,
    with_memory,
    without_memory,
)
from geometry_fusion.evaluation.facts import FOUND, returns_of
from geometry_fusion.measure.scores import interval, mean_of

GAPS = (0, 45, 90, 135, 180)  # degrees between the prompted view and this one
POLICY_MEASURES = ("iou", "recall", "accuracy", "positive_iou")


def measured(values: Sequence[float | None]) -> dict:
    """Mean over objects that have a value, its bootstrap 95% interval, and their number."""
    known = [value for value in values if value is not None]
    limits = interval(known)
    return {"mean": mean_of(known), "n": len(known), **dict(zip(("low", "high"), limits or ()))}


def by_gap(records: list[dict], arm: str) -> list[dict]:
    """Recall and IoU of an arm by the gap between the prompted view and the frame's.

    For every gap: `recall` and `iou` (means over objects of the means over their frames with the
    object), and the number of `frames`. Objects without a known place are left out.
    """
    rows = []
    for low, high in itertools.pairwise(GAPS):
        recalls, ious, frames = [], [], 0
        for record in records:
            if record["arm"] != arm or "viewpoint_change" not in record:
                continue
            angles = np.array(record["viewpoint_change"])
            inside = (angles >= low) & ((angles < high) | (high == GAPS[-1]))
            chosen = np.array(record["frame_ious"])[inside & np.array(record["present"], bool)]
            if len(chosen):
                recalls.append(float((chosen >= FOUND).mean()))
                ious.append(float(chosen.mean()))
                frames += len(chosen)
        rows.append({"recall": measured(recalls), "iou": measured(ious), "frames": frames})
    return rows


def recovery(records: list[dict], arm: str) -> dict:
    """How an arm finds objects again, and what it shows while they are away.

    returns: how many there are; recovered: the share after which the object is found while it stays
    in view; frames: the median number of frames until then; false_area: see `facts`.
    """
    chosen = [record for record in records if record["arm"] == arm]
    returns = [waited for record in chosen for waited in returns_of(record)]
    recovered = [waited for waited in returns if waited is not None]
    return {
        "returns": len(returns),
        "recovered": len(recovered) / len(returns) if returns else None,
        "frames": float(np.median(recovered)) if recovered else None,
        "false_area": measured([record["false_area"] for record in chosen]),
    }


def controls(gains: dict, arms: Sequence[str]) -> list[dict]:
    """What is left of each geometry arm's gain over SAM2, in IoU+, under the controls.

    gains: of `results.summarise`. left: the control's gain as a share of the arm's own; None where
    the arm gains nothing.
    """
    rows = []
    for arm in arms:
        base, control = parts_of(arm)
        own = with_memory(base, memory_of(arm))
        alone = with_memory("sam2", memory_of(arm))
        if control not in CONTROLS[1:] or own not in arms or alone not in arms:
            continue
        for subset, gain in gains.get(f"{own}-{alone}", {}).items():
            ours = gain["positive_iou"]
            under = gains[f"{arm}-{alone}"][subset]["positive_iou"]
            left = under["mean"] / ours["mean"] if ours["mean"] > 0 else None
            rows.append(
                {"arm": own, "control": control, "subset": subset}
                | {"gain": ours, "gain_under_control": under, "left": left}
            )
    return rows


def policies(records: list[dict], arms: Sequence[str], subsets: Sequence[str]) -> list[dict]:
    """The measures of every arm under every memory policy, and the gain over SAM2's own rule.

    The shape of 3AM's table 7. Only for arms that were run with several policies.
    """
    rows = []
    plain = list(dict.fromkeys(without_memory(arm) for arm in arms))
    several = [a for a in plain if sum(without_memory(arm) == a for arm in arms) > 1]
    ordered = [arm for base in several for arm in arms if without_memory(arm) == base]
    for subset, arm in itertools.product(subsets, ordered):
        ours = _by_object(records, arm, subset)
        if not ours:
            continue
        row = {"subset": subset, "arm": without_memory(arm), "memory": memory_of(arm)}
        row |= {name: measured([r.get(name) for r in ours.values()]) for name in POLICY_MEASURES}
        first = _by_object(records, without_memory(arm), subset)
        if memory_of(arm) != FIFO and first:
            shared = sorted(ours.keys() & first.keys())
            pairs = [(ours[name]["positive_iou"], first[name]["positive_iou"]) for name in shared]
            differences = [a - b for a, b in pairs if a is not None and b is not None]
            row["gain"] = measured(differences)
        rows.append(row)
    return rows


def _by_object(records: list[dict], arm: str, subset: str) -> dict[str, dict]:
    return {r["object"]: r for r in records if r["arm"] == arm and subset in r["subsets"]}
