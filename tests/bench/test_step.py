"""`bench step` measures real steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepavfusion.bench import step
from deepavfusion.bench.config import StepBenchConfig
from deepavfusion.models.config import EarlyFusionConfig, MaskedDecodingConfig


def test_table_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = (
        EarlyFusionConfig(image_size=(32, 32), audio_size=(32, 32), patch_size=8, embed_dim=32, depth=1, num_heads=2),
        MaskedDecodingConfig(decoder_dim=16, image_decoder_depth=1, audio_decoder_depth=1, decoder_num_heads=2),
    )
    monkeypatch.setitem(step.SIZES, "small", tiny)
    monkeypatch.setitem(step.MATMUL_SIZE, "cpu", 256)
    config = StepBenchConfig(
        sizes=("small",), modes=("eager",), batch_size=2, steps=2, num_workers=0, device="cpu", json=str(tmp_path / "a")
    )
    float32, bfloat16 = step.run(config)
    assert (float32.precision, bfloat16.precision) == ("float32", "bfloat16")
    for speed in (float32, bfloat16):
        assert 0 < speed.matmul_share < 1
        assert 0 < speed.data_wait_share < 1
        assert speed.samples_per_second < 2 / speed.seconds * 1.5
    assert "measured matmul rate" in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "a").read_text())["speeds"][0]["size"] == "small"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="modes is empty"):
        StepBenchConfig(modes=())
    with pytest.raises(ValueError, match="steps 0 must be at least 1"):
        StepBenchConfig(steps=0)
