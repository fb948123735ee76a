"""Worlds: what renders the rooms that an evaluation or a training lacks.

A world is a module with `seed_range`, `room_folder` and `write_rooms`.
"""

from pathlib import Path
from types import ModuleType

from geometry_fusion.data import moving_rooms, rooms, second_world
from geometry_fusion.errors import InputError

WORLDS = {"rooms": rooms, "second": second_world, "moving": moving_rooms}


def world_of(name: str, key: str) -> ModuleType:
    """The world of that name; InputError, naming the setting `key`, if there is none."""
    if name not in WORLDS:
        raise InputError(f"{key}={name}: unknown; choose one of {', '.join(WORLDS)}")
    return WORLDS[name]


def rendered_rooms(world: ModuleType, root: Path, seeds: range, workers: int) -> list[Path]:
    """The scene folders of the rooms of `seeds` under `root`, rendered where any is missing."""
    folders = [world.room_folder(root, seed) for seed in seeds]
    if not all((folder / "scene.json").exists() for folder in folders):
        world.write_rooms(seeds, root, workers)
    return folders
