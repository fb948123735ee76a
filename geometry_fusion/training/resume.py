"""Resuming a training run: what its result depends on, and how its state is restored."""

import json
import math
from pathlib import Path

import torch

from geometry_fusion.errors import InputError
from geometry_fusion.training.checkpoints import load_resume

# Keys, by their beginnings, in which a resumed run may differ from the one that it continues.
MAY_CHANGE = (
    "trainer.device",
    "trainer.precision",
    "trainer.threads",
    "trainer.run_dir",
    "trainer.resume",
    "trainer.max_steps",
    "trainer.init_from",
    "trainer.log_every",
    "trainer.eval_every",
    "trainer.save_every",
    "trainer.eval_first",
    "trainer.accumulate",  # compared together with the number of processes
    "data.root",
    "data.workers",
    "data.val_scenes",
    "data.val_seeds",
    "val_",
    "validation",
    "geometry_cache",
    "experiment_name",
    "name",
)
START_ANEW = "choose another trainer.run_dir or set trainer.resume=false"
# Differences that are described in words, because their values are digests.
DESCRIBED = {"facts.video": "on other frames or masks than data.frames and data.masks hold now"}


def run_identity(config: dict, facts: dict, units: int) -> dict[str, str]:
    """What a run must share with the one that it resumes, as dotted key -> JSON text.

    Paths and logging intervals may change, and so may the number of processes, as long as a step
    has the same number of micro-batches (`units`). facts: the task's metadata.
    """
    identity = {}

    def add(key: str, value) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                add(f"{key}.{name}" if key else str(name), inner)
        elif not key.startswith(MAY_CHANGE):
            identity[key] = json.dumps(value)

    # The chosen preset is under trainer.trainable; the others have no effect.
    add("", {key: value for key, value in config.items() if key != "trainable_presets"})
    add("facts", facts)
    identity["processes x trainer.accumulate"] = str(units)
    return identity


def restore_run(
    file: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, str]
) -> tuple[int, float]:
    """Load a resume file into `model` and `optimizer`; returns its step and its best score.

    Raises InputError for a file that is damaged or belongs to a run of another identity.
    """
    state = load_resume(file)
    saved = state.get("identity", identity)
    if not isinstance(saved, dict):
        raise InputError(f"{file}: holds no resumable run (identity {saved!r}); {START_ANEW}")
    for key in sorted(saved.keys() | identity.keys()):
        if saved.get(key) != identity.get(key):
            values = f"with {key}={saved.get(key)}, this run has {identity.get(key)}"
            raise InputError(f"{file}: was trained {DESCRIBED.get(key, values)}; {START_ANEW}")
    step, best = state.get("step"), state.get("best")
    is_step = type(step) is int and step >= 0
    if not (is_step and isinstance(best, int | float) and not math.isnan(best)):
        raise InputError(
            f"{file}: holds no resumable run (step {step!r}, best {best!r}); {START_ANEW}"
        )
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        _check_shapes(optimizer)
    except Exception:  # torch raises errors of every kind for edited states
        raise InputError(
            f"{file}: holds another model or other trainable modules than this config; {START_ANEW}"
        ) from None
    return step, best


def _check_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError where an optimizer's moments do not have the shape of their parameter.

    Torch itself would only notice in the next step.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if torch.is_tensor(value) and value.dim() and value.shape != parameter.shape:
                raise ValueError(
                    f"{name} is {tuple(value.shape)}, its parameter {tuple(parameter.shape)}"
                )
