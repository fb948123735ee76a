"""Scores folders of PNG masks.

* Ground truth and predictions are paired by file stem. Every ground-truth frame counts: a missing
  prediction is an empty mask. Predictions without ground truth are ignored.
* Pixels are read by the rule of all masks (geometry_fusion/io/mask_reader.py, docs/data.md). Ids
  come from the whole ground-truth folder, not from its first frame alone.
* Void pixels of the ground truth count in neither mask (as davis2017-evaluation's void_pixels).
* The ground truth decides what is an object. Where it shows one object without an id, that object
  is every pixel of a prediction that is not 0. Where only one id is scored, predictions of one
  object without an id are accepted as well.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_reader import (
    ONE_OBJECT,
    VOID_ID,
    MaskFolder,
    list_masks,
    read_mask_pixels,
)
from geometry_fusion.measure.masks import FrameScore, score_frame
from geometry_fusion.measure.scores import Scores, check_threshold, summarise


@dataclass(frozen=True)
class FolderScores:
    """One folder of predictions against one folder of ground truth."""

    objects: dict[int, Scores]  # by object id; a folder with a single object uses ONE_OBJECT
    # The same without the prompted frames; empty if none is named or no frame is left.
    without_prompted: dict[int, Scores]
    stems: tuple[str, ...]  # of the ground truth, in order
    missing: tuple[str, ...]  # stems without a prediction, scored as empty masks


def score_folders(
    pred_dir: Path | str,
    gt_dir: Path | str,
    threshold: float = 0.5,
    prompted: Collection[str] = (),  # stems of prompted frames
    objects: Collection[int] | None = None,  # ids; None = all of the ground truth
) -> FolderScores:
    """Score a folder of predicted masks by the rules in the module's docstring.

    threshold: IoU from which a frame is a success, 0..1. Raises InputError for missing or
    unreadable files, folders that do not pair, differing sizes and unknown ids.
    """
    check_threshold(threshold)
    gt_files, pred_files = list_masks(gt_dir, "ground truth"), list_masks(pred_dir, "predictions")
    stems = tuple(gt_files)
    if not any(stem in pred_files for stem in stems):
        raise InputError(
            f"{pred_dir}: no prediction has the name of a ground-truth mask (such as "
            f"{next(iter(pred_files))}.png against {stems[0]}.png in {gt_dir}); name both by frame "
            "number, zero-padded alike"
        )
    truth = MaskFolder(gt_files)
    wanted = _chosen_ids(truth.ids, objects, gt_dir)
    paired = {stem: pred_files[stem] for stem in stems if stem in pred_files}
    predictions = _Predictions(paired, truth.ids)
    if len(wanted) > 1 and not predictions.has_ids:
        raise InputError(
            f"{pred_dir}: masks of one object, but {gt_dir} holds objects "
            f"{', '.join(map(str, wanted))}; write palette PNGs (index = object id) or choose one, "
            f"such as object {wanted[0]}"
        )
    frames = _score_frames(truth, predictions, wanted)
    skip = {stems.index(stem) for stem in prompted if stem in gt_files}
    without = {}
    if len(prompted) > 0 and len(skip) < len(stems):
        without = {i: summarise(scored, threshold, skip) for i, scored in frames.items()}
    return FolderScores(
        objects={i: summarise(scored, threshold) for i, scored in frames.items()},
        without_prompted=without,
        stems=stems,
        missing=tuple(stem for stem in stems if stem not in pred_files),
    )


def _score_frames(
    truth: MaskFolder, predictions: "_Predictions", wanted: list[int]
) -> dict[int, list[FrameScore]]:
    """Scores of every ground-truth frame, by object. Raises InputError where sizes differ."""
    frames: dict[int, list[FrameScore]] = {object_id: [] for object_id in wanted}
    first, size = next(iter(truth.files.values())), None
    for stem, file in truth.files.items():
        gt = truth.read(stem)
        size = size or gt.shape
        if gt.shape != size:
            raise InputError(
                f"{file}: mask is {gt.shape[1]}x{gt.shape[0]}, {first.name} is "
                f"{size[1]}x{size[0]}; masks of one video have one size, export them again"
            )
        pred = predictions.read(stem) if stem in predictions.files else np.zeros_like(gt)
        if pred.shape != gt.shape:
            pred_size, gt_size = (f"{mask.shape[1]}x{mask.shape[0]}" for mask in (pred, gt))
            raise InputError(
                f"{predictions.files[stem]}: mask is {pred_size}, the ground truth {file} is "
                f"{gt_size} (width x height); export masks at the size of the original frames"
            )
        for object_id, scored in frames.items():
            pred_mask = pred == object_id if predictions.has_ids else pred != 0
            # Void pixels of the ground truth count in neither mask.
            scored.append(score_frame(pred_mask & (gt != VOID_ID), gt == object_id))
    return frames


def _chosen_ids(
    ids: list[int] | None, objects: Collection[int] | None, gt_dir: Path | str
) -> list[int]:
    """The ids to score: `objects`, or all of the ground truth. Raises InputError for others."""
    truth_ids = ids or [ONE_OBJECT]
    if objects is None:
        return truth_ids
    unknown = [object_id for object_id in objects if object_id not in truth_ids]
    if unknown or not objects:
        listed = ", ".join(map(str, truth_ids))
        raise InputError(
            f"object {(unknown or ['(none)'])[0]}: not in {gt_dir}, which holds {listed}"
        )
    return sorted(objects)


class _Predictions:
    """Predicted masks, read as the ground truth requires.

    gt_ids: the object ids of the ground truth; None: it shows one object without an id.
    """

    def __init__(self, files: Mapping[str, Path], gt_ids: list[int] | None):
        self.files = dict(files)
        # A single object is any pixel that is not 0, whatever ids the predictions have.
        self._masks = MaskFolder(files) if gt_ids is not None else None
        self.has_ids = False
        if self._masks is not None:
            # Masks of 0 and 1 only show object 1, where the ground truth has several objects.
            only_object_1 = self._masks.rule.values <= {ONE_OBJECT} and len(gt_ids) > 1
            self.has_ids = self._masks.ids is not None or only_object_1

    def read(self, stem: str) -> np.ndarray:
        """[H, W] object ids if `has_ids`, else not 0 = object."""
        if self._masks is None:
            return read_mask_pixels(self.files[stem]).values
        return self._masks.read(stem)


def check_ground_truth(
    gt_dir: Path | str,
    stems: Collection[str],  # of the frames that will be segmented
    size: tuple[int, int],  # (width, height) of these frames
) -> list[int] | None:
    """Raise InputError, before minutes of tracking, for ground truth that `score_folders` refuses.

    Returns the object ids, or None if it shows a single object without an id.
    """
    files = list_masks(gt_dir, "ground truth")
    if not any(stem in files for stem in stems):
        raise InputError(
            f"{gt_dir}: no mask has the name of a frame (such as {next(iter(files))}.png against "
            f"frame {next(iter(stems), '(none)')}); name masks by frame number, zero-padded alike"
        )
    extra = [stem for stem in files if stem not in set(stems)]
    if extra:
        raise InputError(
            f"{gt_dir}: {len(extra)} masks belong to no frame (such as {extra[0]}.png); name masks "
            "like the frames, or leave these out"
        )
    masks = MaskFolder(files)
    masks.check_size(size)
    return masks.ids
