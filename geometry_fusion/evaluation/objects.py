"""Objects of scenes as the evaluation uses them: prompt frames, subsets, changes of viewpoint.

An object is prompted on the frame where it is largest and tracked forwards and backwards from
there (3AM, arXiv 2601.08831, section 4.1). Three subsets are reported apart: `reappear`, objects
that are in view in at least `Reappear.spans` separate spans of at least `Reappear.frames` frames
each; `twins`, objects with an identical twin that is visible in the clip; and `moving`, objects
that move while they are in view.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geometry_fusion.data.scenes import Scene
from geometry_fusion.geometry.cameras import angles_at, median_point

SUBSETS = ("all", "reappear", "twins", "moving")
VISIBLE_MOTION = 0.1  # object sizes within one time in view, from which motion can be seen
VISIBLE_AREA = 64  # pixels of an object that counts as in view


@dataclass(frozen=True)
class Reappear:
    """When an object counts as leaving the view and coming back."""

    spans: int = 2  # at least this many separate spans in view
    frames: int = 3  # frames of the evaluated sequence; shorter spans do not count


def spans(visible: np.ndarray) -> list[tuple[int, int]]:
    """Runs of True in a bool array [T], as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(visible, int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


@dataclass(frozen=True)
class Track:
    """One object of one scene, to be tracked through all its frames."""

    scene: Scene
    object_id: int
    reappear: Reappear = Reappear()

    @property
    def name(self) -> str:
        """SCENE/ID, the key of the object in records and results."""
        return f"{self.scene.folder.name}/{self.object_id}"

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of the object in every frame, int [T]."""
        return self.scene.areas[:, self.object_id]

    @property
    def prompt_frame(self) -> int:
        """Index of the frame where the object is largest."""
        return int(self.areas.argmax())

    @cached_property
    def subsets(self) -> tuple[str, ...]:
        """Which of `SUBSETS` the object belongs to; "all" always."""
        long_spans = [b - a for a, b in spans(self.areas > 0) if b - a >= self.reappear.frames]
        subsets = ["all"]
        if len(long_spans) >= self.reappear.spans:
            subsets.append("reappear")
        if any(self._in_clip(twin) for twin in self._twins()):
            subsets.append("twins")
        if self.moves_in_view:
            subsets.append("moving")
        return tuple(subsets)

    @property
    def moves_in_view(self) -> bool:
        """Whether the object moves while it is in view, where the scene records motion."""
        motion = self.scene.motions.get(self.object_id)
        if motion is None or not motion.moving:
            return False
        in_view = spans(self.areas >= VISIBLE_AREA)
        longest = max((motion.moved[a:b, a:b].max() for a, b in in_view), default=0.0)
        return bool(longest >= VISIBLE_MOTION)

    def _twins(self) -> list[int]:
        """Ids of the twins; scene.json may name a pair at either object, or at both."""
        objects = self.scene.objects
        named_here = [o.twin_of for o in objects if o.id == self.object_id]
        named_there = [o.id for o in objects if o.twin_of == self.object_id]
        return [twin for twin in (*named_here, *named_there) if twin is not None]

    def _in_clip(self, object_id: int) -> bool:
        return object_id < self.scene.areas.shape[1] and bool(self.scene.areas[:, object_id].any())

    def mask(self, frame: int) -> np.ndarray:
        """The object's mask in a frame, bool [H, W]."""
        return self.scene.instance(frame) == self.object_id

    def frames_out_of_view(self) -> np.ndarray:
        """For every frame, int [T]: in how many frames since the prompt the object was absent.

        Counted in tracking order, so backwards for the frames before the prompt.
        """
        absent = np.zeros(len(self.areas), int)
        forwards = np.arange(self.prompt_frame, len(self.areas))
        backwards = np.arange(self.prompt_frame, -1, -1)
        for frames in (forwards, backwards):
            absent[frames] = np.cumsum(self.areas[frames] == 0)
        return absent

    def viewpoint_change(self) -> np.ndarray:
        """For every frame, [T]: the angle at the object between the cameras of the prompted frame
        and of this one, in degrees.

        All NaN if no pixel of the object has depth in the prompted frame: its place is unknown.
        Raises InputError if the scene has no depth or cameras.
        """
        depth = self.scene.depth(self.prompt_frame)
        rows, columns = np.nonzero(self.mask(self.prompt_frame) & (depth > 0))
        if not len(rows):
            return np.full(len(self.scene), np.nan)
        pose, k = self.scene.camera(self.prompt_frame)
        place = median_point(depth[rows, columns], k, pose, columns, rows)
        centres = np.array([self.scene.camera(i)[0][:3, 3] for i in range(len(self.scene))])
        return np.degrees(angles_at(place, centres, self.prompt_frame))


def tracks_of(
    scenes: Iterable[Scene],
    min_area: int,  # pixels of the largest view
    subset: str = "all",
    at_most: int | None = None,
    reappear: Reappear = Reappear(),
) -> list[Track]:
    """The objects of `subset` whose largest view has at least `min_area` pixels.

    With `at_most`, that many of them, spread evenly over the list.
    """
    tracks = []
    for scene in scenes:
        for object_id in range(1, scene.areas.shape[1]):
            track = Track(scene, object_id, reappear)
            if track.areas.max() >= min_area and subset in track.subsets:
                tracks.append(track)
    if at_most is not None and len(tracks) > at_most:
        spread = np.unique(np.linspace(0, len(tracks) - 1, at_most).astype(int))
        tracks = [tracks[i] for i in spread]
    return tracks
