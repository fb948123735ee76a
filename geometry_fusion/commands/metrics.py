"""Score folders of PNG masks:

python metrics.py --pred-a DIR --pred-b DIR --gt DIR     two arms and their differences, B - A
python metrics.py --pred DIR --gt DIR                    one arm
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import check_apart, replacing_file
from geometry_fusion.io.mask_reader import list_masks
from geometry_fusion.io.source_record import check_belongs, record_of_masks
from geometry_fusion.measure.folders import FolderScores, score_folders
from geometry_fusion.measure.scores import (
    MEASURES,
    Scores,
    check_threshold,
    interval,
    mean_of,
    mean_scores,
    values_of,
)
from geometry_fusion.measure.tables import score_differences, score_table


def run(args: argparse.Namespace) -> None:
    """Score one or two folders of predictions; print a table, and write --json.

    Raises InputError for bad options, files that cannot be read and folders that do not pair.
    """
    folders = _folders(args)
    check_threshold(args.threshold)
    if args.json:
        _check_report_file(args.json, [args.gt, *folders.values()])
    if truth := record_of_masks(args.gt):
        for folder in folders.values():
            check_belongs(folder, truth, "predictions in")
    stems = list_masks(args.gt, "ground truth") if args.prompted else ()
    if unknown := [stem for stem in args.prompted if stem not in stems]:
        raise InputError(
            f"--prompted {unknown[0]}: no such mask in {args.gt}; name a frame such as "
            f"{next(iter(stems))}"
        )
    arms = {
        name: score_folders(folder, args.gt, args.threshold, args.prompted, args.object)
        for name, folder in folders.items()
    }
    _print_scores(arms, folders, args)
    if args.json:
        with replacing_file(args.json) as fresh:
            fresh.write_text(json.dumps(_report(arms, folders, args), indent=1))


def _folders(args: argparse.Namespace) -> dict[str, Path]:
    """Folders of predictions by the name of their arm."""
    if args.pred and not (args.pred_a or args.pred_b):
        return {"pred": args.pred}
    if args.pred_a and args.pred_b and not args.pred:
        return {"A": args.pred_a, "B": args.pred_b}
    raise InputError("give either --pred DIR or both --pred-a DIR and --pred-b DIR")


def _print_scores(
    arms: Mapping[str, FolderScores], folders: Mapping[str, Path], args: argparse.Namespace
) -> None:
    scores = next(iter(arms.values()))
    total = mean_scores(scores.objects.values())
    plural = "" if len(scores.objects) == 1 else "s"
    num_objects = f"{len(scores.objects)} object{plural}"
    print(f"{len(scores.stems)} frames, {num_objects}, ground truth {args.gt}")
    print(
        f"present in {total.num_positive_frames} of {total.num_frames} masks, success at IoU >= "
        f"{args.threshold:g}"
    )
    for name, arm in arms.items():
        missing = f" ({len(arm.missing)} missing, counted as empty)" if arm.missing else ""
        print(f"{name}: {folders[name]}{missing}")
    if plural:
        print("mean over objects [bootstrap 95% interval over objects]")
    print("\n" + score_table({name: arm.objects for name, arm in arms.items()}))
    if scores.without_prompted:
        left = len(scores.stems) - len(set(args.prompted))
        print(f"\nwithout the prompted frames ({', '.join(args.prompted)}), {left} frames left:")
        print(score_table({name: arm.without_prompted for name, arm in arms.items()}))
    elif args.prompted:
        print("\nwithout the prompted frames no frame is left")


def _check_report_file(file: Path, inputs: Sequence[Path]) -> None:
    """Raise InputError where --json would replace anything but an earlier report."""
    check_apart([file], inputs)
    if not file.exists():
        return
    try:
        before = json.loads(file.read_text()) if file.is_file() else None
    except (ValueError, RecursionError):
        before = None
    if not (isinstance(before, dict) and {"gt", "arms"} <= before.keys()):
        raise InputError(f"--json {file}: exists and is no earlier report; choose another name")


def _report(
    arms: Mapping[str, FolderScores], folders: Mapping[str, Path], args: argparse.Namespace
) -> dict:
    """The content of --json: means, intervals, per-frame IoUs of every object, differences."""
    report = {
        "gt": str(args.gt),
        "threshold": args.threshold,
        "prompted": list(args.prompted),
        "arms": {},
    }
    for name, arm in arms.items():
        report["stems"] = arm.stems
        report["arms"][name] = {
            "folder": str(folders[name]),
            "missing": arm.missing,
            **_report_on_objects(arm.objects),
        }
        if arm.without_prompted:
            report["arms"][name]["without_prompted"] = _report_on_objects(arm.without_prompted)
    if len(arms) == 2:
        differences = score_differences(*(arm.objects for arm in arms.values()))
        report["difference"] = {
            measure: {"mean": mean_of(values), "interval": interval(values)}
            for measure, values in differences.items()
        }
    return report


def _report_on_objects(objects: Mapping[int, Scores]) -> dict:
    """Means, intervals and single scores of objects by id."""
    mean = asdict(mean_scores(objects.values()))
    del mean["frame_ious"]  # a mean over objects has none
    return {
        "mean": mean,
        "interval": {
            measure: interval(values_of(objects.values(), measure)) for measure in MEASURES
        },
        "objects": {object_id: asdict(scores) for object_id, scores in objects.items()},
    }
