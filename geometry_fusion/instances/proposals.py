"""Proposals on a keyframe: which masks of a generator stand for things that open a track."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.tracks import Runs, areas_of, encoded, intersections

LEAST_DEPTHS = 5  # pixels with depth, from which a depth range is trusted


@dataclass(frozen=True)
class Proposal:
    """A mask that may be a thing."""

    mask: np.ndarray  # [H, W] bool
    score: float = 1.0  # predicted IoU, 0..1


def kept_proposals(
    proposals: Sequence[Proposal], depth: np.ndarray | None, settings: InstanceSettings
) -> list[Proposal]:
    """The proposals without specks, without masks of most of the image, and without groups of
    things, smallest first.

    depth: [H, W] of the picture, 0 = unknown; None: groups cannot be recognised and stay. A mask is
    a group if smaller accepted masks cover `nested_cover` of it, and its depth spans more than
    `nested_step` times the median span of theirs.
    """
    kept: list[Proposal] = []
    for proposal in sorted(proposals, key=lambda p: (int(p.mask.sum()), p.mask.tobytes())):
        area = proposal.mask.mean()
        if settings.least_area <= area <= settings.most_area and not (
            depth is not None and _is_group(proposal.mask, kept, depth, settings)
        ):
            kept.append(proposal)
    return kept


def _is_group(
    mask: np.ndarray, smaller: list[Proposal], depth: np.ndarray, settings: InstanceSettings
) -> bool:
    parts = [p.mask for p in smaller if (p.mask & mask).sum() > 0.5 * p.mask.sum()]
    if not parts:
        return False
    covered = np.logical_or.reduce(parts) & mask
    if covered.sum() < settings.nested_cover * mask.sum():
        return False
    spans = [span for part in parts if (span := _depth_span(part, depth)) is not None]
    whole = _depth_span(mask, depth)
    return bool(spans) and whole is not None and whole > settings.nested_step * np.median(spans)


def _depth_span(mask: np.ndarray, depth: np.ndarray) -> float | None:
    """Depth between the 5th and the 95th percentile; None where too little is known."""
    known = depth[mask & (depth > 0)]
    if len(known) < LEAST_DEPTHS:
        return None
    low, high = np.percentile(known, [5, 95])
    return float(high - low)


def new_proposals(
    proposals: Sequence[Proposal], running: Sequence[Runs], settings: InstanceSettings
) -> list[Proposal]:
    """The proposals that no running track explains.

    running: masks of the tracks in this frame. A track explains a proposal by IoU, or by precision
    and recall.
    """
    if not proposals or not running:
        return list(proposals)
    masks = [encoded(proposal.mask) for proposal in proposals]
    shared = intersections(masks, running)
    areas, others = areas_of(masks)[:, None], areas_of(running)[None]
    explained = shared / (areas + others - shared) >= settings.explained_iou
    explained |= np.minimum(shared / areas, shared / others) >= settings.explained_share
    return [p for p, known in zip(proposals, explained.any(axis=1)) if not known]
