"""Checkpoints: weights to share (safetensors with metadata) and the state to resume from (torch,
weights only).

Both are written beside the old file, synced and renamed: a kill at any moment leaves the previous
one whole.
"""

import json
from pathlib import Path

import torch

from geometry_fusion.files import replacing_file
from geometry_fusion.state_file import load_state, save_state, write_safetensors
from geometry_fusion.weights import check_finite_state

FORMAT_VERSION = 1


def save_weights(file: Path, state: dict[str, torch.Tensor], metadata: dict) -> None:
    """Write tensors with JSON-encoded metadata (format version, config, step, metrics,
    backbones).
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    text = {
        key: json.dumps(value)
        for key, value in {"format_version": FORMAT_VERSION, **metadata}.items()
    }
    with replacing_file(file) as fresh:
        write_safetensors(tensors, fresh, text)
        fresh.chmod(0o644)  # safetensors makes private files


def save_resume(file: Path, state: dict) -> None:
    """Write everything that continuing needs: model, optimizer, step, best metric."""
    save_state(file, state)


def load_resume(file: Path) -> dict:
    """Read what `save_resume` wrote; tensors and plain values only.

    Raises InputError on a damaged or edited file, and where a number of model or optimizer is not
    finite, naming the tensor.
    """
    # Files of versions before have no checksum.
    state = load_state(file, "delete it or set trainer.resume=false", needs_checksum=False)
    check_finite_state(file, state)
    return state
