"""Measures of video segmentation: the IoU family and DAVIS 2017 J&F, on arrays and on folders of
PNG masks.

    python metrics.py --pred-a DIR --pred-b DIR --gt DIR     two arms and their differences, B - A
    python metrics.py --pred DIR --gt DIR                    one arm

Per frame, `IoU` is 1 if both masks are empty. Over the frames of one object:
    iou            mean over all ground-truth frames
    positive_iou   mean over frames where the object is present; none if it never is
    accuracy       mean over present frames where IoU is not 0; none if there is no such frame
    success_rate   share of all frames with IoU >= threshold
    j, f, jf       DAVIS 2017: mean IoU, mean boundary F and their mean, without the first and the
    last annotated
                   frame; none if fewer than three frames are annotated
A folder with several objects is scored object by object, over all frames of the folder, and
averaged over objects.

Folders: ground truth and predictions are PNGs paired by file stem. Every ground-truth frame counts:
a missing prediction is an empty mask. Predictions without ground truth are not looked at. How the
pixels of a folder are read is the rule of all masks (geometry_fusion/mask_rule.py, docs/data.md);
ids come from the whole ground-truth folder, not from its first frame alone. Void pixels of the
ground truth count in neither mask (as davis2017-evaluation's void_pixels). The ground truth
decides: where it shows one object without an id, any pixel of a prediction that is not 0 is that
object; where only one id is scored, predictions of one object without an id are accepted as well.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.files import check_apart, replacing_file
from geometry_fusion.mask_rule import ONE_OBJECT, VOID_ID, MaskFolder, list_masks, read_mask_pixels
from geometry_fusion.source_record import check_belongs, record_of_masks

MEASURES = ("iou", "positive_iou", "accuracy", "success_rate", "j", "f", "jf")
BOUNDARY_RADIUS = 0.008  # of the image diagonal


@dataclass(frozen=True)
class FrameScore:
    """One object in one frame. `j` of DAVIS is `iou`."""

    iou: float
    boundary_f: float
    present: bool  # in the ground truth


@dataclass(frozen=True)
class Scores:
    """One object over a sequence, or a mean over objects (then the counts are sums and `frame_ious`
    is empty).
    """

    iou: float
    positive_iou: float | None
    accuracy: float | None
    success_rate: float
    j: float | None
    f: float | None
    jf: float | None
    num_frames: int
    num_positive_frames: int
    frame_ious: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class FolderScores:
    """One folder of predictions against one folder of ground truth."""

    objects: dict[int, Scores]  # by object id; a folder with a single object uses ONE_OBJECT
    without_prompted: dict[
        int, Scores
    ]  # without the prompted frames; empty if none was named or none is left
    stems: tuple[str, ...]  # of the ground truth, in order
    missing: tuple[str, ...]  # stems without a prediction, scored as empty masks


def iou(
    pred: np.ndarray,  # [H, W], not 0 = object
    gt: np.ndarray,  # [H, W], not 0 = object
) -> float:
    """Intersection over union, 1 if both are empty."""
    pred, gt = _as_masks(pred, gt)
    union = np.count_nonzero(pred | gt)
    return np.count_nonzero(pred & gt) / union if union else 1.0


def boundary_f(
    pred: np.ndarray,  # [H, W], not 0 = object
    gt: np.ndarray,  # [H, W], not 0 = object
) -> float:
    """F of DAVIS 2017: how far the outlines agree, within a disk of 0.008 of the diagonal.

    1 if neither mask has an outline, 0 if only one has. Like the official code, a mask that fills
    the image has none.
    """
    pred, gt = _as_masks(pred, gt)
    pred_edge, gt_edge = _outline(pred), _outline(gt)
    num_pred, num_gt = np.count_nonzero(pred_edge), np.count_nonzero(gt_edge)
    if not num_pred or not num_gt:
        return float(num_pred == num_gt)

    radius = int(np.ceil(BOUNDARY_RADIUS * np.linalg.norm(gt.shape)))
    offset = np.arange(-radius, radius + 1)
    disk = (offset**2 + offset[:, None] ** 2 <= radius**2).astype(np.uint8)
    # Dilating a large image with a disk is slow, and nothing outside the box around both outlines
    # can match.
    x, y, width, height = cv2.boundingRect((pred_edge | gt_edge).astype(np.uint8))
    box = (slice(y, y + height), slice(x, x + width))
    pred_edge, gt_edge = pred_edge[box], gt_edge[box]
    precision = (
        np.count_nonzero(pred_edge & (cv2.dilate(gt_edge.astype(np.uint8), disk) > 0)) / num_pred
    )
    recall = np.count_nonzero(gt_edge & (cv2.dilate(pred_edge.astype(np.uint8), disk) > 0)) / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score_frame(pred: np.ndarray | None, gt: np.ndarray) -> FrameScore:
    """Score one object in one frame; None for a missing prediction, which counts as empty."""
    pred = np.zeros_like(gt) if pred is None else pred
    return FrameScore(iou(pred, gt), boundary_f(pred, gt), bool(np.any(gt)))


def summarise(
    frames: Sequence[FrameScore], threshold: float = 0.5, skip: Collection[int] = ()
) -> Scores:
    """The measures over one object's frames, all ground-truth frames in order.

    skip: indices left out (prompted frames). The first and last annotated frame of J&F are those of
    the whole sequence.
    """
    _check_threshold(threshold)
    kept = [frame for index, frame in enumerate(frames) if index not in skip]
    if not kept:
        raise ValueError(f"no frames to score: {len(frames)} given, {len(skip)} left out")
    inner = [frame for index, frame in enumerate(frames[:-1]) if index > 0 and index not in skip]
    present = [frame.iou for frame in kept if frame.present]
    j, f = _mean([frame.iou for frame in inner]), _mean([frame.boundary_f for frame in inner])
    return Scores(
        iou=float(np.mean([frame.iou for frame in kept])),
        positive_iou=_mean(present),
        accuracy=_mean([value for value in present if value > 0]),
        success_rate=float(np.mean([frame.iou >= threshold for frame in kept])),
        j=j,
        f=f,
        jf=(j + f) / 2 if inner else None,
        num_frames=len(kept),
        num_positive_frames=len(present),
        frame_ious=tuple(frame.iou for frame in kept),
    )


def score_masks(
    pred: Iterable[
        np.ndarray | None
    ],  # each [H, W], not 0 = object; None = missing, counts as empty
    gt: Iterable[np.ndarray],  # each [H, W], not 0 = object
    threshold: float = 0.5,
    skip: Collection[int] = (),
) -> Scores:
    """Score one object over a sequence; `skip` holds the indices of frames to leave out, such as
    the prompted one.
    """
    return summarise([score_frame(p, g) for p, g in zip(pred, gt, strict=True)], threshold, skip)


def mean_scores(objects: Collection[Scores]) -> Scores:
    """Mean over objects; an object without a measure does not take part in that measure's mean."""
    means = {
        name: _mean([getattr(s, name) for s in objects if getattr(s, name) is not None])
        for name in MEASURES
    }
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
    """Percentile interval of the mean over objects, from `draws` resamplings with replacement.

    Raises ValueError for fewer than two values: how much objects vary cannot be seen on one.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs two finite values or more, got {values}")
    rng = np.random.default_rng(seed)
    parts = np.array_split(
        np.arange(draws), 100
    )  # bounds memory: draws x values would be large for a large test set
    means = np.concatenate(
        [values[rng.integers(values.size, size=(len(p), values.size))].mean(axis=1) for p in parts]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_folders(
    pred_dir: Path | str,
    gt_dir: Path | str,
    threshold: float = 0.5,
    prompted: Collection[str] = (),  # stems; those without ground truth are not scored anyway
    objects: Collection[int] | None = None,  # ids; None = all of the ground truth
) -> FolderScores:
    """Score a folder of predicted masks, paired by stem; the module docstring says how masks are
    read.

    Raises InputError for missing or unreadable files, folders that do not pair, differing sizes and
    unknown ids.
    """
    _check_threshold(threshold)
    gt_files, pred_files = list_masks(gt_dir, "ground truth"), list_masks(pred_dir, "predictions")
    stems = tuple(gt_files)
    if not any(stem in pred_files for stem in stems):
        raise InputError(
            f"{pred_dir}: no prediction has the name of a ground-truth mask (such as "
            f"{next(iter(pred_files))}.png "
            f"against {stems[0]}.png in {gt_dir}); name both by frame number, zero-padded alike"
        )
    missing = tuple(stem for stem in stems if stem not in pred_files)

    truth = MaskFolder(gt_files)
    wanted = _chosen_ids(truth.ids, objects, gt_dir)
    predictions = _Predictions(
        {stem: pred_files[stem] for stem in stems if stem in pred_files}, truth.ids
    )
    if len(wanted) > 1 and not predictions.has_ids:
        raise InputError(
            f"{pred_dir}: masks of one object, but {gt_dir} holds objects "
            f"{', '.join(map(str, wanted))}; "
            f"write palette PNGs (index = object id) or choose one with --object {wanted[0]}"
        )
    frames: dict[int, list[FrameScore]] = {object_id: [] for object_id in wanted}
    size = None
    for stem in stems:
        gt = truth.read(stem)
        size = size or gt.shape
        if gt.shape != size:
            raise InputError(
                f"{gt_files[stem]}: mask is {gt.shape[1]}x{gt.shape[0]}, "
                f"{gt_files[stems[0]].name} is "
                f"{size[1]}x{size[0]}; masks of one video have one size, export them again"
            )
        pred = predictions.read(stem) if stem in predictions.files else np.zeros_like(gt)
        if pred.shape != gt.shape:
            sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (pred, gt)]
            raise InputError(
                f"{pred_files[stem]}: mask is {sizes[0]}, the ground truth {gt_files[stem]} is "
                f"{sizes[1]} "
                "(width x height); export masks at the size of the original frames"
            )
        for object_id, scored in frames.items():
            pred_mask = pred == object_id if predictions.has_ids else pred != 0
            scored.append(score_frame(pred_mask & (gt != VOID_ID), gt == object_id))

    skip = {stems.index(stem) for stem in prompted if stem in gt_files}
    partly = len(prompted) > 0 and len(skip) < len(stems)
    return FolderScores(
        objects={i: summarise(scored, threshold) for i, scored in frames.items()},
        without_prompted={i: summarise(scored, threshold, skip) for i, scored in frames.items()}
        if partly
        else {},
        stems=stems,
        missing=missing,
    )


def _chosen_ids(
    ids: list[int] | None, objects: Collection[int] | None, gt_dir: Path | str
) -> list[int]:
    """The ids to score: `objects`, or all that the ground truth has. Raises InputError for
    others.
    """
    known = ids or [ONE_OBJECT]
    if objects is None:
        return known
    unknown = [i for i in objects if i not in known]
    if unknown or not objects:
        listed = ", ".join(map(str, known))
        raise InputError(
            f"--object {(unknown or ['(none)'])[0]}: not in {gt_dir}, which holds {listed}"
        )
    return sorted(objects)


class _Predictions:
    """Predicted masks, read as the ids of the ground truth (None: one object without an id) ask
    for.
    """

    def __init__(self, files: Mapping[str, Path], gt_ids: list[int] | None):
        self.files = dict(files)
        # A single object is any pixel that is not 0, whatever ids the predictions have.
        self._masks = MaskFolder(files) if gt_ids is not None else None
        # A lone 1 is an id where the ground truth has several.
        lone = (
            self._masks is not None and self._masks.rule.values <= {ONE_OBJECT} and len(gt_ids) > 1
        )
        self.has_ids = self._masks is not None and (self._masks.ids is not None or lone)

    def read(self, stem: str) -> np.ndarray:
        """[H, W] ids if `has_ids`, else not 0 = object."""
        return (
            read_mask_pixels(self.files[stem]).values
            if self._masks is None
            else self._masks.read(stem)
        )


def check_ground_truth(
    gt_dir: Path | str,
    stems: Collection[str],  # of the frames that will be segmented
    size: tuple[int, int],  # (width, height) of these frames
) -> list[int] | None:
    """Raise InputError now for ground truth that `score_folders` would refuse after minutes of
    tracking.

    Returns the object ids, or None if it shows a single object without an id.
    """
    files = list_masks(gt_dir, "ground truth")
    if not any(stem in files for stem in stems):
        raise InputError(
            f"{gt_dir}: no mask has the name of a frame (such as {next(iter(files))}.png against "
            "frame "
            f"{next(iter(stems), '(none)')}); name masks by frame number, zero-padded alike"
        )
    extra = [stem for stem in files if stem not in set(stems)]
    if extra:
        raise InputError(
            f"{gt_dir}: {len(extra)} masks belong to no frame (such as {extra[0]}.png); name "
            "masks like the frames, "
            "or leave these out"
        )
    masks = MaskFolder(files)
    masks.check_size(size)
    return masks.ids


def score_table(arms: Mapping[str, Mapping[int, Scores]]) -> str:
    """A text table: measures down, arms across, and with two arms their difference (second minus
    first).

    With more than one object each number carries its bootstrap 95% interval over objects. The
    difference is paired: the mean over the objects for which both arms have the measure.
    """
    columns = {
        name: {m: _cell(_values(objects.values(), m)) for m in MEASURES}
        for name, objects in arms.items()
    }
    if len(arms) == 2:
        differences = score_differences(*arms.values())
        columns[" - ".join(reversed(arms))] = {
            m: _cell(differences[m], signed=True) for m in MEASURES
        }
    widths = [max(len(text) for text in (name, *cells.values())) for name, cells in columns.items()]
    head = ["", *columns]
    rows = [
        head,
        *([measure, *(cells[measure] for cells in columns.values())] for measure in MEASURES),
    ]
    return "\n".join(
        f"{row[0]:<14}"
        + "  ".join(f"{text:>{width}}" for text, width in zip(row[1:], widths, strict=True))
        for row in rows
    )


def score_differences(a: Mapping[int, Scores], b: Mapping[int, Scores]) -> dict[str, list[float]]:
    """Per measure, B - A of each object for which both arms have it."""
    pairs = {m: [(getattr(a[i], m), getattr(b[i], m)) for i in a] for m in MEASURES}
    return {
        m: [vb - va for va, vb in both if va is not None and vb is not None]
        for m, both in pairs.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parse(arguments)
    if args.pred and not (args.pred_a or args.pred_b):
        folders = {"pred": args.pred}
    elif args.pred_a and args.pred_b and not args.pred:
        folders = {"A": args.pred_a, "B": args.pred_b}
    else:
        raise InputError("give either --pred DIR or both --pred-a DIR and --pred-b DIR")
    _check_threshold(args.threshold)
    if args.json:
        _check_report_file(args.json, [args.gt, *folders.values()])
    if truth := record_of_masks(args.gt):
        for folder in folders.values():
            check_belongs(folder, truth, "predictions in")
    unknown = [
        stem for stem in args.prompted if stem not in (stems := list_masks(args.gt, "ground truth"))
    ]
    if unknown:
        raise InputError(
            f"--prompted {unknown[0]}: no such mask in {args.gt}; name a frame such as "
            f"{next(iter(stems))}"
        )
    arms = {
        name: score_folders(folder, args.gt, args.threshold, args.prompted, args.object)
        for name, folder in folders.items()
    }

    scores = next(iter(arms.values()))
    total = mean_scores(scores.objects.values())
    plural = "" if len(scores.objects) == 1 else "s"
    print(
        f"{len(scores.stems)} frames, {len(scores.objects)} object{plural}, ground truth {args.gt}"
    )
    print(
        f"present in {total.num_positive_frames} of {total.num_frames} masks, success at IoU >= "
        f"{args.threshold:g}"
    )
    for name, arm in arms.items():
        print(
            f"{name}: {folders[name]}"
            + (f" ({len(arm.missing)} missing, counted as empty)" if arm.missing else "")
        )
    if plural:
        print("mean over objects [bootstrap 95% interval over objects]")
    print("\n" + score_table({name: arm.objects for name, arm in arms.items()}))
    if scores.without_prompted:
        left = len(scores.stems) - len(set(args.prompted))
        print(f"\nwithout the prompted frames ({', '.join(args.prompted)}), {left} frames left:")
        print(score_table({name: arm.without_prompted for name, arm in arms.items()}))
    elif args.prompted:
        print("\nwithout the prompted frames no frame is left")
    if args.json:
        with replacing_file(args.json) as fresh:
            fresh.write_text(json.dumps(_report(arms, folders, args), indent=1))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(description="Score folders of PNG masks: IoU family and DAVIS J&F.")
    add = parser.add_argument
    add(
        "--gt",
        type=Path,
        required=True,
        metavar="DIR",
        help="ground-truth masks, PNG, paired with predictions by stem",
    )
    add("--pred", type=Path, default=None, metavar="DIR", help="predicted masks, to score one arm")
    add(
        "--pred-a",
        type=Path,
        default=None,
        metavar="DIR",
        help="predicted masks of arm A, with --pred-b",
    )
    add(
        "--pred-b",
        type=Path,
        default=None,
        metavar="DIR",
        help="predicted masks of arm B, with --pred-a",
    )
    add(
        "--threshold",
        type=float,
        default=0.5,
        metavar="IOU",
        help="success counts frames with at least this IoU (default %(default)s)",
    )
    add(
        "--prompted",
        nargs="+",
        default=[],
        metavar="STEM",
        help="prompted frames (0000): adds a table without them",
    )
    add(
        "--object",
        type=int,
        nargs="+",
        default=None,
        metavar="ID",
        help="score only these object ids (default: all)",
    )
    add(
        "--json",
        type=Path,
        default=None,
        metavar="FILE",
        help="also write everything, per object and frame, here",
    )
    return parser.parse_args(arguments)


def _check_report_file(file: Path, inputs: Sequence[Path]) -> None:
    """Refuse to replace anything but an earlier report."""
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
    """What --json writes: means, intervals, every object with its per-frame IoUs, and the
    differences.
    """

    def group(objects: Mapping[int, Scores]) -> dict:
        intervals = {m: interval(_values(objects.values(), m)) for m in MEASURES}
        mean = {
            key: value
            for key, value in asdict(mean_scores(objects.values())).items()
            if key != "frame_ious"
        }
        return {
            "mean": mean,
            "interval": intervals,
            "objects": {i: asdict(s) for i, s in objects.items()},
        }

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
            **group(arm.objects),
        }
        if arm.without_prompted:
            report["arms"][name]["without_prompted"] = group(arm.without_prompted)
    if len(arms) == 2:
        differences = score_differences(*(arm.objects for arm in arms.values()))
        report["difference"] = {
            m: {"mean": _mean(v), "interval": interval(v)} for m, v in differences.items()
        }
    return report


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise InputError(
            f"threshold {threshold}: success counts IoU >= threshold; give a number from 0 to 1"
        )


def _values(objects: Iterable[Scores], measure: str) -> list[float]:
    return [value for scores in objects if (value := getattr(scores, measure)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The bootstrap interval of several values; None of one, which has none."""
    return bootstrap_interval(values) if len(values) > 1 else None


def _cell(values: Sequence[float], signed: bool = False) -> str:
    if not values:
        return "none"
    sign = "+" if signed else ""
    limits = interval(values)
    return f"{_mean(values):{sign}.4f}" + (
        f" [{limits[0]:{sign}.4f}, {limits[1]:{sign}.4f}]" if limits else ""
    )


def _as_masks(pred: np.ndarray, gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pred, gt = np.asarray(pred) != 0, np.asarray(gt) != 0
    if pred.shape != gt.shape or gt.ndim != 2:
        raise ValueError(
            f"masks must be [H, W] and of one size: prediction {pred.shape}, ground truth "
            f"{gt.shape}"
        )
    return pred, gt


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour; DAVIS's `_seg2bmap` at
    full size.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")  # the image border is no outline
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


if __name__ == "__main__":
    sys.exit(run_cli(main))
