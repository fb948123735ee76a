"""Halve a released checkpoint: matrices and convolutions in eight bits instead of sixteen.

    python -m geometry_fusion.training.shrink checkpoints/fusion_tiny_oracle.safetensors

For weights that are seldom run. The file is read as before (geometry_fusion/io/eight_bits.py).
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import sys
from pathlib import Path

from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.io.eight_bits import packed
from geometry_fusion.io.parsing import parse_json
from geometry_fusion.io.weights import read_metadata, read_weights
from geometry_fusion.training.checkpoints import save_weights


def shrink(file: Path) -> None:
    """Rewrite a checkpoint of half precision with its matrices in eight bits.

    Raises InputError for files that cannot be read, and for one that was shrunk before.
    """
    weights = read_weights(file)
    metadata = {
        key: parse_json(text, f"{file}: {key}", "release it again")
        for key, text in read_metadata(file).items()
    }
    if "eight_bits" in metadata:
        raise InputError(f"{file}: is in eight bits already; leave it")
    modules = sorted({name.split(".")[0] for name in weights})
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    for module in modules:
        tensors = packed(tensors, module)
    save_weights(file, tensors, {**metadata, "eight_bits": modules})


def main(argv=None) -> None:
    """Run with these words of a command line. Raises InputError for bad input."""
    parser = OneLineParser(
        prog="python -m geometry_fusion.training.shrink", description=__doc__.splitlines()[0]
    )
    parser.add_argument("file", type=Path, help="a released .safetensors file")
    args = parser.parse_args(argv)
    before = args.file.stat().st_size if args.file.is_file() else 0
    shrink(args.file)
    print(f"{args.file}: {before / 1e6:.1f} -> {args.file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(run_cli(main))
