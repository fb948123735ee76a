"""pip freeze on standard input -> constraints.txt on standard output; `make constraints` runs it.

torch and what comes with its build stay out: the right build depends on the machine (CUDA, CPU,
macOS), and a constraint on it would replace one build by another.
"""

import re
import sys

BUILD_OF_TORCH = re.compile(r"(torch|torchvision|triton|pytorch-triton|nvidia-.*|cuda-.*)==")


def constraints_of(frozen: list[str]) -> list[str]:
    """Lines of `pip freeze` -> lines of a constraints file: exact versions of packages from an
    index.
    """
    torch = ", ".join(line for line in frozen if re.match(r"torch(vision)?==", line))
    header = (
        f"# Versions that the tests last passed with, beside {torch or 'an unknown torch'}; "
        "made by: make constraints"
    )
    exact = [
        line for line in frozen if "==" in line and " @ " not in line and not line.startswith("#")
    ]
    return [header, *(line for line in exact if not BUILD_OF_TORCH.match(line))]


if __name__ == "__main__":
    print("\n".join(constraints_of(sys.stdin.read().splitlines())))
