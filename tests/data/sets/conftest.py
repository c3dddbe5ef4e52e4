"""Small really decodable clips, laid out as the official data sets are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from deepavfusion.data.sample_clips import write_clip

Plant = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of picture and sound."""
    path = tmp_path_factory.mktemp("tiny") / "clip.mp4"
    rng = np.random.default_rng(0)
    write_clip(path, rng.integers(0, 255, (13, 32, 32, 3), np.uint8), rng.normal(0, 0.1, 16000).astype(np.float32))
    return path


@pytest.fixture(scope="session")
def mute_clip(tiny_clip: Path) -> Path:
    """The same without a sound track."""
    path = tiny_clip.with_name("mute.mp4")
    with av.open(str(tiny_clip)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path


@pytest.fixture
def plant(tmp_path: Path, tiny_clip: Path) -> Plant:
    """Hard-links the tiny clip to names below a folder of clips, which is returned."""

    def link(*names: str, source: Path = tiny_clip) -> Path:
        for name in names:
            path = tmp_path / "clips" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, path)
        return tmp_path / "clips"

    return link


@pytest.fixture(scope="session")
def tiny_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of sound."""
    import soundfile

    path = tmp_path_factory.mktemp("sound") / "sound.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
    return path


def picture(path: Path, pixels: np.ndarray) -> Path:
    """Write a picture, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def text(path: Path, content: str) -> str:
    """Write a text file; its name as annotation files are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return str(path)
