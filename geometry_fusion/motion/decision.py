"""From the evidence of pairs to one decision per object."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geometry_fusion.motion.pairs import PairEvidence
from geometry_fusion.motion.settings import MotionSettings

STRONGEST = 5  # pairs of evidence that a decision shows
UNRELIABLE_SHARE = 0.5  # of an object's pairs, above which the scene itself is not rigid


@dataclass(frozen=True)
class Decision:
    """Whether an object moves; fixed for the whole sequence."""

    object_id: int
    dynamic: bool  # fall back to SAM2 alone
    score: float  # dynamic from 1 on; 0 where nothing is known
    status: str  # "dynamic", "static" or "unknown": too few pairs, which keeps geometry
    evidence: tuple[PairEvidence, ...]  # the strongest pairs
    num_pairs: int


def decision_of(
    object_id: int, pairs: Sequence[PairEvidence], settings: MotionSettings
) -> Decision:
    """The decision by all pairs of one object that may vote."""
    ordered = sorted(pairs, key=lambda p: (-_strength(p, settings), p.first, p.second))
    score = max(
        whole_score(pairs, settings), part_score(pairs, settings), other_score(pairs, settings)
    )
    dynamic = score >= 1
    if not (dynamic or _voting(pairs, settings)):
        score, status = 0.0, "unknown"
    else:
        status = "dynamic" if dynamic else "static"
    return Decision(object_id, dynamic, score, status, tuple(ordered[:STRONGEST]), len(pairs))


def whole_score(pairs: Sequence[PairEvidence], settings: MotionSettings) -> float:
    """At least 1 where, at some gap, enough pairs say that the object as a whole moves."""
    return max(
        (
            _reached([_strength(pair, settings) for pair in group], settings.share)
            for group in _voting(pairs, settings)
        ),
        default=0.0,
    )


def part_score(pairs: Sequence[PairEvidence], settings: MotionSettings) -> float:
    """As `whole_score`, for the part of the object that moves most: a door, an arm."""
    return max(
        (
            _reached([_part_strength(pair, settings) for pair in group], settings.part_share)
            for group in _voting(pairs, settings)
        ),
        default=0.0,
    )


def other_score(pairs: Sequence[PairEvidence], settings: MotionSettings) -> float:
    """At least 1 where a few pairs say that the object moves very far, or where the geometry does
    not explain the background of most pairs: a scene that is not rigid.
    """
    if not pairs:
        return 0.0
    far = sorted((min(p.rho / settings.far_rho, p.z / settings.z) for p in pairs), reverse=True)
    score = far[settings.far_pairs - 1] if len(far) >= settings.far_pairs else 0.0
    bad = [pair.background_px > settings.bad_background_px for pair in pairs]
    unreliable = len(pairs) >= 2 * settings.min_pairs and sum(bad) > UNRELIABLE_SHARE * len(bad)
    return max(score, 1.0) if unreliable else score


def _voting(pairs: Sequence[PairEvidence], settings: MotionSettings) -> list[list[PairEvidence]]:
    """The pairs of each gap that has enough of them."""
    by_gap = [[pair for pair in pairs if pair.gap == gap] for gap in settings.gaps]
    return [group for group in by_gap if len(group) >= settings.min_pairs]


def _strength(pair: PairEvidence, settings: MotionSettings) -> float:
    """At least 1 where a pair is dynamic."""
    return min(pair.z / settings.z, pair.rho / settings.rho)


def _part_strength(pair: PairEvidence, settings: MotionSettings) -> float:
    return min(pair.part_z / settings.z, pair.part_rho / settings.rho)


def _reached(strengths: list[float], share: float) -> float:
    """The strength that this share of the pairs reaches."""
    count = max(1, int(np.ceil(share * len(strengths) - 1e-9)))
    return sorted(strengths, reverse=True)[count - 1]
