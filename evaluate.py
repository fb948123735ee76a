"""Score whole datasets, arm against arm.

    python evaluate.py data=rooms_test [out=DIR key=value ...]
    python evaluate.py data.seeds=200000:200005          other rooms
    python evaluate.py data.scenes=DIR                   scene folders of your own (docs/data.md)

Arms: `sam2` (untouched), `control` (trained as long, without geometry), `3am`, `oracle` (true
points and rays). Every object is prompted on its largest view, by its mask and by one click, and
tracked forwards and backwards. Writes to `out`: results.json, table.txt, objects.csv, ious.png,
gains.png, and objects.jsonl, from which an interrupted run is resumed.
"""

import sys

from geometry_fusion.commands.console import parse, run_script
from geometry_fusion.interrupts import loading


def main(argv=None) -> int | None:
    """Run with these words of a command line. Raises InputError for bad input."""
    args = parse("evaluate", argv, __doc__)
    with loading():  # after parsing, so that help and errors come at once
        from geometry_fusion.commands.evaluate import run
    return run(args)


if __name__ == "__main__":
    sys.exit(run_script(main))
