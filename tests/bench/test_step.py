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


@pytest.fixture
def _unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is not what is asked, a large process need not give back what it holds, which takes a second."""
    monkeypatch.setattr(step.peak_memory, "settle", lambda: None)


TINY = StepBenchConfig(sizes=("small",), modes=("eager",), batch_size=2, steps=2, num_workers=0, device="cpu")


@pytest.mark.usefixtures("tiny")
@pytest.mark.slow
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


@pytest.mark.usefixtures("tiny", "_unsettled")
@pytest.mark.slow
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


@pytest.mark.usefixtures("_unsettled")
def test_the_search_begins_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes down from there if that is too much already."""
    kind, tried, room = step.Kind("small", "dense", "float32", "eager"), [], []

    def trial(config, kind, batch_size, folder, device):
        tried.append(batch_size)
        if batch_size > room[0]:
            raise torch.OutOfMemoryError
        return 1.0, 0, 0

    monkeypatch.setattr(step, "trial", trial)
    for fits, order in ((32, [8, 16, 32, 64]), (4, [8, 4, 8])):
        tried.clear()
        room[:] = [fits]
        assert step.best_batch(replace(TINY, min_batch_size=8), kind, "", "cpu") == fits
        assert tried == order


@pytest.mark.usefixtures("tiny", "_unsettled")
def test_the_written_out_form_takes_turns_with_ours_and_learns_the_same(tmp_path: Path) -> None:
    config = replace(TINY, fusions=("dense",), precisions=("float32",), arrangements=("ours", "written_out"))
    step.write_sample_clips(tmp_path / "clips", 2, duration_seconds=1.0, size=32)
    ours, other = step.measure(replace(config, made_up=True, source=str(tmp_path / "clips")))
    assert (ours.arrangement, other.arrangement) == ("ours", "written_out")
    assert other.gflop_per_sample > ours.gflop_per_sample
    losses = []
    for arrangement in config.arrangements:
        kind = step.Kind("small", "dense", "float32", "eager", arrangement)
        variant = step.Variant(replace(config, made_up=True), kind, 2, str(tmp_path))
        variant.repeat(variant.read(), 2, 0)
        losses.append(variant.state.means.means())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0].keys() == {"image", "audio", "gradient_norm"}


@pytest.mark.usefixtures("_unsettled")
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
    with pytest.raises(ValueError, match="min_batch_size 4 is more than max_batch_size 2"):
        StepBenchConfig(min_batch_size=4, max_batch_size=2)
    with pytest.raises(ValueError, match="batch_size 0 must be at least 1"):
        StepBenchConfig(batch_size=0)
