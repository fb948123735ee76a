"""Which photos show the same places, by their 3D points."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch

from geometry_fusion.photos.similarity import shortlists
from geometry_fusion.tracking.memories.views import LEAST_CONFIDENCE, View, with_camera
from geometry_fusion.types import GeometryFrame

POINTS = 512  # of each photo, at most
ALL_PAIRS = 200  # photos up to which every pair is compared; above, the most similar ones
GUESS = 0.25  # share of the similarity that counts as overlap where geometry is unsure


@dataclass(frozen=True)
class Shown:
    """What is known of one photo's geometry."""

    confidence: float  # median over the photo, 0..1
    view: View | None  # None where it is too unsure, or the source knows no cameras


def shown_by(geometry: GeometryFrame) -> Shown:
    """A photo's geometry, without its unsure points."""
    known = geometry.confidence[geometry.confidence > 0]
    median = float(known.median()) if len(known) else 0.0
    if geometry.camera is None or median <= LEAST_CONFIDENCE:
        return Shown(median, None)
    sure = torch.where(geometry.confidence > LEAST_CONFIDENCE, geometry.confidence, 0)
    return Shown(median, with_camera(replace(geometry, confidence=sure)))


def points_of(view: View, most: int = POINTS) -> np.ndarray:
    """World points [N, 3] of a view, evenly thinned."""
    points = view.cells.points[view.cells.known]
    if len(points) > most:
        points = points[np.linspace(0, len(points) - 1, most).astype(int)]
    return points


def overlap(one: View, other: View) -> float:
    """O(one -> other): the share of one's points that the other shows, 0..1."""
    return other.shows(points_of(one))


def harmonic(a: float, b: float) -> float:
    """The harmonic mean of two shares; 0 if one is 0."""
    return 2 * a * b / (a + b) if a and b else 0.0


def overlaps(shown: Sequence[Shown], similarity: np.ndarray) -> np.ndarray:
    """w [n, n], 0..1 and symmetric: the harmonic mean of the overlaps in both directions, or, where
    a photo's geometry is unsure, `GUESS` of the similarity.
    """
    count = len(shown)
    weights = GUESS * similarity
    pairs = combinations(range(count), 2) if count <= ALL_PAIRS else shortlists(similarity)
    points = [None if s.view is None else points_of(s.view) for s in shown]
    for i, j in pairs:
        one, other = shown[i].view, shown[j].view
        if one is None or other is None:
            continue
        there, back = other.shows(points[i]), one.shows(points[j])
        weights[i, j] = weights[j, i] = harmonic(there, back)
    np.fill_diagonal(weights, 1)
    return weights


def of_nodes(weights: np.ndarray, standing: Sequence[int]) -> np.ndarray:
    """Weights [n, n] in which near-duplicates have the edges of the photo that stands for them, and
    weight 1 to each other.
    """
    shared = weights[np.ix_(standing, standing)].copy()
    same = np.equal.outer(standing, standing)
    return np.where(same, 1.0, shared)


def visibility(points: np.ndarray, shown: Sequence[Shown]) -> tuple[np.ndarray, np.ndarray]:
    """Of an object's world points [N, 3], by photo: the share that it shows (o), and the share that
    lies inside its image, hidden or not (f). Each [n]; NaN where nothing is known.
    """
    unknown = (np.nan, np.nan)
    shares = [
        (s.view.shows(points), s.view.frames(points)) if s.view and len(points) else unknown
        for s in shown
    ]
    seen, framed = np.array(shares).T
    return seen, framed
