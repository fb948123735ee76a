"""Settings of train.py that must fit together; single numbers have their limits in
geometry_fusion.limits.

Each function raises InputError naming key and value, before anything is rendered or built.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from geometry_fusion.errors import InputError
from geometry_fusion.parsing import is_text

# task -> keys that its experiments have
NEEDED = {
    "sam2": (
        "sam2",
        "prompts",
        "loss_weights",
        "val_objects",
        "val_frames",
        "batches.kinds",
        "batches.stages",
    ),
    "must3r": ("must3r", "losses", "validation", "batches.kinds", "batches.stages"),
    "fusion": (
        "sam2",
        "must3r",
        "arm",
        "variant",
        "prompts",
        "loss_weights",
        "sampling",
        "val_step",
        "batches.kinds",
    ),
}
# task -> settings of a kind of batches: those it needs, those it may have
BATCHES = {
    "sam2": (("clips", "frames", "objects"), ("steps",)),
    "must3r": (("clips", "frames"), ("overlap", "heights", "steps")),
    "fusion": (("clips", "frames", "objects"), ()),
}


def check_has_keys(config: DictConfig) -> None:
    """Refuse a task whose settings the chosen experiment lacks."""
    missing = object()
    for key in NEEDED[config.task]:
        value = OmegaConf.select(config, key, default=missing)
        if value is None:
            raise InputError(
                f"{key}=None: a task '{config.task}' needs it; leave the experiment's value"
            )
        if value is missing:
            raise InputError(
                f"task={config.task}: this experiment has no {key}; choose one that is made for "
                "the task"
            )


def check_rates(config: DictConfig) -> None:
    """Refuse a run folder that cannot be one, and learning rates that name no module."""
    run_dir = Path(config.trainer.run_dir)
    if blocked := next(
        (p for p in (run_dir, *run_dir.parents) if p.exists() and not p.is_dir()), None
    ):
        raise InputError(f"trainer.run_dir={run_dir}: {blocked} is not a folder; choose another")
    for key in ("trainer.run_dir", "geometry_cache"):
        if not is_text(OmegaConf.select(config, key) or ""):
            raise InputError(
                f"{key}={OmegaConf.select(config, key)}: is not UTF-8, and TensorBoard and "
                "safetensors "
                "take no other names; choose another"
            )
    rates = config.trainer.trainable
    if not rates or not (isinstance(rates, str) or all(isinstance(name, str) for name in rates)):
        raise InputError(
            f"trainer.trainable={rates}: must be {{module: learning rate}}, or the name of a preset"
        )


def check_batches(config: DictConfig) -> None:
    """Refuse kinds of batches that lack something or have too much, and stages that draw none of
    them.
    """
    needed, optional = BATCHES[config.task]
    kinds, stages = config.batches.kinds, config.batches.stages
    for kind, shape in kinds.items():
        if not OmegaConf.is_dict(shape):
            raise InputError(
                f"batches.kinds.{kind}={shape}: must be a group of settings: {', '.join(needed)}"
            )
        for key in needed:
            if key not in shape:
                raise InputError(
                    f"batches.kinds.{kind}.{key}=None: must be a whole number of at least 1"
                )
        if unknown := sorted(shape.keys() - {*needed, *optional}):
            known = ", ".join((*needed, *optional))
            raise InputError(f"batches.kinds.{kind}.{unknown[0]}: unknown here; known are: {known}")
    if not stages:
        raise InputError("batches.stages=[]: must have at least one stage")
    for number, stage in enumerate(stages):
        if not OmegaConf.is_dict(stage) or {*stage.keys()} != {"until", "weights"}:
            raise InputError(
                f"batches.stages.{number}={stage}: expected {{until: 1.0, weights: {{KIND: 1}}}}"
            )
        weights = stage.weights
        if (
            not OmegaConf.is_dict(weights)
            or not sum(weights.values()) > 0
            or not weights.keys() <= kinds.keys()
        ):
            raise InputError(
                f"batches.stages.{number}.weights={weights}: expected weights, not all 0, of: "
                f"{', '.join(kinds)}"
            )


def check_posed_batches(config: DictConfig, size: int, patch: int) -> None:
    """Refuse batches that do not fit pictures of `size` pixels a side in patches of `patch`."""
    for kind, shape in config.batches.kinds.items():
        heights = shape.get("heights") or [size]
        if wrong := [height for height in heights if height > size or height % patch]:
            raise InputError(
                f"batches.kinds.{kind}.heights={wrong}: must be multiples of {patch} up to {size}"
            )
        if config.losses.pixels > min(heights) * size:
            raise InputError(
                f"losses.pixels={config.losses.pixels}: pictures of '{kind}' have "
                f"{min(heights) * size} pixels"
            )
        if shape.frames < 2:
            raise InputError(
                f"batches.kinds.{kind}.frames={shape.frames}: must be at least 2, as MUSt3R starts"
            )
    if config.validation.val_frames < 2:
        raise InputError(
            f"validation.val_frames={config.validation.val_frames}: must be at least 2, as "
            "MUSt3R starts"
        )
