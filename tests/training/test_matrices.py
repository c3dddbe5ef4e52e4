"""The scripts that stop and continue runs: what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.mark.parametrize("name", ["elastic_matrix.py", "resume_matrix.py"])
def test_a_temporary_folder_goes(name: str, tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPTS / name), "--only", "no such row"]
    done = subprocess.run(words, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*_matrix_*")) == []
