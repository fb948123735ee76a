"""How threads wait, and how the stages of tracking share the cores.

`be_a_good_neighbour` must run before torch is loaded. By default OpenMP's idle threads spin for a
while. Two programs on the same cores then take the cores from each other. Passive waiting makes a
run on its own slower; benchmarks/company.py measures both (docs/performance.md).

`share_cores` is for runs whose stages have threads of their own (tracking/ahead.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

STAGES = 2  # that are busy at a time: tracking, and encoding ahead

_lock = Lock()
_sharing = 0  # how many contexts of `share_cores` are open
_threads_before = 0


def be_a_good_neighbour() -> None:
    """Let idle OpenMP threads sleep, unless the user chose otherwise."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def share_cores(wanted: bool) -> Iterator[bool]:
    """Within it, torch computes with one share of the cores per stage; yields whether that is so.

    Not so where `wanted` is false, or where torch has a single thread: somebody else has the other
    cores then. Contexts may overlap; the number of threads is restored when the last one ends.
    """
    global _sharing, _threads_before
    import torch

    with _lock:
        threads = _threads_before if _sharing else torch.get_num_threads()
        shared = wanted and threads > 1
        if shared:
            _sharing += 1
            _threads_before = threads
            torch.set_num_threads(max(1, threads // STAGES))
    try:
        yield shared
    finally:
        if shared:
            with _lock:
                _sharing -= 1
                if not _sharing:
                    torch.set_num_threads(_threads_before)
