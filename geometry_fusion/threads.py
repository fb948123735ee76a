"""How OpenMP's threads wait. Must be said before torch is loaded.

By default idle threads spin for a while. Two programs on the same cores then take the cores from
each other. Passive waiting makes a run on its own slower; benchmarks/company.py measures both
(docs/performance.md).
"""

import os


def be_a_good_neighbour() -> None:
    """Let idle OpenMP threads sleep, unless the user chose otherwise."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
