"""Wiring: what a fusion is made of, from a merger config or from a checkpoint -> merger and
geometry source.

A fusion checkpoint is a safetensors file with only what differs from the frozen backbones
(`merger.*` and any part of SAM2 but the image encoder, such as `memory_attention.*`) and metadata:
arguments of the merger, geometry source and its options, and the SHA-256 of the frozen backbones.
It is refused on other backbones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf

import must3r_loader
import sam2_model
from geometry_fusion.downloads import file_digest
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.fusion_schema import ARMS, MERGER_CLASS, read_facts
from geometry_fusion.geometry import (
    GeometrySource,
    Must3rStream,
    NoGeometry,
    OverlapRule,
    posed_depth_of,
)
from geometry_fusion.merger import FeatureMerger
from geometry_fusion.optimise import pack_linears
from geometry_fusion.predictor import GeometryVideoPredictor
from geometry_fusion.weights import read_metadata, read_weights

ROOT = Path(__file__).resolve().parent
MERGERS = ROOT / "configs/merger"
DEFAULT_CHECKPOINTS = {
    ("tiny", "tiny"): ROOT / "checkpoints/fusion_tiny.safetensors"
}  # by (sam2, must3r)
# frames between two times at which keyframes join MUSt3R's memory while tracking (docs/geometry.md)
JOIN_EVERY = 4


@dataclass(frozen=True)
class FusionSpec:
    """Everything but the weights."""

    arm: str
    merger: dict  # keyword arguments of FeatureMerger, with its _target_
    geometry: dict  # levels, max_keyframes, rule

    @property
    def source(self) -> str:
        """must3r, depth or none."""
        return ARMS[self.arm][0]

    def build_merger(self) -> FeatureMerger:
        """Raises InputError for arguments that make no merger. Nothing that a file names is ever
        called.
        """
        arguments = {k: v for k, v in self.merger.items() if k != "_target_"}
        if self.merger.get("_target_") != MERGER_CLASS:
            raise InputError(
                f"merger {self.merger.get('_target_')!r}: unknown class; known is {MERGER_CLASS}"
            )
        try:
            return FeatureMerger(**arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"merger: these arguments make none: {one_line(error)}") from None

    def metadata(self) -> dict:
        return {"arm": self.arm, "merger": self.merger, "geometry": self.geometry}


def merger_of(name: str, must3r: str) -> str:
    """The merger config of a MUSt3R model where `name` is "auto", else `name`."""
    if name != "auto":
        return name
    return "tiny" if must3r == "tiny" else "paper"


def spec_of(name: str, arm: str = "3am", variant: str = "paper") -> FusionSpec:
    """The spec of configs/merger/NAME.yaml. Raises InputError for unknown names."""
    file = MERGERS / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in MERGERS.glob("*.yaml")))
        raise InputError(f"merger={name}: {file} does not exist; known are: {known}")
    if arm not in ARMS:
        raise InputError(f"arm={arm}: unknown; known are: {', '.join(ARMS)}")
    config = OmegaConf.to_container(OmegaConf.load(file))
    merger = {**config["merger"], "levels_from": ARMS[arm][1], "variant": variant}
    return FusionSpec(arm, merger, config["geometry"])


def source_maker(
    spec: FusionSpec,
    must3r_file: Path | None,
    device: str | torch.device,
    precision: str = "auto",
    max_keyframes: int | None = None,
    join_every: int = 1,
) -> Callable[..., GeometrySource]:
    """A function that makes a fresh geometry source; given the scene it is for, which only `depth`
    needs.

    max_keyframes: another cap on MUSt3R's memory than the spec's; join_every: as in Must3rStream.
    The function takes other options of Must3rStream as keywords: sources that differ in them share
    one MUSt3R.
    """
    if spec.source == "none":
        return lambda scene=None, **changes: NoGeometry()
    if spec.source == "depth":
        return lambda scene, **changes: posed_depth_of(scene)
    loaded = must3r_loader.load_must3r(must3r_file, device=device, memory_mode="kv")
    encoder, decoder = map(pack_linears, loaded)
    widths = [encoder.embed_dim, *[decoder.embed_dim] * len(decoder.blocks_dec)]
    levels = spec.geometry["levels"]
    found = [widths[level] if 0 <= level < len(widths) else None for level in levels]
    if found != list(spec.merger["level_dims"]):
        raise InputError(
            f"{must3r_file}: its levels {levels} have {found} channels, the merger is made for "
            f"{list(spec.merger['level_dims'])}; choose a merger and a MUSt3R that belong together"
        )
    options = dict(spec.geometry) | (
        {} if max_keyframes is None else {"max_keyframes": max_keyframes}
    )
    options |= {"join_every": join_every, "precision": precision}
    rule = options.pop("rule", {})
    shared = {"rule": OverlapRule(**rule), **options}
    return lambda scene=None, **changes: Must3rStream(encoder, decoder, **{**shared, **changes})


def read_spec(checkpoint: Path) -> tuple[FusionSpec, dict]:
    """Spec and backbones of a fusion checkpoint. Raises InputError if it is none of ours."""
    weights = read_weights(checkpoint)
    if checkpoint.suffix != ".safetensors" or not any(
        name.startswith("merger.") for name in weights
    ):
        raise InputError(
            f"{checkpoint}: carries no merger weights of ours; see check_checkpoint_geometry.py"
        )
    facts = read_facts(read_metadata(checkpoint), checkpoint)
    return FusionSpec(facts["arm"], facts["merger"], facts["geometry"]), facts["backbones"]


def fuse_checkpoint(
    predictor: GeometryVideoPredictor,
    checkpoint: Path,
    *,
    sam2: str,
    sam2_file: Path | None,
    must3r: str,
    precision: str = "auto",
    scene=None,
    max_keyframes: int | None = None,
    join_every: int = JOIN_EVERY,
) -> FusionSpec:
    """Give `predictor` the merger, the fine-tuned parts and the geometry source of a checkpoint.

    It was trained on geometry whose keyframes join the memory at once; tracking lets them wait for
    groups of frames, which is faster. max_keyframes: another cap on MUSt3R's memory than the
    checkpoint's. Raises InputError when the checkpoint was trained on other backbones, naming both.
    """
    spec, backbones = read_spec(checkpoint)
    files = {"sam2": (sam2, sam2_file or sam2_model.model_files(sam2)[1])}
    if spec.source == "must3r":
        files["must3r"] = (must3r, must3r_loader.model_file(must3r))
    _check_backbones(checkpoint, backbones, files)
    must3r_file = files["must3r"][1] if "must3r" in files else None
    make = source_maker(spec, must3r_file, predictor.device, precision, max_keyframes, join_every)
    make_source = (lambda: make(scene)) if spec.source == "depth" else make
    fuse_weights(predictor, spec, read_weights(checkpoint), make_source, str(checkpoint))
    return spec


def fuse_weights(
    predictor: GeometryVideoPredictor,
    spec: FusionSpec,
    weights: dict[str, torch.Tensor],
    make_source: Callable[[], GeometrySource],
    name: str,
) -> None:
    """Give a fresh `predictor` the merger and the fine-tuned parts of a checkpoint's tensors, and a
    geometry source.

    name: of the checkpoint, for messages. Raises InputError when the tensors do not fit the spec.
    """
    try:
        with torch.device(
            "meta"
        ):  # shapes without memory: a file may name sizes that no memory holds
            shapes = spec.build_merger()
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    checked = _checked_weights(weights, name, shapes, predictor)
    predictor.fuse(pack_linears(spec.build_merger()), make_source)
    predictor.load_state_dict(checked, strict=False)  # what is not there is as in the backbone


def continue_from(
    model: torch.nn.Module, spec: FusionSpec, checkpoint: Path, files: dict[str, tuple]
) -> None:
    """Load what an earlier run trained into `model`, a SAM2 with `.merger` of `spec`, to train it
    further.

    files: role -> (name, file) of the backbones. Raises InputError for a checkpoint of another spec
    or other backbones.
    """
    found, backbones = read_spec(checkpoint)
    # How MUSt3R's memory is kept may change between two runs; what it is read for may not.
    shapes = {
        "arm": lambda s: s.arm,
        "merger": lambda s: s.merger,
        "levels": lambda s: s.geometry.get("levels"),
    }
    differs = [name for name, of in shapes.items() if of(found) != of(spec)]
    if differs:
        raise InputError(
            f"{checkpoint}: was trained with another {differs[0]}; choose the checkpoint of this "
            "arm"
        )
    _check_backbones(checkpoint, backbones, files)
    weights = _checked_weights(read_weights(checkpoint), str(checkpoint), model.merger, model)
    model.load_state_dict(weights, strict=False)


def shipped_for(files: dict[str, tuple[str, Path]]) -> Path | None:
    """The shipped fusion checkpoint of these very backbones, role -> (name, file); None where there
    is none.
    """
    checkpoint = DEFAULT_CHECKPOINTS.get((files["sam2"][0], files["must3r"][0]))
    if checkpoint is None or not checkpoint.is_file():
        return None
    trained_on = read_spec(checkpoint)[1]
    known = all(
        trained_on.get(role, {}).get("sha256") == file_digest(file)
        for role, (_, file) in files.items()
    )
    return checkpoint if known else None


def _check_backbones(checkpoint: Path, backbones: dict, files: dict[str, tuple]) -> None:
    for role, (name, file) in files.items():
        trained, here = backbones.get(role, {}), file_digest(file)
        if trained.get("sha256") != here:
            raise InputError(
                f"{checkpoint}: was trained on {role} '{trained.get('name')}' "
                f"({str(trained.get('sha256'))[:12]}), "
                f"not on '{name}' ({file.name}, {here[:12]}); choose the matching --{role} or "
                "another checkpoint"
            )


def is_tunable(name: str) -> bool:
    """Whether a fusion checkpoint may hold a tensor: any but those of SAM2's image encoder, which
    all arms share.
    """
    return not name.startswith("image_encoder.")


def _checked_weights(
    weights: dict[str, torch.Tensor], checkpoint: str, merger: FeatureMerger, model: torch.nn.Module
) -> dict[str, torch.Tensor]:
    """All of the merger and any part of SAM2 that is tunable; raises InputError for anything
    else.
    """
    weights = {name: value.float() for name, value in weights.items()}
    own = {f"merger.{name}": tensor for name, tensor in merger.state_dict().items()}
    tuned = {
        n: t for n, t in model.state_dict().items() if is_tunable(n) and not n.startswith("merger.")
    }
    shapes = {name: tensor.shape for name, tensor in {**own, **tuned}.items()}
    unknown = sorted(weights.keys() - shapes.keys()) or [
        n for n, t in weights.items() if t.shape != shapes[n]
    ]
    missing = sorted(own.keys() - weights.keys())
    if unknown or missing:
        raise InputError(
            f"{checkpoint}: does not fit its own description: {(unknown or missing)[0]}; write "
            "it again"
        )
    return weights
