"""Reading weight files safely: safetensors, and PyTorch pickles restricted to tensors and plain values."""

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from geometry_fusion.errors import InputError, one_line

SUFFIXES = (".safetensors", ".pt", ".pth")


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Name -> tensor of a .safetensors, .pt or .pth file; a top-level "model" or "state_dict" entry is unwrapped.

    Raises InputError for missing, damaged, hostile and foreign files. Pickles can only build tensors and plain values.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file; give a checkpoint ({', '.join(SUFFIXES)})")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise InputError(
                f"{file}: truncated or not safetensors ({one_line(error)}); fetch or write it again"
            ) from None
    if file.suffix not in SUFFIXES:
        raise InputError(f"{file}: unknown kind of checkpoint; expected one of {', '.join(SUFFIXES)}")
    content = read_pickle(file)
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {str(k): v for k, v in content.items() if torch.is_tensor(v)} if isinstance(content, dict) else {}
    if not tensors:
        raise InputError(f"{file}: holds no tensors; is it a checkpoint?")
    return tensors


def read_pickle(file: Path, allowed: Sequence[type] = ()):
    """What torch.save wrote: tensors, plain values and `allowed` classes. Raises InputError for anything else."""
    try:
        # torch warns of odd pickles before it refuses them.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(list(allowed)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file}: refused: it is damaged or holds more than tensors and plain values, which could run code; "
            "get the file from its publisher again"
        ) from None
    except Exception as error:  # torch raises many kinds for damaged files: zip, EOF, runtime
        raise InputError(f"{file}: truncated or damaged ({one_line(error)[:120]}); fetch it again") from None


def read_metadata(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file (values are JSON text); empty if it has none."""
    try:
        with safe_open(file, framework="pt") as handle:
            return handle.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{file}: truncated or not safetensors ({one_line(error)}); fetch or write it again") from None


def load_strictly(model: torch.nn.Module, tensors: dict[str, torch.Tensor], file: Path, model_name: str) -> None:
    """Load every parameter and buffer; raises InputError naming the first of what is missing, extra or misshapen."""
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in tensors]
    extra = [k for k in tensors if k not in wanted]
    misshapen = [k for k in wanted if k in tensors and wanted[k].shape != tensors[k].shape]
    if missing or extra or misshapen:
        parts = []
        for title, keys in (("missing", missing), ("unexpected", extra), ("other shape", misshapen)):
            if keys:
                parts.append(f"{len(keys)} {title} (first: {keys[0]})")
        raise InputError(
            f"{file}: not a checkpoint of {model_name}: {', '.join(parts)}; choose the matching file or model"
        )
    model.load_state_dict(tensors)
