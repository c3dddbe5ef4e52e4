"""Pilots on two-digit scenes: who is seen and heard where, what the terms are, and that a stopped run goes on."""

from __future__ import annotations

import gzip
import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from experiments import objective_probe, objectives
from experiments.linear_probe import accuracy
from experiments.objective_terms import Arm, Pilot
from experiments.objective_views import changed
from experiments.two_digits import TEST_IMAGES, TEST_SPEAKER, Part, Scenes, write_part


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwriting that is bright in the last images alone; one speaker says 0 to 4, the other, the test's, 5 to 9."""
    folder = tmp_path_factory.mktemp("digits")
    count = TEST_IMAGES + 100
    images = np.full((count, 28, 28), 100, np.uint8)
    images[-TEST_IMAGES:] = 255
    labels = (np.arange(count) % 10).astype(np.uint8)
    for name, array in (("images-idx3-ubyte.gz", images), ("labels-idx1-ubyte.gz", labels)):
        head = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(head + array.tobytes(), 1))
    with zipfile.ZipFile(folder / "fsdd_flac.zip", "w") as archive:
        for digit in range(10):
            file, speaker = io.BytesIO(), "george" if digit < 5 else TEST_SPEAKER
            tone = np.sin(2 * math.pi * 100 * (digit + 3) * np.arange(4000) / 8000).astype(np.float32)
            soundfile.write(file, 0.5 * tone, 8000, format="flac")
            archive.writestr(f"{digit}_{speaker}_0.flac", file.getvalue())
    return folder


@pytest.fixture(scope="module")
def scenes(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_part(digits, Part(70, 1), folder / "train00")
    write_part(digits, Part(20, 2, is_test=True), folder / "test")
    return folder


def test_speaker_and_handwriting_of_the_test_are_not_trained_on(digits: Path, scenes: Path, tmp_path: Path) -> None:
    train, test = Scenes.read(scenes / "train00"), Scenes.read(scenes / "test")
    assert train.image.shape == (70, 3, 96, 96)
    assert train.log_mel.shape == (70, 1, 128, 192)
    assert train.digit.max() < 5 <= test.digit.min()
    # Test strokes hide all that is behind them, those of training let most of it through.
    flat = [float((part.image[:, :, 1:, 1:] == part.image[:, :, :-1, :-1]).all(1).mean()) for part in (train, test)]
    assert flat[0] < 0.05 < 0.2 < flat[1]
    write_part(digits, Part(70, 1), tmp_path / "again")
    again = Scenes.read(tmp_path / "again")
    assert np.array_equal(again.image, train.image)
    assert np.array_equal(again.log_mel, train.log_mel)
    # Digit 0 is a tone of 300 Hz, and louder than the noise in every scene in which it is spoken.
    loudest = train.log_mel[train.digit == 0].max(-1)[:, 0].argmax(1)
    assert len(set(loudest.tolist())) == 1


def test_views_of_a_scene_are_drawn_sample_by_sample_from_the_generator() -> None:
    image, audio = torch.zeros(3, 3, 96, 96), torch.full((3, 1, 128, 192), -7.0)
    image[:, :, 40:50, 40:50], audio[:, :, 60:64, 90:94] = 1.0, 2.0
    one, two, other = (changed(image, audio, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    for a, b, c in zip(one, two, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert not torch.equal(a[0], a[1])
    places = one[1].amax(2)[:, 0].argmax(1)  # the loud moment, wherever the turn took it
    assert len(set(places.tolist())) > 1
    assert one[1].min() > -7  # there is noise everywhere


@pytest.mark.parametrize("name", list(objectives.OBJECTIVES))
def test_every_arm_has_its_terms_and_trains_what_it_uses(name: str) -> None:
    arm = objectives.OBJECTIVES[name]
    torch.manual_seed(0)
    model = Pilot(arm)
    image, audio = torch.randn(4, 3, 96, 96), torch.randn(4, 1, 128, 192)
    terms = model(image, audio, (image, audio), torch.arange(4), torch.Generator().manual_seed(0))
    assert ("labels" in terms) == bool(arm.labels)
    assert ("pairs" in terms) == bool(arm.pairs or (arm.views and "image" in arm.targets))
    assert ("fusion_with_audio" in terms) == bool(arm.views and arm.fuses)
    torch.stack(list(terms.values())).sum().backward()
    silent = {n for n, p in model.named_parameters() if p.grad is None}
    assert all("fusion" in n for n in silent if n.startswith("autoencoder.encoder."))
    assert not silent or not arm.fuses or not arm.reconstruction
    for n, p in model.named_parameters():
        assert p.grad is None or p.grad.isfinite().all(), n


def test_info_nce_by_hand() -> None:
    model = Pilot(Arm(pairs=1.0))
    x, y = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    half = math.sqrt(0.5)
    logits = 10 * np.array([[1.0, half], [0.0, half]])  # cosines over a temperature of 0.1
    rows, columns = (np.log(np.exp(table).sum(1)) for table in (logits, logits.T))
    expected = np.mean(np.concatenate([rows, columns]) - np.tile(np.diag(logits), 2))
    assert float(model.info_nce(x, y).detach()) == pytest.approx(expected, abs=1e-4)


def test_probe_tells_what_a_linear_map_can_tell() -> None:
    rng = torch.Generator().manual_seed(0)
    digits = torch.arange(400) % 10
    x = 100 + 5 * torch.randn(400, 12, generator=rng)
    x[:, :10] += 40 * torch.nn.functional.one_hot(digits, 10)
    assert accuracy(x[:300], digits[:300], x[300:], digits[300:]) > 0.98
    assert accuracy(x[:300, 10:], digits[:300], x[300:, 10:], digits[300:]) < 0.25
    circle = torch.stack([torch.linspace(0, 6.2, 50).sin(), torch.linspace(0, 6.2, 50).cos(), torch.zeros(50)], 1)
    assert objective_probe.effective_rank(circle) == pytest.approx(2, abs=0.01)


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "TRAINING", ("train00",))
    for name, value in (("LABELLED", 40), ("TESTED", 20), ("WORTH", 8)):
        monkeypatch.setattr(objective_probe, name, value)
    arm = Arm(coupled=0.5)
    objectives.train(arm, 256, 0, scenes, tmp_path / "whole.json")
    seen: list[int] = []

    def stop(model: Pilot, folder: Path, alone: bool) -> dict[str, float]:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return objective_probe.probe(model, folder, alone)

    monkeypatch.setattr(objectives, "probe", stop)
    with pytest.raises(KeyboardInterrupt):
        objectives.train(arm, 256, 0, scenes, tmp_path / "parts.json")
    assert not (tmp_path / "parts.json").exists()
    monkeypatch.setattr(objectives, "probe", objective_probe.probe)
    objectives.train(arm, 256, 0, scenes, tmp_path / "parts.json")
    whole, parts = (json.loads((tmp_path / f"{n}.json").read_text())["probes"] for n in ("whole", "parts"))
    assert [row["draws"] for row in whole] == [128, 256]
    for a, b in zip(whole, parts, strict=True):
        assert {**a, "core_seconds": 0} == {**b, "core_seconds": 0}
