"""Motion over a gap against the motion from frame to frame inside it."""

from collections.abc import Mapping
from dataclasses import replace

from geometry_fusion.motion.pairs import PairEvidence


def bounded_by_path(
    pairs: Mapping[tuple[int, int], PairEvidence],  # of one object, by first and second frame
    stride: int,  # first frames of measured pairs are multiples of it
) -> list[PairEvidence]:
    """The pairs in order, those over a gap with at most the motion of the way between.

    The way is never shorter than the straight line. Over a gap, flow may follow what passes in
    front of a still object, and errors of depth have grown: from frame to frame both are small.
    Pairs over a gap in which a step could not be measured are left out. Where the clip is thinned
    out, steps are not measured at all, and nothing is bounded.
    """
    kept = []
    for first, second in sorted(pairs):
        pair = pairs[first, second]
        if pair.gap == 1 or stride > 1:
            kept.append(pair)
            continue
        steps = [pairs.get((index, index + 1)) for index in range(first, second)]
        if all(steps):
            way = sum(step.rho for step in steps)
            part_way = sum(step.part_rho for step in steps)
            kept.append(_shortened(pair, way, part_way))
    return kept


def _shortened(pair: PairEvidence, way: float, part_way: float) -> PairEvidence:
    """A pair with motion of at most `way` object sizes, its part of at most `part_way`."""
    share = min(1.0, way / max(pair.rho, 1e-9))
    part_share = min(1.0, part_way / max(pair.part_rho, 1e-9))
    return replace(
        pair,
        z=pair.z * share,
        rho=pair.rho * share,
        part_z=pair.part_z * part_share,
        part_rho=pair.part_rho * part_share,
    )
