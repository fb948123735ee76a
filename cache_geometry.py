"""Compute the geometry that a fusion training will read, before it starts, by one worker or many.

    python cache_geometry.py experiment=paper                    # everything
    python cache_geometry.py experiment=paper --shard 3/16       # every sixteenth walk, from the
    fourth on

Takes the overrides of train.py. What is there already is kept; files appear whole, so that workers
may be killed and started again at any time, on machines that share the folder `geometry_cache`.
Training computes what is missing.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import sys

from tqdm import tqdm

import train
from evaluate import shard_of
from geometry_fusion.config import compose_config
from geometry_fusion.errors import InputError, OneLineParser, run_cli


def main(argv=None) -> None:
    parser = OneLineParser(description=__doc__)
    parser.add_argument("--shard", default="0/1", help="PART/PARTS: compute only this part")
    parser.add_argument(
        "overrides", nargs="*", help="as train.py: experiment=NAME, geometry_cache=DIR, ..."
    )
    args = parser.parse_intermixed_args(argv)
    part, parts = shard_of(args.shard)
    config = compose_config(train.CONFIGS, "train", args.overrides)
    if config.task != "fusion":
        raise InputError(
            f"task={config.task}: only a fusion needs geometry; choose experiment=tiny_fusion or "
            "paper"
        )
    train.check(config)
    train.choose_trainable(config)
    needed = train.build_fusion_task(config).geometry_needed()[part::parts]
    missing = [(cache, *at) for cache, *at in needed if not cache.file(*at).exists()]
    for cache, scene, reference in tqdm(missing, unit="walk", disable=None):
        cache.fill(scene, reference)
    print(
        f"shard {args.shard}: {len(needed)} walks, {len(missing)} computed, "
        f"{len(needed) - len(missing)} were there"
    )


if __name__ == "__main__":
    sys.exit(run_cli(main))
