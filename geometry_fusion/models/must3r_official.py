"""The official MUSt3R: its package, the layout of its published files, and our weights in it.

    python -m geometry_fusion.models.must3r_official IN.safetensors OUT.pth

writes a MUSt3R file of ours in the published layout (docs/must3r_spec.md section 5), which the
official code loads as well. So anyone with the official package can compare the two implementations
on the same weights (docs/geometry.md). An existing OUT is replaced.

Everything that depends on the official package and its files is in this module. Constructor strings
are read as literals, never evaluated; the pickle can only build tensors, plain values and
argparse.Namespace.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import ast
import importlib
import logging
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from geometry_fusion.errors import InputError, OneLineParser, one_line, run_cli
from geometry_fusion.io.atomic import check_apart, replacing_file
from geometry_fusion.io.state_file import write_pickle
from geometry_fusion.io.weights import check_finite, read_pickle
from geometry_fusion.models.must3r_file import PARTS, check_arguments, check_weights, read_ours
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R
from geometry_fusion.must3r.memory import Memory

# The classes for training and for inference have the same weights.
_KNOWN_CLASSES = {"encoder": ("Dust3rEncoder",), "decoder": ("MUSt3R", "CausalMUSt3R")}
# The classes that published files name; the official loader replaces CausalMUSt3R by MUSt3R.
_WRITTEN_CLASSES = {"encoder": "Dust3rEncoder", "decoder": "CausalMUSt3R"}
# Arguments of the training class that change nothing at inference.
_TRAINING_ONLY = (
    "protected_imgs",
    "mem_dropout",
    "dropout_mode",
    "use_xformers_mask",
    "use_mem_mask",
)
# Defaults of the official constructors.
_IMG_SIZE = (224, 224)
_ACTIVATION = "norm_exp"
_log = logging.getLogger(__name__)


def official_networks() -> tuple[type[nn.Module], type[nn.Module]]:
    """The classes of encoder and decoder of the official package.

    Raises InputError, with the cure, where it is not installed or has no such classes.
    """
    try:
        official = importlib.import_module("must3r.model")
        return official.Dust3rEncoder, official.MUSt3R
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"backend 'naver': the official package cannot be used ({one_line(error)}); install "
            "it: pip install -r requirements-must3r.txt"
        ) from None


def official_arguments(arguments: dict, part: str, path: Path) -> dict:
    """Our constructor arguments in the form of the official classes.

    Sizes become tuples, and arguments of our classes alone are left out. Raises InputError for an
    activation other than the default: the official decoder takes a member of an enum, which plain
    values cannot name.
    """
    taken = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in arguments.items()
    }
    if part == "encoder":
        return taken
    activation = taken.pop("pointmaps_activation", _ACTIVATION)
    if activation != _ACTIVATION:
        raise InputError(
            f"{path}: pointmaps_activation={activation}: the official decoder takes any but "
            f"{_ACTIVATION} as an enum only; use backend 'ours'"
        )
    if taken.get("output_dim", 0) is None:  # ours then follows the patch size
        del taken["output_dim"]
    return taken


def adapt(encoder: nn.Module, decoder: nn.Module, arguments: dict[str, dict]) -> None:
    """Give the official modules, in place, the attributes of ours that the rest of the code reads.

    The official encoder does not keep its `img_size`. The official decoder's
    `pointmaps_activation` is a member of an enum whose value is our text, and it has no
    `read_apart`. arguments: the constructor arguments of encoder and decoder, by part.
    """
    encoder.img_size = tuple(arguments["encoder"].get("img_size", _IMG_SIZE))
    activation = getattr(decoder, "pointmaps_activation", _ACTIVATION)
    decoder.pointmaps_activation = getattr(activation, "value", activation)
    if getattr(decoder, "read_apart", None) is None:
        decoder.read_apart = partial(_read_one_by_one, decoder)


def _read_one_by_one(
    decoder: nn.Module,
    tokens: Tensor,  # [1, n, N, De]
    positions: Tensor,  # [1, n, N, 2]
    shapes: Tensor,  # [1, n, 2]
    memory: Memory,
) -> tuple[Tensor, list[Tensor], Callable[[int, Memory], Memory]]:
    """As our MUSt3R.read_apart, by one call of the official decoder for each image."""
    layers = []
    raw = []
    features = []
    for n in range(tokens.shape[1]):
        image = [tensor[:, n : n + 1] for tensor in (tokens, positions, shapes)]
        grown, maps, levels = decoder(*image, memory, return_feats=True)
        # Copies of the new tokens, so that the rest of each image's whole memory can be freed.
        layers.append([layer[:, memory.num_tokens :].clone() for layer in grown[0]])
        raw.append(maps)
        features.append(levels)

    def extend(number: int, onto: Memory) -> Memory:
        new = layers[number]
        labels = torch.full(new[0].shape[:2], onto.num_images, device=new[0].device)
        return onto.appended(lambda: new, labels, 1)

    return torch.cat(raw, 1), [torch.cat(level, 1) for level in zip(*features)], extend


def parse_constructor(text: str, known: tuple[str, ...], path: Path) -> dict:
    """Keyword arguments of a constructor string such as "MUSt3R(depth=12, ...)", read as literals.

    Arguments that only concern training are left out. Raises InputError for anything but a call of
    one of the `known` classes with literal keyword arguments.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None  # the last two are raised for text that is nested very deeply
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args):
        raise InputError(
            f"{path}: {one_line(text)[:80]!r} is no constructor with keyword arguments; refused"
        )
    if call.func.id not in known:
        raise InputError(f"{path}: unknown class {call.func.id!r}; known are: {', '.join(known)}")
    arguments = {}
    for keyword in call.keywords:
        try:
            arguments[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            value = one_line(ast.get_source_segment(text.strip(), keyword.value) or "")[:60]
            raise InputError(
                f"{path}: {call.func.id}({keyword.arg}={value}): no literal; refused"
            ) from None
    return {name: value for name, value in arguments.items() if name not in _TRAINING_ONLY}


def read_official(path: Path) -> tuple[dict[str, dict], dict[str, dict[str, Tensor]]]:
    """Constructor arguments and weights of encoder and decoder, by part, of a published file.

    Raises InputError for files that are missing, damaged, hostile or of another layout. The values
    of the arguments are not checked yet; must3r_file.check_arguments does that.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give MUSt3R weights (.safetensors or .pth)")
    content = read_pickle(path, allowed=[Namespace])
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no dictionary; is it a MUSt3R checkpoint?")
    missing = [key for key in (*PARTS, "args") if key not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; is it a MUSt3R checkpoint?")
    arguments, weights = {}, {}
    for part, known in _KNOWN_CLASSES.items():
        text = getattr(content["args"], part, None)
        if not isinstance(text, str):
            raise InputError(
                f"{path}: args.{part} is no constructor string; is it a MUSt3R checkpoint?"
            )
        _log.info("%s: %s = %s", path, part, text)
        arguments[part] = parse_constructor(text, known, path)
        if not isinstance(content[part], dict) or not all(
            map(torch.is_tensor, content[part].values())
        ):
            raise InputError(f"{path}: {part} is no state dict; fetch the file again")
        weights[part] = {str(name): tensor for name, tensor in content[part].items()}
        check_finite(path, {f"{part}.{name}": tensor for name, tensor in weights[part].items()})
    return arguments, weights


def write_official(
    file: Path, arguments: dict[str, dict], weights: dict[str, dict[str, Tensor]]
) -> None:
    """Write a MUSt3R file in the published layout.

    arguments: constructor arguments by part, as `official_arguments` returns them; weights: state
    dicts by part. The file replaces an older one when it is complete. Raises OSError if it cannot
    be written.
    """
    strings = {}
    for part, name in _WRITTEN_CLASSES.items():
        values = (f"{key}={value!r}" for key, value in arguments[part].items())
        strings[part] = f"{name}({', '.join(values)})"
    content = {part: dict(weights[part]) for part in PARTS}
    with replacing_file(file) as fresh:
        write_pickle({**content, "args": Namespace(**strings)}, fresh)


def save_official(source: Path | str, file: Path | str) -> None:
    """Convert `source`, a MUSt3R file of ours (.safetensors), to the published layout (.pth).

    Weights are written in fp32, without those that only training needs. Raises InputError if
    `source` is missing, damaged or no complete MUSt3R file of ours, or if `file` is `source`.
    """
    source, file = Path(source), Path(file)
    if source.suffix != ".safetensors":
        raise InputError(f"{source}: must be a MUSt3R file of ours (.safetensors)")
    check_apart([file], [source])
    if file.suffix != ".pth":
        raise InputError(f"{file}: must end in .pth, as published files do; choose another name")
    arguments, weights = read_ours(source)
    for part, network in zip(PARTS, (Dust3rEncoder, MUSt3R)):
        check_arguments(arguments[part], part, source)
        check_weights(network, arguments[part], weights[part], part, source)
        arguments[part] = official_arguments(arguments[part], part, source)
    # The official class has a number as its default, ours follows the patch size.
    arguments["decoder"]["output_dim"] = len(weights["decoder"]["head_dec.proj.bias"])
    write_official(file, arguments, weights)


def main(argv=None) -> None:
    """Run the command in the module's docstring. argv: its words; None: those of the process."""
    parser = OneLineParser(
        prog="python -m geometry_fusion.models.must3r_official", description=__doc__
    )
    parser.add_argument("source", type=Path, metavar="IN", help="MUSt3R file of ours, .safetensors")
    parser.add_argument("file", type=Path, metavar="OUT", help="file to write, .pth")
    args = parser.parse_args(argv)
    save_official(args.source, args.file)
    print(args.file)


if __name__ == "__main__":
    sys.exit(run_cli(main))
