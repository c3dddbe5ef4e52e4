"""Results as HTML: well-formed, complete, and with every name escaped."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from deepavfusion.inference.predictor import TASKS
from deepavfusion.page.analysis import Analyst, Failed, Found, Request, Working
from deepavfusion.page.cards import MAX_ROWS, draw_download, draw_failed, draw_found, draw_problem, draw_working
from deepavfusion.page.charts import MAX_POINTS, Line, draw_timeline
from deepavfusion.page.examples import Example
from deepavfusion.page.front import draw_examples, draw_head, draw_lacking
from deepavfusion.page.intake import Given
from deepavfusion.page.offers import offers_of
from deepavfusion.page.visits import Visits
from deepavfusion.report.markup import VOID
from tests.inference.tiny_models import CLASSES, write_film

HOSTILE = '<script>alert("1")</script>&amp;\'.mp4'


class Reader(HTMLParser):
    """Elements and texts; fails where elements do not close in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def cards(analyst: Analyst, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    """The cards of a film with a hostile name, by task."""
    folder = tmp_path_factory.mktemp("cards")
    film = write_film(folder / HOSTILE.replace("/", "|"), 2.0)
    visits = Visits(folder / "visits")
    place = visits.begin("a", "film")
    request = Request(Given((str(film),)), TASKS, step_seconds=0.25)
    found = [event for event in analyst.analyse(request, place) if isinstance(event, Found)]
    return {f.task: Reader(draw_found(f, place.results, lambda name: f"results/x/{name}")) for f in found}


def test_classes_are_listed_drawn_and_tabled(cards: dict[str, Reader]) -> None:
    card = cards["classification"]
    assert all(name in card.text for name in CLASSES)  # one of them is called ring <b>
    assert not card.all("b") or all(not attributes for attributes in card.all("b"))
    (plot,) = [a for a in card.all("div") if a.get("class") == "plot"]
    assert float(plot["data-seconds"] or 0) == pytest.approx(2.0, abs=0.1)
    assert len([a for a in card.all("path") if (a["class"] or "").startswith("line")]) == 3
    assert "3 windows" in card.text
    assert len(card.all("tr")) == 1 + 3


@pytest.mark.parametrize("task", ["localization", "segmentation"])
def test_maps_play_over_the_film(task: str, cards: dict[str, Reader]) -> None:
    (video,) = cards[task].all("video")
    assert video["src"] == f"results/x/{task}.mp4"
    assert video["poster"] == f"results/x/{task}.png"
    assert "controls" in video
    assert "8 moments" in cards[task].text


def test_sounds_have_players_and_spectrograms(cards: dict[str, Reader]) -> None:
    card = cards["separation"]
    assert [a["src"] for a in card.all("audio")] == ["results/x/source_0.wav", "results/x/residual.wav"]
    assert len([a for a in card.all("img") if (a["src"] or "").startswith("data:image/jpeg;base64,")]) == 3
    assert "what the frame shows" in card.text
    assert "residual" in card.text


def test_features_are_compared(cards: dict[str, Reader]) -> None:
    assert "3 windows" in cards["embedding"].text
    assert [(a["src"] or "")[:22] for a in cards["embedding"].all("img")] == ["data:image/png;base64,"]


def test_no_text_becomes_markup() -> None:
    for drawn in (
        draw_problem(HOSTILE),
        draw_failed(Failed("classification", HOSTILE)),
        draw_head(HOSTILE),
        draw_download("results/x/y.zip", HOSTILE, 10),
        draw_examples([Example(HOSTILE, HOSTILE, Path(HOSTILE))]),
    ):
        page = Reader(drawn)
        assert page.all("script") == []
        assert HOSTILE in page.text


def test_progress_is_a_share_of_all_tasks() -> None:
    drawn = draw_working(Working("separation", 2, 15.0, 30.0), 4)
    assert "width:62.5%" in drawn
    assert "Separation, 15 of 30 s" in drawn
    assert "task 3 of 4" in drawn
    assert "width:0.0%" in draw_working(Working("separation", 0), 1)


def test_a_page_with_every_head_says_nothing_of_lacking_ones() -> None:
    assert draw_lacking(offers_of(TASKS)) == ""
    assert "heat map, masks" in draw_lacking(offers_of(("classification", "separation", "embedding")))


def test_long_curves_are_thinned_and_gaps_stay_gaps() -> None:
    times = np.arange(5000) / 10
    values = np.where(times < 250, 0.5, np.nan).astype(np.float32)
    drawn = Reader(draw_timeline("t", times, [Line("x", values)], 500.0))
    (path,) = [a["d"] or "" for a in drawn.all("path") if a["class"] == "line tone-0"]
    assert path.count("M") + path.count("L") <= MAX_POINTS
    assert "nan" not in path
    flat = Reader(draw_timeline("t", np.array([0.5]), [Line("x", np.array([0.25], np.float32))], 1.0))
    assert [a["d"] for a in flat.all("path") if a["class"] == "line tone-0"] == ["M0 750.0H1000"]


def test_long_tables_say_where_the_rest_is(analyst: Analyst, clips: Path, tmp_path: Path) -> None:
    place = Visits(tmp_path / "v").begin("a", "long")
    request = Request(Given((str(clips / "long.mp4"),)), ("classification",), hop_seconds=0.1)
    found = next(event for event in list(analyst.analyse(request, place)) if isinstance(event, Found))
    card = Reader(draw_found(found, place.results, str))
    assert len(card.all("tr")) == 1 + MAX_ROWS
    assert "291 windows; the first 200 here, all in the download" in card.text
