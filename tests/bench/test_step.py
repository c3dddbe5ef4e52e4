"""`bench step` measures real steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepavfusion.bench import step
from deepavfusion.bench.config import StepBenchConfig
from deepavfusion.models.config import EarlyFusionConfig, MaskedDecodingConfig


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that two cores step in milliseconds, under the name small."""
    model = EarlyFusionConfig(
        image_size=(32, 32), audio_size=(32, 32), patch_size=8, embed_dim=32, depth=1, num_heads=2
    )
    decoding = MaskedDecodingConfig(decoder_dim=16, image_decoder_depth=1, audio_decoder_depth=1, decoder_num_heads=2)
    monkeypatch.setitem(step.SIZES, "small", (model, decoding))
    monkeypatch.setitem(step.MATMUL_SIZE, "cpu", 256)


TINY = StepBenchConfig(sizes=("small",), modes=("eager",), batch_size=2, steps=2, num_workers=0, device="cpu")


@pytest.mark.usefixtures("tiny")
def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speeds = step.run(replace(TINY, fusions=("dense", "factorized"), json=str(tmp_path / "a")))
    assert [(s.fusion, s.precision) for s in speeds] == [
        (fusion, precision) for fusion in ("dense", "factorized") for precision in ("float32", "bfloat16")
    ]
    for speed in speeds:
        assert 0 < speed.matmul_share < 1
        assert 0 < speed.data_wait_share < 1
        assert speed.step_samples_per_second == pytest.approx(2 / speed.seconds)
        assert speed.samples_per_second < 1.5 * speed.step_samples_per_second
        assert speed.peak_gib is None or 0 < speed.peak_gib < 1
    assert "measured rate" in " ".join(capsys.readouterr().out.split())
    record = json.loads((tmp_path / "a").read_text())
    assert [step.StepSpeed(**s) for s in record["speeds"]] == speeds


@pytest.mark.usefixtures("tiny")
def test_the_best_batch_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are doubled while they get faster per clip, and never beyond what fits or what is allowed."""
    tried: list[int] = []

    def seconds_of(rates: dict[int, float], fits: int):
        def trial(config, kind, batch_size, folder, device):
            tried.append(batch_size)
            if batch_size > fits:
                raise torch.OutOfMemoryError
            return batch_size / rates[batch_size], 0, 0

        return trial

    kind = step.Kind("small", "dense", "float32", "eager")
    for rates, fits, expected in (
        ({1: 10, 2: 19, 4: 30, 8: 30.1, 16: 50}, 16, 4),
        ({1: 10, 2: 19, 4: 30, 8: 60}, 4, 4),
        ({1: 10, 2: 19, 4: 30, 8: 60}, 8, 8),
    ):
        tried.clear()
        with monkeypatch.context() as patch:
            patch.setattr(step, "trial", seconds_of(rates, fits))
            assert step.best_batch(replace(TINY, max_batch_size=8), kind, "", "cpu") == expected
        assert tried == [1, 2, 4, 8]
    with monkeypatch.context() as patch:
        patch.setattr(step, "trial", seconds_of({1: 1.0}, 0))
        with pytest.raises(ValueError, match="a step of one clip in float32 does not fit"):
            step.best_batch(TINY, kind, "", "cpu")
    (speed,) = step.run(replace(TINY, batch_size="best", max_batch_size=2, precisions=("bfloat16",)))
    assert speed.batch_size in (1, 2)


def test_a_batch_that_leaves_no_room_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = step.Kind("small", "dense", "float32", "eager")
    monkeypatch.setattr(step, "trial", lambda config, kind, batch, folder, device: (1.0, 40 * batch, 20))
    monkeypatch.setattr(step.peak_memory, "total", lambda device: 100)
    assert step.best_batch(TINY, kind, "", "cpu") == 2


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="modes is empty"):
        StepBenchConfig(modes=())
    with pytest.raises(ValueError, match="steps 0 must be at least 1"):
        StepBenchConfig(steps=0)
    with pytest.raises(ValueError, match="batch_size 0 must be at least 1"):
        StepBenchConfig(batch_size=0)
