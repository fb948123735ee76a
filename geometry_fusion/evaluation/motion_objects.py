"""Objects of rooms with moving objects: what is true of them, and the evidence of their pairs."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.data.scenes import Scene
from geometry_fusion.evaluation.motion_inputs import MotionInputs, true_geometry, true_masks
from geometry_fusion.evaluation.objects import VISIBLE_AREA, Track, spans, tracks_of
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.motion.flow import PairFlow
from geometry_fusion.motion.pairs import PairEvidence
from geometry_fusion.motion.settings import MotionSettings
from geometry_fusion.motion.views import MotionView, view_of
from geometry_fusion.motion.watch import MotionWatch

VOTES = ("z", "rho", "share", "part_share", "far_rho", "far_pairs", "min_pairs")
EVIDENCE_RULES = 1  # increased when a change of the code makes evidence on disk invalid
MASKS, GEOMETRIES = ("baseline", "true"), ("must3r", "true", "none")


@dataclass(frozen=True)
class MotionObject:
    """One object of a room, with what is true of it and what its pairs say."""

    name: str  # SCENE/ID
    kind: str  # of its motion; "none" for still ones
    speed: float | None
    subset: str  # dyn_visible, dyn_unseen or static
    prompted_motion: float  # object sizes that it moves in the time in view around its prompt
    beside_mover: bool  # another object moves in view (distractor_moves)
    track_subsets: tuple[str, ...]  # all, reappear, twins
    pairs: tuple[PairEvidence, ...]


def subset_of(track: Track) -> str:
    """dyn_visible where the object moves while it is in view, dyn_unseen where it only moves
    otherwise, static where it never does.
    """
    motion = track.scene.motions.get(track.object_id)
    if motion is None or not motion.moving:
        return "static"
    return "dyn_visible" if track.moves_in_view else "dyn_unseen"


def prompted_motion(track: Track) -> float:
    """Object sizes that an object moves in the time in view around its prompt."""
    motion = track.scene.motions.get(track.object_id)
    if motion is None or not motion.moving:
        return 0.0
    around = [s for s in spans(track.areas >= VISIBLE_AREA) if s[0] <= track.prompt_frame < s[1]]
    return max((float(motion.moved[a:b, a:b].max()) for a, b in around), default=0.0)


class _AloneWatch(MotionWatch):
    """Watches one object after the other in the same frames, whose flow is computed once."""

    def __init__(self, settings: MotionSettings, flows: dict, prompted: dict | None):
        super().__init__(settings, prompted=prompted)
        self._known = flows

    def _flows_of(self, first: MotionView, second: MotionView) -> tuple[PairFlow, PairFlow]:
        key = first.index, second.index
        if key not in self._known:
            self._known[key] = super()._flows_of(first, second)
        return self._known[key]


def objects_of(
    scene: Scene,
    inputs: MotionInputs,
    masks: str,  # of MASKS
    geometry: str,  # of GEOMETRIES
    settings: MotionSettings,
    cache: Path,
    min_area: int,
) -> list[MotionObject]:
    """The objects of a scene with a view of `min_area` pixels.

    Each is watched alone, as if the user had prompted nothing else. Evidence is kept in `cache`.
    """
    tracks = tracks_of([scene], min_area)
    facts = {k: v for k, v in asdict(settings).items() if k not in VOTES}
    key = hashlib.sha1(json.dumps([EVIDENCE_RULES, facts, min_area]).encode()).hexdigest()[:10]
    file = cache / f"{scene.cache_name}_{masks}_{geometry}_{key}.json"
    if not file.exists():
        measured = {
            t.object_id: p for t, p in _measured(scene, tracks, inputs, masks, geometry, settings)
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(file) as fresh:
            content = {i: [astuple(pair) for pair in pairs] for i, pairs in measured.items()}
            fresh.write_text(json.dumps(content))
    stored = json.loads(file.read_text())
    subsets = {track.object_id: subset_of(track) for track in tracks}
    movers = {i for i, subset in subsets.items() if subset == "dyn_visible"}
    objects = []
    for track in tracks:
        motion = scene.motions.get(track.object_id)
        pairs = tuple(PairEvidence(*values) for values in stored[str(track.object_id)])
        objects.append(
            MotionObject(
                track.name,
                motion.kind if motion else "none",
                motion.speed if motion else None,
                subsets[track.object_id],
                prompted_motion(track),
                bool(movers - {track.object_id}),
                track.subsets,
                pairs,
            )
        )
    return objects


def _measured(
    scene: Scene, tracks: list[Track], inputs: MotionInputs, masks: str, geometry: str, settings
) -> Iterator[tuple[Track, list[PairEvidence]]]:
    """The evidence of each object's pairs."""
    read_masks = true_masks if masks == "true" else inputs.baseline_masks
    masks_of = read_masks(scene, tracks)
    frames = {
        "true": true_geometry,
        "must3r": inputs.geometry,
        "none": lambda scene: [None] * len(scene),
    }[geometry](scene)
    nothing = np.zeros(scene.size[::-1], np.uint8)
    views = [
        view_of(i, scene.rgb(i), nothing, frames[i], settings.side, settings.min_confidence)
        for i in range(len(scene))
    ]
    flows: dict = {}
    for track in tracks:
        # True masks cannot be on another object: all of them count.
        prompted = {1: [track.prompt_frame]} if masks == "baseline" else None
        watch = _AloneWatch(settings, flows, prompted)
        for view, mask in zip(views, masks_of[track.object_id]):
            ids = mask.astype(np.uint8)
            size = view.grey.shape[::-1]
            ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
            watch.add_view(replace(view, ids=ids))
        yield track, watch.evidence().get(1, [])
