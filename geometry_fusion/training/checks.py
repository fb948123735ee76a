"""All checks of a training's settings, before anything is rendered or loaded."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from geometry_fusion.data.sampling import SAMPLINGS
from geometry_fusion.data.scenes import find_scenes
from geometry_fusion.devices import pick_device, uses_bf16
from geometry_fusion.errors import InputError
from geometry_fusion.limits import check_choice, check_keys, check_numbers, check_paths
from geometry_fusion.training.build import TASKS
from geometry_fusion.training.scenes import planned_rooms, split_of
from geometry_fusion.training.settings import (
    check_batches,
    check_folders,
    check_has_keys,
    check_rates,
)

# The settings of a dataset of a mixture, with their defaults; `scenes` has to be given.
DATASET = {"scenes": None, "sampling": "continuous", "point": 0.5, "box": 0.5, "weight": None}


def check(config: DictConfig) -> None:
    """Refuse settings that would otherwise fail after minutes of rendering.

    Fills in the defaults of a mixture's datasets. Raises InputError naming key, value and range.
    """
    check_choice("task", config.task, TASKS)
    check_has_keys(config)
    uses_bf16(pick_device(str(config.trainer.device)), str(config.trainer.precision))
    is_own_video = "frames" in config.data
    data_paths = ("data.frames", "data.masks") if is_own_video else ("data.root",)
    check_paths(
        config,
        ("trainer.run_dir", *data_paths),
        ("trainer.init_from", "data.scenes", "data.val_scenes", "fusion_from"),
    )
    if "datasets" in config.data:
        check_mixture(config.data)
    check_numbers(config)
    check_folders(config)
    check_rates(config)
    check_batches(config)
    if (is_own_video or "datasets" in config.data) and config.task != "fusion":
        raise InputError(
            f"task={config.task}: own videos and mixtures train a fusion; choose "
            "experiment=my_video or experiment=paper"
        )
    if is_own_video:
        check_own_video(config)
    for split in ("train", "val"):
        planned_rooms(config.data, split)
    for key in ("scenes", "val_scenes"):
        if config.data[key]:
            find_scenes(Path(config.data[key]))
    if config.task == "fusion":
        check_fusion(config)


def check_mixture(data: DictConfig) -> None:
    """Refuse datasets that do not exist and settings of them that cannot work."""
    for name, given in data.datasets.items():
        key = f"data.datasets.{name}"
        if not OmegaConf.is_dict(given) or "scenes" not in given:
            raise InputError(
                f"{key}={given}: must be {{scenes: DIR}} and any of {', '.join(DATASET)}"
            )
        check_keys(key, given, DATASET)
        dataset = data.datasets[name] = OmegaConf.merge(DATASET, given)
        if not isinstance(dataset.scenes, str):
            raise InputError(f"{key}.scenes={dataset.scenes}: must be a path")
        find_scenes(Path(dataset.scenes))
        check_choice(f"{key}.sampling", dataset.sampling, SAMPLINGS)
    if all(dataset.weight == 0 for dataset in data.datasets.values()):
        raise InputError(
            "data.datasets: no dataset has a weight above 0, so nothing would be drawn"
        )
    if not data.val_scenes:
        raise InputError("data.val_scenes=null: a mixture needs a folder of scenes to validate on")


def check_own_video(config: DictConfig) -> None:
    """Refuse what needs depth and poses, and videos with too few masks."""
    if config.arm == "oracle" or config.sampling.sampling == "fov":
        raise InputError(
            f"arm={config.arm}, sampling.sampling={config.sampling.sampling}: oracle and fov need "
            "depth and poses, which a video does not have; convert a posed capture and give "
            "data.scenes"
        )
    split_of(config)


def check_fusion(config: DictConfig) -> None:
    """Refuse settings of a fusion that cannot work."""
    check_paths(config, ("geometry_cache",))
    check_choice("sampling.sampling", config.sampling.sampling, SAMPLINGS)


def choose_trainable(config: DictConfig) -> None:
    """Replace the name of a preset by its learning rates. Raises InputError for unknown names."""
    name, presets = config.trainer.trainable, config.get("trainable_presets", {})
    if isinstance(name, str):
        choices = presets or ("none in this experiment; write {module: learning rate}",)
        check_choice("trainer.trainable", name, choices)
        config.trainer.trainable = presets[name]
