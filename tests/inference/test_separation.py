"""Separating whole files: sources, residual, and a bound on memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from deepavfusion.images import normalize
from deepavfusion.inference.predictor import Predictor
from deepavfusion.inference.separation import separate_file, separate_sound
from deepavfusion.inference.timeline import Compute
from deepavfusion.models import Separator
from deepavfusion.storage.trained_models import LoadedModels
from tests.models.test_separator import separator

PICTURES = [np.random.default_rng(n).integers(0, 256, (20 + n, 30, 3), dtype=np.uint8) for n in range(2)]


@pytest.fixture(scope="module")
def model() -> Separator:
    return separator().eval()


def write(path: Path, seconds: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    waveform = (0.1 * rng.standard_normal(round(16000 * seconds))).astype(np.float32)
    soundfile.write(path, waveform, 16000, "FLOAT")
    return waveform


def test_sources_and_residual_add_up_to_the_file(model: Separator, tmp_path: Path) -> None:
    waveform = write(tmp_path / "long.wav", 10.3)  # more than one block, not a whole number of windows
    done = separate_file(model, str(tmp_path / "long.wav"), PICTURES, tmp_path / "out", names=("a", "b"))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.wav", "b.wav", "residual.wav"]
    sounds = {name: soundfile.read(path, dtype="float32") for name, path in done.sources.items()}
    assert all(rate == 16000 and len(sound) == len(waveform) == done.num_samples for sound, rate in sounds.values())
    residual = soundfile.read(done.residual, dtype="float32")[0]
    total = residual + sounds["a"][0] + sounds["b"][0]
    np.testing.assert_allclose(total, waveform, atol=1e-6)
    assert np.abs(residual).max() > 0.01
    assert not np.array_equal(sounds["a"][0], sounds["b"][0])


@pytest.mark.parametrize("shows", ["whole", "source", "box"])
def test_pictures_are_shown_as_predict_shows_them(shows: str, tmp_path: Path) -> None:
    model = separator(shows=shows).eval()
    write(tmp_path / "a.wav", 2.0)
    found = separate_file(model, str(tmp_path / "a.wav"), PICTURES, tmp_path)
    own = Predictor(LoadedModels({"separation": model}), "cpu").separate(str(tmp_path / "a.wav"), pictures=PICTURES)
    for path, expected in zip(found.sources.values(), own.sources, strict=True):
        np.testing.assert_allclose(soundfile.read(path, dtype="float32")[0], expected, atol=1e-6)


def test_consistent_sources_leave_nothing(model: Separator, tmp_path: Path) -> None:
    waveform = write(tmp_path / "a.wav", 1.0)
    done = separate_file(model, str(tmp_path / "a.wav"), PICTURES, tmp_path, mixture_consistent=True)
    assert np.abs(soundfile.read(done.residual)[0]).max() < 1e-6
    total = sum(soundfile.read(path)[0] for path in done.sources.values())
    np.testing.assert_allclose(total, waveform, atol=1e-6)


def test_a_recording_of_one_window_is_the_models_own_answer(model: Separator) -> None:
    mixture = 0.1 * torch.randn(6000, generator=torch.Generator().manual_seed(0))
    image = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        own = model(normalize(image), mixture.expand(2, -1)).waveform()
    compute = Compute(torch.device("cpu"))
    assert torch.equal(separate_sound(model, image, mixture, compute), own)
    assert separate_sound(model, image, mixture[:2500], compute).shape == (2, 2500)


def test_what_does_not_fit_is_refused(model: Separator, tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 0.1)
    for pictures, names in (([], ()), (PICTURES, ("a",)), (PICTURES, ("a", "a")), (PICTURES, ("a", "residual"))):
        with pytest.raises(ValueError, match="different names, other than residual"):
            separate_file(model, str(tmp_path / "a.wav"), pictures, tmp_path / "out", names)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


PROGRAM = """
import sys
import numpy as np
from deepavfusion.inference.separation import separate_file
from deepavfusion.models import Separator
from deepavfusion.training.resident_memory import peak_resident
model = Separator.from_pretrained(sys.argv[1]).eval()
pictures = [np.full((16, 24, 3), 40 * n, np.uint8) for n in range(2)]
done = separate_file(model, sys.argv[2], pictures, sys.argv[3])
print(done.num_samples, peak_resident())
"""


@pytest.mark.slow
def test_a_longer_file_needs_no_more_memory(model: Separator, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    peaks = {}
    for minutes in (0.5, 10):
        write(tmp_path / "sound.wav", 60 * minutes)
        words = [sys.executable, "-c", PROGRAM, str(tmp_path / "model"), str(tmp_path / "sound.wav"), str(tmp_path)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        count, peaks[minutes] = map(int, done.stdout.split())
        assert count == 960000 * minutes
    assert peaks[10] < 2 * 2**30
    assert peaks[10] < peaks[0.5] + 256 * 2**20  # ten minutes as floats would be 37 MiB a signal; allocators vary
