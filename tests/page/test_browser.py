"""The page in a real browser: upload, every task, download, a bad file, two visitors at once; wide and narrow."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from deepavfusion.archive.config import IndexConfig
from deepavfusion.archive.indexing import index
from deepavfusion.inference.predictor import TASKS
from deepavfusion.page.serve import Server, serving
from deepavfusion.page.serve_config import ServeConfig
from tests.inference.tiny_models import write_film
from tests.report.test_browser import BROWSERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 120_000
"""Milliseconds for what takes computing, on a machine that does other things too."""
PLAY = """async (player) => {
  player.muted = true;
  await player.play();
  await new Promise((done) => player.addEventListener("timeupdate", () => player.currentTime > 0.2 && done()));
  player.pause();
  const marks = [...document.querySelectorAll(".playhead")];
  return {
    seconds: player.duration, width: player.videoWidth, heard: player.webkitAudioDecodedByteCount,
    marked: marks.filter((m) => getComputedStyle(m).visibility === "visible" && parseFloat(m.style.left) > 5).length,
    marks: marks.length,
  };
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a Chromium to use the page, none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


class Tab:
    """A visitor's tab, which notes everything that is asked for and goes wrong."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.hosts: set[str] = set()
        self.problems: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        page.on("requestfailed", self._note_failure)
        page.goto(address)
        page.wait_for_selector("#run")
        page.wait_for_timeout(500)  # the framework attaches its listeners

    def _note_failure(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # a player that has seen enough
            self.problems.append(f"{request.url}: {request.failure}")

    def give(self, path: Path) -> str:
        """Upload a video; returns what the page says of it."""
        self.page.set_input_files("#inputs input[type=file] >> nth=0", str(path))
        self.page.wait_for_selector("#about p")
        return str(self.page.inner_text("#about"))

    def wait(self) -> str:
        """Until the request is done; returns the line that says so."""
        self.page.wait_for_selector("#status .note")
        return str(self.page.inner_text("#status"))


@pytest.fixture
def visit(chromium: Any, server: Server) -> Iterator[Callable[..., Tab]]:
    """Opens tabs, each of a visitor of its own."""
    contexts = []

    def open_tab(size: dict[str, int] = WIDE) -> Tab:
        contexts.append(chromium.new_context(viewport=size, accept_downloads=True))
        return Tab(contexts[-1].new_page(), server.address)

    yield open_tab
    for context in contexts:
        context.close()


def stored(server: Server) -> list[Path]:
    return [path for path in (server.folder / "visits").rglob("*") if path.is_file()]


def gone(server: Server) -> bool:
    """Whether the files of all visitors are deleted, soon."""
    deadline = time.monotonic() + 30
    while stored(server) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not stored(server)


def test_an_upload_through_every_task(visit: Callable[..., Tab], server: Server, clips: Path, tmp_path: Path) -> None:
    tab = visit()
    assert tab.give(clips / "film.mp4") == "film.mp4: 1.5 s, video of 56 × 40, with sound"
    tab.page.check("#tasks label:has-text('Features') input")
    tab.page.click("#run")
    assert "film.mp4" in tab.wait()
    for task in TASKS:
        assert tab.page.query_selector(f"#card-{task} .card.{task}") is not None, task
    assert tab.page.query_selector_all(".card .problem") == []
    for task in ("localization", "segmentation"):
        played = tab.page.eval_on_selector(f"#card-{task} video", PLAY)
        assert played["seconds"] == pytest.approx(1.5, abs=0.15)
        assert played["width"] == 56
        assert played["heard"] > 0  # with its sound
        assert played["marked"] == played["marks"] == 6  # three curves, three spectrograms
    assert [
        tab.page.evaluate("(player) => player.duration", player) for player in tab.page.query_selector_all("audio")
    ] == [pytest.approx(1.5, abs=0.1)] * 2
    assert all(
        tab.page.evaluate("(image) => image.naturalWidth", image) > 0
        for image in tab.page.query_selector_all(".card img")
    )
    with tab.page.expect_download() as download:
        tab.page.click("#download a")
    assert download.value.suggested_filename == "deepavfusion-film.zip"
    download.value.save_as(tmp_path / "film.zip")
    with zipfile.ZipFile(tmp_path / "film.zip") as archive:
        assert archive.testzip() is None
        assert {f"film/{task}.json" for task in TASKS} <= set(archive.namelist())
    for size in (WIDE, NARROW):
        tab.page.set_viewport_size(size)
        tab.page.wait_for_timeout(300)
        assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        outside = "(card) => [card.getBoundingClientRect().left >= 0, card.getBoundingClientRect().right <= innerWidth]"
        for card in tab.page.query_selector_all(".card"):
            assert tab.page.evaluate(outside, card) == [True, True]
    assert tab.problems == []
    assert tab.hosts - {""} == {urlsplit(server.address).netloc}  # blob: has none
    assert stored(server)
    tab.page.close()
    assert gone(server)


def test_an_example_on_a_telephone(visit: Callable[..., Tab]) -> None:
    tab = visit(NARROW)
    tab.page.click("#examples button >> nth=4")
    assert "photo.png + photo.wav" in tab.wait()
    assert tab.page.inner_text("#inputs [role=tab][aria-selected=true]") == "Photo + sound"
    assert tab.page.query_selector("#card-localization video") is not None
    assert tab.page.evaluate("scrollY") > 200  # brought to the results
    assert tab.problems == []


def test_a_bad_file_is_one_line(visit: Callable[..., Tab], clips: Path, tmp_path: Path) -> None:
    tab = visit()
    assert tab.give(clips / "bad.mp4").startswith("bad.mp4: cannot be opened: no media container")
    tab.page.click("#run")
    tab.page.wait_for_selector("#status .problem")
    assert tab.page.inner_text("#status").startswith("bad.mp4: cannot be opened: no media container")
    assert "Traceback" not in tab.page.inner_text("body")
    tab = visit()
    assert tab.give(clips / "long.mp4") == "long.mp4: is 30 s long; this page accepts at most 20 s"
    tab = visit()
    (tmp_path / "big.mp4").write_bytes(os.urandom(2 * 2**20))
    tab.page.set_input_files("#inputs input[type=file] >> nth=0", str(tmp_path / "big.mp4"))
    tab.page.wait_for_selector("text=/exceed the maximum allowed size of 1(.0)? MB/i")


def test_markup_in_a_name_stays_text(visit: Callable[..., Tab], tmp_path: Path) -> None:
    tab = visit()
    film = write_film(tmp_path / "<img src=x onerror=document.title=1>&lt;${1+1}{{1+1}}.mp4", 0.5)
    told = tab.give(film)
    assert "&lt;" in told
    tab.page.click("#run")
    tab.wait()
    assert tab.page.title() == "deepavfusion"
    assert tab.page.query_selector_all("img[src=x]") == []
    assert tab.problems == []


def test_a_search_shows_moments_that_play(
    chromium: Any, idx: str, model: str, recordings: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(recordings, tmp_path / "secret_place")
    own = str(tmp_path / "idx")
    index(IndexConfig(str(place), json.loads((Path(idx) / "index.json").read_text())["model"], own, device="cpu"))
    (place / "films" / "second.mp4").unlink()
    with serving(ServeConfig(model, index=own, port=0, examples=False, device="cpu")) as server:
        context = chromium.new_context(viewport=WIDE)
        tab = Tab(context.new_page(), server.address)
        tab.give(recordings / "films" / "first.mp4")
        tab.page.check("#tasks label:has-text('Search') input")
        tab.page.click("#run")
        tab.wait()
        found = tab.page.inner_text("#card-search")
        assert "both with both, in the joint space" in found
        assert "1. films/first.mp4" in found
        assert "a <b>.wav" in found  # as text
        assert found.count("is no longer there") == 1
        assert "secret_place" not in tab.page.content()
        assert tab.page.query_selector_all("#card-search .moment:nth-child(1) video") != []
        played = tab.page.eval_on_selector("#card-search video", PLAY)
        assert played["seconds"] == pytest.approx(1.0, abs=0.15)
        assert (played["width"], played["heard"] > 0, played["marked"]) == (56, True, 0)  # not a mark of other curves
        played = tab.page.eval_on_selector("#card-search audio", PLAY)
        assert played["marked"] == 1  # its own
        assert tab.page.eval_on_selector("#card-search img[alt*=photo]", "(image) => image.naturalWidth") == 56
        tab.page.check("#within label:has-text('sounds') input")
        tab.page.click("#run")
        tab.page.wait_for_selector("#card-search :text('both with audio')")
        for size in (WIDE, NARROW):
            tab.page.set_viewport_size(size)
            tab.page.wait_for_timeout(300)
            assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert tab.problems == []
        assert tab.hosts - {""} == {urlsplit(server.address).netloc}
        tab.page.close()
        assert gone(server)
        context.close()


def test_two_visitors_at_once(visit: Callable[..., Tab], server: Server, clips: Path, tmp_path: Path) -> None:
    other = write_film(tmp_path / "other.mp4", 2.5)
    first, second = visit(), visit()
    first.give(clips / "film.mp4")
    second.give(other)
    first.page.click("#run")
    second.page.click("#run")
    assert "film.mp4" in first.wait()
    assert "other.mp4" in second.wait()
    addresses = [tab.page.get_attribute("#download a", "href") for tab in (first, second)]
    assert addresses[0].split("/")[1] != addresses[1].split("/")[1]
    assert addresses[1].endswith("/other.zip")
    first.page.close()
    deadline = time.monotonic() + 30
    while any(path.name.startswith("film") for path in stored(server)) and time.monotonic() < deadline:
        time.sleep(0.2)
    names = {path.name for path in stored(server)}
    assert "film.zip" not in names
    assert {"other.zip", "other.mp4"} <= names
    assert second.page.eval_on_selector("#card-localization video", PLAY)["seconds"] == pytest.approx(2.5, abs=0.2)


def test_a_recording_of_the_camera(chromium: Any, server: Server) -> None:
    context = chromium.new_context(viewport=WIDE, permissions=["camera", "microphone"])
    tab = Tab(context.new_page(), server.address)
    tab.page.click("#inputs [aria-label='Capture from camera']")
    tab.page.click("text=Click to Access Webcam")
    tab.page.click("#inputs [aria-label='start recording']")
    tab.page.wait_for_timeout(6000)
    tab.page.click("#inputs button:has-text('Stop') >> visible=true")
    tab.page.wait_for_selector("#about .note")
    assert "video of 640 × 480, with sound" in tab.page.inner_text("#about")
    context.close()
