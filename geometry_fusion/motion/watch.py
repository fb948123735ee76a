"""Watches the objects of one video, frame by frame, and decides which of them move.

Frames may come in any order. What a frame is needed for is measured as soon as its partners are
there; it is forgotten when none can come any more, so that memory stays bounded.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import numpy as np

from geometry_fusion.geometry.flow import dis_flow
from geometry_fusion.motion.decision import Decision, decision_of
from geometry_fusion.motion.flow import Flow, PairFlow, pair_flows
from geometry_fusion.motion.pairs import PairEvidence, measure_pair
from geometry_fusion.motion.paths import bounded_by_path
from geometry_fusion.motion.settings import MotionSettings, read_settings
from geometry_fusion.motion.views import MotionView, packed, unpacked, view_of
from geometry_fusion.types import GeometryFrame

MOST_VIEWS = 64  # frames that are held while they wait for partners


class MotionWatch:
    """Feed it every frame of a pass of the baseline, then ask for `decisions`.

    The masks must be those of the baseline: masks that were found by place presume that nothing
    moves. `decisions` can be asked at any time; it says what is known so far.

    prompted: the prompted frames of each object, by id. Where they are given, only the time in view
    around a prompt counts: the baseline may come back from a gap on another object, which may move.
    """

    def __init__(
        self,
        settings: MotionSettings | None = None,
        flow: Flow = dis_flow,
        prompted: Mapping[int, Iterable[int]] | None = None,
    ):
        self.settings, self._flow = settings or read_settings(), flow
        self._prompted = {i: set(frames) for i, frames in (prompted or {}).items()}
        self._views: dict[int, MotionView] = {}
        self._areas: dict[int, dict[int, int]] = {}  # of every frame: pixels by object id
        self._pairs: dict[int, dict[tuple[int, int], PairEvidence]] = defaultdict(dict)

    def add(
        self,
        index: int,  # number of the frame in its video
        image: np.ndarray,  # [H, W, 3] RGB uint8
        ids: np.ndarray,  # [H, W] uint8: the object of every pixel, 0 for none
        geometry: GeometryFrame | None = None,
    ) -> None:
        """Take in a frame; one that was given before is ignored."""
        settings = self.settings
        if index not in self._areas:
            self.add_view(
                view_of(index, image, ids, geometry, settings.side, settings.min_confidence)
            )

    def add_view(self, view: MotionView) -> None:
        """As `add`, of a frame at the working size."""
        index, settings = view.index, self.settings
        counts = np.bincount(view.ids.ravel())
        self._areas[index] = {int(i): int(counts[i]) for i in np.flatnonzero(counts) if i}
        self._views[index] = view
        stride = self._stride()
        for gap in settings.gaps:
            for first, second in ((index - gap, index), (index, index + gap)):
                if first % stride == 0 and first in self._views and second in self._views:
                    self._measure(self._views[first], self._views[second])
        self._forget()

    def note_prompt(self, object_id: int, index: int) -> None:
        """From now on, only the time in view around prompts counts for this object."""
        self._prompted.setdefault(object_id, set()).add(index)

    def snapshot(self) -> dict:
        """Everything it knows, as plain values and tensors."""
        return {
            "prompted": {i: sorted(frames) for i, frames in self._prompted.items()},
            "areas": {index: dict(areas) for index, areas in self._areas.items()},
            "views": [packed(view) for view in self._views.values()],
            "pairs": [[i, asdict(p)] for i, pairs in self._pairs.items() for p in pairs.values()],
        }

    def restore(self, snapshot: dict) -> None:
        """Take over the `snapshot` of a watch with equal settings."""
        self._prompted = {i: set(frames) for i, frames in snapshot["prompted"].items()}
        self._areas = {index: dict(areas) for index, areas in snapshot["areas"].items()}
        self._views = {view.index: view for view in map(unpacked, snapshot["views"])}
        self._pairs = defaultdict(dict)
        for object_id, values in snapshot["pairs"]:
            pair = PairEvidence(**values)
            self._pairs[object_id][pair.first, pair.second] = pair

    def decisions(self) -> dict[int, Decision]:
        """The decision of every object that was seen, by id."""
        return {i: decision_of(i, pairs, self.settings) for i, pairs in self.evidence().items()}

    def evidence(self) -> dict[int, list[PairEvidence]]:
        """The pairs that may vote, of every object that was seen, by id."""
        objects = sorted(set().union(*self._areas.values()))
        stride = self._stride() if objects else 1
        return {object_id: self._voting(object_id, stride) for object_id in objects}

    def _voting(self, object_id: int, stride: int) -> list[PairEvidence]:
        pairs = self._pairs[object_id]
        reached = self._around_prompts(object_id, stride)
        voting = {
            (first, second): pair
            for (first, second), pair in pairs.items()
            if first % stride == 0
            and self._always_there(object_id, first, second)
            and (reached is None or {first, second} <= reached)
        }
        return bounded_by_path(voting, stride if 1 in self.settings.gaps else 2)

    def _around_prompts(self, object_id: int, stride: int) -> set[int] | None:
        """The frames in which the mask can be followed, without a gap, to a prompted frame.

        None where no prompt is known. The mask is followed from a frame to the next where both show
        enough of it and, if the two were compared, the flow leads from one mask to the other.
        """
        if object_id not in self._prompted:
            return None

        def follows(index: int) -> bool:
            areas = (self._areas.get(i, {}).get(object_id, 0) for i in (index, index + 1))
            if min(areas) < self.settings.min_pixels:
                return False
            compared = index % stride == 0 and 1 in self.settings.gaps
            return not compared or (index, index + 1) in self._pairs[object_id]

        reached = set()
        for prompt in self._prompted[object_id]:
            last = first = prompt
            while follows(last):
                last += 1
            while follows(first - 1):
                first -= 1
            reached |= set(range(first, last + 1))
        return reached

    def _measure(self, first: MotionView, second: MotionView) -> None:
        evidence = measure_pair(first, second, self.settings, self._flows_of)
        for object_id, pair in evidence.items():
            self._pairs[object_id][first.index, second.index] = pair

    def _flows_of(self, first: MotionView, second: MotionView) -> tuple[PairFlow, PairFlow]:
        return pair_flows(first.grey, second.grey, self._flow)

    def _always_there(self, object_id: int, first: int, second: int) -> bool:
        """Whether every frame between shows the object.

        After a gap the baseline may be on the object's twin: that is no motion.
        """
        between = range(first + 1, second)
        return all(object_id in self._areas.get(index, ()) for index in between)

    def _stride(self) -> int:
        """First frames of pairs are multiples of it: the smallest power of two that gives at most
        `most_positions` of them.
        """
        stride = 1
        while max(self._areas) / stride >= self.settings.most_positions:
            stride *= 2
        return stride

    def _forget(self) -> None:
        """Drop frames all of whose partners have come, and the oldest beyond `MOST_VIEWS`."""
        seen = self._areas
        for index in list(self._views):
            partners = [index + sign * gap for gap in self.settings.gaps for sign in (-1, 1)]
            if all(partner < 0 or partner in seen for partner in partners):
                del self._views[index]
        while len(self._views) > MOST_VIEWS:
            del self._views[next(iter(self._views))]


def decide(
    frames: Iterable[tuple[int, np.ndarray, np.ndarray, GeometryFrame | None]],
    settings: MotionSettings | None = None,
    flow: Flow = dis_flow,
    prompted: Mapping[int, Iterable[int]] | None = None,
) -> dict[int, Decision]:
    """The decisions of a whole clip, given as (index, image, ids, geometry), by object id."""
    watch = MotionWatch(settings, flow, prompted)
    for frame in frames:
        watch.add(*frame)
    return watch.decisions()
