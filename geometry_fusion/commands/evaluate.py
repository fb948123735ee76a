"""`evaluate.py`: score whole datasets, arm against arm."""

import argparse
from pathlib import Path

import torch

from geometry_fusion.assets import CONFIGS, at_hand
from geometry_fusion.commands.config import compose_config
from geometry_fusion.evaluation import run as evaluation
from geometry_fusion.evaluation.arm_names import expanded
from geometry_fusion.evaluation.results import text_table, write_results
from geometry_fusion.evaluation.settings import check, check_out


def run(args: argparse.Namespace) -> None:
    """Score the configured arms on a data set; write and print tables.

    With a shard, only records are written. Raises InputError for bad settings and inputs.
    """
    config = compose_config(CONFIGS, "evaluate", args.overrides, args.config)
    for arm, file in config.checkpoints.items():
        if isinstance(file, str):  # anything else is refused below
            config.checkpoints[arm] = str(at_hand(file))
    check(config)
    config.arms = expanded(config.arms, config.controls, config.memory)
    if config.threads:
        torch.set_num_threads(config.threads)
    out = Path(config.out)
    check_out(out, config, args.config)
    out.mkdir(parents=True, exist_ok=True)
    records = evaluation.run(config, out)
    if evaluation.shard_of(config.shard)[1] > 1:
        print(
            f"shard {config.shard}: {len(records)} tracks in {out}; the same command without shard "
            "prints the tables"
        )
        return
    results = write_results(records, config, out)
    print(text_table(results, config))
    print(f"written: {out}/results.json, table.txt, objects.csv, ious.png, gains.png")
