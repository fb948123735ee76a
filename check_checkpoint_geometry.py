"""Say whether a checkpoint carries FeatureMerger weights, how many, and for which backbones.

    python check_checkpoint_geometry.py FILE

Exit code 0: carries a merger, 1: carries none, 2: cannot be read. What counts as a merger, and what
is read of a file, is described in geometry_fusion/models/inspect.py.
"""

import sys

from geometry_fusion.commands.console import parse, run_script
from geometry_fusion.interrupts import loading


def main(argv=None) -> int | None:
    """Run with these words of a command line. Raises InputError for bad input."""
    args = parse("check", argv, __doc__)
    with loading():  # after parsing, so that help and errors come at once
        from geometry_fusion.commands.check import run
    return run(args)


if __name__ == "__main__":
    sys.exit(run_script(main))
