"""The page in a real browser: no script error, values that can be read off, pictures and clips that decode."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from deepavfusion.report import write_report
from tests.report.conftest import METRICS, PROBES

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",  # the test's script presses the button
    "--window-size=500,900",  # the layout of a telephone, where something could stick out
)
COLLECTOR = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(event.message ?? `cannot load ${event.target.tagName}`), true);
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => problems.push(`asked for ${event.blockedURI}`));
</script>"""
VISITOR = """<script>
addEventListener("load", async () => {
  const seen = { readings: {}, keys: {}, shown: [], clips: [], pictures: [] };
  const read = (plot) => [...plot.closest("figure").querySelectorAll(".legend b")].map((b) => b.textContent);
  for (const plot of document.querySelectorAll(".plot")) {
    const title = plot.closest("figure").querySelector("strong").textContent;
    const box = plot.getBoundingClientRect();
    const last = read(plot);
    plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 1, clientY: box.top + 9 }));
    const cursor = plot.querySelector(".cursor").getBoundingClientRect();
    seen.readings[title] = { first: read(plot), last, marked: cursor.height > 0, at: cursor.left - box.left };
    plot.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    seen.keys[title] = plot.getAttribute("aria-valuetext");
  }
  const frames = document.querySelector(".pictures form").parentElement.querySelectorAll(".frame");
  const visible = () => [...frames].map((frame) => frame.offsetHeight > 0);
  seen.shown.push(visible());
  document.querySelector(".pictures input").click();
  seen.shown.push(visible());
  for (const image of document.images) seen.pictures.push(image.naturalWidth);
  for (const video of document.querySelectorAll("video")) {
    if (video.readyState < 1) {
      await new Promise((done) => ["loadedmetadata", "error"].forEach((name) => video.addEventListener(name, done)));
    }
    seen.clips.push({ error: video.error?.message ?? null, seconds: video.duration, width: video.videoWidth });
  }
  const clip = document.querySelector(".clip");
  const player = clip.querySelector("video");
  player.muted = true;
  clip.querySelector(".play").click();
  await new Promise((done) => player.addEventListener("timeupdate", () => player.currentTime > 0.2 && done()));
  player.pause();
  const moved = new Promise((done) => player.addEventListener("seeked", done));
  player.currentTime = 3;
  await moved;
  const mark = clip.querySelector(".playhead");
  seen.played = { controls: player.controls, button: clip.querySelector(".play").offsetHeight };
  seen.played.mark = mark && { shown: getComputedStyle(mark).visibility, left: mark.style.left };
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  seen.problems = problems;
  location.href = "http://127.0.0.1:PORT/?seen=" + encodeURIComponent(JSON.stringify(seen));
});
</script>"""
"""Uses the page and then leaves it for an address that carries what it saw: the one thing its policy lets it do."""
SECONDS = 60


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a Chromium to render the page, none of {', '.join(BROWSERS)} is installed")
    return found


class Listener(HTTPServer):
    """Waits for the browser to come by with what was seen."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.timeout = SECONDS
        self.seen: dict[str, Any] | None = None


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        assert isinstance(self.server, Listener)
        if "seen" in query:
            self.server.seen = json.loads(query["seen"][0])
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def browsing(browser: str, page: Path, profile: Path) -> Iterator[None]:
    """A browser that has the page open."""
    command = [browser, *FLAGS, f"--user-data-dir={profile}", page.as_uri()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=SECONDS)


def visit(browser: str, page: Path, folder: Path) -> dict[str, Any]:
    """Open a copy of the page that collects errors and is used by a script; returns what that script saw."""
    with Listener() as listener:
        visitor = VISITOR.replace("PORT", str(listener.server_port))
        text = page.read_text(encoding="utf-8")
        copy = folder / "visited.html"
        text = text.replace("<head>", "<head>" + COLLECTOR, 1).replace("</body>", visitor + "</body>", 1)
        copy.write_text(text, encoding="utf-8")
        with browsing(browser, copy, folder / "profile"):
            listener.handle_request()
    assert listener.seen is not None, f"the scripts of {copy} did not finish in {SECONDS} s"
    return listener.seen


@pytest.fixture(scope="module")
def seen(browser: str, demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("browser")
    return visit(browser, write_report(demo_run, folder / "report.html"), folder)


def test_nothing_went_wrong_and_nothing_was_asked_for(seen: dict[str, Any]) -> None:
    assert seen["problems"] == []
    assert seen["overflow"] <= 0


def test_values_read_off_are_those_of_the_run(seen: dict[str, Any]) -> None:
    for title, rows, names in (
        ("Loss", METRICS, ("loss_image", "loss_audio")),
        ("Learning rate", METRICS, ("lr",)),
        ("Nearest neighbour", PROBES, ("top1_fusion", "top1_audio")),
    ):
        reading = seen["readings"][title]
        for moment, row in (("first", rows[0]), ("last", rows[-1])):
            values = [float(text.replace("−", "-")) for text in reading[moment]]
            assert values == pytest.approx([row[name] for name in names], rel=2e-3), (title, moment)
        assert reading["marked"]
        assert 0 <= reading["at"] < 20  # the mark stands at the left end, where the first row is
        assert seen["keys"][title].startswith(f"step {rows[1]['step']}: ")


def test_one_reconstruction_at_a_time_the_last_first(seen: dict[str, Any]) -> None:
    assert seen["shown"] == [[False, True], [True, False]]
    assert all(width > 0 for width in seen["pictures"])


def test_clips_decode(seen: dict[str, Any]) -> None:
    assert len(seen["clips"]) == 4
    for clip in seen["clips"]:
        assert clip["error"] is None
        assert clip["seconds"] == pytest.approx(4.0, abs=0.15)
        assert clip["width"] == 160


def test_a_clip_plays_and_moves_the_mark(seen: dict[str, Any]) -> None:
    """Of a clip of 4 s, played for a moment and taken to its third second."""
    mark = {"shown": "visible", "left": "75%"}
    assert seen["played"] == {"controls": True, "button": 0, "mark": mark}
