"""A small model of all tasks, files to give, and a server of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepavfusion.archive.config import IndexConfig
from deepavfusion.archive.indexing import index
from deepavfusion.inference.predictor import Predictor
from deepavfusion.page.analysis import Analyst
from deepavfusion.page.serve import Server, serving
from deepavfusion.page.serve_config import ServeConfig
from deepavfusion.page.visits import Visits
from deepavfusion.storage.bundle import Bundle
from tests.archive.tiny_joint_model import save_joint_model
from tests.inference.tiny_models import tiny_models, write_film, write_wav


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle with a random head for every task."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    Bundle.save(folder, tiny_models())
    return str(folder)


@pytest.fixture(scope="session")
def analyst(model: str) -> Analyst:
    return Analyst(Predictor.from_pretrained(model, "cpu"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """film.mp4 (1.5 s), long.mp4 (30 s), tone.wav (1 s) and bad.mp4, which is no video."""
    folder = tmp_path_factory.mktemp("clips")
    write_film(folder / "film.mp4", 1.5)
    write_film(folder / "long.mp4", 30.0)
    write_wav(folder / "tone.wav", 1.0)
    (folder / "bad.mp4").write_text("<html><script>alert(1)</script></html>")
    return folder


@pytest.fixture(scope="session")
def joint_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with a joint space."""
    return save_joint_model(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the index: films/first.mp4, films/second.mp4, `a <b>.wav`, photo.png."""
    folder = tmp_path_factory.mktemp("secret_place")
    write_film(folder / "films" / "first.mp4", 2.0, seed=1)
    write_film(folder / "films" / "second.mp4", 1.0, seed=2)
    write_wav(folder / "a <b>.wav", 1.0)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)).save(folder / "photo.png")
    return folder


@pytest.fixture(scope="session")
def idx(recordings: Path, joint_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The index of these recordings."""
    pytest.importorskip("lancedb", reason="needs the extra index")
    out = str(tmp_path_factory.mktemp("index") / "idx")
    index(IndexConfig(str(recordings), joint_model, out, device="cpu"))
    return out


@pytest.fixture
def visits(tmp_path: Path) -> Iterator[Visits]:
    visits = Visits(tmp_path / "visits")
    yield visits
    visits.close()


@pytest.fixture(scope="module")
def server(model: str) -> Iterator[Server]:
    """The page of the small model; it takes 1 MiB and 20 s."""
    pytest.importorskip("gradio", reason="needs gradio: pip install 'deepavfusion[serve]'")
    with serving(ServeConfig(model, port=0, max_upload_mib=1, max_seconds=20, device="cpu")) as server:
        yield server
