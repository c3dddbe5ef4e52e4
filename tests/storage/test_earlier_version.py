"""What version 0.1.0 wrote is read: a stopped run and its shards, finished runs, a bundle.

`runs_0.1.0.zip` was written by that version from four generated clips of half a second: a pre-training of 6 steps on
shards and a probe on it, both left after step 2 with the metrics of all steps; a localizer with a head on a frozen
encoder, then called `tune_encoder: false`; a bundle of both, and its predictions.
"""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.cli import main
from deepavfusion.inspection import read
from deepavfusion.models import Localizer

WRITTEN = Path(__file__).parent / "runs_0.1.0.zip"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the runs' relative paths hold."""
    with zipfile.ZipFile(WRITTEN) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def losses(run: Path) -> dict[int, dict[str, float]]:
    """By step."""
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["step"]): {k: float(v) for k, v in row.items() if k.startswith("loss")} for row in rows}


def test_stopped_runs_go_on_as_they_would_have(place: Path) -> None:
    for words in (["pretrain"], ["train", "classification"]):
        run = place / ("pretrain" if words == ["pretrain"] else "probe")
        before = losses(run)
        assert max(before) == 6
        assert main([*words, "--config", str(run / "config.yaml")]) == 0
        after = losses(run)
        assert after.keys() == before.keys()
        for step, terms in before.items():
            assert after[step] == pytest.approx(terms, rel=1e-4), (run.name, step)
        assert (run / "model" / "model.safetensors").is_file()


def test_a_renamed_setting_of_an_old_configuration_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "localization", "--config", "where/config.yaml"]) == 2
    assert "--freeze_encoder true stands for --tune_encoder false" in capsys.readouterr().err


def test_the_bundle_predicts_what_it_did(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "classification", "clips", "--model", "bundle", "--out", "again", "--json"]) == 0
    now = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    then = [json.loads(line) for line in (place / "predicted.jsonl").read_text().splitlines()]
    assert [line["name"] for line in now] == [line["name"] for line in then]
    for a, b in zip(now, then, strict=True):
        assert [c["class"] for c in a["classes"]] == [c["class"] for c in b["classes"]]
        np.testing.assert_allclose([c["score"] for c in a["classes"]], [c["score"] for c in b["classes"]], atol=2e-5)


def test_models_and_checkpoints_are_read(place: Path) -> None:
    assert Localizer.from_pretrained("where/model").config.dim == 8
    for path in ("pretrain/checkpoints/step_00000002.pt", "pretrain_model", "where"):
        assert read(place / path).tensors
