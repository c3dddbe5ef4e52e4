"""A small data set with a few clips of every split, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepavfusion.bandstand.config import BandstandConfig
from deepavfusion.bandstand.generation import BandstandSummary, generate


@pytest.fixture(scope="session")
def small_band(tmp_path_factory: pytest.TempPathFactory) -> BandstandSummary:
    """30 clips over all splits."""
    return generate(BandstandConfig(out=str(tmp_path_factory.mktemp("band")), clips=30, num_workers=0))


@pytest.fixture(scope="session")
def digit_files(shared: Path) -> tuple[str, str]:
    """Where handwriting and recordings lie."""
    folder = shared / "data" / "digits"
    if not folder.is_dir():
        pytest.skip("needs the digits beside the checkout (../shared/data/digits)")
    return str(folder), str(folder / "fsdd_flac.zip")
