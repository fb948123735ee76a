"""Checks of an evaluation's settings, before anything is tracked."""

import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from geometry_fusion.choices import MEMORY_POLICIES
from geometry_fusion.data.scenes import find_scenes
from geometry_fusion.data.worlds import world_of
from geometry_fusion.devices import pick_device, uses_bf16
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.arm_names import ARMS, CONTROLS, parts_of, place_settings
from geometry_fusion.evaluation.objects import SUBSETS
from geometry_fusion.evaluation.records import PROMPTS
from geometry_fusion.evaluation.run import shard_of
from geometry_fusion.io.atomic import check_apart
from geometry_fusion.limits import check_numbers, check_paths
from geometry_fusion.models import must3r as must3r_loader

RESULTS = ("results.json", "table.txt", "objects.csv", "ious.png", "gains.png")


def check(config: DictConfig) -> None:
    """Raise InputError, naming key and value, for settings that would fail after minutes."""
    for key, values, names in (("arms", config.arms, ARMS), ("prompts", config.prompts, PROMPTS)):
        is_list = OmegaConf.is_list(values)
        known = is_list and values and (key == "arms" or all(value in names for value in values))
        if not known:
            shown = list(values) if is_list else values
            example = next(iter(names))
            raise InputError(
                f"{key}={shown}: write a list such as {key}=[{example}] of {', '.join(names)}"
            )
    for arm in config.arms:
        parts_of(arm)
    check_list("memory", config.memory, MEMORY_POLICIES, least=1)
    check_list("controls", config.controls, CONTROLS[1:])
    place_settings(config)
    check_numbers(config)
    check_paths(config, ("out", "data.root"), ("data.scenes", "sam2_checkpoint"))
    check_paper(config.data.get("paper"))
    if config.data.get("scenes"):
        find_scenes(Path(config.data.scenes))
    else:
        world_of(config.data.get("world", "rooms"), "data.world").seed_range(
            config.data.get("seeds")
        )
    uses_bf16(pick_device(str(config.device)), str(config.precision))
    shard_of(config.shard)
    if config.only not in SUBSETS:
        raise InputError(f"only={config.only}: unknown; choose one of {', '.join(SUBSETS)}")
    for arm, key in checkpoints_of(config).items():
        check_paths(config, (f"checkpoints.{key}",))
        if not Path(config.checkpoints[key]).is_file():
            raise InputError(
                f"checkpoints.{key}={config.checkpoints[key]}: no such file; train it (python "
                f"train.py experiment=tiny_fusion arm={arm}) or leave the arm out: arms=[sam2]"
            )


def check_list(key: str, values: object, names: Sequence[str], least: int = 0) -> None:
    """Raise InputError for a setting that is no list of these names, each once."""
    chosen = list(values) if OmegaConf.is_list(values) else [None]
    unknown = any(value not in names for value in chosen) or len(set(chosen)) < len(chosen)
    if unknown or len(chosen) < least:
        raise InputError(f"{key}={values}: write a list such as {key}=[{','.join(names)}]")


def checkpoints_of(config: DictConfig) -> dict[str, str]:
    """The trained arms that an evaluation needs -> their keys in `checkpoints`."""
    keys = {ARMS[parts_of(arm)[0]][0] for arm in config.arms}
    names = {"fusion": "3am"}
    return {names.get(key, key): key for key in sorted(keys - {None})}


def check_paper(rows: DictConfig | None) -> None:
    """Raise InputError for published numbers that the table cannot show at the end."""
    for name, values in (rows or {}).items():
        if not (OmegaConf.is_list(values) and len(values) == 3):
            raise InputError(f"data.paper.{name}={values}: must be [IoU, positive IoU, accuracy]")


def check_out(out: Path, config: DictConfig, config_file: Path | None) -> None:
    """Raise InputError where results would replace an input, foreign files, or results of other
    scenes.
    """
    trained = [config.checkpoints[key] for key in checkpoints_of(config).values()]
    inputs = [
        config.sam2_checkpoint,
        must3r_loader.given_file(str(config.must3r)),
        *trained,
        config_file,
    ]
    outputs = [out / name for name in RESULTS]
    check_apart([*outputs, out / "objects.jsonl"], [Path(given) for given in inputs if given])
    if not any(file.exists() for file in outputs):
        return
    try:
        earlier = json.loads(outputs[0].read_text())["config"]["data"]
        earlier_scenes = Path(earlier["scenes"] or earlier["root"]).resolve()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        file = next(file for file in outputs if file.exists())
        raise InputError(
            f"{file}: is of no evaluation; choose another folder with out=DIR"
        ) from None
    scenes = Path(config.data.scenes or config.data.root).resolve()
    if earlier_scenes != scenes and not config.overwrite:
        raise InputError(
            f"{outputs[0]}: holds results of {earlier_scenes}, which those of {scenes} would "
            "replace; add overwrite=true or choose another folder with out=DIR"
        )
