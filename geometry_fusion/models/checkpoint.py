"""Fusion checkpoints: reading, verifying and applying them.

A fusion checkpoint is a safetensors file. It holds only the tensors that differ from the frozen
backbones: `merger.*`, and any part of SAM2 but the image encoder, such as `memory_attention.*`. Its
metadata hold the merger's arguments, the geometry source with its options, and the SHA-256 of the
backbones. Other backbones are refused.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from geometry_fusion.errors import InputError
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.weights import read_metadata, read_weights
from geometry_fusion.merger import FeatureMerger
from geometry_fusion.models.fusion_schema import read_facts
from geometry_fusion.models.identity import WeightFile
from geometry_fusion.models.names import FUSION_CHECKPOINTS
from geometry_fusion.models.optimise import pack_linears
from geometry_fusion.models.spec import FusionSpec
from geometry_fusion.tracking.places import PlaceSettings
from geometry_fusion.tracking.predictor import GeometryVideoPredictor


def read_spec(checkpoint: Path) -> tuple[FusionSpec, dict]:
    """Spec of a fusion checkpoint, and its backbones ({role: {"name": ..., "sha256": ...}}).

    Raises InputError for any other file.
    """
    has_merger = any(name.startswith("merger.") for name in read_weights(checkpoint))
    if checkpoint.suffix != ".safetensors" or not has_merger:
        raise InputError(
            f"{checkpoint}: carries no merger weights of ours; see check_checkpoint_geometry.py"
        )
    facts = read_facts(read_metadata(checkpoint), checkpoint)
    return FusionSpec(facts["arm"], facts["merger"], facts["geometry"]), facts["backbones"]


def fuse_weights(
    predictor: GeometryVideoPredictor,
    spec: FusionSpec,
    weights: dict[str, torch.Tensor],
    make_source: Callable[[], GeometrySource],
    name: str,
    places: PlaceSettings | None = None,
) -> None:
    """Fuse geometry into a new `predictor`: the merger, the fine-tuned parts of SAM2, a source.

    weights: the checkpoint's tensors; name: its name for messages; places: see
    `FusingEncoder.fuse`. Raises InputError if the tensors do not fit the spec.
    """
    try:
        # On the meta device no memory is allocated: a file may name enormous sizes.
        with torch.device("meta"):
            described = spec.build_merger()
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    checked = _checked_weights(weights, name, described, predictor)
    predictor.fuse(pack_linears(spec.build_merger()), make_source, places)
    predictor.load_state_dict(checked, strict=False)  # all other tensors stay the backbone's


def continue_from(
    model: torch.nn.Module, spec: FusionSpec, checkpoint: Path, files: dict[str, WeightFile]
) -> None:
    """Load the weights of an earlier run into `model`, a SAM2 with `.merger` of `spec`, to train
    them further.

    files: the backbones by role. Raises InputError for a checkpoint of another spec or other
    backbones.
    """
    backbones = _check_spec(checkpoint, spec)
    check_backbones(checkpoint, backbones, files)
    weights = _checked_weights(read_weights(checkpoint), str(checkpoint), model.merger, model)
    model.load_state_dict(weights, strict=False)


def take_merger(model: torch.nn.Module, spec: FusionSpec, checkpoint: Path) -> None:
    """Load the merger of a run on other backbones into `model`, a SAM2 with `.merger` of `spec`.

    Raises InputError for a checkpoint of another spec.
    """
    _check_spec(checkpoint, spec)
    weights = _checked_weights(read_weights(checkpoint), str(checkpoint), model.merger, model)
    merger = {name: tensor for name, tensor in weights.items() if name.startswith("merger.")}
    model.load_state_dict(merger, strict=False)


def _check_spec(checkpoint: Path, spec: FusionSpec) -> dict:
    """The backbones of a checkpoint, by `read_spec`. Raises InputError if its spec is another."""
    earlier, backbones = read_spec(checkpoint)
    # The options of MUSt3R's memory may change between two runs; the levels that are read may not.
    compared = {
        "arm": (earlier.arm, spec.arm),
        "merger": (earlier.merger, spec.merger),
        "levels": (earlier.geometry.get("levels"), spec.geometry.get("levels")),
    }
    differing = [name for name, (old, new) in compared.items() if old != new]
    if differing:
        raise InputError(
            f"{checkpoint}: was trained with another {differing[0]}; choose the checkpoint of this "
            "arm"
        )
    return backbones


def shipped_for(files: dict[str, WeightFile]) -> Path | None:
    """The shipped fusion checkpoint that was trained on these backbones, None if there is none.

    files: the backbones by role.
    """
    checkpoint = FUSION_CHECKPOINTS.get((files["sam2"].name, files["must3r"].name))
    if checkpoint is None or not checkpoint.is_file():
        return None
    _, trained_on = read_spec(checkpoint)
    fits = all(
        trained_on.get(role, {}).get("sha256") == weights.sha256 for role, weights in files.items()
    )
    return checkpoint if fits else None


def check_backbones(checkpoint: Path, backbones: dict, files: dict[str, WeightFile]) -> None:
    """Raise InputError unless a checkpoint was trained on these backbones; the message names both.

    backbones: those of the checkpoint, by `read_spec`; files: the given ones by role.
    """
    for role, weights in files.items():
        trained = backbones.get(role, {})
        if trained.get("sha256") != weights.sha256:
            raise InputError(
                f"{checkpoint}: was trained on {role} '{trained.get('name')}' "
                f"({str(trained.get('sha256'))[:12]}), not on '{weights.name}' "
                f"({weights.file.name}, {weights.sha256[:12]}); choose the matching --{role} or "
                "another checkpoint"
            )


def is_tunable(name: str) -> bool:
    """Whether a fusion checkpoint may hold a tensor of this name.

    All may be but those of SAM2's image encoder, whose features all arms share.
    """
    return not name.startswith("image_encoder.")


def _checked_weights(
    weights: dict[str, torch.Tensor], checkpoint: str, merger: FeatureMerger, model: torch.nn.Module
) -> dict[str, torch.Tensor]:
    """The tensors in fp32. Raises InputError unless they are all of the merger's, and tunable ones
    of SAM2.
    """
    weights = {name: tensor.float() for name, tensor in weights.items()}
    merger_shapes = {f"merger.{name}": t.shape for name, t in merger.state_dict().items()}
    sam2_shapes = {
        name: tensor.shape
        for name, tensor in model.state_dict().items()
        if is_tunable(name) and not name.startswith("merger.")
    }
    shapes = {**merger_shapes, **sam2_shapes}
    unknown = sorted(weights.keys() - shapes.keys())
    if not unknown:
        unknown = [name for name, tensor in weights.items() if tensor.shape != shapes[name]]
    missing = sorted(merger_shapes.keys() - weights.keys())
    if unknown or missing:
        raise InputError(
            f"{checkpoint}: does not fit its own description: {(unknown or missing)[0]}; write it "
            "again"
        )
    return weights
