"""Wiring: find, verify and load MUSt3R weights -> encoder, decoder, in eval mode and frozen.

    encoder, decoder = load_must3r("must3r_weights/must3r_tiny.safetensors")
    tokens, positions = encoder(images, true_shape)
    memory, maps = decoder(tokens, positions, true_shape, memory=None, render=False,
    return_feats=False)

Two kinds of files: ours (.safetensors, constructor arguments in the metadata) and the official
layout (.pth, constructor arguments as strings in a pickled Namespace, docs/must3r_spec.md section
5). The strings are parsed as literals, never evaluated; the pickle can only build tensors, plain
values and argparse.Namespace.
"""

import ast
import importlib
import logging
import math
import re
from argparse import Namespace
from pathlib import Path

import torch

from geometry_fusion.devices import pick_device
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R
from geometry_fusion.parsing import is_number, parse_json
from geometry_fusion.weights import (
    check_finite,
    check_fits,
    load_strictly,
    read_metadata,
    read_pickle,
    read_weights,
)

ROOT = Path(__file__).resolve().parent
MODELS = {
    "tiny": ROOT / "must3r_weights/must3r_tiny.safetensors",
    "224": ROOT / "must3r_weights/MUSt3R_224_cvpr.pth",
    "512": ROOT / "must3r_weights/MUSt3R_512.pth",
}
CONFIGS = ROOT / "configs/must3r"
BACKENDS = ("ours", "naver")

_ENCODERS = ("Dust3rEncoder",)
_DECODERS = (
    "MUSt3R",
    "CausalMUSt3R",
)  # the class that trains and the one that infers have the same weights
# Arguments of the training class that change nothing at inference.
_TRAINING_ONLY = (
    "protected_imgs",
    "mem_dropout",
    "dropout_mode",
    "use_xformers_mask",
    "use_mem_mask",
)
_LARGEST = 1 << 14  # of any size that a constructor takes
_MOST_BLOCKS = 256
_log = logging.getLogger(__name__)


def checked_name(name: str) -> str:
    """A model's name, or the path of a weight file; raises InputError for anything else."""
    if name not in MODELS and Path(name).suffix not in (".pth", ".safetensors"):
        raise InputError(
            f"--must3r {name}: unknown model; choose one of {', '.join(MODELS)}, or give a "
            "weight file"
        )
    return name


def given_file(name: str) -> Path | None:
    """The file, where `name` is the path of one and no model's name."""
    return None if name in MODELS else Path(name)


def model_file(name: str) -> Path:
    """Weights of a model name, or the file that is named. Raises InputError for unknown names and
    missing files, with the cure."""
    if checked_name(name) not in MODELS:
        if not Path(name).is_file():
            raise InputError(f"--must3r {name}: no such file; check the path")
        return Path(name)
    file = MODELS[name]
    if not file.is_file():
        cure = (
            f"restore it with: git checkout -- must3r_weights/{file.name}"
            if name == "tiny"
            else f"fetch them with: python main.py weights --must3r {name}, or put {file.name} "
            "there by hand"
        )
        raise InputError(f"{file}: MUSt3R weights of '{name}' are missing; {cure}")
    return file


def load_must3r(
    path: Path | str,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
    backend: str = "ours",
    memory_mode: str | None = None,
) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Encoder and decoder of a weight file, eval mode, no parameter requires a gradient.

    image_size: pixels of the long side to compute at, if it is not the size trained at: positions
    are rescaled (SPEC section 6). backend "naver": the modules of the official package `must3r`
    (requirements-must3r.txt) in place of ours. memory_mode: norm_y, kv or raw, in place of the
    file's. Raises InputError for files that are missing, damaged, hostile, incomplete or of unknown
    classes.
    """
    path = Path(path)
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r}: unknown; choose one of {', '.join(BACKENDS)}")
    networks = _classes(backend)  # before a file is read for a package that is not there
    read = _read_ours if path.suffix == ".safetensors" else _read_official
    arguments, weights = read(path)
    for part in ("encoder", "decoder"):
        _check_arguments(arguments[part], part, path)
        if image_size is not None:
            arguments[part] = resized(arguments[part], image_size, path)
    arguments["decoder"]["landscape_only"] = False
    if memory_mode is not None:
        arguments["decoder"]["memory_mode"] = memory_mode
    modules = []
    for part, network in zip(("encoder", "decoder"), networks):
        what = f"the MUSt3R {part} it describes"
        try:
            if backend == "ours":
                with torch.device(
                    "meta"
                ):  # shapes without memory: a file may name sizes that no memory holds
                    check_fits(network(**arguments[part]), weights[part], path, what)
            module = network(**arguments[part])
        except InputError:
            raise
        except (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise InputError(
                f"{path}: {part} arguments do not fit: {one_line(error)}; is it a MUSt3R file?"
            ) from None
        load_strictly(module, weights[part], path, what)
        modules.append(module.to(pick_device(str(device))).eval().requires_grad_(False))
    return modules[0], modules[1]


def resized(arguments: dict, image_size: int, path: Path) -> dict:
    """Constructor arguments for another image size (SPEC section 6): positions are compressed to
    the trained range.
    """
    size = arguments.get("img_size")
    if not (isinstance(size, (tuple, list)) and len(size) == 2 and size[0] == size[1]):
        raise InputError(
            f"{path}: img_size={size}: must be (h, h) to compute at another size; omit image_size"
        )
    name = arguments.get("pos_embed", "RoPE100")
    parsed = isinstance(name, str) and re.fullmatch(r"RoPE(\d+(?:\.\d*)?)(?:_(\d+):(\d+))?", name)
    if not parsed:
        raise InputError(f"{path}: pos_embed={name}: unknown; omit image_size")
    frequency, base, current = parsed[1], int(parsed[2] or size[0]), int(parsed[3] or size[0])
    if image_size != current:
        arguments = {**arguments, "pos_embed": f"RoPE{frequency}_{base}:{image_size}"}
    return {**arguments, "img_size": (image_size, image_size)}


def parse_constructor(text: str, known: tuple[str, ...], path: Path) -> dict:
    """Keyword arguments of a constructor expression such as "MUSt3R(depth=12, ...)", read as
    literals.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # the last two: nested without end
        call = None
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
    return {k: v for k, v in arguments.items() if k not in _TRAINING_ONLY}


def _read_ours(path: Path) -> tuple[dict, dict]:
    tensors = read_weights(path)
    metadata, parts = read_metadata(path), ("encoder", "decoder")
    if not all(part in metadata for part in parts):
        raise InputError(
            f"{path}: carries no encoder and decoder arguments; is it a MUSt3R file of ours?"
        )
    arguments = {
        part: parse_json(metadata[part], f"{path}: {part} arguments", "fetch it again")
        for part in parts
    }
    # Training checkpoints also hold the matching head, which inference does not have.
    unknown = [k for k in tensors if k.split(".")[0] not in (*parts, "matcher")]
    if unknown:
        raise InputError(
            f"{path}: not a MUSt3R file: unexpected tensor {unknown[0]}; choose the matching file"
        )
    weights = {
        p: {k.removeprefix(f"{p}."): v.float() for k, v in tensors.items() if k.startswith(p)}
        for p in parts
    }
    return arguments, weights


def _read_official(path: Path) -> tuple[dict, dict]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give MUSt3R weights (.safetensors or .pth)")
    content = read_pickle(path, allowed=[Namespace])
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no dictionary; is it a MUSt3R checkpoint?")
    missing = [key for key in ("encoder", "decoder", "args") if key not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; is it a MUSt3R checkpoint?")
    arguments, weights = {}, {}
    for part, known in (("encoder", _ENCODERS), ("decoder", _DECODERS)):
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


def _check_arguments(arguments: object, part: str, path: Path) -> None:
    """Raise InputError unless they are plain values by name, and numbers among them sizes that a
    network may have.
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
                f"{path}: {part} arguments do not fit: {name}={repr(value)[:60]} is not text or "
                f"a number up to {most}; "
                "is it a MUSt3R file?"
            )


def _classes(backend: str) -> tuple[type, type]:
    if backend == "ours":
        return Dust3rEncoder, MUSt3R
    try:
        official = importlib.import_module("must3r.model")
        return official.Dust3rEncoder, official.MUSt3R
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"backend 'naver': the official package cannot be used ({one_line(error)}); "
            "install it: pip install -r requirements-must3r.txt"
        ) from None
