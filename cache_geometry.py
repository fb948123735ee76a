"""Compute the geometry that a fusion training will read, before it starts, by one worker or many.

    python cache_geometry.py experiment=paper                    # everything
    python cache_geometry.py experiment=paper --shard 3/16       # every 16th walk, from the 4th on

Takes the overrides of train.py. What is there already is kept; files appear whole, so that workers
may be killed and started again at any time, on machines that share the folder `geometry_cache`.
Training computes what is missing.
"""

import sys

from geometry_fusion.commands.console import parse, run_script
from geometry_fusion.interrupts import loading


def main(argv=None) -> int | None:
    """Run with these words of a command line. Raises InputError for bad input."""
    args = parse("cache-geometry", argv, __doc__)
    with loading():  # after parsing, so that help and errors come at once
        from geometry_fusion.commands.cache_geometry import run
    return run(args)


if __name__ == "__main__":
    sys.exit(run_script(main))
