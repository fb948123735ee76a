"""State files, from which runs resume: tensors and plain values with a checksum.

A file is written whole, and refused when it is damaged or was changed.
"""

import re
import warnings
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.io.weights import check_unpacked_size

CHECKSUM = "checksum"


def save_state(file: Path, state: dict) -> None:
    """Write `state`, which holds tensors, dicts, lists and plain values, and its checksum."""
    with replacing_file(file) as fresh:
        write_pickle({**state, CHECKSUM: checksum(state)}, fresh)


def load_state(file: Path, cure: str, needs_checksum: bool = True) -> dict:
    """Read what `save_state` wrote.

    Raises InputError, which ends with `cure`, for any other file. needs_checksum: whether a file
    without a checksum is refused.
    """
    check_unpacked_size(file)
    try:
        # torch warns of unusual pickles before it refuses them.
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: zip, pickle, EOF, runtime
        raise InputError(
            f"{file}: cannot be resumed from ({one_line(error)[:160]}); {cure}"
        ) from None
    if not isinstance(state, dict):
        raise InputError(
            f"{file}: cannot be resumed from (it holds a {type(state).__name__}); {cure}"
        )
    expected = state.pop(CHECKSUM, None)
    try:
        changed = needs_checksum if expected is None else expected != checksum(state)
    except RecursionError:  # an edited state can contain itself
        changed = True
    if changed:
        raise InputError(
            f"{file}: cannot be resumed from (it was changed since it was written); {cure}"
        )
    return state


def checksum(value, before: int = 0) -> int:
    """CRC-32 of the contents of nested dicts, lists and tuples of tensors and plain values.

    It does not depend on how tensors are stored. before: the checksum of what precedes.
    """
    if isinstance(value, torch.Tensor):
        kind = f"{value.dtype} {tuple(value.shape)}"
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return zlib.crc32(raw.numpy(), zlib.crc32(kind.encode(), before))
    if isinstance(value, dict):
        value = [element for pair in value.items() for element in pair]
    if isinstance(value, list | tuple):
        before = zlib.crc32(f"[{len(value)}]".encode(), before)
        for element in value:
            before = checksum(element, before)
        return before
    return zlib.crc32(repr(value).encode(errors="backslashreplace"), before)


def write_pickle(content, file: Path) -> None:
    """As `torch.save`, plus: a failed write raises an OSError that names the file."""
    try:
        with open(file, "wb") as handle:
            torch.save(content, handle)
    except RuntimeError as error:
        # Torch only reports an incomplete archive; the reason is in the chain of exceptions.
        reason = error
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__cause__ or reason.__context__
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror, str(file)) from None


def write_safetensors(
    tensors: dict[str, torch.Tensor], file: Path, metadata: dict[str, str]
) -> None:
    """As `save_file` of safetensors, plus: a failed write raises an OSError that names the file."""
    try:
        save_file(tensors, file, metadata)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        reason = re.sub(r"^.*I/O error: | \(os error.*$", "", one_line(error))
        raise OSError(int(number[1]), reason, str(file)) from None
