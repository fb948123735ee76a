"""Reports whether a checkpoint holds FeatureMerger weights, how many, and for which backbones.

Files are ours (.safetensors) or foreign (.pt, .pth, .safetensors); nothing in them is ever
executed. A top-level "model" or "state_dict" dict is unwrapped; its neighbours (optimizer, steps)
are ignored.

Merger tensors have a component `merger`, `feature_merger`, `geometry_merger` or `geometry_fusion`
in their dotted name: `merger.proj.weight`, `module.merger.norm.bias`.

Our files have metadata, each value JSON text: `format_version`, `config`, `step`, `metrics` and
`backbones`, the frozen networks that the merger was trained on, such as {"sam2": {"name": "tiny",
"sha256": "..."}, "must3r": {...}}. For foreign files, which lack them, the report has "not
recorded". A line "cannot be used" gives the reason why this project would refuse the file.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geometry_fusion.errors import InputError, printable
from geometry_fusion.io.parsing import parse_json
from geometry_fusion.io.weights import first_fault, read_metadata, read_weights
from geometry_fusion.models.fusion_schema import PARTS, read_facts

MERGER_NAMES = frozenset({"merger", "feature_merger", "geometry_merger", "geometry_fusion"})
METADATA_KEYS = ("format_version", "config", "backbones", "step", "metrics")
SHOWN_MODULES = 20


@dataclass(frozen=True)
class Inspection:
    """The content of a checkpoint."""

    merger_tensors: int
    merger_parameters: int
    modules: dict[str, int]  # first component of the tensors' names -> parameters, most first
    metadata: dict  # decoded METADATA_KEYS, without those that the file does not record
    faults: tuple[str, ...] = ()  # reasons why this project would refuse the file


def is_merger(name: str) -> bool:
    """Whether a tensor of this dotted name belongs to a FeatureMerger."""
    return not MERGER_NAMES.isdisjoint(name.split("."))


def inspect(file: Path | str) -> Inspection:
    """Read a checkpoint without executing anything in it.

    Raises InputError for folders, and for files that are missing, damaged or hostile.
    """
    file = Path(file)
    if file.is_dir():
        raise InputError(f"{file}: a folder; give a checkpoint file inside it")
    tensors = read_weights(file, finite=False)
    modules = Counter()
    for name, tensor in tensors.items():
        modules[name.split(".")[0]] += tensor.numel()
    merger = [tensor.numel() for name, tensor in tensors.items() if is_merger(name)]
    recorded = read_metadata(file) if file.suffix == ".safetensors" else {}
    return Inspection(
        merger_tensors=len(merger),
        merger_parameters=sum(merger),
        modules=dict(modules.most_common()),
        metadata={
            key: value
            for key in METADATA_KEYS
            if (value := _decoded(recorded.get(key))) is not None
        },
        faults=tuple(_faults(file, tensors, recorded)),
    )


def _faults(file: Path, tensors: dict, recorded: dict[str, str]) -> Iterator[str]:
    """Reasons to refuse the file. recorded: its metadata, not yet decoded."""
    if fault := first_fault(tensors):
        yield fault
    if all(part in recorded for part in PARTS):
        try:
            read_facts(recorded, file)
        except InputError as error:
            yield str(error).removeprefix(f"{file}: ")


def describe(found: Inspection) -> str:
    """The report, one fact a line."""
    if found.merger_tensors:
        lines = [
            f"merger: {found.merger_parameters:,} parameters in {found.merger_tensors} tensors"
        ]
    else:
        lines = [f"merger: none (no tensor name has a part {', '.join(sorted(MERGER_NAMES))})"]
    backbones = found.metadata.get("backbones")
    if isinstance(backbones, dict) and backbones:
        lines += [f"backbone {role}: {_named(backbone)}" for role, backbone in backbones.items()]
    else:
        lines.append("backbones: not recorded")
    for key in ("step", "format_version", "metrics"):
        if key in found.metadata:
            lines.append(f"{key.replace('_', ' ')}: {json.dumps(found.metadata[key])}")
    lines += [f"cannot be used: {fault}" for fault in found.faults]
    lines.append("top-level modules:")
    shown = list(found.modules.items())[:SHOWN_MODULES]
    lines += [f"  {name:<24} {parameters:>14,} parameters" for name, parameters in shown]
    if len(found.modules) > len(shown):
        lines.append(f"  and {len(found.modules) - len(shown)} more")
    return "\n".join(map(printable, lines))


def _decoded(text: str | None):
    """The value of JSON text; None for other text, which foreign tools may store under the key."""
    try:
        return parse_json(text, "metadata") if text is not None else None
    except InputError:
        return None


def _named(backbone: object) -> str:
    """A backbone's name and digest, as the report shows them."""
    if not isinstance(backbone, dict):
        return str(backbone)
    digest = backbone.get("sha256") or "not recorded"
    return f"{backbone.get('name', 'unnamed')} (sha256 {digest})"
