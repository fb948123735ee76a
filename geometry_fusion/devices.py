"""The one place that knows device names: cuda, mps and cpu, and in which precision each
computes.
"""

import ctypes
import os
import platform
import shlex
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from geometry_fusion.errors import InputError

try:
    import resource
except ImportError:
    resource = None

DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("auto", "fp32", "bf16")


def pick_device(name: str = "auto") -> torch.device:
    """`auto` prefers cuda, then mps, then cpu. Raises InputError for unknown or unavailable
    devices.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, here in available.items() if here))
    kind, _, index = str(name).partition(":")
    if kind not in available or (index and not index.isdigit()):
        raise InputError(f"device {name!r}: unknown; choose one of {', '.join(DEVICES)}")
    if not available[kind]:
        raise InputError(
            f"device {name!r}: not available on this machine; use --device auto or cpu"
        )
    if index and kind == "cuda" and int(index) >= torch.cuda.device_count():
        raise InputError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use "
            "cuda:0"
        )
    return torch.device(str(name))


def use_local_device() -> None:
    """In one of several processes (torchrun): let `cuda` mean the GPU of this process. Elsewhere
    nothing.
    """
    if torch.cuda.is_available() and (rank := os.environ.get("LOCAL_RANK")):
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())


def uses_bf16(device: torch.device, precision: str = "auto") -> bool:
    """Whether to compute under bf16 autocast. `auto`: on CUDA devices with native bf16, fp32
    elsewhere.

    On the CPU at hand (AVX-512, two cores) a training step of the tiny SAM2 was not faster under
    bf16 autocast than in fp32 with channels-last convolutions, and CPUs without it only emulate
    bf16, far slower: fp32 unless asked.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: unknown; choose one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager:
    """A bf16 autocast context for `device`, or nothing where fp32 is used."""
    return (
        torch.autocast(device.type, torch.bfloat16)
        if uses_bf16(device, precision)
        else nullcontext()
    )


def check_compiler() -> None:
    """Raise InputError where torch.compile has no C++ compiler: it would say so minutes later, at
    the first frame.
    """
    compiler, *_ = shlex.split(
        os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    )
    if not shutil.which(compiler):
        raise InputError(
            f"--compile: needs a C++ compiler, and {compiler} is not here; install one or leave "
            "it out"
        )


def keep_freed_memory() -> bool:
    """For the CPU, in this process from now on: use memory that was freed again, instead of giving
    it back.

    glibc returns larger blocks with every free and takes them anew, page by page; a tiny model
    spends up to a fifth of its time there, depending on what else was allocated
    (docs/performance.md). Up to 256 MB stay that are not in use. Returns whether the C library has
    the switch.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold = (
        -1,
        -3,
    )  # malloc.h; both, since setting one ends the automatic choice of the other
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(mmap_threshold, 32 * 2**20) and mallopt(trim_threshold, 256 * 2**20))


def give_back_freed_memory(device: torch.device) -> None:
    """On a CPU, return the pages that are free to the system (glibc).

    Kept memory falls into pieces as a long run goes on, and the process grows though it holds no
    more. Given back now and then, it does not: 16 MB in 20,000 frames otherwise.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def free_memory(device: torch.device) -> None:
    """Give back what torch keeps for later, after memory ran out."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most: of the device's memory where that is counted, else
    of the machine's.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if resource is None:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
