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

from geometry_fusion.choices import KEYFRAME_INTERVAL, OBJECTS_AT_ONCE
from geometry_fusion.devices import pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.source import GeometrySource, NoGeometry
from geometry_fusion.io.open_frames import opened_frames
from geometry_fusion.io.weights import read_weights
from geometry_fusion.models import pretrained
from geometry_fusion.models.checkpoint import check_backbones, fuse_weights, read_spec
from geometry_fusion.models.geometry import SourceMaker, SourceOptions, source_maker
from geometry_fusion.models.identity import Identity, WeightFile
from geometry_fusion.models.must3r import checked_name, model_file
from geometry_fusion.models.names import FUSION_CHECKPOINTS, SAM2_MODELS
from geometry_fusion.models.sam2 import build_predictor, model_files
from geometry_fusion.models.spec import FusionSpec
from geometry_fusion.tracking.open_session import open_session
from geometry_fusion.tracking.predictor import GeometryVideoPredictor
from geometry_fusion.tracking.session import Session
from geometry_fusion.types import Prompt, TrackedFrame

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")


def no_geometry(scene=None, **changes) -> GeometrySource:
    """The source of SAM2 alone."""
    return NoGeometry()


@dataclass
class Tracker:
    """A predictor that is ready to track, and what its results depend on.

    A tracker holds nothing of a video: any number of sessions can use it at the same time.
    """

    predictor: GeometryVideoPredictor
    identity: Identity
    precision: str = "auto"
    spec: FusionSpec | None = None  # None: SAM2 alone
    make_source: SourceMaker = no_geometry
    # Why geometry does not run although nobody asked for SAM2 alone.
    without_geometry: str | None = None

    @property
    def arm(self) -> str:
        """sam2, or the arm of the checkpoint: 3am, control, oracle."""
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
    geometry: str = "auto",
    checkpoint: str | Path | None = None,
    sam2_checkpoint: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    **options,
) -> Tracker:
    """A tracker from a SAM2 model name, a fusion checkpoint, a folder or a hub id.

    name: tiny, t, s, b+ or l; a fusion checkpoint (.safetensors), whose backbones are found by the
    names that it records; a folder that `Tracker.save_pretrained` wrote; or a hub id "owner/name".
    geometry: "none" (SAM2 alone); "must3r" or "must3r:NAME", with NAME of tiny, 224, 512 or a
    weight file; "auto": MUSt3R where merger weights for these models exist, else SAM2 alone, and
    `Tracker.without_geometry` gives the reason; "auto:NAME" does the same with another MUSt3R.
    checkpoint: merger weights; sam2_checkpoint: SAM2 weights in place of the model's own.
    precision: auto, fp32 or bf16.

    options: `max_keyframes` and `keyframe_interval` of MUSt3R's memory, `objects_at_once`,
    `frames_at_once`, `memory`, `compile`, `exact` (see `models.sam2.build_predictor`).

    Raises InputError for names, files and combinations that cannot be used, with the cure.
    """
    if str(name) in SAM2_MODELS:
        must3r = _must3r_of(geometry)
        given = {"sam2_file": sam2_checkpoint, "device": device, "precision": precision}
        if must3r is None:
            if checkpoint:
                raise InputError(
                    f"checkpoint {checkpoint}: is for geometry, and geometry is 'none'; leave out "
                    "one of them"
                )
            return build_tracker(str(name), **given, **options)
        chosen = {"must3r": must3r, "checkpoint": checkpoint, **given, **options}
        return _without_oracle(str(name), required=not geometry.startswith("auto"), **chosen)
    given = {"device": device, "precision": precision, **options}
    path = Path(name)
    if checkpoint or geometry == "none" or (geometry != "auto" and not path.is_file()):
        raise InputError(
            f"{name}: brings its own merger and geometry; leave out geometry and checkpoint"
        )
    if path.is_file():
        return _load_checkpoint(path, geometry, sam2_checkpoint, given)
    is_hub_id = HUB_ID.fullmatch(str(name)) and path.suffix not in WEIGHT_SUFFIXES
    if path.is_dir() or is_hub_id:
        return Tracker.from_pretrained(name, **given)
    raise InputError(
        f"{name}: no such model, file or folder; choose one of {', '.join(SAM2_MODELS)}, or give "
        "a fusion checkpoint, a saved folder or a hub id"
    )


def _must3r_of(geometry: str) -> str | None:
    """Name or file of the MUSt3R that `geometry` asks for; None for SAM2 alone."""
    kind, _, model = geometry.partition(":")
    if geometry == "none":
        return None
    if kind not in ("auto", "must3r"):
        raise InputError(
            f"geometry {geometry}: unknown; choose one of auto, none, must3r, must3r:NAME"
        )
    return checked_name(model or "tiny")


def _load_checkpoint(
    path: Path, geometry: str, sam2_checkpoint: str | Path | None, options: dict
) -> Tracker:
    """A tracker from a fusion checkpoint, on the backbones that it names."""
    _, backbones = read_spec(path)
    if geometry == "auto" and "must3r" in backbones:
        geometry = f"must3r:{backbones['must3r']['name']}"
    must3r = _must3r_of(geometry) or "tiny"
    sam2 = backbones["sam2"]["name"]
    files = {"sam2_file": sam2_checkpoint, "checkpoint": path}
    return _without_oracle(sam2, must3r=must3r, required=True, **files, **options)


def _without_oracle(sam2: str, *, must3r: str, checkpoint, required: bool, **options) -> Tracker:
    """With geometry, or, where it is not required, SAM2 alone with the reason."""
    chosen = checkpoint or FUSION_CHECKPOINTS.get((sam2, must3r))
    try:
        if chosen is None:
            raise InputError(
                f"there are no merger weights for sam2 '{sam2}' with must3r '{must3r}'; train them "
                "(docs/finetune.md) and name the file as checkpoint"
            )
        tracker = build_tracker(sam2, checkpoint=Path(chosen), must3r=must3r, **options)
    except InputError as error:
        if required or checkpoint:
            raise
        plain = {
            k: v for k, v in options.items() if k not in ("max_keyframes", "keyframe_interval")
        }
        tracker = build_tracker(sam2, **plain)
        tracker.without_geometry = str(error)
        return tracker
    if tracker.spec.source == "depth":
        raise InputError(f"{chosen}: the oracle needs depth and poses; use evaluate.py with scenes")
    return tracker


def build_tracker(
    sam2: str,
    *,
    sam2_file: str | Path | None = None,
    checkpoint: Path | None = None,
    must3r: str = "tiny",
    device: str = "auto",
    precision: str = "auto",
    max_keyframes: int | None = None,
    keyframe_interval: int = KEYFRAME_INTERVAL,
    objects_at_once: int = OBJECTS_AT_ONCE,
    compile: bool = False,
    **options,
) -> Tracker:
    """A tracker of a SAM2 model, with the arm of a fusion checkpoint where one is given.

    A checkpoint was trained on geometry whose keyframes join the memory at once; tracking lets them
    wait for groups of frames (`keyframe_interval`), which is faster. The sources of an oracle need
    `scene=` (see `Tracker.make_source`). Raises InputError when the checkpoint was trained on other
    backbones, naming both.
    """
    torch_device = pick_device(device)
    files = {"sam2": WeightFile(sam2, Path(sam2_file or model_files(sam2)[1]))}
    options |= {"objects_at_once": objects_at_once, "compile": compile}
    settings = {"device": torch_device.type, "precision": precision}
    settings |= {name.replace("_", " "): str(value) for name, value in options.items()}
    if checkpoint is None:
        predictor = build_predictor(sam2, sam2_file, torch_device, **options)
        return Tracker(predictor, Identity("sam2", files, settings), precision)
    spec, backbones = read_spec(checkpoint)
    if spec.source == "must3r":
        files["must3r"] = WeightFile(must3r, model_file(must3r))
    check_backbones(checkpoint, backbones, files)
    predictor = build_predictor(sam2, sam2_file, torch_device, **options)
    backbone = files["must3r"].file if "must3r" in files else None
    source_options = SourceOptions(torch_device, precision, max_keyframes, keyframe_interval)
    make_source = source_maker(spec, backbone, source_options)
    fuse_weights(predictor, spec, read_weights(checkpoint), make_source, str(checkpoint))
    settings["keyframes"] = f"{max_keyframes}, every {keyframe_interval}"
    files["checkpoint"] = WeightFile(checkpoint.stem, checkpoint)
    identity = Identity(spec.arm, files, settings)
    return Tracker(predictor, identity, precision, spec, make_source)
