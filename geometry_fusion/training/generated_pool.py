"""The generated worlds of a training, from its config: data=generated."""

import torch
from omegaconf import DictConfig, OmegaConf

from geometry_fusion.data.generated.pool import ClipPool
from geometry_fusion.data.scenes import Scene, find_scenes


def is_generated(data: DictConfig) -> bool:
    """Whether the training draws its clips itself."""
    return "worlds" in data


def pool_of(data: DictConfig, size: int, device: torch.device) -> ClipPool:
    """The pool of `data.worlds`, with the scenes of `data.scenes` where there are any.

    size: pixels of a side of the clips.
    """
    options = OmegaConf.to_container(data.worlds)
    for key in ("layered_share", "scene_share"):
        options.pop(key)
    scenes = [Scene(path) for path in find_scenes(data.scenes)] if data.scenes else []
    return ClipPool(device, size=size, scenes=scenes, **options)
