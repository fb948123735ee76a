"""Measures of video segmentation over the frames of one object, and means over objects.

The IoU of a frame is 1 if both masks are empty. Over the frames of one object:

    iou            mean over all ground-truth frames
    positive_iou   mean over frames where the object is present; None if it never is
    accuracy       mean over present frames where IoU is not 0; None if there is no such frame
    success_rate   share of all frames with IoU >= threshold
    j, f, jf       DAVIS 2017: mean IoU, mean boundary F and their mean, without the first and the
                   last annotated frame; None if fewer than three frames are annotated

A folder with several objects is scored object by object, over all frames of the folder, and
averaged over objects.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.measure.masks import FrameScore, score_frame

MEASURES = ("iou", "positive_iou", "accuracy", "success_rate", "j", "f", "jf")


@dataclass(frozen=True)
class Scores:
    """Scores of one object over a sequence, or their mean over objects; see the module.

    In a mean, the counts are sums and `frame_ious` is empty.
    """

    iou: float
    positive_iou: float | None
    accuracy: float | None
    success_rate: float
    j: float | None
    f: float | None
    jf: float | None
    num_frames: int
    num_positive_frames: int  # frames where the object is present
    frame_ious: tuple[float, ...] = field(default=(), repr=False)


def summarise(
    frames: Sequence[FrameScore], threshold: float = 0.5, skip: Collection[int] = ()
) -> Scores:
    """The measures over the frames of one object: all ground-truth frames in order.

    threshold: IoU from which a frame is a success. skip: indices of frames to leave out, such as
    prompted ones; the first and the last annotated frame, which J&F leaves out, are those of the
    whole sequence all the same. Raises InputError for a threshold outside 0..1, and ValueError if
    no frame is left.
    """
    check_threshold(threshold)
    kept = [frame for index, frame in enumerate(frames) if index not in skip]
    if not kept:
        raise ValueError(f"no frames to score: {len(frames)} given, {len(skip)} left out")
    inner = [frame for index, frame in enumerate(frames[:-1]) if index > 0 and index not in skip]
    present = [frame.iou for frame in kept if frame.present]
    j = mean_of([frame.iou for frame in inner])
    f = mean_of([frame.boundary_f for frame in inner])
    return Scores(
        iou=float(np.mean([frame.iou for frame in kept])),
        positive_iou=mean_of(present),
        accuracy=mean_of([value for value in present if value > 0]),
        success_rate=float(np.mean([frame.iou >= threshold for frame in kept])),
        j=j,
        f=f,
        jf=(j + f) / 2 if inner else None,
        num_frames=len(kept),
        num_positive_frames=len(present),
        frame_ious=tuple(frame.iou for frame in kept),
    )


def score_masks(
    pred: Iterable[np.ndarray | None],  # each [H, W], not 0 = object; None is an empty mask
    gt: Iterable[np.ndarray],  # each [H, W], not 0 = object
    threshold: float = 0.5,
    skip: Collection[int] = (),
) -> Scores:
    """Score one object over a sequence. threshold, skip, errors: as in `summarise`."""
    return summarise([score_frame(p, g) for p, g in zip(pred, gt, strict=True)], threshold, skip)


def mean_scores(objects: Collection[Scores]) -> Scores:
    """Mean over objects. An object without a measure is left out of that measure's mean."""
    means = {name: mean_of(values_of(objects, name)) for name in MEASURES}
    return Scores(
        **means,
        num_frames=sum(scores.num_frames for scores in objects),
        num_positive_frames=sum(scores.num_positive_frames for scores in objects),
    )


def bootstrap_interval(
    values: Sequence[float],  # one per object
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval (low, high) of the mean over objects, by percentiles.

    level: the share of resampled means inside it. draws: how often objects are resampled with
    replacement. Raises ValueError for fewer than two values, which show no variation.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs two finite values or more, got {values}")
    rng = np.random.default_rng(seed)
    means = []
    # In 100 parts, because draws x values numbers take much memory for a large test set.
    for part in np.array_split(np.arange(draws), 100):
        chosen = rng.integers(values.size, size=(len(part), values.size))
        means.append(values[chosen].mean(axis=1))
    means = np.concatenate(means)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def check_threshold(threshold: float) -> None:
    """Raise InputError for a success threshold outside 0..1."""
    if not 0 <= threshold <= 1:
        raise InputError(
            f"threshold {threshold}: success counts IoU >= threshold; give a number from 0 to 1"
        )


def values_of(objects: Iterable[Scores], measure: str) -> list[float]:
    """One measure of all objects that have it."""
    return [value for scores in objects if (value := getattr(scores, measure)) is not None]


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None of no values."""
    return float(np.mean(values)) if len(values) else None


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The bootstrap interval of several values; None of a single one, or of none."""
    return bootstrap_interval(values) if len(values) > 1 else None
