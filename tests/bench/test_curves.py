"""What `bench curves` counts on tensors without content is what real passes do, and what it draws."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deepavfusion.bench import peak_memory
from deepavfusion.bench.config import CurvesBenchConfig
from deepavfusion.bench.curves import CurvePoint, count, encoder_steps, measured_peak, run
from deepavfusion.bench.model import count_flops, saved_bytes
from deepavfusion.drawing.cost_curves import cost_curves_figure
from tests.models.tiny import FORMS, TINY

SMALL = CurvesBenchConfig(
    TINY, image_sizes=(32, 64), audio_seconds=(1, 2), memory_gib=1.0, measured=("dense",), device="cpu"
)


@pytest.mark.parametrize("fusion", FORMS)
def test_counts_are_those_of_a_real_pass(fusion: str) -> None:
    config = replace(TINY, fusion=fusion, depth=2)
    counted = count(config, batch_size=2)
    encoder, steps, _ = encoder_steps(config, 2, "cpu")
    for form, (flops, saved, peak) in counted.items():
        assert flops == count_flops(steps[form])
        assert saved == saved_bytes(steps[form], encoder)
        assert peak > saved


@pytest.mark.slow
@pytest.mark.skipif(not peak_memory.can_measure("cpu"), reason="reads /proc")
def test_the_counted_peak_is_the_measured_one() -> None:
    """Of a pass that is large beside what a process holds anyway."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    config = replace(TINY, fusion="dense", image_size=(256, 256), audio_size=(128, 256), embed_dim=64)
    with ProcessPoolExecutor(1, get_context("spawn"), peak_memory.give_back_at_once) as process:
        measured = process.submit(measured_peak, config, 1, "written out", "cpu").result()
    assert measured == pytest.approx(count(config, 1)["written out"][2], rel=0.15)


def test_written_out_pairs_grow_with_the_product_of_tokens_ours_with_their_sum() -> None:
    config = replace(SMALL, model=replace(TINY, depth=2), forms=("dense",), measured=())
    small, large = (
        {p.form: p for p in run(replace(config, image_sizes=(side,), audio_seconds=(seconds,)))}
        for side, seconds in ((64, 2), (128, 8))
    )
    rise = {form: large[form].saved_gib / small[form].saved_gib for form in ("ours", "written out")}
    assert large["ours"].num_pairs == 16 * small["ours"].num_pairs
    assert rise["ours"] < 4.5  # four times the tokens
    assert rise["written out"] > 8
    assert all(p.seconds is None and p.measured_peak_gib is None for p in (*small.values(), *large.values()))


@pytest.mark.slow
def test_table_json_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "curves.json"
    points = run(replace(SMALL, forms=("token", "dense"), json=str(path), memory_gib=0.002, image_sizes=(128,)))
    assert len(points) == 2 * 2 * 2
    outside = [p for p in points if not p.fits]
    assert outside
    assert all(p.form == "written out" and p.fusion == "dense" and p.seconds is None for p in outside)
    assert all((p.seconds is not None) == (p.fusion == "dense" and p.fits) for p in points)
    assert "out: more than 0.0 GiB" in " ".join(capsys.readouterr().out.split())
    record = json.loads(path.read_text())
    assert [CurvePoint(**p) for p in record["points"]] == points
    figure = cost_curves_figure(record)
    crosses = [line for axis in figure.axes for line in axis.lines if line.get_marker() == "x"]
    assert sum(len(line.get_xdata()) for line in crosses) == 2 * len(outside)  # in both rows
    figure.savefig(tmp_path / "curves.png")


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="measured names bilinear, which --forms does not have"):
        CurvesBenchConfig(forms=("dense",), measured=("bilinear",))
    with pytest.raises(ValueError, match="audio_seconds is empty"):
        CurvesBenchConfig(audio_seconds=())
    with pytest.raises(ValueError, match=r"audio_size \[128, 205\] must be two positive multiples of patch_size 16"):
        CurvesBenchConfig(audio_seconds=(3.2,))
    with pytest.raises(ValueError, match="memory_gib 0 must be positive"):
        CurvesBenchConfig(memory_gib=0)
