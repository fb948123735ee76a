"""The scenes of a training: a folder of scenes, rendered rooms, or the user's own video."""

import os
import time
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig

from geometry_fusion.data.own_video import Split, split_video
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.data.worlds import rendered_rooms, world_of
from geometry_fusion.errors import InputError
from geometry_fusion.models.sam2 import image_size


def scenes_of(data: DictConfig, split: str) -> list[Scene]:
    """Scenes of `split` ("train" or "val"): those of a folder, or rooms, which are rendered first.

    Of several processes the first one renders; the others wait for it. Raises InputError for seeds
    that are no range.
    """
    prefix = "" if split == "train" else "val_"
    folder = data[f"{prefix}scenes"]
    if folder:
        return [Scene(path) for path in find_scenes(folder)]
    seeds = planned_rooms(data, split)
    root, world = Path(data.root) / split, _world(data, split)
    # Accelerate has not started yet, so that the launcher's variable is all there is.
    if os.environ.get("RANK", "0") == "0":
        rendered_rooms(world, root, seeds, data.workers)
    folders = [world.room_folder(root, seed) for seed in seeds]
    while not all((folder / "scene.json").exists() for folder in folders):
        time.sleep(1)
    return [Scene(folder) for folder in folders]


def _world(data: DictConfig, split: str) -> ModuleType:
    """The world that renders a split. Nothing but `rooms` is trained on."""
    name = "rooms" if split == "train" else data.get("val_world", "rooms")
    return world_of(name, "data.val_world")


def split_of(config: DictConfig) -> Split:
    """The training and validation part of an own video.

    Raises InputError where the video has too few masks.
    """
    data = config.data
    # min_area is in pixels of the model's square input; split_video takes a share of the frame.
    least_share = data.min_area / image_size(config.sam2) ** 2
    return split_video(Path(data.frames), Path(data.masks), data.val_share, least_share)


def planned_rooms(data: DictConfig, split: str) -> range:
    """Seeds of the rooms that a split needs; empty where it has scenes of its own.

    Raises InputError for seeds that are no range, and for data that is not for training.
    """
    prefix = "" if split == "train" else "val_"
    if f"{prefix}scenes" not in data:
        raise InputError(
            f"data.{prefix}scenes: this data is for evaluation; choose data=rooms, mixture or "
            "own_video"
        )
    generated = split == "train" and "worlds" in data
    if generated or "datasets" in data or data.get("frames"):
        return range(0)
    if data[f"{prefix}scenes"]:
        return range(0)
    return _world(data, split).seed_range(data[f"{prefix}seeds"])
