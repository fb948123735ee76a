"""Ranges of all numeric settings: those of train.py and evaluate.py, and options of main.py.

`LIMITS` names every number of the configs by its key (`*` is any name or place in a list) with its
range. A setting that cannot work is refused before anything is rendered, loaded or trained; the
message names key, value and range.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from geometry_fusion.errors import InputError
from geometry_fusion.io.parsing import is_number, is_whole

MANY = 1_000_000_000  # stands for "no upper limit"


@dataclass(frozen=True)
class Limit:
    """A range of numbers. Its text completes "KEY=VALUE: must be ..."."""

    low: float
    high: float  # included
    whole: bool = True  # whole numbers only
    null: bool = False  # null is allowed too, and means the default
    above: bool = False  # `low` itself is not allowed

    def allows(self, value: object) -> bool:
        """Whether a value of a config is in the range; booleans, text and NaN are not."""
        if value is None:
            return self.null
        if not (is_whole(value) if self.whole else is_number(value) and math.isfinite(value)):
            return False
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        least = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        most = f" and at most {self.high}" if self.high < MANY else ""
        return f"{kind} {least}{most}{', or null' if self.null else ''}"


COUNT, COUNT_OR_NULL = Limit(1, MANY), Limit(1, MANY, null=True)
SHARE = Limit(0, 1, whole=False)
WEIGHT = Limit(0, MANY, whole=False)
POSITIVE = Limit(0, MANY, whole=False, above=True)
PROCESSES, THREADS = Limit(1, 256), Limit(1, 4096, null=True)
SECONDS = Limit(0, 604_800, whole=False)  # a week
SECONDS_ABOVE_0 = Limit(0, 604_800, whole=False, above=True)
LIMITS = {
    # several scripts
    "data.workers": PROCESSES,
    "data.min_area": Limit(0, MANY),
    # train.py
    "data.val_share": Limit(0, 1, whole=False, above=True),
    "data.worlds.layered_share": SHARE,
    "data.worlds.scene_share": SHARE,
    "data.worlds.moving_share": Limit(0, 0.9, whole=False),  # MUSt3R is trained on still rooms
    "data.worlds.rooms": COUNT,
    "data.worlds.start": COUNT,
    "data.worlds.fresh": WEIGHT,
    "data.worlds.frames": Limit(2, 1000),
    "data.worlds.textures": Limit(32, 100_000),
    "data.worlds.texture_size": Limit(16, 1024),
    "data.datasets.*.weight": Limit(0, MANY, whole=False, null=True),
    "data.datasets.*.point": SHARE,
    "data.datasets.*.box": SHARE,
    "trainer.threads": THREADS,
    "trainer.seed": Limit(0, 2**32 - 1),
    "trainer.max_steps": Limit(0, MANY),
    "trainer.warmup_steps": Limit(0, MANY),
    "trainer.accumulate": Limit(1, 100_000),
    "trainer.log_every": COUNT,
    "trainer.eval_every": COUNT,
    "trainer.save_every": COUNT,
    "trainer.weight_decay": WEIGHT,
    "trainer.grad_clip": POSITIVE,
    "trainer.final_lr_scale": SHARE,
    "trainer.trainable.*": WEIGHT,
    "trainable_presets.*.*": WEIGHT,
    "batches.kinds.*.clips": Limit(1, 10_000),
    "batches.kinds.*.frames": Limit(1, 10_000),
    "batches.kinds.*.objects": Limit(1, 10_000),
    "batches.kinds.*.heights.*": Limit(16, 4096),
    "batches.stages.*.until": Limit(0, 1, whole=False, above=True),
    "batches.stages.*.weights.*": WEIGHT,
    "batches.correction_share": SHARE,
    "prompts.point": SHARE,
    "prompts.box": SHARE,
    "loss_weights.*": WEIGHT,
    "losses.pixels": COUNT,
    "losses.alpha": WEIGHT,
    "losses.match_weight": WEIGHT,
    "losses.match_temperature": POSITIVE,
    "losses.attention_weight": WEIGHT,
    "validation.val_clips": COUNT,
    "validation.val_frames": COUNT,
    "sampling.fov_share": SHARE,
    "sampling.tau": SHARE,
    "sampling.twin_share": SHARE,
    "sampling.references": COUNT,
    "attention_weight": WEIGHT,
    "correction_share": SHARE,
    "val_objects": COUNT,
    "val_frames": COUNT,
    "val_step": COUNT,
    # evaluate.py
    "workers": PROCESSES,
    "threads": THREADS,
    "join_every": Limit(1, 1000),
    "geometry_every": Limit(1, 1000),
    "max_objects": COUNT_OR_NULL,
    "max_keyframes": Limit(2, MANY, null=True),
    "reappear.spans": COUNT,
    "reappear.frames": COUNT,
    "data.paper.*.*": Limit(0, 1, whole=False),
}
RANGES = {  # settings that are a list [least, most], and the limit of both
    "sampling.steps": Limit(1, 100_000),
    "batches.kinds.*.steps": Limit(0, 100_000),
    "batches.kinds.*.overlap": SHARE,
}


def check_number(key: str, value: object, limit: Limit) -> None:
    """Raise InputError for a value outside its limit, naming key, value and range."""
    if not limit.allows(value):
        raise InputError(f"{key}={value}: must be {limit}")


def check_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Raise InputError, naming the choices, for a value that is none of them."""
    if value not in choices:
        raise InputError(f"{key}={value}: unknown; known are: {', '.join(choices)}")


def check_keys(group: str, settings: Iterable[str], keys: Iterable[str]) -> None:
    """Raise InputError, naming the known keys, for the first key of a group that is unknown."""
    if unknown := sorted(set(settings) - set(keys)):
        raise InputError(f"{group}.{unknown[0]}: unknown key; known are: {', '.join(keys)}")


def check_numbers(config: DictConfig) -> None:
    """Raise InputError for the first number of a config outside its limits."""
    plain = OmegaConf.to_container(config, resolve=True)
    for pattern, limit in LIMITS.items():
        for key, value in _values(plain, pattern.split(".")):
            check_number(key, value, limit)
    for pattern, limit in RANGES.items():
        for key, value in _values(plain, pattern.split(".")):
            if not (isinstance(value, list) and len(value) == 2 and all(map(limit.allows, value))):
                raise InputError(f"{key}={value}: must be [least, most], each {limit}")
            if value[0] > value[1]:
                raise InputError(
                    f"{key}={value}: must be [least, most], the first not above the second"
                )


def check_paths(config: DictConfig, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise InputError for the first key whose value is no path.

    optional: keys that may be null or missing.
    """
    for key in (*needed, *optional):
        value = OmegaConf.select(config, key)
        if value is None and key not in needed:
            continue
        if not (isinstance(value, str) and value):
            raise InputError(f"{key}={value}: must be a path; give {key}=PATH")


def check_option(flag: str, value: float, limit: Limit) -> None:
    """As `check_number`, for options of a command line."""
    if not limit.allows(value):
        raise InputError(f"{flag} {value}: must be {limit}")


def _values(node: object, parts: list[str], key: str = "") -> Iterator[tuple[str, object]]:
    """(key, value) of every setting that a pattern names.

    Raises InputError where a single value stands in place of a group.
    """
    if not parts:
        yield key, node
        return
    first, *rest = parts
    if key == "trainer.trainable" and isinstance(node, str):
        return  # the name of a preset
    if not isinstance(node, (Mapping, list)):
        raise InputError(f"{key}={node}: must be a group of settings or a list")
    items = node if isinstance(node, Mapping) else dict(enumerate(node))
    names = items if first == "*" else [first]
    for name in names:
        if name in items:
            yield from _values(items[name], rest, f"{key}.{name}".lstrip("."))
