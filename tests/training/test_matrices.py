"""The scripts that stop and continue runs: what they leave behind."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.mark.parametrize("name", ["elastic_matrix", "resume_matrix"])
def test_a_temporary_folder_goes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--only", "no such row"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert importlib.import_module(name).main() == 0
    assert list(tmp_path.glob("*_matrix_*")) == []
