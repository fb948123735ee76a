"""Scoring the arms of a comparison on one clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.measure.folders import FolderScores, score_folders
from geometry_fusion.measure.scores import mean_scores
from geometry_fusion.report.comparison import Arm, Truth, measure_masks, over_frames, truth_of
from geometry_fusion.types import Frames, Prompt


@dataclass(frozen=True)
class ClipScores:
    """Facts for the summary of a report, and what its plots show."""

    facts: dict[str, int]  # numbers of frames and objects, width and height
    agreement: dict[int, list[float]] | None  # as `measure_masks`; of two arms without ground truth
    truth: Truth | None
    truth_ids: Callable[[str], np.ndarray | None] | None  # as `truth_of`


def score_arms(
    arms: list[Arm],
    gt: Path | None,
    objects: list[int] | None,
    frames: Frames,
    prompts: Sequence[Prompt],
) -> ClipScores:
    """Fill in the objects of the arms and, with ground truth, their scores.

    gt: folder of masks. objects: ids of `gt` that are scored, None if it shows one object without
    an id. Raises InputError for unusable folders.
    """
    width, height = frames.size
    facts = {"num_frames": len(frames), "width": width, "height": height}
    agreement = measure_masks(arms, frames.stems, prompts)
    if not gt:
        return ClipScores(facts, agreement if len(arms) == 2 else None, None, None)
    prompted = {frames.stems[prompt.frame] for prompt in prompts}
    for arm in arms:
        result = score_folders(arm.masks, gt, prompted=prompted, objects=objects)
        _fill_in(arm, result, objects, frames.stems)
    truth, truth_ids = truth_of(gt, objects, frames.stems, list(arms[0].objects))
    facts |= {
        "num_truth_frames": len(result.stems),
        "num_objects": len(result.objects),
        "num_positive_frames": sum(map(bool, truth.present)),
    }
    return ClipScores(facts, None, truth, truth_ids)


def _fill_in(
    arm: Arm, result: FolderScores, objects: list[int] | None, stems: Sequence[str]
) -> None:
    """Set the scores and IoUs of an arm and its objects."""
    arm.scores = vars(mean_scores(result.objects.values()))
    if result.without_prompted:
        arm.unprompted = vars(mean_scores(result.without_prompted.values()))
    if objects:
        by_id = result.objects
    elif len(arm.objects) == 1:  # ground truth without ids is the object that was prompted
        by_id = dict(zip(arm.objects, result.objects.values()))
    else:  # or all prompted objects together, which cannot be scored one by one
        by_id = {}
    for object_id, scores in by_id.items():
        measures = {name: value for name, value in vars(scores).items() if name != "frame_ious"}
        arm.objects[object_id].ious = over_frames(result.stems, scores.frame_ious, stems)
        arm.objects[object_id].scores = measures
    means = np.mean([scores.frame_ious for scores in result.objects.values()], 0).tolist()
    arm.ious = over_frames(result.stems, means, stems)
