"""Places: where objects are in 3D, and SAM2's decoder asked again where one is expected.

Geometry that works without trained weights (docs/geometry.md). Every object of a video keeps a
`Place`, which begins as the points of its prompted masks. In every later frame:

1. look: which cells of the frame lie near the place;
2. ask again: where the object is expected, prompts made from those cells go to SAM2's mask decoder
   (asked_decoder.py); an answer is accepted if it lies near the place, covers its core, and the
   decoder predicts a good mask or SAM2's own mask overlaps it; the best of these and SAM2's own
   answer wins;
3. veto: a mask that lies elsewhere counts as absent;
4. the place grows by confident masks.

SAM2's memory takes in what was decided. Where nothing is known, SAM2's answer stays, bit for bit.
"""

from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
import torch

from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.tracking.asked_decoder import UNPROMPTED
from geometry_fusion.tracking.place import Cells, GrowthRule, Place, Sight, cells_of, lifted
from geometry_fusion.tracking.place_trust import GeometryTrust
from geometry_fusion.types import Tolerance

OWN, ASKED, VETOED, ABSENT = "own", "asked again", "vetoed", "absent"
DECISIONS = (OWN, ASKED, VETOED, ABSENT)
MOVING = "moves"  # the decision for an object that is tracked by SAM2 alone (fallback.py)
SIDE = 64  # of the grid for small models
PLACE_RULES = 4  # increased when a change of places makes earlier results invalid
LARGE_SIDE = 128  # for masks of 256 x 256, as those of the published models


@dataclass(frozen=True)
class PlaceSettings:
    """Thresholds, chosen on validation rooms (benchmarks/places.py)."""

    tolerance: float = 1.0  # times that of the geometry source
    expected_seen: float = 0.1  # an object is expected where this share of its place is seen
    expected_cells: int = 6  # and at least so many cells are near, on a grid of SIDE
    precision: float = 0.6  # least precision and recall of an answer that is accepted
    recall: float = 0.3
    least_iou: float = 0.5  # and predicted IoU, unless
    least_overlap: float = 0.5  # its IoU with SAM2's own mask is at least this
    questions: tuple[str, ...] = ("click", "clicks", "remembered mask")  # of asked_decoder.py
    # It is not asked where SAM2's own answer has at least this predicted IoU, precision and recall.
    clear_iou: float = 0.85
    clear_precision: float = 0.8
    clear_recall: float = 0.5
    veto: float = 0.3  # a mask with a lower precision is somewhere else
    trim: bool = False  # remove pixels far from the place; did harm (docs/decisions.md)
    grow_iou: float = 0.8  # a place grows by masks of at least this predicted IoU
    grow_precision: float = 0.8
    grow_step: float = 0.5  # bounds of growth, see GrowthRule
    grow_whole: float = 0.5
    grow_reach: float = 100.0
    recall_weight: float = 0.5  # of recall and predicted IoU in the score of a mask
    iou_weight: float = 0.3

    @property
    def growth(self) -> GrowthRule:
        """The bounds of growth."""
        return GrowthRule(self.grow_step, self.grow_whole, self.grow_reach)


@dataclass
class Known:
    """What is known of one object."""

    place: Place
    # Prompted frame -> its image, RGB uint8 [H, W, 3], while its mask has no points: those of the
    # frame are not final yet.
    waiting: dict[int, np.ndarray] = field(default_factory=dict)


class Places:
    """The places of the objects of one video, by the user's object ids."""

    def __init__(self, settings: PlaceSettings, source: GeometrySource):
        self.settings, self._source = settings, source
        self._objects: dict[int, Known] = {}
        self.trust = GeometryTrust()
        self.decisions: dict[int, str] = {}  # of the latest frame, one of DECISIONS

    def clear(self) -> None:
        """Forget all objects."""
        self._objects.clear()
        self.trust.clear()
        self.decisions.clear()

    def _new_place(self, *points) -> Place:
        tolerance, times = self._source.tolerance, self.settings.tolerance
        scaled = Tolerance(times * tolerance.radius, times * tolerance.scale)
        return Place(scaled, *points)

    def prompted(self, object_id: int, frame: int, image: np.ndarray) -> None:
        """An object was prompted on a frame, for the first time or again: its mask there will be
        lifted, and what was learnt from tracked masks is forgotten.
        """
        known = self._objects.setdefault(object_id, Known(self._new_place()))
        known.place.drop_prompt(frame)
        known.waiting[frame] = image

    def keep_prompts(self, object_id: int, frames: Container[int]) -> None:
        """Forget the prompts of an object that were cleared: those on other frames than these."""
        known = self._objects.get(object_id)
        if known is None:
            return
        for frame in [t for t in (*known.waiting, *known.place.prompted) if t not in frames]:
            known.waiting.pop(frame, None)
            known.place.drop_prompt(frame)

    def begin_frame(self, object_ids: list[int]) -> None:
        """Forget the decisions of the last frame, and objects that were removed."""
        self.decisions = {}
        for object_id in [o for o in self._objects if o not in object_ids]:
            del self._objects[object_id]

    def of(self, object_id: int) -> Place | None:
        """The place of an object; None where none is known."""
        known = self._objects.get(object_id)
        return known.place if known and known.place.exists else None

    def waiting_frames(self, object_id: int) -> list[int]:
        """Prompted frames of an object that were not lifted yet."""
        known = self._objects.get(object_id)
        return list(known.waiting) if known else []

    def lift(
        self,
        object_id: int,
        frame: int,
        mask: np.ndarray,  # [side, side] bool
        rendered: dict[int, Cells],
    ) -> None:
        """Add a prompted mask to its object's place.

        The frame is rendered from the geometry as it is now, because a source may move its
        coordinates while it sees its first frames. rendered: cells of frames that were rendered
        for other objects at this time.
        """
        known = self._objects[object_id]
        image = known.waiting.pop(frame)
        if frame not in rendered:
            rendered[frame] = cells_of(self._source.render(frame, image), len(mask))
        cells = rendered[frame]
        known.place.put_prompt(frame, lifted(mask.ravel(), cells), cells.scale)

    @property
    def any_waiting(self) -> bool:
        """Whether prompted masks wait to be lifted."""
        return any(known.waiting for known in self._objects.values())

    def snapshot(self) -> dict:
        """All places as plain values and tensors."""
        objects = {
            object_id: {
                "prompted": {t: torch.from_numpy(p) for t, p in known.place.prompted.items()},
                "grown": torch.from_numpy(known.place.grown),
                "scale": known.place.scale,
                "waiting": {
                    t: torch.from_numpy(np.array(image)) for t, image in known.waiting.items()
                },
            }
            for object_id, known in self._objects.items()
        }
        return {"objects": objects, "trust": self.trust.snapshot()}

    def restore(self, snapshot: dict) -> None:
        """Take over a `snapshot`."""
        self.clear()
        self.trust.restore(snapshot["trust"])
        for object_id, kept in snapshot["objects"].items():
            prompted = {t: points.cpu().numpy() for t, points in kept["prompted"].items()}
            place = self._new_place(prompted, kept["grown"].cpu().numpy(), kept["scale"])
            waiting = {t: image.cpu().numpy() for t, image in kept["waiting"].items()}
            self._objects[object_id] = Known(place, waiting)


def judging_side(mask_side: int) -> int:
    """Cells per side of the grid for masks of a size: 64 for the tiny models, else 128."""
    return SIDE if mask_side <= SIDE else LARGE_SIDE


def is_expected(sight: Sight, side: int, settings: PlaceSettings) -> bool:
    """Whether an object should be visible in a frame."""
    least = settings.expected_cells * (side / SIDE) ** 2
    return sight.seen >= settings.expected_seen and sight.near.sum() >= least


def score(precision, recall, iou, settings: PlaceSettings):
    """The score of masks, by which answers compete; arrays of one shape, or numbers."""
    return precision + settings.recall_weight * recall + settings.iou_weight * iou


def is_clear(own: np.ndarray, iou: float, sight: Sight, settings: PlaceSettings) -> bool:
    """Whether SAM2's own answer is good enough not to ask again.

    own: its mask [N] bool, empty if absent; iou: predicted by SAM2, 0..1.
    """
    if not own.any() or iou < settings.clear_iou:
        return False
    near = sight.precision(own) >= settings.clear_precision
    return bool(near and sight.recall(own) >= settings.clear_recall)


def best_answer(
    own: np.ndarray,  # [N] bool: SAM2's answer, empty if absent
    own_iou: float,  # its predicted IoU
    masks: np.ndarray,  # [K, M, N] bool: the candidates; first SAM2's own, whatever its score
    ious: np.ndarray,  # [K, M] predicted IoU, -inf for candidates that do not count
    sight: Sight,
    settings: PlaceSettings,
) -> tuple[int, int] | None:
    """Kind and mask of the best accepted candidate; None where SAM2's own answer is as good."""
    precision, recall = sight.precision(masks), sight.recall(masks)
    unprompted = masks[UNPROMPTED, ious[UNPROMPTED].argmax()]
    union = (masks | unprompted).sum(-1)
    overlap = (masks & unprompted).sum(-1) / np.maximum(union, 1)
    trusted = (ious >= settings.least_iou) | (overlap >= settings.least_overlap)
    accepted = (
        (precision >= settings.precision)
        & (recall >= settings.recall)
        & trusted
        & np.isfinite(ious)
    )
    if not accepted.any():
        return None
    scores = np.where(accepted, score(precision, recall, np.maximum(ious, 0), settings), -np.inf)
    if own.any():
        own_score = score(sight.precision(own), sight.recall(own), own_iou, settings)
        if own_score >= scores.max():
            return None
    kind, mask = np.unravel_index(scores.argmax(), scores.shape)
    return int(kind), int(mask)
