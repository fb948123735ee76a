"""`cache_geometry.py`: compute the geometry of a fusion training before it starts."""

import argparse

from tqdm import tqdm

from geometry_fusion.assets import CONFIGS
from geometry_fusion.commands.config import compose_config
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.run import shard_of
from geometry_fusion.training.build_fusion import build_fusion_task
from geometry_fusion.training.checks import check, choose_trainable


def run(args: argparse.Namespace) -> None:
    """Compute the geometry of this shard's sequences that the cache lacks.

    Raises InputError for bad settings, and for a task that needs no geometry.
    """
    part, parts = shard_of(args.shard)
    config = compose_config(CONFIGS, "train", args.overrides)
    if config.task != "fusion":
        raise InputError(
            f"task={config.task}: only a fusion needs geometry; choose experiment=tiny_fusion or "
            "paper"
        )
    check(config)
    choose_trainable(config)
    needed = build_fusion_task(config).geometry_needed()[part::parts]
    missing = [(cache, *at) for cache, *at in needed if not cache.file(*at).exists()]
    for cache, scene, reference in tqdm(missing, unit="walk", disable=None):
        cache.fill(scene, reference)
    print(
        f"shard {args.shard}: {len(needed)} walks, {len(missing)} computed, "
        f"{len(needed) - len(missing)} were there"
    )
