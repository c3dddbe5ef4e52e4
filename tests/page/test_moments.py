"""A search by a visitor: what is found, what is written, and that nothing tells where the archive lies."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from deepavfusion.archive.config import IndexConfig
from deepavfusion.archive.indexing import index
from deepavfusion.archive.searching import Hit
from deepavfusion.data.media import MediaFile
from deepavfusion.data.shard_writing import ShardConfig, write_shards
from deepavfusion.page.analysis import Analyst, Event, Failed, Finished, Found, Request, Working
from deepavfusion.page.cards import draw_found
from deepavfusion.page.intake import Given
from deepavfusion.page.moments import Archive, _excerpt
from deepavfusion.page.serve_config import ServeConfig
from deepavfusion.page.visits import Visits
from tests.page.test_cards import Reader


def opened(place: str | Path) -> Archive:
    return Archive.open(ServeConfig(index=str(place), device="cpu"))


@pytest.fixture(scope="module")
def searcher(analyst: Analyst, idx: str) -> Analyst:
    return Analyst(analyst.predictor, opened(idx))


def ask(analyst: Analyst, visits: Visits, *paths: Path, **settings: str) -> tuple[Event, str]:
    """What became of a search, and the name under which its results are found."""
    place = visits.begin("a", "query")
    request = Request(Given(tuple(map(str, paths))), ("search",), **settings)  # type: ignore[arg-type]
    events = [event for event in analyst.analyse(request, place) if isinstance(event, Found | Failed)]
    (event,) = events
    return event, place.token


def names(event: Event) -> list[str]:
    assert isinstance(event, Found)
    return [moment["file"] for moment in event.record["moments"]]


def test_moments_are_named_below_their_common_folder(searcher: Analyst, visits: Visits, recordings: Path) -> None:
    found, token = ask(searcher, visits, recordings / "films" / "first.mp4")
    assert isinstance(found, Found)
    assert names(found)[0] == "films/first.mp4"
    assert sorted(names(found)) == ["a <b>.wav", "films/first.mp4", "films/second.mp4", "photo.png"]
    kinds = {moment["file"]: set(moment["files"]) for moment in found.record["moments"]}
    assert kinds == {
        "a <b>.wav": {"sound"},
        "films/first.mp4": {"picture", "film"},
        "films/second.mp4": {"picture", "film"},
        "photo.png": {"picture"},
    }
    files = [file for moment in found.record["moments"] for file in moment["files"].values()]
    own = [visits.find(token, file) for file in files]
    assert all(path is not None and visits.root in path.parents for path in own)
    archive = visits.find(token, "query.zip")
    assert archive is not None
    with zipfile.ZipFile(archive) as packed:
        assert {f"query/{file}" for file in [*files, "search.json"]} == set(packed.namelist())
        record = packed.read("query/search.json").decode()
    assert json.loads(record)["moments"][0]["by"] == "both"
    card = Reader(draw_found(found, own[0].parent, lambda name: f"results/x/{name}"))  # type: ignore[union-attr]
    assert "a <b>.wav" in card.text
    assert "Compared with 6 windows of the archive: both with both, in the joint space." in card.text
    for text in (record, card.text, str(card.elements)):
        assert str(recordings) not in text
        assert recordings.name not in text
    assert [video["src"] for video in card.all("video")] == [
        "results/x/moment_1.mp4",
        *[
            f"results/x/{moment['files']['film']}"
            for moment in found.record["moments"][1:]
            if "film" in moment["files"]
        ],
    ]
    visits.end("a")
    assert visits.find(token, files[0]) is None


def test_it_is_searched_by_what_is_asked_for(searcher: Analyst, visits: Visits, recordings: Path) -> None:
    film, tone, photo = recordings / "films" / "first.mp4", recordings / "a <b>.wav", recordings / "photo.png"
    for paths, settings, compared in (
        ((film,), {"by": "image"}, "image with image, image with audio"),
        ((film,), {"within": "audio"}, "both with audio"),
        ((tone,), {}, "audio with image, audio with audio"),
        ((photo,), {"within": "image"}, "image with image"),
        ((photo, tone), {}, "both with both"),
    ):
        found, _ = ask(searcher, visits, *paths, **settings)
        assert isinstance(found, Found)
        assert found.record["compared"] == f"{compared}, in the joint space"
    failed, _ = ask(searcher, visits, tone, by="image")
    assert failed == Failed("search", "by image: a <b>.wav has audio alone")


def test_recordings_that_cannot_be_read_are_named_and_the_others_stay(
    analyst: Analyst, visits: Visits, recordings: Path, joint_model: str, idx: str, tmp_path: Path
) -> None:
    place = shutil.copytree(recordings, tmp_path / "secret_place")
    index(IndexConfig(str(place), joint_model, str(tmp_path / "idx"), device="cpu"))
    archive = opened(tmp_path / "idx")
    (place / "photo.png").unlink()
    (place / "a <b>.wav").write_bytes(b"no sound")
    found, _ = ask(Analyst(analyst.predictor, archive), visits, recordings / "films" / "first.mp4")
    assert isinstance(found, Found)
    problems = {moment["file"]: moment.get("problem") for moment in found.record["moments"]}
    assert problems["films/first.mp4"] is None
    assert problems["photo.png"] == "is no longer there"
    assert problems["a <b>.wav"] is not None
    assert problems["a <b>.wav"].startswith("cannot be opened: ")
    assert "secret_place" not in json.dumps(found.record)
    card = Reader(draw_found(found, tmp_path, str))
    assert "is no longer there" in card.text
    assert len(card.all("li")) == 4


def test_clips_of_shards_and_rows_are_told_by_their_ids(
    analyst: Analyst, visits: Visits, recordings: Path, joint_model: str, tmp_path: Path
) -> None:
    pytest.importorskip("lancedb", reason="needs the extra index")
    place = tmp_path / "secret_place"
    write_shards(ShardConfig(str(recordings / "films"), str(place / "shards"), num_workers=0, frames_per_second=2.0))
    index(IndexConfig(str(place / "shards"), joint_model, str(tmp_path / "idx"), device="cpu"))
    opened_once = opened(tmp_path / "idx")
    assert opened_once._root is None  # no file of its own is in it
    found, token = ask(Analyst(analyst.predictor, opened_once), visits, recordings / "films" / "first.mp4")
    assert isinstance(found, Found)
    moments = {moment["file"]: moment for moment in found.record["moments"]}
    assert set(moments) == {"first", "second"}
    assert [set(moment["files"]) for moment in moments.values()] == [{"picture", "film"}] * 2
    film = visits.find(token, moments["first"]["files"]["film"])
    assert film is not None
    with MediaFile(film) as media:
        assert media.info.has_sound
        assert media.info.duration_seconds == pytest.approx(1.0, abs=0.1)

    elsewhere = Hit("s3://bucket/shards/00000.tar#0", None, 0.0, 1.0, 0.5, "both", "a/b", "0")
    assert opened_once._name(elsewhere.path, elsewhere.clip) == "a/b"
    assert _excerpt(elsewhere, tmp_path, "x")["problem"] == "lies on another machine, from which no excerpt is fetched"
    tar = next((place / "shards").glob("*.tar"))
    damaged = Hit(f"{tar}#512", None, 0.0, 1.0, 0.5, "both", "first", "0")
    assert "secret_place" not in _excerpt(damaged, tmp_path, "x")["problem"]
    shutil.rmtree(place)
    found, _ = ask(Analyst(analyst.predictor, opened_once), visits, recordings / "films" / "first.mp4")
    assert isinstance(found, Found)
    assert [moment["problem"] for moment in found.record["moments"]] == ["is no longer there"] * 2
    assert "secret_place" not in json.dumps(found.record)


def test_recordings_with_nothing_in_common_are_told_by_their_names(idx: str, tmp_path: Path) -> None:
    archive = opened(idx)
    archive._root = None  # as of recordings below the root of the file system
    assert archive._name("/data/a/b.mp4") == "b.mp4"
    archive._root = "/data/a"
    assert archive._name("/data/a/c/b\n.mp4") == "c/b\\n.mp4"
    assert archive._name("/data/ab/b.mp4") == "b.mp4"


def test_an_index_that_breaks_meanwhile_is_one_line(
    analyst: Analyst, visits: Visits, recordings: Path, idx: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = shutil.copytree(idx, tmp_path / "idx")
    searcher = Analyst(analyst.predictor, opened(place))
    shutil.rmtree(place)
    failed, _ = ask(searcher, visits, recordings / "photo.png")
    assert failed == Failed("search", "the archive cannot be searched at present; see the server's log")
    assert str(place) in capsys.readouterr().err


def test_a_search_is_stopped(searcher: Analyst, visits: Visits, clips: Path) -> None:
    place = visits.begin("a", "long")
    told: list[Event] = []
    for event in searcher.analyse(Request(Given((str(clips / "long.mp4"),)), ("search",)), place):
        told.append(event)
        if isinstance(event, Working):
            visits.stop("a")
    assert isinstance(told[-1], Finished)
    assert told[-1].given_up
    assert not any(isinstance(event, Found) for event in told)


def test_without_a_joint_space_like_is_compared_with_like(
    analyst: Analyst, model: str, visits: Visits, recordings: Path, idx: str, tmp_path: Path
) -> None:
    index(IndexConfig(str(recordings / "films"), model, str(tmp_path / "idx"), device="cpu"))
    archive = opened(tmp_path / "idx")
    assert not archive.is_joint
    searcher = Analyst(analyst.predictor, archive)
    found, _ = ask(searcher, visits, recordings / "a <b>.wav", within="image")  # which the page does not offer then
    assert isinstance(found, Found)
    assert found.record["compared"].startswith("audio with audio, mean tokens")
    assert sorted(names(found)) == ["first.mp4", "second.mp4"]
    nothing, _ = ask(searcher, visits, recordings / "photo.png", by="audio")
    assert nothing == Failed("search", "by audio: photo.png has image alone")
