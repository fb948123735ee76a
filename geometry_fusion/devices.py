"""Devices (cuda, mps, cpu): choosing one, the precision it computes in, and its memory."""

import ctypes
import os
import platform
import shlex
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from geometry_fusion.choices import DEVICES, PRECISIONS
from geometry_fusion.errors import InputError

try:
    import resource
except ImportError:
    resource = None


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name such as `cpu` or `cuda:1`; `auto` prefers cuda, then mps, then cpu.

    Raises InputError for unknown or unavailable devices.
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
        raise InputError(f"device {name!r}: not available on this machine; choose auto or cpu")
    if index and kind == "cuda" and int(index) >= torch.cuda.device_count():
        raise InputError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use "
            "cuda:0"
        )
    return torch.device(str(name))


def use_local_device() -> None:
    """In one of several processes (torchrun), let `cuda` mean the GPU of this process."""
    if torch.cuda.is_available() and (rank := os.environ.get("LOCAL_RANK")):
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())


def uses_bf16(device: torch.device, precision: str = "auto") -> bool:
    """Whether to compute under bf16 autocast. `auto`: on CUDA devices with native bf16 only.

    CPUs use fp32 unless asked. Measured on AVX-512 with two cores: a training step of the tiny SAM2
    was not faster under bf16 autocast than in fp32 with channels-last convolutions. CPUs without
    native bf16 emulate it, far slower. Raises InputError for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: unknown; choose one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager:
    """A bf16 autocast context for `device`, or an empty context where fp32 is used."""
    if uses_bf16(device, precision):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def _compiler() -> str:
    """The C++ compiler that torch.compile calls for code on a CPU."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    return shlex.split(os.environ.get("CXX") or default)[0]


def check_compiler() -> None:
    """Raise InputError where torch.compile has no C++ compiler. It would fail minutes later, at the
    first frame.
    """
    compiler = _compiler()
    if not shutil.which(compiler):
        raise InputError(
            f"compile: needs a C++ compiler, and {compiler} is not here; install one or leave it "
            "out"
        )


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works for a device: with CUDA, or on a CPU with a C++ compiler."""
    if device.type == "cpu":
        return shutil.which(_compiler()) is not None
    return device.type == "cuda"


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory from now on, instead of returning it to the system.

    glibc returns larger blocks with every free and requests them again, page by page. A tiny model
    on a CPU spends up to a fifth of its time there, depending on what else was allocated
    (docs/performance.md). Up to 256 MB stay allocated without being in use. Returns whether the C
    library has the switch.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    # Numbers of malloc.h. Both are set, because setting one ends the automatic choice of the other.
    trim_threshold = -1
    mmap_threshold = -3
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(mmap_threshold, 32 * 2**20) and mallopt(trim_threshold, 256 * 2**20))


def give_back_freed_memory(device: torch.device) -> None:
    """On a CPU, return free pages to the system (glibc). For long runs, now and then.

    Kept memory fragments, so that the process grows although it holds no more: by 16 MB in 20,000
    frames without this.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def free_memory(device: torch.device) -> None:
    """After memory ran out, return what torch's allocator caches to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held so far, of the GPU's memory or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if resource is None:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
