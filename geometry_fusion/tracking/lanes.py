"""Geometry that begins where an object was prompted.

A geometry source answers in the coordinates of the first frame that it sees. MUSt3R's points get
worse away from it, and a merger was trained with the prompted frame as the first. So objects that
are first prompted on different frames read different geometry: each `Lane` has a source of its own,
which begins on its frame, and the features into which that geometry is fused. What is prompted for
other objects does not change an object's masks.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.tracking.ahead import EncodingAhead
from geometry_fusion.tracking.features import FrameFeatures
from geometry_fusion.tracking.places import Places
from geometry_fusion.types import Frames, GeometryFrame

MOST_LANES = 4  # each has a geometry source to run
SHARED_BYTES = 256 * 2**20  # of the image encoder's outputs, which lanes share


class EncodedFrames(NamedTuple):
    """A batch of frames, as `Lane.set_features` takes it."""

    features: dict[int, tuple[Tensor, dict]]  # pixels and the encoder's output, geometry fused in
    geometry: dict[int, GeometryFrame]
    settled: bool  # whether later frames leave the points of these where they are


class Lane:
    """One geometry source of a video, and the frames into which it was fused.

    source: no other lane uses it. places: of the lane's objects; None where they are not used.
    """

    def __init__(self, source: GeometrySource, places: Places | None = None):
        self.source, self.places = source, places
        self.first: int | None = None  # the frame on which its objects were first prompted
        self.features: dict[int, tuple[Tensor, dict]] = {}
        self.geometry: dict[int, GeometryFrame] = {}
        # Frames in `features` that were encoded in one batch, ahead of tracking.
        self.encoded_ahead: list[int] = []
        # The batch after those, while it is being encoded on other threads.
        self.ahead: EncodingAhead[EncodedFrames] = EncodingAhead()
        self.settled = False  # as far as frames were taken over by `set_features`

    def set_features(self, encoded: EncodedFrames, ahead: bool = False) -> None:
        """Replace the features, and the geometry fused into them, by those of other frames.

        ahead: the frames were encoded in one batch; they stay while single frames come and go.
        """
        kept = [] if ahead else self.encoded_ahead
        self.features = {i: self.features[i] for i in kept} | encoded.features
        self.geometry = {i: self.geometry[i] for i in kept} | encoded.geometry
        self.settled = encoded.settled
        if ahead:
            self.encoded_ahead = list(encoded.features)

    def drop_features(self) -> None:
        """Drop all features and the geometry fused into them."""
        self.features = {}
        self.geometry = {}
        self.encoded_ahead = []

    def forget_video(self) -> None:
        """Drop all features and geometry; the next frame is a new reference frame."""
        self.ahead.forget()
        self.settled = False
        self.source.reset()
        self.drop_features()

    def is_settled(self, latest: int) -> bool:
        """Whether no frame after `latest` is encoded already, so that a snapshot can be taken.

        A snapshot holds no features, but the source has taken in every encoded frame.
        """
        dropped = self.ahead.reached is not None and self.ahead.reached > latest
        ahead = self.ahead.indices or any(time > latest for time in self.encoded_ahead)
        return not (dropped or ahead)

    def snapshot(self) -> dict:
        """Source and places, as plain values and tensors."""
        snapshot = {"first": self.first, "geometry": self.source.snapshot()}
        if self.places is not None:
            snapshot["places"] = self.places.snapshot()
        return snapshot

    def restore(self, snapshot: dict) -> None:
        """Continue from the `snapshot` of a lane with an equal source."""
        self.first = snapshot["first"]
        self.source.restore(snapshot["geometry"])
        self.settled = self.source.settled
        if self.places is not None:
            self.places.restore(snapshot["places"])


class Lanes:
    """The lanes of one video, of which one is current: that of the objects at work.

    make: makes a further lane. most: further objects share the lane that began nearest.
    """

    def __init__(self, first: Lane, make: Callable[[], Lane], frames: Frames, most: int = 1):
        self._lanes, self._make, self._frames, self._most = [first], make, frames, most
        self.current = first
        self._of: dict[int, Lane] = {}  # by object id
        self._may_encode_ahead = False
        # The image encoder's outputs, once several lanes read them.
        self.shared: FrameFeatures | None = None

    def __iter__(self):
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def main(self) -> Lane:
        """The first lane: what reports and 3D views show."""
        return self._lanes[0]

    def of(self, object_id: int) -> Lane:
        """The lane of an object that was prompted."""
        return self._of.get(object_id, self.main)

    def begin(self, object_id: int, frame: int) -> None:
        """An object is prompted on a frame: its lane becomes the current one. A new object gets
        the lane that began on this frame, or a new one.
        """
        if object_id not in self._of:
            self._of[object_id] = self._beginning_on(frame)
        self.current = self._of[object_id]

    def _beginning_on(self, frame: int) -> Lane:
        if self.main.first is None:
            self.main.first = frame
        nearest = min(self._lanes, key=lambda lane: abs(lane.first - frame))
        if nearest.first == frame or len(self._lanes) >= self._most:
            return nearest
        return self._add(frame)

    def _add(self, frame: int) -> Lane:
        lane = self._make()
        lane.first = frame
        lane.ahead.allowed = self._may_encode_ahead
        self._lanes.append(lane)
        if self.shared is None:
            self.shared = self._new_shared()
        return lane

    def keep_only(self, object_ids: Iterable[int]) -> None:
        """Forget objects that were removed, and further lanes without objects."""
        kept = set(object_ids)
        self._of = {i: lane for i, lane in self._of.items() if i in kept}
        needed = {id(lane) for lane in self._of.values()}
        for lane in self._lanes[1:]:
            if id(lane) not in needed:
                lane.ahead.forget()
                self._lanes.remove(lane)
        if len(self._lanes) == 1:
            self.shared = None

    def begin_again(self, first_prompts: dict[int, int]) -> None:
        """All lanes anew, without geometry. first_prompts: object id -> its first prompted frame,
        in the order of the objects.
        """
        for lane in self._lanes:
            lane.forget_video()
            if lane.places is not None:
                lane.places.clear()
        del self._lanes[1:]
        self.current = self.main
        self.main.first = None
        self._of.clear()
        for object_id in sorted(first_prompts, key=first_prompts.get):
            self.begin(object_id, first_prompts[object_id])

    def drop_features(self) -> None:
        """Drop all features, also those that lanes share: other frames follow."""
        for lane in self._lanes:
            lane.drop_features()
        self.shared = None if self.shared is None else self._new_shared()

    def _new_shared(self) -> FrameFeatures:
        return FrameFeatures(self._frames, bytes_kept=SHARED_BYTES)

    # --- frames that are encoded ahead

    def allow_ahead(self, allowed: bool) -> None:
        """Whether frames may be encoded ahead from now on."""
        self._may_encode_ahead = allowed
        for lane in self._lanes:
            lane.ahead.allowed = allowed

    def stop_ahead(self) -> None:
        """As `EncodingAhead.stop`, in all lanes."""
        for lane in self._lanes:
            lane.ahead.stop()

    @property
    def seconds_ahead(self) -> float:
        """Seconds of the threads that encode ahead."""
        return sum(lane.ahead.seconds for lane in self._lanes)

    # --- snapshots

    def snapshot(self) -> dict:
        """All lanes, and which objects they have."""
        place = {id(lane): at for at, lane in enumerate(self._lanes)}
        return {
            "lanes": [lane.snapshot() for lane in self._lanes],
            "lane_of": {i: place[id(lane)] for i, lane in self._of.items()},
        }

    def restore(self, snapshot: dict) -> None:
        """Continue from the `snapshot` of lanes with equal sources."""
        for kept in snapshot["lanes"][1:]:
            self._add(kept["first"])
        for lane, kept in zip(self._lanes, snapshot["lanes"]):
            lane.restore(kept)
        self._of = {i: self._lanes[at] for i, at in snapshot["lane_of"].items()}
