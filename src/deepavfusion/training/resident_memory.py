"""Memory of this process that is resident in RAM.

On Linux it is read from /proc: getrusage's peak is no less than that of the process that started this one, since the
kernel carries it over `exec`.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def resident(key: str) -> int:
    """VmRSS (now) or VmHWM (at most so far) of this process in bytes, on Linux."""
    match = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def peak_resident() -> int:
    """The most bytes of this process that were resident so far."""
    if sys.platform == "linux":
        return resident("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere
