"""Reading weight files safely: safetensors, and PyTorch pickles restricted to tensors and plain
values.

Weights that are not finite are refused where they are read: a network with one of them gives empty
masks, not an error.
"""

import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.parsing import is_text

SUFFIXES = (".safetensors", ".pt", ".pth")


def read_weights(file: Path, finite: bool = True) -> dict[str, torch.Tensor]:
    """Name -> tensor of a .safetensors, .pt or .pth file; a top-level "model" or "state_dict" entry
    is unwrapped.

    Raises InputError for missing, damaged, hostile and foreign files, and where a number is not
    finite, unless `finite` is False. Pickles can only build tensors and plain values.
    """
    tensors = _read_tensors(Path(file))
    if finite:
        check_finite(file, tensors)
    return tensors


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; give a checkpoint ({', '.join(SUFFIXES)})")
    if file.suffix == ".safetensors":
        _check_name(file)
        try:
            return load_file(file)
        except SafetensorError as error:
            raise InputError(
                f"{file}: truncated or not safetensors ({one_line(error)}); fetch or write it again"
            ) from None
    if file.suffix not in SUFFIXES:
        raise InputError(
            f"{file}: unknown kind of checkpoint; expected one of {', '.join(SUFFIXES)}"
        )
    content = read_pickle(file)
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = (
        {str(k): v for k, v in content.items() if torch.is_tensor(v)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise InputError(f"{file}: holds no tensors; is it a checkpoint?")
    return tensors


def read_pickle(file: Path, allowed: Sequence[type] = ()):
    """What torch.save wrote: tensors, plain values and `allowed` classes. Raises InputError for
    anything else.
    """
    check_unpacked_size(file)
    try:
        # torch warns of odd pickles before it refuses them.
        with (
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(list(allowed)),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file}: refused: it is damaged or holds more than tensors and plain values, which "
            "could run code; "
            "get the file from its publisher again"
        ) from None
    except Exception as error:  # torch raises many kinds for damaged files: zip, EOF, runtime
        raise InputError(
            f"{file}: truncated or damaged ({one_line(error)[:120]}); fetch it again"
        ) from None


def _check_name(file: Path) -> None:
    if not is_text(file):
        raise InputError(
            f"{file}: its path is not UTF-8, and safetensors opens no other; rename it or move "
            "the file"
        )


def check_unpacked_size(file: Path) -> None:
    """Raise InputError for a zip that unpacks to more than it is: torch stores without packing, a
    bomb does not.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except Exception:  # no zip, or a damaged one: reading it says so
        return
    if unpacked > file.stat().st_size:
        raise InputError(
            f"{file}: refused: it unpacks to {unpacked >> 20} MiB, which no checkpoint does"
        )


def first_fault(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """What is wrong with the first tensor that cannot be a weight, with its name; None if all are
    fine.
    """
    faults = ((name, _fault(tensor)) for name, tensor in tensors.items())
    return next((f"tensor {name} {fault}" for name, fault in faults if fault), None)


def check_finite(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError naming the file and the first tensor that holds a number which is not
    finite.
    """
    if fault := first_fault(tensors):
        raise InputError(
            f"{file}: {fault}; the training that wrote it failed or the file is damaged, choose "
            "another checkpoint"
        )


def check_finite_state(file: Path, state) -> None:
    """As `check_finite`, for tensors at any place in the dictionaries and lists of a state to
    resume from.
    """
    # Pickles may be nested without end, or hold themselves.
    waiting, met, tensors = [("", state)], set(), {}
    while waiting:
        name, value = waiting.pop()
        if torch.is_tensor(value):
            tensors[name] = value
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in met:
            met.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(f"{name}.{key}".lstrip("."), inner) for key, inner in items]
    check_finite(file, tensors)


def _fault(tensor: torch.Tensor) -> str | None:
    try:
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            return "names more numbers than it holds"  # reading it could fill the memory
        if tensor.is_complex():
            return "holds complex numbers"
        if not (tensor.is_floating_point() and tensor.numel()):
            return None
        numbers = (
            tensor if tensor.element_size() > 1 else tensor.float()
        )  # 8 bits: torch only converts them
        # Both are NaN if any number is. Several times as fast as `isfinite`, and without a copy.
        finite = all(extreme.isfinite() for extreme in numbers.aminmax())
        return None if finite else "holds numbers that are not finite (NaN or infinity)"
    except (RuntimeError, NotImplementedError):  # sparse, quantised, without storage
        return "is of a kind that weights are not (sparse, quantised or empty)"


def read_metadata(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file (values are JSON text); empty if it has none."""
    _check_name(file)
    try:
        with safe_open(file, framework="pt") as handle:
            return handle.metadata() or {}
    except SafetensorError as error:
        raise InputError(
            f"{file}: truncated or not safetensors ({one_line(error)}); fetch or write it again"
        ) from None


def load_strictly(
    model: torch.nn.Module, tensors: dict[str, torch.Tensor], file: Path, model_name: str
) -> None:
    """Load every parameter and buffer; raises InputError naming the first of what is missing, extra
    or misshapen.
    """
    check_fits(model, tensors, file, model_name)
    model.load_state_dict(tensors)


def check_fits(
    model: torch.nn.Module, tensors: dict[str, torch.Tensor], file: Path, model_name: str
) -> None:
    """As `load_strictly`, without loading: `model` may be on the device "meta", where it needs no
    memory.
    """
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in tensors]
    extra = [k for k in tensors if k not in wanted]
    misshapen = [k for k in wanted if k in tensors and wanted[k].shape != tensors[k].shape]
    if missing or extra or misshapen:
        parts = []
        for title, keys in (
            ("missing", missing),
            ("unexpected", extra),
            ("other shape", misshapen),
        ):
            if keys:
                parts.append(f"{len(keys)} {title} (first: {keys[0]})")
        raise InputError(
            f"{file}: not a checkpoint of {model_name}: {', '.join(parts)}; choose the matching "
            "file or model"
        )
