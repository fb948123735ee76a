"""Does geometry agree with itself? Points of one frame are looked at from other frames.

Pixels with depth are lifted to points and projected into another frame. A point that lands on a
pixel with depth

    agrees       if its depth there is that of the pixel, up to `TOLERANCE`
    is hidden    if it lies behind the pixel's surface, which says nothing
    contradicts  if it lies in front of it: the other frame would have seen it

True geometry has few contradictions, at edges and on things that move. Geometry with wrong axes, a
wrong scale or mixed-up frames puts about as many points before surfaces as behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geometry_fusion.geometry.cameras import IN_FRONT_M
from geometry_fusion.geometry.posed_depth import PosedView

TOLERANCE = 0.1  # relative difference of two depths up to which they agree
POINTS = 400  # of a frame
SURE = 0.3  # pixels with less confidence are not tested
LEAST_LANDED = 200  # points; with fewer there is nothing to say


@dataclass(frozen=True)
class Agreement:
    """Counts over all pairs of frames."""

    tried: int  # points, once for every other frame
    landed: int  # of these, on a pixel with depth
    agreeing: int
    contradicting: int
    miss: float = 0.0  # mean relative difference of depths of the points that agree

    @property
    def worth(self) -> float:
        """For choosing among readings: the right one lets frames see most in common, most exactly.

        Points that agree count by how well, those that contradict count against it.
        """
        good = self.agreeing * (1 - self.miss / TOLERANCE)
        return (good - self.contradicting) / max(1, self.tried)

    @property
    def share(self) -> float:
        """Share of points that agree among those that agree or contradict, 0..1."""
        return self.agreeing / max(1, self.agreeing + self.contradicting)

    @property
    def is_judged(self) -> bool:
        """Whether enough points landed to judge."""
        return self.landed >= LEAST_LANDED


@dataclass(frozen=True)
class Probe:
    """A frame prepared for testing: some of its pixels, and its depth with its neighbourhood."""

    view: PosedView
    directions: np.ndarray  # [3, N] in camera axes, z = 1
    depths: np.ndarray  # [N]
    around: np.ndarray  # [9, h, w] depths of each pixel and its neighbours, 0 = unknown


def probe_of(view: PosedView, seed: int = 0) -> Probe | None:
    """A frame for testing; None where it has no pixel to test."""
    sure = np.where(view.sureness() >= SURE, view.depth, 0).astype(float)
    rows, columns = np.nonzero(sure)
    if not len(rows):
        return None
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(rows))[:POINTS]
    rows, columns = rows[chosen], columns[chosen]
    directions = view.lens.directions(columns.astype(float), rows.astype(float))
    seen = np.isfinite(directions).all(0)
    edged = np.pad(sure, 1)
    height, width = sure.shape
    around = [edged[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    depths = sure[rows, columns][seen]
    return Probe(view, directions[:, seen], depths, np.stack(around)) if seen.any() else None


def agreement(
    probes: Sequence[Probe],
    poses: Sequence[np.ndarray],  # [4, 4] camera to world of each probe
    pairs: Sequence[tuple[int, int]],
    depth_scale: float = 1.0,  # factor on all depths
) -> Agreement:
    """How far the points of the first of each pair agree with the depth of the second."""
    tried = landed = agreeing = contradicting = 0
    missed = 0.0
    inverses = [np.linalg.inv(pose) for pose in poses]
    for one, other in pairs:
        source, target = probes[one], probes[other]
        move = inverses[other] @ poses[one]
        points = source.directions * (source.depths * depth_scale)
        u, v, z = target.view.lens.pixels(move[:3, :3] @ points + move[:3, 3:])
        height, width = target.view.depth.shape
        with np.errstate(invalid="ignore"):
            inside = (z > IN_FRONT_M) & (u > -0.5) & (v > -0.5)
            inside &= (u < width - 0.5) & (v < height - 0.5)
        tried += len(z)
        columns, rows = np.rint(u[inside]).astype(int), np.rint(v[inside]).astype(int)
        near = target.around[:, rows, columns] * depth_scale  # [9, M]
        with np.errstate(divide="ignore"):
            ratios = np.log(z[inside]) - np.log(near)  # infinite where there is no depth
        best = ratios[np.abs(ratios).argmin(0), np.arange(ratios.shape[1])]
        best = best[np.isfinite(best)]
        landed += len(best)
        agrees = np.abs(best) <= TOLERANCE
        agreeing += int(agrees.sum())
        missed += float(np.abs(best[agrees]).sum())
        contradicting += int((best < -TOLERANCE).sum())
    return Agreement(tried, landed, agreeing, contradicting, missed / max(1, agreeing))
