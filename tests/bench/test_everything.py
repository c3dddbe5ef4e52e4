"""`bench all` runs what is missing with the settings of the docs, on either device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deepavfusion.bench import everything
from deepavfusion.bench.config import AllBenchConfig


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Configurations that the parts were run with; each writes its file."""
    configs: dict[str, Any] = {}

    def record(part: str):
        def run(config: Any) -> None:
            configs[part] = config
            Path(config.json).parent.mkdir(parents=True, exist_ok=True)
            Path(config.json).write_text("{}")

        return run

    runs = {part: (cls, record(part)) for part, (cls, _) in everything.RUNS.items()}
    monkeypatch.setattr(everything, "RUNS", runs)
    return configs


def test_only_what_is_missing_is_measured(tmp_path: Path, asked: dict[str, Any]) -> None:
    config = AllBenchConfig(out=str(tmp_path), device="cpu")
    (tmp_path / "bench_step.json").write_text("{}")
    assert everything.run(config) == ["model", "decoder", "curves", "media", "predict"]
    assert asked["curves"].device == "cpu"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "bench_curves.json", "bench_decoder.json", "bench_media.json", "bench_model.json", "bench_predict.json",
        "bench_step.json",
    ]  # fmt: skip
    assert everything.run(config) == []
    assert everything.run(AllBenchConfig(str(tmp_path), parts=("step",), again=True, device="cpu")) == ["step"]
    assert asked["step"].batch_size == 4


def test_a_gpu_fills_files_of_its_own(
    tmp_path: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(everything, "resolve_device", lambda device: "cuda")
    everything.run(AllBenchConfig(out=str(tmp_path)))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "bench_curves_cuda.json", "bench_decoder_cuda.json", "bench_media.json", "bench_model_cuda.json",
        "bench_predict.json", "bench_step_cuda.json",
    ]  # fmt: skip
    assert asked["step"].sizes == ("vit_b", "vit_l")
    assert asked["step"].batch_size == "best"
    assert asked["step"].modes == ("eager", "compiled")
    assert asked["model"].device == "cuda"
    assert "make_docs.py" in capsys.readouterr().out


def test_outside_a_checkout_the_folder_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="out docs/results does not exist: run this in a checkout, or name a folder"):
        everything.run(AllBenchConfig(device="cpu"))
