"""Resident memory of this process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deepavfusion.training.resident_memory import peak_resident, resident

STARTED = "from deepavfusion.training.resident_memory import peak_resident; print(peak_resident())"
STARTING = f"""
import subprocess, sys
taken = b"x" * (600 * 2**20)
subprocess.run([sys.executable, "-c", {STARTED!r}], check=True)
"""


def test_the_peak_is_no_less_than_what_is_resident() -> None:
    taken = b"x" * (64 * 2**20)
    assert peak_resident() > len(taken)
    if sys.platform == "linux":
        assert peak_resident() >= resident("VmRSS") - 2**20  # a page more may come between the two


@pytest.mark.skipif(sys.platform != "linux", reason="getrusage alone tells elsewhere")
def test_the_peak_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    done = subprocess.run([sys.executable, "-c", STARTING], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300 * 2**20
