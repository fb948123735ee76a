"""Measures of one object in one frame: IoU, and the boundary F of DAVIS 2017."""

from dataclasses import dataclass

import cv2
import numpy as np

BOUNDARY_RADIUS = 0.008  # of the image diagonal


@dataclass(frozen=True)
class FrameScore:
    """Scores of one object in one frame. DAVIS calls the IoU `j`."""

    iou: float  # 0..1
    boundary_f: float  # 0..1
    present: bool  # whether the ground truth shows the object


def iou(
    pred: np.ndarray,  # [H, W], not 0 = object
    gt: np.ndarray,  # [H, W], not 0 = object
) -> float:
    """Intersection over union, 0..1; 1 if both masks are empty."""
    pred, gt = _as_masks(pred, gt)
    union = np.count_nonzero(pred | gt)
    return np.count_nonzero(pred & gt) / union if union else 1.0


def boundary_f(
    pred: np.ndarray,  # [H, W], not 0 = object
    gt: np.ndarray,  # [H, W], not 0 = object
) -> float:
    """Boundary F of DAVIS 2017, 0..1: how well the outlines agree.

    The harmonic mean of precision and recall of outline pixels, which match within a radius of
    0.008 of the image diagonal. 1 if neither mask has an outline, 0 if only one has. As in the
    official code, a mask that fills the image has none.
    """
    pred, gt = _as_masks(pred, gt)
    pred_edge, gt_edge = _outline(pred), _outline(gt)
    num_pred, num_gt = np.count_nonzero(pred_edge), np.count_nonzero(gt_edge)
    if not num_pred or not num_gt:
        return float(num_pred == num_gt)

    radius = int(np.ceil(BOUNDARY_RADIUS * np.linalg.norm(gt.shape)))
    offset = np.arange(-radius, radius + 1)
    disk = (offset**2 + offset[:, None] ** 2 <= radius**2).astype(np.uint8)
    # Dilation is slow on large images, and nothing outside the box around both outlines can match.
    x, y, width, height = cv2.boundingRect((pred_edge | gt_edge).astype(np.uint8))
    box = (slice(y, y + height), slice(x, x + width))
    pred_edge, gt_edge = pred_edge[box], gt_edge[box]
    near_gt = cv2.dilate(gt_edge.astype(np.uint8), disk) > 0
    near_pred = cv2.dilate(pred_edge.astype(np.uint8), disk) > 0
    precision = np.count_nonzero(pred_edge & near_gt) / num_pred
    recall = np.count_nonzero(gt_edge & near_pred) / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score_frame(pred: np.ndarray | None, gt: np.ndarray) -> FrameScore:
    """Score one object in one frame; masks [H, W], not 0 = object.

    pred: None for a missing prediction, which counts as empty.
    """
    pred = np.zeros_like(gt) if pred is None else pred
    return FrameScore(iou(pred, gt), boundary_f(pred, gt), bool(np.any(gt)))


def _as_masks(pred: np.ndarray, gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as bool. Raises ValueError unless they are [H, W] and of one size."""
    pred, gt = np.asarray(pred) != 0, np.asarray(gt) != 0
    if pred.shape != gt.shape or gt.ndim != 2:
        raise ValueError(
            f"masks must be [H, W] and of one size: prediction {pred.shape}, ground truth "
            f"{gt.shape}"
        )
    return pred, gt


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour.

    As `_seg2bmap` of DAVIS at full size.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")  # the image border is no outline
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])
