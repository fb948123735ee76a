"""Train from a Hydra config.

    python train.py experiment=tiny_sam2 [trainer.max_steps=100 ...]
    python train.py --config my.yaml                     a YAML file anywhere on disk
    torchrun --nproc-per-node 2 train.py experiment=tiny_sam2
    tensorboard --logdir sam2_logs/RUN/tensorboard

A YAML file may refer to keys (${trainer.seed}) but call no resolvers. Values of keys that are paths
(data.frames, trainer.run_dir, ...) are taken as they are: no quotes inside quotes.
"""

import sys

from geometry_fusion.commands.console import parse, run_script
from geometry_fusion.interrupts import loading


def main(argv=None) -> int | None:
    """Run with these words of a command line. Raises InputError for bad input."""
    args = parse("train", argv, __doc__)
    with loading():  # after parsing, so that help and errors come at once
        from geometry_fusion.commands.train import run
    return run(args)


if __name__ == "__main__":
    sys.exit(run_script(main))
