"""How much each object moved between two frames, against what surrounds it."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from geometry_fusion.motion import epipolar, rigid
from geometry_fusion.motion.flow import PairFlow, inside, pixel_grid, sampled, targets_of
from geometry_fusion.motion.settings import MotionSettings
from geometry_fusion.motion.views import MotionView

Flows = Callable[[MotionView, MotionView], tuple[PairFlow, PairFlow]]

EDGE_PX = 2  # flow mixes object and background on both sides of an edge
RING_SHARE = 0.25  # width of the ring around an object, in object sizes
LEAST_RING = 64  # pixels
MOST_PIXELS = 1500  # of an object or its surroundings; of more, evenly spread ones are measured


@dataclass(frozen=True)
class PairEvidence:
    """What two frames say about one object."""

    first: int
    second: int
    z: float  # motion over the spread of the surroundings
    rho: float  # motion in object sizes
    part_z: float  # the same of the part that moves most
    part_rho: float
    model: str  # rigid, epipolar or homography
    background_px: float  # median residual of the background by the rigid model; NaN without one

    @property
    def gap(self) -> int:
        """Frames between the two."""
        return self.second - self.first


class _Direction:
    """From one frame to the other: flow, where it is sound, and the motion of the camera."""

    def __init__(
        self, view: MotionView, other: MotionView, flow: PairFlow, settings: MotionSettings
    ):
        self.view, self.other, self.settings = view, other, settings
        self.valid, self.targets = flow.valid, flow.targets
        self.background_px, self.model, self._motion = np.nan, None, None
        background = self.valid & (view.ids == 0)
        if background.sum() < 0.25 * self.valid.sum():
            background = self.valid
        sparse = np.zeros_like(background)
        sparse[:: rigid.STEP, :: rigid.STEP] = True
        self._fit_camera(background & sparse)
        if self._motion is None:
            chosen = background & sparse
            pixels = pixel_grid(*chosen.shape)[chosen]
            self.model = epipolar.estimated(pixels, self.targets[chosen])

    def _fit_camera(self, chosen: np.ndarray) -> None:
        """The rigid model, where there is geometry and it explains the background."""
        depth, settings = self.view.depth, self.settings
        if depth is None or self.other.depth is None:
            return
        known = chosen & depth.known
        if known.sum() < rigid.LEAST:
            return
        points, targets = depth.points[known], self.targets[known]
        focal, centre = self.other.depth.focal, self.other.centre
        if settings.ego == "pose":
            motion = rigid.of_poses(depth, self.other.depth)
            errors = targets - rigid.projected(motion(points), focal, centre)
            self.background_px = float(np.nanmedian(np.linalg.norm(errors, axis=1)))
        else:
            motion, self.background_px = rigid.fitted(points, targets, focal, centre)
        if self.background_px <= settings.bad_background_px:
            self._motion = motion

    @property
    def name(self) -> str | None:
        """The model's name; None where there is none."""
        if self._motion is not None:
            return "rigid"
        return self.model.name if self.model else None

    def usable(self) -> np.ndarray:
        """Pixels, bool [H, W], with a sound flow and all that the model needs."""
        return self.valid & self.view.depth.known if self._motion is not None else self.valid

    def residuals(self, chosen: np.ndarray, shift: np.ndarray, tolerance: float) -> np.ndarray:
        """Observed minus expected pixels [N, 2 or 1] of the chosen ones.

        shift [2 or 1]: residual of the surroundings, which is taken off.
        """
        observed = self.targets[chosen]
        if self._motion is None:
            return self.model.residuals(pixel_grid(*chosen.shape)[chosen], observed) - shift
        points = self.view.depth.points[chosen]
        focal, centre = self.other.depth.focal, self.other.centre
        return rigid.residuals_to(observed - shift, points, self._motion, focal, centre, tolerance)

    def hidden(self, chosen: np.ndarray, object_id: int) -> np.ndarray:
        """Which of the chosen pixels, bool [N], another thing hides where they are expected."""
        if self._motion is None:
            return np.zeros(int(chosen.sum()), bool)
        moved = self._motion(self.view.depth.points[chosen])
        expected = rigid.projected(moved, self.other.depth.focal, self.other.centre)
        within = inside(expected, *chosen.shape)
        x, y = np.where(within[:, None], expected, 0).round().astype(int).T
        seen = self.other.depth.points[y, x, 2]
        # Where the object itself is now, a smaller depth is motion towards the camera.
        others = within & (self.other.ids[y, x] != object_id) & (seen > 0)
        return others & (moved[:, 2] > self.settings.occluded * seen)


def _moved(direction: _Direction, object_id: int) -> tuple[float, float, float, float] | None:
    """(z, rho, z of the part, rho of the part) of an object; None where too little is seen."""
    settings = direction.settings
    mask = (direction.view.ids == object_id).astype(np.uint8)
    area = int(mask.sum())
    if area < settings.min_pixels or direction.name is None:
        return None
    inner = _grown(mask, -EDGE_PX)
    usable = direction.usable()
    chosen = (inner if inner.sum() >= settings.min_pixels else mask).astype(bool) & usable
    chosen[chosen] = ~direction.hidden(chosen, object_id)
    if chosen.sum() < settings.min_pixels:
        return None
    ring = _ring(mask, area) & usable & (direction.view.ids == 0)
    if ring.sum() < LEAST_RING:
        ring = usable & (direction.view.ids == 0)
    if ring.sum() < LEAST_RING:
        return None
    chosen, ring = _thinned(chosen), _thinned(ring)
    none = np.zeros(1)
    local = np.nanmedian(direction.residuals(ring, none, 0.0), axis=0)
    best = None
    # Motion must stand out against the whole background as well: a ring on something that moves
    # itself would make a still object move.
    for shift in (local, none):
        around = _lengths(direction.residuals(ring, shift, settings.depth_tolerance))
        lengths = _lengths(direction.residuals(chosen, shift, settings.depth_tolerance))
        spread = 1.4826 * float(np.median(around)) + settings.flow_error_px
        whole = float(np.median(lengths))
        part = float(np.percentile(lengths, settings.part_percentile))
        size = np.sqrt(area)
        measures = (whole / spread, whole / size, part / spread, part / size)
        best = measures if best is None else tuple(map(min, best, measures))
    return best


def _thinned(chosen: np.ndarray) -> np.ndarray:
    """At most `MOST_PIXELS` of the chosen pixels, bool [H, W]."""
    places = np.flatnonzero(chosen)
    thin = np.zeros(chosen.size, bool)
    thin[places[:: -(-len(places) // MOST_PIXELS) or 1]] = True
    return thin.reshape(chosen.shape)


def _lengths(residuals: np.ndarray) -> np.ndarray:
    """Lengths [N] of residuals; very large where a point is behind the camera."""
    return np.nan_to_num(np.linalg.norm(residuals, axis=1), nan=1e3, posinf=1e3)


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask grown by some pixels, or shrunk by -pixels."""
    side = 2 * abs(pixels) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate(mask, kernel) if pixels > 0 else cv2.erode(mask, kernel)


def _ring(mask: np.ndarray, area: int) -> np.ndarray:
    """The surroundings of a mask, bool [H, W]."""
    width = max(EDGE_PX + 2, round(RING_SHARE * np.sqrt(area)))
    return (_grown(mask, width) > 0) & (_grown(mask, EDGE_PX) == 0)


def continuous(first: np.ndarray, second: np.ndarray, back: np.ndarray, least: float) -> bool:
    """Whether a mask, moved by the flow, overlaps the other mask [H, W] bool.

    back: flow from the second frame to the first. A mask that jumps to another object fails.
    """
    at = targets_of(back)
    seen = inside(at, *second.shape)
    moved = sampled(first.astype(np.uint8), at, nearest=True) > 0
    union = ((moved | second) & seen).sum()
    return bool(union) and (moved & second & seen).sum() >= least * union


def measure_pair(
    first: MotionView, second: MotionView, settings: MotionSettings, flows: Flows
) -> dict[int, PairEvidence]:
    """Evidence of the objects that both frames show, by id; those that cannot vote are left out.

    Both directions are measured, and the smaller motion counts: an error of one depth map or of
    one flow makes no motion.
    """
    areas = [np.bincount(view.ids.ravel(), minlength=256) for view in (first, second)]
    large = np.minimum(*areas) >= settings.min_pixels
    shown = [int(object_id) for object_id in np.flatnonzero(large) if object_id]
    if not shown:
        return {}
    there, back = flows(first, second)
    shown = [i for i in shown if _continuous_both_ways(first, second, there, back, i, settings)]
    if not shown:
        return {}
    directions = (
        _Direction(first, second, there, settings),
        _Direction(second, first, back, settings),
    )
    evidence = {}
    for object_id in shown:
        moves = [moved for d in directions if (moved := _moved(d, object_id)) is not None]
        if moves:
            values = map(min, *moves) if len(moves) == 2 else moves[0]
            residuals = [d.background_px for d in directions]
            known = np.isfinite(residuals)
            background = float(np.mean(residuals)) if all(known) else np.nan
            name = next(d.name for d in directions if d.name)
            evidence[object_id] = PairEvidence(
                first.index, second.index, *map(float, values), name, background
            )
    return evidence


def _continuous_both_ways(first, second, there, back, object_id: int, settings) -> bool:
    masks = first.ids == object_id, second.ids == object_id
    return continuous(*masks, there.back, settings.continuity) and continuous(
        *masks[::-1], back.back, settings.continuity
    )
