"""Learning rates and parameter groups: pure functions of the step and of parameter names."""

import math
from collections.abc import Mapping

import torch

from geometry_fusion.errors import InputError


def lr_scale(step: int, max_steps: int, warmup_steps: int, final_scale: float) -> float:
    """Linear warm-up to 1, then half a cosine down to `final_scale` at `max_steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return final_scale + (1 - final_scale) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(
    model: torch.nn.Module, rates: Mapping[str, float], weight_decay: float
) -> list[dict]:
    """Optimizer groups by name. `rates` maps a module or parameter prefix to its learning rate; `*`
    means the rest.

    The longest matching prefix wins; parameters that match none are frozen (requires_grad = False).
    Biases, norms and embeddings get no weight decay. Raises InputError when a prefix matches
    nothing.
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
        known = ", ".join(name for name, _ in model.named_children())
        raise InputError(
            f"trainer.trainable: no parameter under {unknown or list(rates)}; modules are: {known}"
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
    """One line per group: who is trained, how many parameters, at which rate."""
    return [
        f"{g['name']}: {sum(p.numel() for p in g['params']):,} parameters, "
        f"lr {g['base_lr']:g}, decay {g['weight_decay']:g}"
        for g in groups
    ]
