"""The parts of a tracker, built from names and files: predictor, geometry sources, identity."""

from dataclasses import asdict, dataclass
from pathlib import Path

from geometry_fusion.choices import KEYFRAME_INTERVAL, OBJECTS_AT_ONCE
from geometry_fusion.devices import pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.source import GeometrySource, NoGeometry
from geometry_fusion.io.weights import read_weights
from geometry_fusion.limits import LIMITS, check_option
from geometry_fusion.models.checkpoint import check_backbones, fuse_weights, read_spec
from geometry_fusion.models.geometry import (
    SourceMaker,
    SourceOptions,
    must3r_points,
    source_maker,
)
from geometry_fusion.models.given import GivenGeometry
from geometry_fusion.models.identity import Identity, WeightFile
from geometry_fusion.models.must3r import model_file
from geometry_fusion.models.sam2 import build_predictor, image_size, model_files
from geometry_fusion.models.spec import FusionSpec
from geometry_fusion.tracking.places import PlaceSettings, judging_side
from geometry_fusion.tracking.predictor import GeometryVideoPredictor


def no_geometry(scene=None, **changes) -> GeometrySource:
    """The source of SAM2 alone."""
    return NoGeometry()


@dataclass(frozen=True)
class Parts:
    """What a `Tracker` is made of."""

    predictor: GeometryVideoPredictor
    identity: Identity
    precision: str
    spec: FusionSpec | None = None  # None: no merger
    make_source: SourceMaker = no_geometry


@dataclass(frozen=True)
class GeometryChoice:
    """Which geometry a tracker has, and how it is used."""

    checkpoint: Path | None = None  # of a merger; None: none
    places: PlaceSettings | None = None  # None: places are not used
    must3r: str = "tiny"
    given: GivenGeometry | None = None  # of the user, in place of MUSt3R's
    max_keyframes: int | None = None
    keyframe_interval: int = KEYFRAME_INTERVAL
    every: int = 1  # MUSt3R sees every so many frames


def check_every(every: int, is_given: bool) -> None:
    """Raise InputError for a `GeometryChoice.every` that cannot be, or does not go with geometry
    that is given.
    """
    check_option("--geometry-every", every, LIMITS["geometry_every"])
    if is_given and every != 1:
        raise InputError(f"--geometry-every {every}: is for MUSt3R; leave it out with --geometry")


def build_parts(
    sam2: str,
    geometry: GeometryChoice,
    *,
    sam2_file: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    objects_at_once: int = OBJECTS_AT_ONCE,
    compile: bool = False,
    **options,
) -> Parts:
    """The parts of a tracker; see `build_tracker`."""
    torch_device = pick_device(device)
    files = {"sam2": WeightFile(sam2, Path(sam2_file or model_files(sam2)[1]))}
    if options.get("memory") == "fifo":
        del options["memory"]  # the default; results of earlier versions stay valid
    options |= {"objects_at_once": objects_at_once, "compile": compile}
    settings = {"device": torch_device.type, "precision": precision}
    settings |= {name.replace("_", " "): str(value) for name, value in options.items()}
    if geometry.places is not None:
        settings["places"] = str(asdict(geometry.places))
    if geometry.checkpoint is None and geometry.places is None:
        predictor = build_predictor(sam2, sam2_file, torch_device, **options)
        return Parts(predictor, Identity("sam2", files, settings), precision)
    chosen = SourceOptions(
        torch_device, precision, geometry.max_keyframes, geometry.keyframe_interval, geometry.every
    )
    settings["keyframes"] = f"{geometry.max_keyframes}, every {geometry.keyframe_interval}"
    if geometry.every != 1:
        settings["geometry every"] = str(geometry.every)
    if geometry.checkpoint is None:
        cells = judging_side(image_size(sam2) // 4)
        make_source = _points_maker(geometry, chosen, files, settings, cells)
        predictor = build_predictor(sam2, sam2_file, torch_device, **options)
        predictor.fuse(None, make_source, geometry.places)
        identity = Identity("places", files, settings)
        return Parts(predictor, identity, precision, None, make_source)
    spec, backbones = read_spec(geometry.checkpoint)
    if spec.source == "must3r":
        files["must3r"] = WeightFile(geometry.must3r, model_file(geometry.must3r))
    check_backbones(geometry.checkpoint, backbones, files)
    predictor = build_predictor(sam2, sam2_file, torch_device, **options)
    backbone = files["must3r"].file if "must3r" in files else None
    make_source = source_maker(spec, backbone, chosen)
    weights, name = read_weights(geometry.checkpoint), str(geometry.checkpoint)
    fuse_weights(predictor, spec, weights, make_source, name, geometry.places)
    files["checkpoint"] = WeightFile(geometry.checkpoint.stem, geometry.checkpoint)
    arm = spec.arm if geometry.places is None else "both"
    return Parts(predictor, Identity(arm, files, settings), precision, spec, make_source)


def _points_maker(
    geometry: GeometryChoice, options: SourceOptions, files: dict, settings: dict, cells: int
) -> SourceMaker:
    """The sources of places; adds what they depend on to `files` and `settings`.

    cells: per side of the grid on which places are judged.
    """
    given = geometry.given
    if given is not None:
        settings["geometry"] = given.digest
        del settings["keyframes"]
        return lambda scene=None, **changes: given.source(cells)
    files["must3r"] = WeightFile(geometry.must3r, model_file(geometry.must3r))
    return must3r_points(geometry.must3r, files["must3r"].file, options)
