"""Learning rates, parameter groups and stages: pure functions of the step and of names."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from geometry_fusion.errors import InputError


def lr_scale(step: int, max_steps: int, warmup_steps: int, final_scale: float) -> float:
    """Factor of all learning rates at a step: a linear warm-up to 1, then half a cosine down to
    `final_scale` at `max_steps`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return final_scale + (1 - final_scale) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(
    model: torch.nn.Module, rates: Mapping[str, float], weight_decay: float
) -> list[dict]:
    """Optimizer groups by name.

    rates: module or parameter prefix -> learning rate; `*` is the rest. The longest matching prefix
    wins. Parameters that match none are frozen (requires_grad = False). Biases, norms and
    embeddings get no weight decay. Raises InputError when a prefix matches nothing.
    """
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    matched = set()
    for name, parameter in model.named_parameters():
        prefixes = [p for p in rates if p == "*" or name == p or name.startswith(p + ".")]
        parameter.requires_grad_(bool(prefixes))
        if prefixes:
            prefix = max(prefixes, key=lambda p: 0 if p == "*" else len(p))
            matched.add(prefix)
            groups.setdefault((prefix, parameter.ndim > 1), []).append(parameter)
    unknown = [p for p in rates if p not in matched and p != "*"]
    if unknown or not groups:
        modules = ", ".join(name for name, _ in model.named_children())
        raise InputError(
            f"trainer.trainable: no parameter under {unknown or list(rates)}; known are: {modules}"
        )
    return [
        {
            "params": parameters,
            "name": prefix + ("" if decays else " (no decay)"),
            "base_lr": float(rates[prefix]),
            "lr": float(rates[prefix]),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (prefix, decays), parameters in groups.items()
    ]


def describe_groups(groups: list[dict]) -> list[str]:
    """One line per group for the log: its prefix, number of parameters, rate and weight decay."""
    return [
        f"{g['name']}: {sum(p.numel() for p in g['params']):,} parameters, "
        f"lr {g['base_lr']:g}, decay {g['weight_decay']:g}"
        for g in groups
    ]


Stages = list[tuple[float, dict[str, float]]]  # (first step after the stage, kind -> weight)


def stages_in_steps(stages: Sequence[Mapping], max_steps: int) -> Stages:
    """Stages of a config, {until: share of all steps, weights: {kind: weight}}, in steps."""
    return [(stage["until"] * max_steps, dict(stage["weights"])) for stage in stages]


def draw_kind(rng: np.random.Generator, stages: Stages, step: int) -> str:
    """The kind of batch of a step, drawn by the weights of its stage.

    Steps after the last stage belong to it.
    """
    weights = next((weights for end, weights in stages if step < end), stages[-1][1])
    shares = np.array(list(weights.values())) / sum(weights.values())
    return str(rng.choice(list(weights), p=shares))
