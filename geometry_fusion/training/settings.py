"""Settings of train.py that must fit together; ranges of single numbers are in
geometry_fusion.limits.

Each function raises InputError naming key and value, before anything is rendered or built.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from geometry_fusion.errors import InputError
from geometry_fusion.io.parsing import is_text
from geometry_fusion.limits import COUNT, check_keys, check_number

# Keys that an experiment has to have, by task.
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
# Settings of a kind of batches, by task: the required ones and the optional ones.
BATCHES = {
    "sam2": (("clips", "frames", "objects"), ("steps",)),
    "must3r": (("clips", "frames"), ("overlap", "heights", "steps")),
    "fusion": (("clips", "frames", "objects"), ()),
}
MISSING = object()


def check_has_keys(config: DictConfig) -> None:
    """Refuse a task whose settings the chosen experiment lacks."""
    for key in NEEDED[config.task]:
        value = OmegaConf.select(config, key, default=MISSING)
        if value is None:
            raise InputError(
                f"{key}=None: a task '{config.task}' needs it; leave the experiment's value"
            )
        if value is MISSING:
            raise InputError(
                f"task={config.task}: this experiment has no {key}; choose an experiment that is "
                "made for the task"
            )


def check_folders(config: DictConfig) -> None:
    """Refuse a run folder that cannot be created, and names that a library cannot write."""
    run_dir = Path(config.trainer.run_dir)
    for path in (run_dir, *run_dir.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"trainer.run_dir={run_dir}: {path} is not a folder; choose another")
    for key in ("trainer.run_dir", "geometry_cache"):
        folder = OmegaConf.select(config, key) or ""
        if not is_text(folder):
            raise InputError(
                f"{key}={folder}: is not UTF-8, and TensorBoard and safetensors take no other "
                "names; choose another"
            )


def check_rates(config: DictConfig) -> None:
    """Refuse learning rates that name no module."""
    rates = config.trainer.trainable
    if not rates or not (isinstance(rates, str) or all(isinstance(name, str) for name in rates)):
        raise InputError(
            f"trainer.trainable={rates}: must be {{module: learning rate}}, or the name of a preset"
        )


def check_batches(config: DictConfig) -> None:
    """Refuse kinds of batches with missing or unknown settings, and stages without a known kind."""
    kinds = config.batches.kinds
    for kind, shape in kinds.items():
        _check_kind(f"batches.kinds.{kind}", shape, *BATCHES[config.task])
    if not config.batches.stages:
        raise InputError("batches.stages=[]: must have at least one stage")
    for number, stage in enumerate(config.batches.stages):
        _check_stage(f"batches.stages.{number}", stage, kinds)


def _check_kind(key: str, shape, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    if not OmegaConf.is_dict(shape):
        raise InputError(f"{key}={shape}: must be a group of settings: {', '.join(required)}")
    for name in required:
        check_number(f"{key}.{name}", shape.get(name), COUNT)
    check_keys(key, shape, (*required, *optional))


def _check_stage(key: str, stage, kinds: DictConfig) -> None:
    if not OmegaConf.is_dict(stage) or {*stage.keys()} != {"until", "weights"}:
        raise InputError(f"{key}={stage}: must be {{until: 1.0, weights: {{KIND: 1}}}}")
    weights = stage.weights
    if (
        not OmegaConf.is_dict(weights)
        or not sum(weights.values()) > 0
        or not weights.keys() <= kinds.keys()
    ):
        raise InputError(
            f"{key}.weights={weights}: must be weights, not all 0, of: {', '.join(kinds)}"
        )


def check_posed_batches(config: DictConfig, size: int, patch: int) -> None:
    """Refuse batches that do not fit the network.

    size: pixels of a side of its square input. patch: pixels of a side of a token.
    """
    for kind, shape in config.batches.kinds.items():
        heights = shape.get("heights") or [size]
        if wrong := [height for height in heights if height > size or height % patch]:
            raise InputError(
                f"batches.kinds.{kind}.heights={wrong}: must be multiples of {patch} up to {size}"
            )
        if config.losses.pixels > min(heights) * size:
            raise InputError(
                f"losses.pixels={config.losses.pixels}: must be at most {min(heights) * size}, the "
                f"pixels of the lowest picture of '{kind}'"
            )
        _check_starts(f"batches.kinds.{kind}.frames", shape.frames)
    _check_starts("validation.val_frames", config.validation.val_frames)


def _check_starts(key: str, frames: int) -> None:
    if frames < 2:
        raise InputError(f"{key}={frames}: must be at least 2, because MUSt3R starts with a pair")
