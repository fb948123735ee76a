"""Checkpoints: weights to share (safetensors with metadata) and the state to resume from (torch, weights only).

Both are written beside the old file, synced and renamed: a kill at any moment leaves the previous one whole.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.files import replacing_file
from geometry_fusion.weights import check_finite_state

FORMAT_VERSION = 1


def save_weights(file: Path, state: dict[str, torch.Tensor], metadata: dict) -> None:
    """Write tensors with JSON-encoded metadata (format version, config, step, metrics, backbones)."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    text = {key: json.dumps(value) for key, value in {"format_version": FORMAT_VERSION, **metadata}.items()}
    with replacing_file(file) as fresh:
        save_file(tensors, fresh, metadata=text)
        fresh.chmod(0o644)  # safetensors makes private files


def save_resume(file: Path, state: dict) -> None:
    """Write everything that continuing needs: model, optimizer, step, best metric."""
    with replacing_file(file) as fresh:
        torch.save(state, fresh)


def load_resume(file: Path) -> dict:
    """Read what `save_resume` wrote; tensors and plain values only.

    Raises InputError on a damaged file, and where a number of model or optimizer is not finite, naming the tensor.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here: zip, pickle, EOF, runtime
        reason = one_line(error)[:200]
        raise InputError(f"{file}: cannot be resumed from ({reason}); delete it or set trainer.resume=false") from None
    check_finite_state(file, state)
    return state
