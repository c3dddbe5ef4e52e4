"""What a request does: all that `predict` writes, progress, one line for what fails, and an end when given up."""

from __future__ import annotations

import errno
import io
import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deepavfusion.atomic import NotWrittenError
from deepavfusion.inference.predict import predict
from deepavfusion.inference.predict_config import PredictConfig
from deepavfusion.inference.predictor import TASKS
from deepavfusion.page.analysis import HALVES, Analyst, Event, Failed, Finished, Found, Request, Working
from deepavfusion.page.intake import Given
from deepavfusion.page.offers import chosen_first, offers_of
from deepavfusion.page.visits import Visits


def given(path: Path, *more: Path) -> Given:
    return Given(tuple(map(str, (path, *more))))


def test_the_zip_holds_what_predict_writes(
    model: str, analyst: Analyst, visits: Visits, clips: Path, tmp_path: Path
) -> None:
    place = visits.begin("a", "film")
    events = list(analyst.analyse(Request(given(clips / "film.mp4"), TASKS, step_seconds=0.25), place))
    assert [event.task for event in events if isinstance(event, Found)] == list(TASKS)
    assert isinstance(events[-1], Finished)
    assert not events[-1].given_up
    for task in TASKS:
        config = PredictConfig(task, (str(clips / "film.mp4"),), str(tmp_path), model, device="cpu", step_seconds=0.25)
        assert predict(config) == 0
    with zipfile.ZipFile(place.archive) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    own = {f"film/{path.name}": path.read_bytes() for path in (tmp_path / "film").iterdir()}
    assert packed.keys() == own.keys()
    for name in own:
        if name.endswith(".npz"):
            assert packed[name] == own[name], name
        if name.endswith(".wav"):  # their headers hold the time of writing
            sounds = [soundfile.read(io.BytesIO(files[name]), dtype="float32")[0] for files in (packed, own)]
            np.testing.assert_array_equal(*sounds)
    for task in TASKS:
        record, other = (json.loads(files[f"film/{task}.json"]) for files in (packed, own))
        assert record["name"] == "film.mp4"  # no folder of the server
        for key in other.keys() - {"name", "input", "made_from"}:
            assert record[key] == other[key], (task, key)
        assert str(clips) not in json.dumps(record)
        assert str(visits.root) not in json.dumps(record)


def test_what_a_recording_lacks_is_one_line_and_the_rest_is_done(analyst: Analyst, visits: Visits, clips: Path) -> None:
    place = visits.begin("a", "tone")
    events = list(analyst.analyse(Request(given(clips / "tone.wav"), TASKS), place))
    assert [event.task for event in events if isinstance(event, Found)] == ["classification", "embedding"]
    failed = {event.task: event.line for event in events if isinstance(event, Failed)}
    assert failed.keys() == {"localization", "separation", "segmentation"}
    assert failed["localization"] == "tone.wav: has no video, which this task needs"
    assert all(str(clips) not in line for line in failed.values())


def test_two_halves_are_two_sources(analyst: Analyst, visits: Visits, clips: Path) -> None:
    place = visits.begin("a", "film")
    list(analyst.analyse(Request(given(clips / "film.mp4"), ("separation",), HALVES), place))
    sounds = {path.name for path in place.results.glob("*.wav")}
    assert sounds == {"source_0.wav", "source_1.wav", "residual.wav"}


def test_a_request_that_is_given_up_ends_soon(analyst: Analyst, visits: Visits, clips: Path) -> None:
    place, ended = visits.begin("a", "long"), threading.Event()
    request = Request(given(clips / "long.mp4"), ("classification", "localization"), step_seconds=0.01)
    told: list[Event] = []
    for event in analyst.analyse(request, place, ended.set):
        told.append(event)
        if isinstance(event, Working) and event.task == "localization":
            assert event.all_seconds in (0.0, pytest.approx(30, abs=0.2))
            visits.stop("a")
    assert isinstance(told[-1], Finished)
    assert told[-1].given_up
    assert ended.is_set()
    assert [event.task for event in told if isinstance(event, Found)] == ["classification"]
    with zipfile.ZipFile(place.archive) as archive:  # what was found until then
        assert "long/classification.json" in archive.namelist()


def test_nobody_listening_ends_it_too(analyst: Analyst, visits: Visits, clips: Path) -> None:
    place, ended = visits.begin("a", "long"), threading.Event()

    def at_end() -> None:
        visits.finish("a", place)
        ended.set()

    events = analyst.analyse(Request(given(clips / "long.mp4"), ("localization",), step_seconds=0.01), place, at_end)
    next(events)
    events.close()  # type: ignore[attr-defined]
    visits.end("a")
    assert ended.wait(30)
    assert not place.folder.exists()


def test_a_mistake_of_ours_is_a_line_and_no_end(
    analyst: Analyst,
    visits: Visits,
    clips: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("inside")

    monkeypatch.setattr(analyst.predictor, "classify", broken)
    place = visits.begin("a", "film")
    events = list(analyst.analyse(Request(given(clips / "film.mp4"), ("classification", "embedding")), place))
    failed, found = events[1], events[-2]
    assert isinstance(failed, Failed)
    assert failed.line == "an unexpected error occurred; see the server's log"
    assert isinstance(found, Found)
    assert "KeyError: 'inside'" in capsys.readouterr().err


def test_a_full_disk_is_a_line_without_the_servers_paths(
    analyst: Analyst, visits: Visits, clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = visits.begin("a", "film")

    def full(*_: object) -> None:
        raise NotWrittenError(errno.ENOSPC, "no space left on the device", str(place.results / "x.json"))

    monkeypatch.setattr(analyst.predictor, "classify", full)
    events = list(analyst.analyse(Request(given(clips / "film.mp4"), ("classification",)), place))
    assert events[-2] == Failed("classification", "results cannot be written: no space left on the device")
    assert str(place.results) in capsys.readouterr().err


def test_tasks_without_a_head_are_named_with_the_reason() -> None:
    offers = offers_of(("separation", "embedding"))
    assert [offer.task for offer in offers if not offer.lacking] == ["separation", "embedding"]
    lacking = {offer.task: offer.lacking for offer in offers if offer.lacking}
    assert lacking.keys() == {"classification", "localization", "segmentation"}
    assert "deepavfusion train localization" in lacking["localization"]
    assert chosen_first(offers) == ["separation"]
    assert chosen_first(offers_of(("embedding",))) == ["embedding"]
    assert chosen_first(offers_of(("embedding", "search"))) == ["search"]
    assert [offer.task for offer in offers_of(("search",))][-1] == "search"
    assert "search" not in [offer.task for offer in offers]
