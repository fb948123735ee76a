"""Reading weight files safely: safetensors, and torch files of tensors and plain values only.

Weights that are not finite are refused at once: a network with one of them would give empty masks
instead of an error.
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
from geometry_fusion.io.eight_bits import unpacked
from geometry_fusion.io.parsing import is_text

SUFFIXES = (".safetensors", ".pt", ".pth")


def read_weights(file: Path, finite: bool = True) -> dict[str, torch.Tensor]:
    """Name -> tensor of a .safetensors, .pt or .pth file; those in eight bits as float32.

    The dict may be nested under "model" or "state_dict". Raises InputError for missing, damaged,
    hostile and unsuitable files and, with `finite`, for numbers that are not finite.
    """
    tensors = _read_tensors(Path(file))
    if finite:
        check_finite(file, tensors)
    try:
        return unpacked(tensors)
    except ValueError as error:
        raise InputError(f"{file}: {error}; fetch or write it again") from None


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
    entries = content.items() if isinstance(content, dict) else ()
    tensors = {str(name): value for name, value in entries if torch.is_tensor(value)}
    if not tensors:
        raise InputError(f"{file}: holds no tensors; is it a checkpoint?")
    return tensors


def read_pickle(file: Path, allowed: Sequence[type] = ()):
    """Read what torch.save wrote: tensors, plain values and the classes `allowed`.

    Raises InputError for anything else, without running code from the file.
    """
    check_unpacked_size(file)
    try:
        # torch warns of unusual pickles before it refuses them.
        with (
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(list(allowed)),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file}: refused: it is damaged or holds more than tensors and plain values, which "
            "could run code; get the file from its publisher again"
        ) from None
    except Exception as error:  # torch raises many kinds for damaged files: zip, EOF, runtime
        raise InputError(
            f"{file}: truncated or damaged ({one_line(error)[:120]}); fetch it again"
        ) from None


def _check_name(file: Path) -> None:
    if not is_text(file):
        raise InputError(
            f"{file}: its path is not UTF-8, and safetensors opens no other; rename or move the "
            "file"
        )


def check_unpacked_size(file: Path) -> None:
    """Raise InputError for a zip file that unpacks to more than its size.

    Torch stores tensors uncompressed; a file that could fill the memory is compressed.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except Exception:  # no zip, or a damaged one: reading it will report that
        return
    if unpacked > file.stat().st_size:
        raise InputError(
            f"{file}: refused: it unpacks to {unpacked >> 20} MiB, which no checkpoint does"
        )


def first_fault(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Name and fault of the first tensor that cannot be a weight; None if there is none."""
    faults = ((name, _fault(tensor)) for name, tensor in tensors.items())
    return next((f"tensor {name} {fault}" for name, fault in faults if fault), None)


def check_finite(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError, naming file and tensor, for the first tensor that cannot be a weight."""
    if fault := first_fault(tensors):
        raise InputError(
            f"{file}: {fault}; the training that wrote it failed or the file is damaged, choose "
            "another checkpoint"
        )


def check_finite_state(file: Path, state) -> None:
    """As `check_finite`, for the tensors anywhere in nested dicts and lists."""
    # No recursion, because a file may be nested without end, or contain itself.
    waiting = [("", state)]
    met: set[int] = set()
    tensors = {}
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
    """Why a tensor cannot be a weight; None if it can."""
    try:
        # A view with stride 0 can be larger than the memory.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            return "names more numbers than it holds"
        if tensor.is_complex():
            return "holds complex numbers"
        if not (tensor.is_floating_point() and tensor.numel()):
            return None
        # Torch computes nothing with 8-bit floats but conversions.
        numbers = tensor if tensor.element_size() > 1 else tensor.float()
        # Both extremes are NaN if any number is. Several times faster than `isfinite`, and no copy.
        finite = all(extreme.isfinite() for extreme in numbers.aminmax())
        return None if finite else "holds numbers that are not finite (NaN or infinity)"
    except (RuntimeError, NotImplementedError):  # sparse, quantised, without storage
        return "is of a kind that weights are not (sparse, quantised or empty)"


def read_metadata(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file, whose values are JSON text; empty if it has none.

    Raises InputError for a damaged file.
    """
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
    """Load every parameter and buffer.

    Raises InputError naming the first tensor that is missing, unexpected or of another shape.
    """
    check_fits(model, tensors, file, model_name)
    model.load_state_dict(tensors)


def check_fits(
    model: torch.nn.Module, tensors: dict[str, torch.Tensor], file: Path, model_name: str
) -> None:
    """As `load_strictly`, without loading: `model` may be on the device "meta", without memory."""
    expected = model.state_dict()
    shared = [k for k in expected if k in tensors]
    differences = {
        "missing": [k for k in expected if k not in tensors],
        "unexpected": [k for k in tensors if k not in expected],
        "other shape": [k for k in shared if expected[k].shape != tensors[k].shape],
    }
    faults = [f"{len(k)} {kind} (first: {k[0]})" for kind, k in differences.items() if k]
    if faults:
        raise InputError(
            f"{file}: not a checkpoint of {model_name}: {', '.join(faults)}; choose the matching "
            "file or model"
        )
