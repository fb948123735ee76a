"""Rooms as instances are evaluated on them: true points with labels, tracks of every arm.

What takes long is kept under a cache folder and not computed again.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from geometry_fusion.data.scenes import Scene
from geometry_fusion.evaluation.instance_geometry import (
    Ground,
    LearnedGeometry,
    must3r_arrays,
    stored_views,
)
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedView, posed_depth_of
from geometry_fusion.instances.alignment import aligned
from geometry_fusion.instances.cloud import Cloud, fuse
from geometry_fusion.instances.generator import automatic_proposals
from geometry_fusion.instances.keyframes import stride_keyframes
from geometry_fusion.instances.propagate import Propose, propagate, session_for_tracks
from geometry_fusion.instances.proposals import Proposal, kept_proposals
from geometry_fusion.instances.segments import SegmentStore
from geometry_fusion.instances.settings import InstanceSettings
from geometry_fusion.instances.superpoints import superpoints_of
from geometry_fusion.instances.tracks import MaskTrack, encoded
from geometry_fusion.instances.views import cleaned
from geometry_fusion.io.atomic import digest_of, replacing_file
from geometry_fusion.io.stream import open_source
from geometry_fusion.models.arms import load_arm
from geometry_fusion.models.tracker import Tracker

ARMS = ("truth", "sam2", "control", "3am", "places", "oracle")
CLOUD_SETTINGS = ("voxel", "fuse_every", "neighbours")
GRAPH_SETTINGS = ("graph_neighbours", "colour_weight", "graph_scale", "superpoint_points")
TRACK_SETTINGS = (
    *("stride", "least_area", "most_area", "nested_cover", "nested_step"),
    *("explained_iou", "explained_share"),
    *("points_per_side", "predicted_iou", "stability", "box_overlap"),
)


@dataclass(frozen=True)
class InstanceRoom:
    """One room with its cloud and its geometry."""

    scene: Scene
    settings: InstanceSettings
    cache: Path

    def true_view(self, frame: int) -> PosedView:
        """Depth and camera of a frame, as the scene has them."""
        pose, k = self.scene.camera(frame)
        return PosedView(self.scene.depth(frame), pose, Lens(k))

    def _file(self, what: str, names: tuple[str, ...]) -> Path:
        chosen = {name: getattr(self.settings, name) for name in names}
        key = digest_of([self.scene.cache_name, chosen])
        return self.cache / f"{self.scene.folder.name}_{what}_{key}.npz"

    @cached_property
    def cloud(self) -> Cloud:
        """Points of the true depth; labels are object ids, 0 for walls, floor and ceiling."""
        s = self.settings
        file = self._file("cloud", CLOUD_SETTINGS)
        if not file.exists():
            frames = range(0, len(self.scene), s.fuse_every)
            cloud = fuse(
                frames,
                self.true_view,
                self.scene.rgb,
                s.voxel,
                s.neighbours,
                labels_of=self.scene.instance,
            )
            _save(file, vars(cloud))
        with np.load(file) as stored:
            return Cloud(**dict(stored))

    @cached_property
    def superpoints(self) -> np.ndarray:
        """The superpoint of every point, int [N]."""
        file = self._file("superpoints", (*CLOUD_SETTINGS, *GRAPH_SETTINGS))
        if not file.exists():
            _save(file, {"superpoints": superpoints_of(self.cloud, self.settings)})
        with np.load(file) as stored:
            return stored["superpoints"]

    @cached_property
    def learned(self) -> LearnedGeometry:
        """MUSt3R's geometry, moved onto the true cameras."""
        file = self._file("must3r_views", ())
        if not file.exists():
            _save(file, must3r_arrays(self.scene))
        true_views = [self.true_view(frame) for frame in range(len(self.scene))]
        views = [cleaned(view, self.settings) for view in stored_views(file)]
        return LearnedGeometry(self.scene, aligned(views, true_views), self.true_view)

    @cached_property
    def _own_ground(self) -> Ground:
        cloud, settings = self.learned.own_cloud(self.settings)
        view_of = self.learned.views.__getitem__
        return Ground(cloud, view_of, settings, superpoints_of(cloud, settings))

    def ground(self, geometry: str, points: str) -> Ground:
        """What tracks are lifted on: by the geometry "scan" or "must3r", on the points of the
        true depth ("true"), or of that geometry ("own").
        """
        if geometry == "scan":
            return Ground(self.cloud, self.true_view, self.settings, self.superpoints)
        if points == "own":
            return self._own_ground
        view_of = self.learned.views.__getitem__
        return Ground(self.cloud, view_of, self.settings, self.superpoints)

    def true_proposals(self, frame: int, image: np.ndarray | None = None) -> list[Proposal]:
        """The true masks of a frame as proposals, without specks."""
        ids = self.scene.instance(frame)
        masks = [ids == number for number in np.unique(ids[ids > 0])]
        return [Proposal(m) for m in masks if m.mean() >= self.settings.least_area]

    def true_tracks(self) -> list[MaskTrack]:
        """Tracks of the true masks, each from the first keyframe that proposes its object."""
        tracks: dict[int, MaskTrack] = {}
        keyframes = set(stride_keyframes(len(self.scene), self.settings.stride))
        for frame in range(len(self.scene)):
            ids = self.scene.instance(frame)
            if frame in keyframes:
                for proposal in self.true_proposals(frame):
                    number = int(ids[proposal.mask][0])
                    new = MaskTrack(len(tracks) + 1, frame, len(self.scene))
                    tracks.setdefault(number, new)
            for number, track in tracks.items():
                if (ids == number).any():
                    track.masks[frame] = encoded(ids == number)
        return list(tracks.values())

    def tracks(self, arm: str, automatic: bool, tracker: Tracker | None) -> list[MaskTrack]:
        """The tracks of an arm, from true masks on keyframes or from automatic proposals.

        tracker: of the arm; None for "truth".
        """
        if tracker is None:
            return self.true_tracks()
        if arm == "oracle":
            make = partial(posed_depth_of, self.scene)
            tracker.predictor.fuse(tracker.predictor.merger, make)
        s = self.settings
        propose = self._automatic(tracker) if automatic else self.true_proposals
        chosen = {name: getattr(s, name) for name in TRACK_SETTINGS}
        facts = {**tracker.identity.facts(), "settings": str(chosen), "automatic": str(automatic)}
        facts["scene"] = self.scene.cache_name
        if arm not in ("sam2", "control"):
            facts["geometry"] = "of every keyframe"  # before, all tracks shared one
        folder = self.cache / f"{self.scene.folder.name}_{arm}_{digest_of(facts)}"
        store = SegmentStore(folder, facts)
        keyframes = stride_keyframes(len(self.scene), s.stride)
        spec = self.scene.folder / "rgb"
        return propagate(
            session_for_tracks(tracker), partial(_open_at, spec), keyframes, propose, s, store
        )

    def _automatic(self, tracker: Tracker) -> Propose:
        generate = automatic_proposals(tracker.predictor, self.settings, single=True)

        def propose(frame: int, image: np.ndarray) -> list[Proposal]:
            return kept_proposals(generate(image), self.scene.depth(frame), self.settings)

        return propose


def _open_at(spec: Path, start: int):
    return open_source(spec, start=start)


def tracker_of(arm: str) -> Tracker | None:
    """The tiny tracker of an arm on a CPU; None for "truth"."""
    if arm == "truth":
        return None
    # Whatever the oracle's geometry is here, `InstanceRoom.tracks` gives it the room's.
    return load_arm(arm, device="cpu", frames_at_once=1, true_source=lambda: None)


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(file) as fresh, open(fresh, "wb") as handle:
        np.savez(handle, **arrays)
