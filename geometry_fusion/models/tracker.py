"""The front door: `load` turns names and files into a `Tracker`.

    tracker = load("tiny")
    for frame in tracker.track("walk.mp4", Prompt(points=((420, 270),))):
        frame.index, frame.ids, frame.logits, frame.geometry

The only place that knows how a SAM2, a MUSt3R, a merger and a checkpoint become a tracker.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from geometry_fusion.choices import GEOMETRY_MODES, KEYFRAME_INTERVAL
from geometry_fusion.errors import InputError
from geometry_fusion.io.open_frames import opened_frames
from geometry_fusion.models import pretrained
from geometry_fusion.models.checkpoint import read_spec
from geometry_fusion.models.geometry import SourceMaker
from geometry_fusion.models.given import GivenGeometry
from geometry_fusion.models.identity import Identity
from geometry_fusion.models.must3r import default_must3r, must3r_of
from geometry_fusion.models.names import FUSION_CHECKPOINTS, SAM2_MODELS
from geometry_fusion.models.parts import GeometryChoice, build_parts, check_every, no_geometry
from geometry_fusion.models.spec import FusionSpec
from geometry_fusion.tracking.open_session import open_session
from geometry_fusion.tracking.places import PlaceSettings
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.tracking.session import Session
from geometry_fusion.types import Prompt, TrackedFrame

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
# SAM2 alone has no such:
GEOMETRY_OPTIONS = ("max_keyframes", "keyframe_interval", "geometry_every", "places")


@dataclass
class Tracker:
    """A predictor that is ready to track, and what its results depend on.

    A tracker holds nothing of a video: any number of sessions can use it at the same time.
    """

    predictor: GeometryVideoPredictor
    identity: Identity
    precision: str = "auto"
    spec: FusionSpec | None = None  # of the merger; None: there is none
    make_source: SourceMaker = no_geometry
    # Why geometry does not run although nobody asked for SAM2 alone.
    without_geometry: str | None = None
    # Why places run and not the merger, although nobody asked for places.
    without_merger: str | None = None

    @property
    def arm(self) -> str:
        """sam2; places; the checkpoint's arm (3am, control, oracle); both (3am with places)."""
        return self.identity.arm

    def session(self, mode: str = "stream", **options) -> Session:
        """A session over one video; see geometry_fusion/tracking/session.py."""
        return open_session(self.predictor, mode, self.precision, **options)

    def track(self, source, *prompts: Prompt, mode: str = "stream") -> Iterator[TrackedFrame]:
        """Track prompted objects through a video and yield its frames.

        source: a video file, a folder of frames, a camera's number, an address, or RGB uint8 arrays
        [H, W, 3]. mode "stream": each frame once, in constant memory, no masks before the first
        prompt; "full": backwards as well, from the last prompted frame on first, for files, folders
        and `Frames`. Raises InputError for sources and prompts that cannot be used.
        """
        session = self.session(mode)
        for prompt in prompts:
            session.add(prompt)
        with ExitStack() as stack:
            if mode == "full" and isinstance(source, str | Path):
                source = stack.enter_context(opened_frames(Path(source)))
            yield from session.track(source)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        endpoint: str | None = None,
        **options,
    ) -> "Tracker":
        """A tracker from a folder that `save_pretrained` wrote, or from a hub id "owner/name".

        revision, cache_dir, token, endpoint: of the hub, as in huggingface_hub; options: see
        `load`. Raises InputError where it cannot be found, or where a weight file has changed.
        """
        hub = {"revision": revision, "cache_dir": cache_dir, "token": token, "endpoint": endpoint}
        return load(**pretrained.saved_tracker(name_or_folder, **hub), **options)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write weights, settings and a model card to a folder, which is replaced as a whole.

        Published backbones are named, not copied. Returns the folder; raises InputError where it
        holds anything but a saved tracker.
        """
        return pretrained.save_pretrained(self.identity, self.spec, folder)

    def push_to_hub(self, repo_id: str, **options) -> str:
        """Upload what `save_pretrained` writes; returns the address. options: private, token,
        endpoint, message. Raises InputError where the hub refuses.
        """
        return pretrained.push_to_hub(self.identity, self.spec, repo_id, **options)


def load(
    name: str | Path = "tiny",
    *,
    geometry: str | GivenGeometry = "auto",
    mode: str = "auto",
    checkpoint: str | Path | None = None,
    sam2_checkpoint: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    **options,
) -> Tracker:
    """A tracker from a SAM2 model name, a fusion checkpoint, a folder or a hub id.

    name: tiny, tiny2, t, s, b+ or l; a fusion checkpoint (.safetensors), whose backbones are found
    by the names that it records; a folder that `Tracker.save_pretrained` wrote; or a hub id
    "owner/name".
    geometry: "none" (SAM2 alone); "must3r" or "must3r:NAME", with NAME of tiny, 224, 512 or a
    weight file; "auto" or "auto:NAME": the same, with the MUSt3R that goes with the SAM2 model, or
    SAM2 alone where its weights are missing, and `Tracker.without_geometry` gives the reason; or
    depth and cameras that `data.given.open_geometry` read.
    mode: how geometry is used. "merger": fused by trained weights; "places": SAM2's decoder is
    asked again where an object's place is (tracking/places.py); "both"; "off": SAM2 alone; "auto":
    the merger where weights for these models exist, else places, and `Tracker.without_merger`
    gives the reason.
    checkpoint: merger weights; sam2_checkpoint: SAM2 weights in place of the model's own.
    precision: auto, fp32 or bf16.

    options: `max_keyframes` and `keyframe_interval` of MUSt3R's memory, `geometry_every` (MUSt3R
    sees every so many frames; optical flow carries geometry to the others), `places`,
    `objects_at_once`, `frames_at_once`, `memory` (fifo, dam, tree, motion or coverage:
    docs/memory.md), `compile`, `exact` (see `models.sam2.build_predictor`).

    Raises InputError for names, files and combinations that cannot be used, with the cure.
    """
    if mode not in GEOMETRY_MODES:
        raise InputError(
            f"geometry mode {mode}: unknown; choose one of {', '.join(GEOMETRY_MODES)}"
        )
    # Here: where `auto` falls back to SAM2 alone, a wrong option would pass for a missing file.
    check_every(options.get("geometry_every", 1), isinstance(geometry, GivenGeometry))
    geometry = "none" if mode == "off" else geometry
    given = {"device": device, "precision": precision, **options}
    if str(name) in SAM2_MODELS:
        given["sam2_file"] = sam2_checkpoint
        return _load_model(str(name), geometry, mode, checkpoint, given)
    path = Path(name)
    if checkpoint or geometry == "none" or (geometry != "auto" and not path.is_file()):
        raise InputError(
            f"{name}: brings its own merger and geometry; leave out geometry and checkpoint"
        )
    if path.is_file():
        return _load_checkpoint(path, geometry, mode, sam2_checkpoint, given)
    is_hub_id = HUB_ID.fullmatch(str(name)) and path.suffix not in WEIGHT_SUFFIXES
    if path.is_dir() or is_hub_id:
        return Tracker.from_pretrained(name, **given)
    raise InputError(
        f"{name}: no such model, file or folder; choose one of {', '.join(SAM2_MODELS)}, or give "
        "a fusion checkpoint, a saved folder or a hub id"
    )


def _load_model(
    sam2: str,
    geometry: str | GivenGeometry,
    mode: str,
    checkpoint: str | Path | None,
    options: dict,
) -> Tracker:
    """A tracker on a SAM2 model. options: of `build_tracker`."""
    if isinstance(geometry, GivenGeometry):
        if checkpoint or mode in ("merger", "both"):
            raise InputError(
                "given geometry: has no features for a merger, which reads MUSt3R's; use "
                "--geometry-mode places and no checkpoint"
            )
        return build_tracker(sam2, mode="places", given=geometry, **options)
    must3r = default_must3r(sam2) if geometry == "auto" else must3r_of(geometry)
    if must3r is None:
        if checkpoint:
            raise InputError(
                f"checkpoint {checkpoint}: is for geometry, and geometry is 'none'; leave out "
                "one of them"
            )
        plain = {k: v for k, v in options.items() if k not in GEOMETRY_OPTIONS}
        return build_tracker(sam2, **plain)
    return _with_must3r(
        sam2,
        must3r,
        mode,
        checkpoint,
        required=not geometry.startswith("auto"),
        **options,
    )


def _load_checkpoint(
    path: Path, geometry: str, mode: str, sam2_checkpoint: str | Path | None, options: dict
) -> Tracker:
    """A tracker from a fusion checkpoint, on the backbones that it names."""
    _, backbones = read_spec(path)
    if geometry == "auto" and "must3r" in backbones:
        geometry = f"must3r:{backbones['must3r']['name']}"
    must3r = must3r_of(geometry) or "tiny"
    sam2 = backbones["sam2"]["name"]
    mode = "merger" if mode == "auto" else mode
    given = {"sam2_file": sam2_checkpoint, **options}
    return _with_must3r(sam2, must3r, mode, path, required=True, **given)


def _with_must3r(
    sam2: str, must3r: str, mode: str, checkpoint: str | Path | None, *, required: bool, **options
) -> Tracker:
    """With MUSt3R's geometry, or, where it is not required and cannot run, SAM2 alone with the
    reason.
    """
    if checkpoint and mode == "places":
        raise InputError(
            f"checkpoint {checkpoint}: is for a merger, and places need none; leave out one of them"
        )
    chosen = checkpoint or FUSION_CHECKPOINTS.get((sam2, must3r))
    reason = None
    try:
        if mode != "places":
            try:
                return _with_merger(sam2, must3r, mode, chosen, **options)
            except InputError as error:
                if mode != "auto" or checkpoint:
                    raise
                reason = str(error)
        tracker = build_tracker(sam2, must3r=must3r, mode="places", **options)
        tracker.without_merger = reason
        return tracker
    except InputError as error:
        if required or checkpoint or mode != "auto":
            raise
        plain = {k: v for k, v in options.items() if k not in GEOMETRY_OPTIONS}
        tracker = build_tracker(sam2, **plain)
        tracker.without_geometry = str(error)
        return tracker


def _with_merger(
    sam2: str, must3r: str, mode: str, checkpoint: str | Path | None, **options
) -> Tracker:
    if checkpoint is None:
        raise InputError(
            f"there are no merger weights for sam2 '{sam2}' with must3r '{must3r}'; train them "
            "(docs/finetune.md) and name the file as checkpoint, or use --geometry-mode places"
        )
    mode = "merger" if mode == "auto" else mode
    tracker = build_tracker(sam2, checkpoint=Path(checkpoint), must3r=must3r, mode=mode, **options)
    if tracker.spec.source == "depth":
        raise InputError(
            f"{checkpoint}: the oracle needs depth and poses; use evaluate.py with scenes"
        )
    return tracker


def build_tracker(
    sam2: str,
    *,
    checkpoint: Path | None = None,
    mode: str = "merger",
    must3r: str = "tiny",
    given: GivenGeometry | None = None,
    places: PlaceSettings | None = None,
    max_keyframes: int | None = None,
    keyframe_interval: int = KEYFRAME_INTERVAL,
    geometry_every: int = 1,
    **options,
) -> Tracker:
    """A tracker of a SAM2 model, with the arm of a fusion checkpoint where one is given.

    mode: merger, places or both; without checkpoint and places, SAM2 alone. places: other settings
    than the default ones. A checkpoint was trained on geometry whose keyframes join the memory at
    once; tracking lets them wait for groups of frames (`keyframe_interval`), which is faster. The
    sources of an oracle need `scene=` (see `Tracker.make_source`). options: see `build_parts`.
    Raises InputError when the checkpoint was trained on other backbones, naming both.
    """
    settings = (places or PlaceSettings()) if mode in ("places", "both") else None
    memory = {"max_keyframes": max_keyframes, "keyframe_interval": keyframe_interval}
    choice = GeometryChoice(checkpoint, settings, must3r, given, **memory, every=geometry_every)
    parts = build_parts(sam2, choice, **options)
    return Tracker(parts.predictor, parts.identity, parts.precision, parts.spec, parts.make_source)
