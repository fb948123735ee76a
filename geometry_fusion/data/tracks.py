"""Objects of scenes as an evaluation meets them: where to prompt, which subsets, how the viewpoint
changed.

An object is conditioned on the frame where it is largest and tracked forwards and backwards from
there (3AM, arXiv 2601.08831, section 4.1). Subsets: `reappear`: visible in at least
`Reappear.spans` separate spans of at least `Reappear.frames` frames each; `twins`: the object has
an identical twin that is visible in the clip.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geometry_fusion.data.sampling import tracking_order
from geometry_fusion.data.scenes import Scene

SUBSETS = ("all", "reappear", "twins")


@dataclass(frozen=True)
class Reappear:
    """What counts as leaving the view and coming back; counted in frames of the evaluated walk."""

    spans: int = 2  # at least so many separate ones in view
    frames: int = 3  # each at least so long; shorter ones do not count


def spans(visible: np.ndarray) -> list[tuple[int, int]]:
    """Runs of True as (first, one past last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(visible, int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


@dataclass(frozen=True)
class Track:
    """One object of one scene."""

    scene: Scene
    object_id: int
    reappear: Reappear = Reappear()

    @property
    def name(self) -> str:
        return f"{self.scene.folder.name}/{self.object_id}"

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels in every frame, [T]."""
        return self.scene.areas[:, self.object_id]

    @property
    def prompt_frame(self) -> int:
        return int(self.areas.argmax())

    @cached_property
    def subsets(self) -> tuple[str, ...]:
        long_spans = [b - a for a, b in spans(self.areas > 0) if b - a >= self.reappear.frames]
        found = ["all"]
        if len(long_spans) >= self.reappear.spans:
            found.append("reappear")
        twins = [
            o.twin_of
            for o in self.scene.objects
            if o.id == self.object_id and o.twin_of is not None
        ]
        twins += [o.id for o in self.scene.objects if o.twin_of == self.object_id]
        if any(t < self.scene.areas.shape[1] and self.scene.areas[:, t].any() for t in twins):
            found.append("twins")
        return tuple(found)

    def mask(self, frame: int) -> np.ndarray:
        return self.scene.instance(frame) == self.object_id

    def frames_out_of_view(self) -> np.ndarray:
        """Per frame: in how many frames the object was absent since the prompt, in tracking order,
        [T].
        """
        absent = np.zeros(len(self.areas), int)
        for part in (range(self.prompt_frame, len(self.areas)), range(self.prompt_frame, -1, -1)):
            part = list(part)
            absent[part] = np.cumsum(self.areas[part] == 0)
        return absent

    def viewpoint_change(self) -> np.ndarray:
        """Per frame: the angle at the object between the cameras of the prompted frame and of this
        one, in degrees [T].

        NaN where the object has no depth.

        Raises InputError where the scene has no depth or cameras.
        """
        depth = self.scene.depth(self.prompt_frame)
        rows, columns = np.nonzero(self.mask(self.prompt_frame) & (depth > 0))
        if not len(rows):
            return np.full(len(self.scene), np.nan)  # nobody measured where it is
        pose, k = self.scene.camera(self.prompt_frame)
        depth = depth[rows, columns]
        rays = np.linalg.inv(k) @ np.stack([columns, rows, np.ones_like(rows)])
        centre = np.median(pose[:3, :3] @ (rays * depth), axis=1) + pose[:3, 3]
        directions = (
            np.array([self.scene.camera(i)[0][:3, 3] for i in range(len(self.scene))]) - centre
        )
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return np.degrees(np.arccos(np.clip(directions @ directions[self.prompt_frame], -1, 1)))


def tracks_of(
    scenes: Iterable[Scene],
    min_area: int,
    subset: str = "all",
    at_most: int | None = None,
    reappear: Reappear = Reappear(),
) -> list[Track]:
    """All objects whose largest view has at least `min_area` pixels; `at_most` of them, evenly
    spread.
    """
    found = []
    for scene in scenes:
        for object_id in range(1, scene.areas.shape[1]):
            track = Track(scene, object_id, reappear)
            if track.areas.max() >= min_area and subset in track.subsets:
                found.append(track)
    if at_most is not None and len(found) > at_most:
        found = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, at_most).astype(int))]
    return found


def order_of(track: Track) -> list[int]:
    """Frames in the order in which tracking meets them."""
    return tracking_order(track.prompt_frame, len(track.scene))
