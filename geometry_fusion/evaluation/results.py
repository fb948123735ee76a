"""From records to results: means, gains, intervals and files."""

import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from geometry_fusion.evaluation import breakdowns
from geometry_fusion.evaluation.arm_names import (
    CONTROLS,
    SWITCHES,
    memory_of,
    with_memory,
    without_memory,
)
from geometry_fusion.evaluation.figures import draw
from geometry_fusion.evaluation.objects import SUBSETS
from geometry_fusion.evaluation.records import MEASURES
from geometry_fusion.evaluation.tables import breakdown_lines
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.measure.scores import interval, mean_of

# Pairs of arms whose difference is reported, first minus second.
_GAINS = (
    ("3am", "control"),
    ("3am", "sam2"),
    ("oracle", "control"),
    ("oracle", "sam2"),
    ("control", "sam2"),
    ("places", "sam2"),
    ("places", "3am"),
    ("places_true", "sam2"),
    ("places_true", "3am"),
    ("both", "3am"),
    ("both", "places"),
    *(
        (f"{arm}_{end}", "sam2")
        for arm in ("places", "3am", "both")
        for end in (*CONTROLS[1:], *SWITCHES)
    ),
    *((f"{arm}_fallback", f"{arm}_switch") for arm in ("places", "3am", "both")),
)
VIEW_BINS = (0, 15, 30, 60, 90, 180)  # degrees at the object between the prompted view and this one
ABSENCE_BINS = (0, 1, 6, 16, 31, 10_000)  # frames out of view since the prompt
ALL_MEASURES = (*MEASURES, "false_answers", "recall", "false_area")


def gain_pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of these arms whose difference is reported, first minus second: as in `_GAINS`
    within each memory policy, and every policy against SAM2's own.
    """
    policies = dict.fromkeys(memory_of(arm) for arm in arms)
    pairs = [tuple(with_memory(a, policy) for a in pair) for policy in policies for pair in _GAINS]
    pairs += [(arm, without_memory(arm)) for arm in arms if "+" in arm]
    return [pair for pair in pairs if set(pair) <= set(arms)]


def summarise(records: list[dict], config: DictConfig) -> dict:
    """Means per arm and subset, and paired gains with bootstrap 95% intervals over objects."""
    table = {}  # (arm, subset) -> object -> record
    for record in records:
        for subset in record["subsets"]:
            table.setdefault((record["arm"], subset), {})[record["object"]] = record
    means = {}
    for arm in config.arms:
        means[arm] = {
            subset: _means(list(table.get((arm, subset), {}).values())) for subset in SUBSETS
        }
    gains = {}
    for arm, other in gain_pairs(list(config.arms)):
        for subset in SUBSETS:
            pair = _gains(table.get((arm, subset), {}), table.get((other, subset), {}))
            if pair:
                gains.setdefault(f"{arm}-{other}", {})[subset] = pair
    return {"arms": means, "gains": gains}


def _means(objects: list[dict]) -> dict:
    """Mean of each measure over records of one arm, with counts and an interval of the IoU+."""
    means = {}
    for measure in ALL_MEASURES:
        means[measure] = mean_of([o[measure] for o in objects if o.get(measure) is not None])
    means["n_objects"] = len(objects)
    means["n_frames"] = sum(o["num_frames"] for o in objects)
    if limits := interval([o["positive_iou"] for o in objects]):
        means["positive_iou_95"] = dict(zip(("low", "high"), limits))
    return means


def _gains(ours: dict[str, dict], theirs: dict[str, dict]) -> dict[str, dict]:
    """Mean difference, ours - theirs, of each measure over the objects of both, with its interval.

    ours, theirs: records by object.
    """
    gains = {}
    for measure in ALL_MEASURES:
        pairs = [
            (ours[k].get(measure), theirs[k].get(measure)) for k in ours.keys() & theirs.keys()
        ]
        pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
        # Sorted: the order of a set differs from run to run, and sums are rounded by order.
        differences = [a - b for a, b in sorted(pairs)]
        if differences:
            limits = interval(differences) or ()
            mean = float(np.mean(differences))
            gains[measure] = {"mean": mean, **dict(zip(("low", "high"), limits))}
    return gains


def binned(records: list[dict], key: str, bins: tuple[int, ...]) -> dict[str, list]:
    """Per arm and bin of a per-frame fact: mean IoU of frames with the object, number of frames.

    key: name of the fact in the records. bins: edges; the last bin excludes its upper edge, as all.
    """
    result = {}
    for arm in dict.fromkeys(r["arm"] for r in records):
        facts = []
        ious = []
        for r in records:
            if r["arm"] == arm and key in r:
                present = np.array(r["present"], bool)
                facts.append(np.array(r[key])[present])
                ious.append(np.array(r["frame_ious"])[present])
        facts = np.concatenate(facts) if facts else np.zeros(0)
        ious = np.concatenate(ious) if ious else np.zeros(0)
        inside = [(facts >= low) & (facts < high) for low, high in itertools.pairwise(bins)]
        result[arm] = [[float(ious[i].mean()) if i.any() else None, int(i.sum())] for i in inside]
    return result


def broken_down(records: list[dict], gains: dict, arms: list[str]) -> dict:
    """The breakdowns of one prompt's records; see `breakdowns`."""
    return {
        "by_viewpoint_gap": {arm: breakdowns.by_gap(records, arm) for arm in arms},
        "recovery": {arm: breakdowns.recovery(records, arm) for arm in arms},
        "controls": breakdowns.controls(gains, arms),
        "memory_policies": breakdowns.policies(records, arms, SUBSETS),
    }


def text_table(results: dict, config: DictConfig) -> str:
    """Tables by prompt and subset, gains, and published numbers where the config has them."""
    lines = []
    for prompt in config.prompts:
        summary = results["by_prompt"][prompt]
        lines.append(
            f"prompt: {prompt} on the largest view; mean over objects; IoU+ = frames with the "
            "object present; false = share of frames without it that have a mask"
        )
        lines.append(
            f"{'subset':<10}{'arm':<16}{'IoU':>7}{'IoU+':>7}  "
            f"{'95%':<15}{'acc':>6}{'>=0.5':>7}{'J&F':>7}{'false':>7}  objects"
        )
        for subset in SUBSETS:
            for arm in config.arms:
                means = summary["arms"][arm][subset]
                if means["n_objects"]:
                    lines.append(_table_row(subset, arm, means))
        for pair, subsets in summary["gains"].items():
            for subset, gains in subsets.items():
                lines.append(_gain_row(pair, subset, gains["positive_iou"]))
        lines.append("")
        lines += breakdown_lines(summary)
    for arm, (iou, positive, accuracy) in (config.data.get("paper") or {}).items():
        cells = f"{iou:>7.3f}{positive:>7.3f}  {'':<15}{accuracy:>6.3f}"
        lines.append(
            f"{'paper':<10}{arm:<16}{cells}  its selected subset, its own split and prompts"
        )
    return "\n".join(lines)


def _table_row(subset: str, arm: str, means: dict) -> str:
    iou, positive, accuracy, success, jf, false = (
        f"{means[measure]:.3f}" if means[measure] is not None else "-"
        for measure in (*MEASURES, "false_answers")
    )
    limits = means.get("positive_iou_95")  # a single object has none
    spread = f"{limits['low']:.3f}..{limits['high']:.3f}" if limits else ""
    return (
        f"{subset:<10}{arm:<16}{iou:>7}{positive:>7}  {spread:<15}{accuracy:>6}{success:>7}{jf:>7}"
        f"{false:>7}  {means['n_objects']}"
    )


def _gain_row(pair: str, subset: str, gain: dict) -> str:
    text = f"{gain['mean']:+.3f}"
    if "low" in gain:
        text += f" ({gain['low']:+.3f}..{gain['high']:+.3f})"
    return f"gain {pair:<22} {subset:<10} IoU+ {text}"


def portable(value):
    """A config's plain values with paths below the current folder relative to it: results are
    shared, and name no folder of the machine that made them.
    """
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        path = Path(value)
        return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else value
    return value


def write_results(records: list[dict], config: DictConfig, out: Path) -> dict:
    """Write results.json, table.txt, objects.csv, ious.png and gains.png; returns the results.

    Each file replaces an older one when it is complete.
    """
    by_prompt = {}
    for prompt in config.prompts:
        of_prompt = [record for record in records if record["prompt"] == prompt]
        by_view = binned(of_prompt, "viewpoint_change", VIEW_BINS)
        by_absence = binned(of_prompt, "absent_before", ABSENCE_BINS)
        by_prompt[prompt] = {
            **summarise(of_prompt, config),
            "by_viewpoint_change": {"bins": VIEW_BINS, **by_view},
            "by_frames_out_of_view": {"bins": ABSENCE_BINS, **by_absence},
        }
        by_prompt[prompt] |= broken_down(of_prompt, by_prompt[prompt]["gains"], list(config.arms))
    first = by_prompt[config.prompts[0]]
    results = {
        "prompt": config.prompts[0],
        "arms": first["arms"],
        "gains": first["gains"],
        "by_prompt": by_prompt,
        "config": portable(OmegaConf.to_container(config, resolve=True)),
    }
    with replacing_file(out / "results.json") as fresh:
        fresh.write_text(json.dumps(results, indent=1))
    with replacing_file(out / "table.txt") as fresh:
        fresh.write_text(text_table(results, config))
    with replacing_file(out / "objects.csv") as fresh, open(fresh, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(
            ["arm", "prompt", "object", "subsets", *MEASURES, "num_frames", "num_positive_frames"]
        )
        for r in records:
            facts = (r[m] for m in (*MEASURES, "num_frames", "num_positive_frames"))
            writer.writerow([r["arm"], r["prompt"], r["object"], " ".join(r["subsets"]), *facts])
    draw(results, config, out / "ious.png", gain=False)
    if len(config.arms) > 1:
        draw(results, config, out / "gains.png", gain=True)
    return results
