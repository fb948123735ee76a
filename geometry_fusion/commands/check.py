"""`check_checkpoint_geometry.py`: does a file carry merger weights?"""

import argparse

from geometry_fusion.errors import printable
from geometry_fusion.models.inspect import describe, inspect


def run(args: argparse.Namespace) -> int:
    """Print what a checkpoint is; returns 0 if it carries a merger, else 1."""
    content = inspect(args.checkpoint)
    print(f"{printable(str(args.checkpoint))}\n{describe(content)}")
    return 0 if content.merger_tensors else 1
