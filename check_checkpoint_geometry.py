"""Say whether a checkpoint carries FeatureMerger weights, how many, and for which backbones.

    python check_checkpoint_geometry.py FILE      exit code 0: carries a merger, 1: carries none, 2:
    cannot be read

FILE is one of ours (.safetensors) or a foreign .pt, .pth or .safetensors; nothing in it is ever
executed. A top-level "model" or "state_dict" dict is unwrapped, and what lies beside it (optimizer,
steps) is not looked at.

Merger tensors are those with a component `merger`, `feature_merger`, `geometry_merger` or
`geometry_fusion` in their dotted name: `merger.proj.weight`, `module.merger.norm.bias`. Our files
carry metadata, each value JSON text: `format_version`, `config`, `step`, `metrics` and `backbones`,
such as {"sam2": {"name": "tiny", "sha256": "..."}, "must3r": {...}}: the frozen networks it was
trained on. Foreign files have none of it: "not recorded". A line "cannot be used" says why this
project would refuse the file: numbers that are not finite, a description that is none.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from geometry_fusion.errors import InputError, OneLineParser, printable, run_cli
from geometry_fusion.fusion_schema import PARTS, read_facts
from geometry_fusion.parsing import parse_json
from geometry_fusion.weights import first_fault, read_metadata, read_weights

MERGER_NAMES = frozenset({"merger", "feature_merger", "geometry_merger", "geometry_fusion"})
METADATA_KEYS = ("format_version", "config", "backbones", "step", "metrics")
SHOWN_MODULES = 20


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds."""

    merger_tensors: int
    merger_parameters: int
    modules: dict[str, int]  # the first component of the tensors' names -> parameters, most first
    metadata: dict  # decoded METADATA_KEYS; those that the file does not record are absent
    faults: tuple[
        str, ...
    ] = ()  # why this project could not use it as a fusion checkpoint, though it looks like one


def is_merger(name: str) -> bool:
    """Whether a tensor of this dotted name belongs to a FeatureMerger."""
    return not MERGER_NAMES.isdisjoint(name.split("."))


def inspect(file: Path | str) -> Inspection:
    """Read a checkpoint without executing anything in it; raises InputError if it is none, damaged
    or hostile.
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="checkpoint: .safetensors, .pt or .pth"
    )
    file = parser.parse_args(arguments).file
    found = inspect(file)
    print(f"{printable(str(file))}\n{describe(found)}")
    return 0 if found.merger_tensors else 1


def _decoded(text: str | None):
    """The value of JSON text; None for what a foreign tool stored under the same key in another
    form.
    """
    try:
        return parse_json(text, "metadata") if text is not None else None
    except InputError:
        return None


def _named(backbone: object) -> str:
    if not isinstance(backbone, dict):
        return str(backbone)
    digest = backbone.get("sha256")
    return f"{backbone.get('name', 'unnamed')} "
    f"({f'sha256 {digest}' if digest else 'sha256 not recorded'})"


if __name__ == "__main__":
    sys.exit(run_cli(main))
