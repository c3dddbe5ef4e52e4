"""The frame of evaluations: what is written, drawn and printed, in this order, whatever the task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from deepavfusion.evaluation.config import EvaluationConfig, EvaluationData
from deepavfusion.evaluation.coverage import Coverage
from deepavfusion.evaluation.evaluate import EVALUATIONS, results_folder
from deepavfusion.evaluation.frame import Drawn, Findings, Printed, TaskEvaluation, film_drawing, picture_drawing, show
from deepavfusion.evaluation.loop import OneProcess
from deepavfusion.evaluation.record import PictureEntry, Record, Score, mean_baseline, mean_score
from deepavfusion.report.results import read_evaluation
from tests.tasks.classification_runs import quiet

MODEL, OTHER = np.array([0.0, 1.0, 1.0, 0.5]), np.array([0.0, 0.0, 1.0, 0.5])


def findings(percent: bool = True, scored: bool = True, **drawings: object) -> Findings:
    record = Record(
        title="Something",
        task="something",
        protocol="by hand",
        coverage=Coverage(5, 4, "a", "b", ("e",), {}, ()),
        num_scored=4,
        scores={"main": mean_score(MODEL), "side": Score(0.125), "hidden": Score(0.5)} if scored else {},
        baselines={"other": {"main": mean_baseline(MODEL, OTHER)}} if scored else {},
    )
    printed = Printed(("main", "side") if scored else (), ("main",), percent, ("told beside",))
    return Findings(record, tuple("abcd"), {"main": MODEL}, printed, drawings=drawings)  # type: ignore[arg-type]


def printed_by(own: Findings, out: Path) -> str:
    console = quiet()
    show(own.write(out), console)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_scores_lie_there_before_anything_is_drawn_and_failures_are_named(tmp_path: Path) -> None:
    entry = PictureEntry("line.png", "a line", "The line.")

    def look(out: Path) -> Drawn:
        assert json.loads((out / "results.json").read_text())["scores"]["side"] == {
            "value": 0.125,
            "low": None,
            "high": None,
        }
        assert (out / "samples.npz").is_file()
        return Drawn(sounds={"first": {"mixture": "first/mixture.wav"}})

    def fail(path: Path) -> None:
        raise RuntimeError("no\n  film")

    own = findings(
        look=look,
        first=film_drawing("first.mp4", fail),
        line=picture_drawing(entry, Figure),
        second=film_drawing("films/second.mp4", lambda path: None),
    )
    result = own.write(tmp_path / "out")
    assert result.record.undrawn == {"first": "no film"}
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["drawings_failed"] == {"first": "no film"}
    assert (content["sounds"], content["videos"]) == ({"first": {"mixture": "first/mixture.wav"}}, ["films/second.mp4"])
    assert [picture.path for picture in read_evaluation(tmp_path / "out" / "results.json").pictures] == [
        tmp_path / "out" / "line.png"
    ]
    assert (tmp_path / "out" / "line.png").stat().st_size > 500
    text = printed_by(own, tmp_path / "again")
    assert "no drawing of first: no film" in text
    assert f"video: {tmp_path / 'again' / 'films' / 'second.mp4'}" in text


def test_scores_are_printed_beside_the_baselines_in_percent_or_as_they_are(tmp_path: Path) -> None:
    text = printed_by(findings(), tmp_path)
    assert text.startswith("scored 4 of 5 official clips (ids b); 1 missing: e\nby hand")
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert lines.keys() == {"main", "side"}
    assert "62.50 [" in lines["main"]
    assert lines["main"].split("│")[3].strip() == "37.50"
    assert (lines["side"].split("│")[2].strip(), lines["side"].split("│")[3].strip()) == ("12.50", "")
    assert "main minus other: +25.00 [" in text
    assert "told beside\n" in text
    assert f"1 more scores are in {tmp_path / 'results.json'}" in text
    text = printed_by(findings(percent=False), tmp_path)
    assert "main minus other: +0.25 [" in text
    assert " 0.12 " in text


def test_without_truth_nothing_is_recorded_but_drawings_are_made(tmp_path: Path) -> None:
    own = findings(scored=False, line=picture_drawing(PictureEntry("line.png", "", ""), Figure))
    text = printed_by(own, tmp_path / "out")
    assert text.startswith("looked at 4 of 5 official clips")
    assert "nothing is scored without ground truth; figures are in" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["line.png"]


def test_every_configuration_shares_the_base_and_its_checks() -> None:
    data = EvaluationData("clips.csv")
    for kind in EVALUATIONS:
        config = kind("runs/a", data, baselines=["b=runs/b", "c=untrained:d"])  # type: ignore[arg-type]
        assert config.places == {"b": "runs/b", "c": "untrained:d"}
        for settings, message in (
            ({"run": "shipped:bandstand"}, "out: shipped:bandstand is no folder"),
            ({"batch_size": 0}, "batch_size 0 must be at least 1"),
            ({"baselines": ("x",)}, "baselines 'x' must be NAME=PLACE"),
        ):
            with pytest.raises(ValueError, match=message):
                kind(**{"run": "runs/a", "data": data, **settings})


def test_results_lie_in_the_run_unless_a_folder_is_named() -> None:
    class Counting(TaskEvaluation[EvaluationConfig]):
        def predict(self) -> None: ...

        def findings(self) -> Findings:
            return findings()

        def folder_name(self) -> list[str]:
            return ["counting", self.source_name]

    for out, folder in ((None, "runs/a/evaluation/counting-clips"), ("x/y", "x/y")):
        config = EvaluationConfig("runs/a", EvaluationData("data/clips.csv/"), out)
        assert results_folder(config, Counting(config, OneProcess(torch.device("cpu")))) == Path(folder)
