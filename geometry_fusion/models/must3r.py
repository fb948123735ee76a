"""Finds, verifies and loads MUSt3R weights: encoder and decoder, frozen and in eval mode.

    encoder, decoder = load_must3r("must3r_weights/must3r_tiny.safetensors")
    tokens, positions = encoder(images, true_shape)
    memory, maps = decoder(tokens, positions, true_shape, memory=None)

There are two kinds of files. Ours (.safetensors) have constructor arguments in their metadata. The
official layout (.pth, docs/must3r_spec.md section 5) has them as strings in a pickled Namespace;
they are parsed as literals, never evaluated, and the pickle can only build tensors, plain values
and argparse.Namespace.
"""

import re
from pathlib import Path

import torch

from geometry_fusion.devices import pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.io.weights import load_strictly
from geometry_fusion.models.must3r_file import (
    PARTS,
    arguments_of,
    build,
    check_arguments,
    check_weights,
    description,
    read_ours,
)
from geometry_fusion.models.must3r_official import (
    adapt,
    official_arguments,
    official_networks,
    read_official,
)
from geometry_fusion.models.names import MUST3R_MODELS
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R

MODELS = MUST3R_MODELS
BACKENDS = ("ours", "naver")
PUBLISHED = ("512", "224")  # the larger first


def checked_name(name: str) -> str:
    """Return `name` if it is a model's name or looks like a weight file; else raise InputError."""
    if name not in MODELS and Path(name).suffix not in (".pth", ".safetensors"):
        raise InputError(
            f"must3r {name}: unknown model; choose one of {', '.join(MODELS)}, or give a weight "
            "file"
        )
    return name


def default_must3r(sam2: str) -> str:
    """The MUSt3R that goes with a SAM2 model where none is named: tiny with the tiny models, which
    know rendered rooms only; else the largest published one that is here, or 512.
    """
    if sam2.startswith("tiny"):
        return "tiny"
    return next((name for name in PUBLISHED if MODELS[name].is_file()), PUBLISHED[0])


def must3r_of(geometry: str) -> str | None:
    """Name or file of the MUSt3R that `geometry` asks for; None for SAM2 alone."""
    kind, _, model = geometry.partition(":")
    if geometry == "none":
        return None
    if kind not in ("auto", "must3r"):
        raise InputError(
            f"geometry {geometry}: unknown; choose one of auto, none, must3r, must3r:NAME"
        )
    return checked_name(model or "tiny")


def given_file(name: str) -> Path | None:
    """`name` as a path, or None if it is a model's name or "auto"."""
    return None if name in MODELS or name == "auto" else Path(name)


def model_file(name: str) -> Path:
    """The weight file of a model's name; `name` may also be the path of a file.

    Raises InputError, with the cure, for unknown names and missing files.
    """
    if checked_name(name) not in MODELS:
        if not Path(name).is_file():
            raise InputError(f"must3r {name}: no such file; check the path")
        return Path(name)
    file = MODELS[name]
    if not file.is_file():
        if name == "tiny":
            cure = f"restore it with: git checkout -- must3r_weights/{file.name}"
        else:
            cure = (
                f"fetch them with: python main.py weights --must3r {name}, or put {file.name} "
                "there by hand"
            )
        raise InputError(f"{file}: MUSt3R weights of '{name}' are missing; {cure}")
    return file


def widths_of(encoder: torch.nn.Module, decoder: torch.nn.Module) -> list[int]:
    """Channels of all feature levels: the encoder's, then one per block of the decoder."""
    return [encoder.embed_dim, *[decoder.embed_dim] * len(decoder.blocks_dec)]


def token_widths(name: str) -> list[int]:
    """As `widths_of`, for a model's name or a weight file, whose weights are not loaded.

    Raises InputError for files that are missing, damaged or not of MUSt3R.
    """
    path = model_file(name)
    ours = path.suffix == ".safetensors"
    arguments = arguments_of(path) if ours else read_official(path)[0]
    modules = []
    for part, network in zip(PARTS, (Dust3rEncoder, MUSt3R)):
        check_arguments(arguments[part], part, path)
        with torch.device("meta"):  # a file may name sizes that no memory holds
            modules.append(build(network, arguments[part], part, path))
    return widths_of(*modules)


def load_must3r(
    path: Path | str,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
    backend: str = "ours",
    memory_mode: str | None = None,
) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Encoder and decoder of a weight file, eval mode, no parameter requires a gradient.

    image_size: pixels of the long side, if it differs from the size in training; positions are then
    rescaled (SPEC section 6). backend: "ours", or "naver" for the modules of the official package
    `must3r` (requirements-must3r.txt). memory_mode: norm_y, kv or raw, in place of the file's.
    Raises InputError for files that are missing, damaged, hostile, incomplete or of unknown
    classes.
    """
    path = Path(path)
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r}: unknown; choose one of {', '.join(BACKENDS)}")
    # First, so that a missing package is reported before a large file is read.
    networks = official_networks() if backend == "naver" else (Dust3rEncoder, MUSt3R)
    read = read_ours if path.suffix == ".safetensors" else read_official
    arguments, weights = read(path)
    for part in PARTS:
        check_arguments(arguments[part], part, path)
        if image_size is not None:
            arguments[part] = resized(arguments[part], image_size, path)
    # Only training batches store portrait images in landscape.
    arguments["decoder"]["landscape_only"] = False
    if memory_mode is not None:
        arguments["decoder"]["memory_mode"] = memory_mode
    modules = []
    for part, network in zip(PARTS, networks):
        if backend == "naver":
            arguments[part] = official_arguments(arguments[part], part, path)
        else:
            check_weights(network, arguments[part], weights[part], part, path)
        module = build(network, arguments[part], part, path)
        load_strictly(module, weights[part], path, description(part))
        modules.append(module.to(pick_device(str(device))).eval().requires_grad_(False))
    if backend == "naver":
        adapt(*modules, arguments)
    return modules[0], modules[1]


def resized(arguments: dict, image_size: int, path: Path) -> dict:
    """Constructor arguments for another image size (SPEC section 6).

    Positions are compressed to the range of the training. Raises InputError for arguments that
    cannot be resized.
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
