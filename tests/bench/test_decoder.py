"""`bench decoder` compares the decoders, and the cheaper ones are cheaper."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deepavfusion.bench.config import DecoderBenchConfig
from deepavfusion.bench.decoder import DecoderCost, run
from deepavfusion.models.config import MaskedDecodingConfig
from tests.models.tiny import TINY


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decoding = MaskedDecodingConfig(decoder_dim=32, decoder_num_heads=4, image_decoder_depth=3, audio_decoder_depth=2)
    path = tmp_path / "costs.json"
    costs = run(DecoderBenchConfig(replace(TINY, depth=1), decoding, repeats=1, json=str(path)))
    assert [(c.decoder_form, c.predicted_share) for c in costs] == [("self", 1.0), ("cross", 1.0), ("cross", 0.25)]
    assert costs[0].gflop > costs[1].gflop > costs[2].gflop
    assert costs[0].saved_mib > costs[1].saved_mib > costs[2].saved_mib
    assert all(c.seconds for c in costs)
    assert [DecoderCost(**c) for c in json.loads(path.read_text())["costs"]] == costs
    assert "predicted" in capsys.readouterr().out
    with pytest.raises(ValueError, match="repeats -1 must not be negative"):
        DecoderBenchConfig(repeats=-1)
