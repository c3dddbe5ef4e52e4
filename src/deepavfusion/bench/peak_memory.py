"""Peak memory of a process while something runs: from CUDA's allocator, or on the CPU from Linux.

On the CPU it is the resident memory, which follows the tensors alive only if malloc returns freed blocks at once: call
`give_back_at_once` in a process that is made for measuring.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

import torch

from deepavfusion.training.resident_memory import resident

MALLOC_MMAP_THRESHOLD = -3
"""Number of the parameter in glibc's mallopt."""


def can_measure(device: str) -> bool:
    """Whether this machine tells."""
    return device == "cuda" or sys.platform == "linux"


def give_back_at_once() -> None:
    """Let malloc map every block above 64 KiB by itself, so that it goes back to the system when it is freed."""
    ctypes.CDLL("libc.so.6").mallopt(MALLOC_MMAP_THRESHOLD, 65536)


def settle() -> None:
    """Give back what is free."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def current(device: str) -> int:
    """Bytes that are taken now."""
    settle()
    return torch.cuda.memory_allocated() if device == "cuda" else resident("VmRSS")


def reset_peak(device: str) -> None:
    """Forget what was taken before."""
    settle()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> int:
    """The most bytes taken since `reset_peak`."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")


def total(device: str) -> int:
    """Bytes that the device has."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
