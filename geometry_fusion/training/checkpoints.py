"""Checkpoints: weights to share (safetensors with metadata), and the state to resume from (a torch
file of tensors and plain values).

Both are written beside the old file, synced and renamed: a kill at any moment leaves one of them
whole.
"""

import json
from pathlib import Path

import torch

from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.io.state_file import load_state, save_state, write_safetensors
from geometry_fusion.io.weights import check_finite_state

FORMAT_VERSION = 1


def save_weights(file: Path, state: dict[str, torch.Tensor], metadata: dict) -> None:
    """Write tensors and metadata, JSON values that safetensors keeps as text."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    about = {"format_version": FORMAT_VERSION, **metadata}
    text = {key: json.dumps(value) for key, value in about.items()}
    with replacing_file(file) as fresh:
        write_safetensors(tensors, fresh, text)
        fresh.chmod(0o644)  # safetensors creates files that only their owner can read


def save_resume(file: Path, state: dict) -> None:
    """Write what resuming needs: nested dicts and lists of tensors and plain values."""
    save_state(file, state)


def load_resume(file: Path) -> dict:
    """Read what `save_resume` wrote.

    Raises InputError for a damaged or edited file, and, naming the tensor, for numbers that are not
    finite.
    """
    # Files of earlier versions have no checksum.
    state = load_state(file, "delete it or set trainer.resume=false", needs_checksum=False)
    check_finite_state(file, state)
    return state
