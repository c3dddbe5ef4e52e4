"""The running server without a browser: what it gives, what it refuses, what it keeps, and that nothing is left."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from deepavfusion.inference.predictor import TASKS
from deepavfusion.page.analysis import Analyst
from deepavfusion.page.serve import Server, serving
from deepavfusion.page.serve_config import ServeConfig
from deepavfusion.page.visits import Visits

gr = pytest.importorskip("gradio", reason="needs gradio: pip install 'deepavfusion[serve]'")

CARDS = len(TASKS)


def ask(
    server: Server, path: str, method: str = "GET", body: bytes | None = None, kind: str = "application/json"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    host = urlsplit(server.address).netloc
    with closing(http.client.HTTPConnection(host, timeout=60)) as line:
        line.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = line.getresponse()
        return answer.status, answer.headers, answer.read()


def upload(server: Server, name: str, content: bytes) -> tuple[int, Any]:
    edge = "edge-of-a-part"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{edge}--\r\n".encode()
    status, _, text = ask(server, "/gradio_api/upload", "POST", body, f"multipart/form-data; boundary={edge}")
    return status, json.loads(text) if status == 200 else text.decode()


def call(server: Server, name: str, data: list[Any], visit: str = "visit1") -> tuple[int, Any]:
    """Call a function of the page that does not go through the queue."""
    config = json.loads(ask(server, "/config")[2])
    number = next(d["id"] for d in config["dependencies"] if d["api_name"] == name)
    body = {"data": data, "fn_index": number, "session_hash": visit}
    status, _, text = ask(server, "/gradio_api/run/predict", "POST", json.dumps(body).encode())
    return status, json.loads(text)


def file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_the_page_is_served_with_its_policy_and_nothing_from_elsewhere(server: Server) -> None:
    status, headers, text = ask(server, "/")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    config = json.loads(ask(server, "/config")[2])
    assert config["analytics_enabled"] is False
    assert not config.get("footer_links")
    for sheet in (text.decode(), ask(server, "/theme.css")[2].decode()):
        assert "fonts.googleapis" not in sheet
        assert "cdn" not in sheet.lower()


def test_an_upload_is_told_and_goes_with_its_visit(server: Server, clips: Path) -> None:
    status, (path,) = upload(server, "film.mp4", (clips / "film.mp4").read_bytes())
    assert status == 200
    assert Path(path).is_relative_to(server.folder)
    with closing(http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=60)) as line:
        line.request("GET", "/gradio_api/heartbeat/visit1")  # what the browser holds open while the tab is
        assert line.getresponse().readline() == b"data: ALIVE\n"
        status, told = call(server, "take", [None, file(path), None, None, None])
        assert "film.mp4: 1.5 s, video of 56 × 40, with sound" in told["data"][0]
        assert ask(server, f"/gradio_api/file={quote(path)}")[0] == 200  # the preview
        assert Path(path).exists()
    deadline = time.monotonic() + 30
    while Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(path).exists()
    assert ask(server, f"/gradio_api/file={quote(path)}")[0] == 403


def test_an_upload_that_is_too_large_is_refused(server: Server) -> None:
    status, text = upload(server, "big.mp4", os.urandom(2 * 2**20))
    assert status == 413
    status, text = upload(server, "big.mp4", os.urandom(2**20 + 100))  # within the room for headers
    assert status == 413
    assert "maximum allowed size" in text
    time.sleep(0.2)
    uploads = server.folder / "visits" / "uploads"
    assert [path for path in uploads.rglob("*") if path.is_file() and path.stat().st_size > 2**19] == []


@pytest.mark.parametrize("name", ["../../../evil.mp4", "..%2f..%2fevil.mp4", "a/../../evil.mp4", "C:\\\\evil.mp4"])
def test_names_do_not_lead_out_of_the_folder(name: str, server: Server, clips: Path) -> None:
    status, found = upload(server, name, (clips / "bad.mp4").read_bytes())
    assert status in (200, 400)
    if status == 200:
        assert Path(found[0]).resolve().is_relative_to(server.folder)
    assert not list(server.folder.parent.glob("evil.mp4"))


def test_markup_in_a_name_stays_text(server: Server) -> None:
    _, (path,) = upload(server, "<img src=x onerror=alert(1)>&lt;b&gt;.mp4", b"no video")
    _, told = call(server, "take", [None, file(path), None, None, None])
    assert "<img" not in told["data"][0]
    assert "&amp;lt;b&amp;gt;" in told["data"][0]
    assert told["data"][0].startswith('<p class="problem"')


def test_files_of_the_server_and_of_others_are_not_taken(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    for path in (str(secret), "/etc/passwd", "https://example.org/x.mp4", "http://127.0.0.1:1/x.mp4"):
        status, told = call(server, "take", [None, file(path), None, None, None])
        assert status == 500, path
        assert "Traceback" not in json.dumps(told)
        call(server, "take", [file(path), None, None, None, file(path)])
    copies = [path for path in server.folder.rglob("*") if path.name in ("passwd", "secret.wav", "x.mp4")]
    assert copies == []
    for path in (str(secret), "/etc/passwd", "//etc/passwd", str(server.folder)):
        assert ask(server, f"/gradio_api/file={path}")[0] == 403
    assert ask(server, "/gradio_api/file=https://example.org/")[0] == 404
    assert ask(server, "/gradio_api/file=%68ttps://example.org/")[0] == 404
    assert ask(server, "/results/x/../../../etc/passwd")[0] == 404
    assert ask(server, "/results/x/..%2f..%2fetc%2fpasswd")[0] == 404


def test_a_stranger_choosing_examples_gets_a_line(server: Server) -> None:
    for number in (99, -1, "0", None):
        config = json.loads(ask(server, "/config")[2])
        function = next(d["id"] for d in config["dependencies"] if d["api_name"] == "choose")
        body = {"data": [], "fn_index": function, "session_hash": "x", "event_data": {"number": number}}
        status, _, text = ask(server, "/gradio_api/run/predict", "POST", json.dumps(body).encode())
        assert status == 500
        assert "There is no such example." in text.decode()


class Visitor:
    """A page and one who presses its button, without a server."""

    def __init__(self, page: Any, name: str = "visit1") -> None:
        self.page, self.request = page, SimpleNamespace(session_hash=name)

    def ask(self, kind: str, *paths: Path | None, tasks: tuple[str, ...] = TASKS) -> Iterator[list[Any]]:
        slots = [None if path is None else str(path) for path in paths]
        return self.page.answer(kind, *slots, list(tasks), "whole", "auto", "auto", self.request)


@pytest.fixture
def page(analyst: Analyst, visits: Visits) -> Any:
    from deepavfusion.page.app import Page

    return Page(ServeConfig("x", max_seconds=20, step_seconds=0.5), analyst, visits, [], "tiny <b>")


def last(answers: Iterator[list[Any]]) -> list[Any]:
    return list(answers)[-1]


def test_each_task_fills_its_card(page: Any, visits: Visits, clips: Path) -> None:
    shown = [""] * (2 + CARDS)
    for answer in Visitor(page).ask("video", clips / "film.mp4", None, None, None):
        assert len(answer) == len(shown)
        shown = [old if isinstance(new, dict) else new for old, new in zip(shown, answer, strict=True)]
    status, download, *cards = shown
    assert "Done in" in status
    assert "film.zip" in download
    assert all(f'class="card {task}"' in card for task, card in zip(TASKS, cards, strict=True))
    token = download.split("results/")[1].split("/")[0]
    for name in ("localization.mp4", "segmentation.mp4", "source_0.wav", "residual.wav"):
        assert f"results/{token}/{name}" in "".join(cards)
        assert visits.find(token, name) is not None
    page.leave(SimpleNamespace(session_hash="visit1"))
    assert visits.find(token, "film.zip") is None


def test_what_cannot_be_done_is_one_line(page: Any, clips: Path) -> None:
    visitor = Visitor(page)
    for answers, line in (
        (visitor.ask("video", None, None, None, None), "Add a video first"),
        (visitor.ask("sound", clips / "film.mp4", None, None, None), "Add a sound first"),
        (visitor.ask("photo", None, None, None, clips / "tone.wav"), "Add a photo first"),
        (visitor.ask("video", clips / "film.mp4", None, None, None, tasks=()), "Select at least one task"),
        (visitor.ask("video", clips / "film.mp4", None, None, None, tasks=("nonsense",)), "Select at least one task"),
        (visitor.ask("video", clips / "bad.mp4", None, None, None), "bad.mp4: cannot be opened: no media container"),
        (visitor.ask("video", clips / "long.mp4", None, None, None), "this page accepts at most 20 s"),
        (visitor.ask("video", clips / "gone.mp4", None, None, None), "no longer exists"),
    ):
        status, *rest = last(answers)
        assert status.startswith('<p class="problem" role="alert">'), line
        assert line in status
        assert str(clips) not in status
        assert rest == [""] * (1 + CARDS)


def test_results_of_one_visit_do_not_touch_those_of_another(page: Any, visits: Visits, clips: Path) -> None:
    first = last(Visitor(page, "a").ask("sound", None, clips / "tone.wav", None, None, tasks=("classification",)))
    second = last(Visitor(page, "b").ask("sound", None, clips / "tone.wav", None, None, tasks=("classification",)))
    tokens = [answer[1].split("results/")[1].split("/")[0] for answer in (first, second)]
    assert tokens[0] != tokens[1]
    visits.end("b")
    assert [visits.find(token, "tone.zip") is not None for token in tokens] == [True, False]


def test_a_search_fills_a_card_of_its_own(idx: str, analyst: Analyst, visits: Visits, clips: Path) -> None:
    from deepavfusion.page.app import Page
    from deepavfusion.page.moments import Archive

    config = ServeConfig("x", index=idx, device="cpu")
    page = Page(config, Analyst(analyst.predictor, Archive.open(config)), visits, [], "tiny")
    elements = {block.elem_id: block for block in page.build().blocks.values() if getattr(block, "elem_id", None)}
    assert elements["by"].visible
    assert elements["within"].visible
    assert ("Search", "search") in elements["tasks"].choices
    _, _, *cards = list(Visitor(page).ask("video", clips / "film.mp4", None, None, None, tasks=("search",)))[-2]
    assert len(cards) == CARDS + 1
    assert 'class="card search"' in cards[-1]
    token = cards[-1].split("results/")[1].split("/")[0]
    assert visits.find(token, "search.json") is not None
    assert visits.find(token, "moment_1.jpg") is not None


def test_without_an_index_the_page_has_no_search(page: Any, clips: Path) -> None:
    elements = {block.elem_id: block for block in page.build().blocks.values() if getattr(block, "elem_id", None)}
    assert not elements["by"].visible
    assert not elements["within"].visible
    assert "search" not in dict(elements["tasks"].choices).values()
    assert "card-search" not in elements
    status, *_ = last(Visitor(page).ask("video", clips / "film.mp4", None, None, None, tasks=("search",)))
    assert "Select at least one task" in status


@pytest.mark.parametrize("what", ["index", "model", "extra", "data"])
def test_an_index_that_cannot_be_searched_is_told_at_the_start(
    what: str, idx: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "idx"
    shutil.copytree(idx, place)
    if what == "index":
        (place / "index.json").unlink()
    elif what == "model":
        record = json.loads((place / "index.json").read_text())
        (place / "index.json").write_text(json.dumps({**record, "model": "/nowhere/model"}))
    elif what == "extra":
        monkeypatch.setitem(sys.modules, "lancedb", None)  # as where it is not installed
    else:
        for path in (place / "windows.lance" / "data").iterdir():
            path.write_bytes(b"")
    lines = {
        "index": "no index; make one with `deepavfusion index",
        "model": "/nowhere/model: name its place now with --index_model",
        "extra": r'pip install "deepavfusion\[index\]"',
        "data": "the table of this index cannot be read",
    }
    config = ServeConfig(model, index=str(place), port=0, examples=False, device="cpu")
    with pytest.raises(ValueError, match=f"^--index: .*{lines[what]}") as told, serving(config):
        raise AssertionError("must not be reached")
    assert "\n" not in str(told.value)


def test_importing_the_page_writes_no_file() -> None:
    """The framework writes interface files beside the sources of components that are classes of one's own."""
    import deepavfusion.page.app

    folder = Path(deepavfusion.page.app.__file__).parent
    assert list(folder.rglob("*.pyi")) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_stopping_the_command_leaves_nothing(kind: signal.Signals, model: str, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("tmp", "home", "here")}
    for place in places.values():
        place.mkdir()
    environment = {**os.environ, "TMPDIR": str(places["tmp"]), "HOME": str(places["home"]), "OMP_NUM_THREADS": "1"}
    environment |= {"MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    command = [sys.executable, "-m", "deepavfusion", "serve", model, "--port", "0", "--examples", "false"]
    with subprocess.Popen(command, cwd=places["here"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith(f"{model} at http://127.0.0.1:"), line
        server = Server(line.split(" at ")[1].split()[0], next(places["tmp"].iterdir()).resolve())
        assert upload(server, "x.wav", b"RIFF")[0] == 200
        process.send_signal(kind)
        rest = process.stderr.read()
        assert process.wait(30) == 0
    assert rest == ""
    for place in places.values():
        assert [path for path in place.rglob("*") if path.is_file()] == []
    assert list(places["tmp"].iterdir()) == []
