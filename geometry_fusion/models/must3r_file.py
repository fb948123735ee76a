"""Our layout of MUSt3R weights, and checks of the networks that a weight file describes.

A .safetensors file holds tensors `encoder.*` and `decoder.*`; its metadata hold the constructor
arguments of both as JSON. The published layout is in geometry_fusion.models.must3r_official.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.parsing import is_number, parse_json
from geometry_fusion.io.weights import check_fits, read_metadata, read_weights

PARTS = ("encoder", "decoder")

_LARGEST = 1 << 14  # largest number among constructor arguments
_MOST_BLOCKS = 256


def arguments_of(path: Path) -> dict[str, dict]:
    """Constructor arguments of encoder and decoder, by part, without reading the weights.

    Raises InputError where the file records none. The arguments are not checked yet.
    """
    metadata = read_metadata(path)
    if not all(part in metadata for part in PARTS):
        raise InputError(
            f"{path}: carries no encoder and decoder arguments; is it a MUSt3R file of ours?"
        )
    return {
        part: parse_json(metadata[part], f"{path}: {part} arguments", "fetch it again")
        for part in PARTS
    }


def read_ours(path: Path) -> tuple[dict[str, dict], dict[str, dict[str, Tensor]]]:
    """Constructor arguments and fp32 weights of encoder and decoder, by part.

    Raises InputError for files that are missing, damaged or not in our layout. The arguments are
    not checked yet; `check_arguments` does that.
    """
    tensors = read_weights(path)
    arguments = arguments_of(path)
    # Training checkpoints also hold the matching head, which inference does not have.
    unknown = [name for name in tensors if name.split(".")[0] not in (*PARTS, "matcher")]
    if unknown:
        raise InputError(
            f"{path}: not a MUSt3R file: unexpected tensor {unknown[0]}; choose the matching file"
        )
    weights = {}
    for part in PARTS:
        weights[part] = {
            name.removeprefix(f"{part}."): tensor.float()
            for name, tensor in tensors.items()
            if name.startswith(part)
        }
    return arguments, weights


def check_arguments(arguments: object, part: str, path: Path) -> None:
    """Raise InputError unless constructor arguments are plain values by name, with numbers in the
    range of a real network.
    """
    if not isinstance(arguments, dict):
        raise InputError(
            f"{path}: {part} arguments do not fit: they are no values by name; is it a MUSt3R file?"
        )
    for name, value in arguments.items():
        items = value if isinstance(value, (list, tuple)) else (value,)
        most = _MOST_BLOCKS if name == "depth" else _LARGEST
        usable = all(
            item is None
            or isinstance(item, (str, bool))
            or (is_number(item) and math.isfinite(item) and abs(item) <= most)
            for item in items
        )
        if not usable or len(items) > 2:
            raise InputError(
                f"{path}: {part} arguments do not fit: {name}={repr(value)[:60]} is not text or a "
                f"number up to {most}; is it a MUSt3R file?"
            )


def build(network: Callable[..., nn.Module], arguments: dict, part: str, path: Path) -> nn.Module:
    """`network(**arguments)`. Raises InputError if the class does not take these arguments.

    part: "encoder" or "decoder", for messages.
    """
    try:
        return network(**arguments)
    except (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise InputError(
            f"{path}: {part} arguments do not fit: {one_line(error)}; is it a MUSt3R file?"
        ) from None


def check_weights(
    network: Callable[..., nn.Module],
    arguments: dict,
    weights: dict[str, Tensor],
    part: str,
    path: Path,
) -> None:
    """Raise InputError unless `weights` have the names and shapes of the network that `arguments`
    describe, all of them.
    """
    # On the meta device no memory is allocated: a file may name enormous sizes.
    with torch.device("meta"):
        described = build(network, arguments, part, path)
    check_fits(described, weights, path, description(part))


def description(part: str) -> str:
    """The name of a file's network in messages."""
    return f"the MUSt3R {part} it describes"
