"""`serve`: prepares models and examples, then runs the server from its start to its clean end.

Everything that the server writes is in one temporary folder, which is deleted when it stops (Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepavfusion.page.serve_config import ServeConfig

START_SECONDS = 60
STOP_SECONDS = 5
SWEEP_SECONDS = 30
MISSING = 'serve needs gradio, which is not installed: pip install "deepavfusion[serve]"'
# Read when the framework is imported: no word to its makers about who uses what, and no history in the browser.
_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_RUN_HISTORY": "False",
}


@dataclass(frozen=True)
class Server:
    """A page that is being served."""

    address: str
    """Such as http://127.0.0.1:7860."""
    folder: Path
    """Where everything that it writes is."""


def serve(config: ServeConfig) -> int:
    """Run the command until it is stopped; returns the exit code.

    Raises:
        ValueError: no gradio, no such model, no such index or none of its model, or an address that cannot be
            listened at.
    """
    stop = threading.Event()
    earlier = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        with serving(config) as server:
            where = "" if _is_local(config.host) else "; anyone who can reach this machine can use it"
            sys.stderr.write(f"{config.model} at {server.address}{where} (Ctrl-C stops it)\n")
            sys.stderr.flush()
            stop.wait()
    finally:
        for kind, handler in earlier.items():
            signal.signal(kind, handler)
    return 0


@contextmanager
def serving(config: ServeConfig) -> Iterator[Server]:
    """Serve the page for as long as the `with` statement lasts. Errors as of `serve`."""
    folder = Path(tempfile.mkdtemp(prefix="deepavfusion-page-")).resolve()
    uploads = folder / "visits" / "uploads"
    try:
        with _settings({**_SETTINGS, "GRADIO_TEMP_DIR": str(uploads)}):  # gradio makes its folder when it is imported
            require_gradio()
            from deepavfusion.inference.predictor import Predictor
            from deepavfusion.page.analysis import Analyst
            from deepavfusion.page.examples import make_examples
            from deepavfusion.page.visits import Visits

            with closing(listen(config.host, config.port)) as listener:
                predictor = Predictor.from_pretrained(
                    config.model, config.device, batch_size=config.batch_size, precision=config.precision
                )
                archive = _archive(config)
                examples = make_examples(folder / "examples") if config.examples else []
                with closing(Visits(folder / "visits")) as visits:
                    app = _application(config, Analyst(predictor, archive), visits, examples)
                    with _running(app, listener):
                        yield Server(_address(config.host, listener), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_gradio() -> None:
    """Raise ValueError, with what to do, unless gradio can be imported."""
    with _settings(_SETTINGS):
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise ValueError(MISSING if error.name == "gradio" else f"{MISSING} ({error})") from error


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ValueError: the address is taken, or is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ValueError(f"host {host}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ValueError(
            f"port {port} at host {host}: {error.strerror or error}; choose another one, or --port 0 for a free one"
        ) from error
    return listener


def _archive(config: ServeConfig) -> Any:
    """What visitors may search, if the settings name it; only then is the store loaded."""
    if config.index is None:
        return None
    from deepavfusion.page.moments import Archive

    return Archive.open(config)


def _application(config: ServeConfig, analyst: Any, visits: Any, examples: list[Any]) -> Any:
    """The page behind the guard, with the addresses of results beside it."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import FileResponse, PlainTextResponse

    from deepavfusion.page.app import Page, appearance
    from deepavfusion.page.guard import Guard

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_sweeping(visits, config.keep_minutes))

    @app.get("/results/{token}/{name}")
    def result(token: str, name: str) -> Any:
        path = visits.find(token, name)
        if path is None:
            return PlainTextResponse("these results have been deleted", status_code=404)
        return FileResponse(path)

    page = Page(config, analyst, visits, examples, model_name(config.model))
    gr.mount_gradio_app(
        app,
        page.build(),
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=config.max_upload_bytes,
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        **appearance(),
    )
    return Guard(app, config.max_upload_bytes)


def _sweeping(visits: Any, keep_minutes: float) -> Any:
    """While the server runs, what is old and idle is deleted now and then."""
    from contextlib import asynccontextmanager

    async def sweep() -> None:
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, 20 * keep_minutes))
            await asyncio.to_thread(visits.sweep, 60 * keep_minutes)

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()

    return lifespan


@contextmanager
def _running(app: Any, listener: socket.socket) -> Iterator[None]:
    """A server in a thread of its own, so that signals stay with the caller."""
    import uvicorn

    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server", daemon=True)
    thread.start()
    waited = threading.Event()
    for _ in range(START_SECONDS * 20):
        if server.started or not thread.is_alive():
            break
        waited.wait(0.05)
    if not server.started:
        server.should_exit = True
        raise RuntimeError("the server did not start; see its log above")
    try:
        yield
    finally:
        # Open tabs hold lines that never end: they are cut, which the server would report with a traceback for each.
        log = logging.getLogger("uvicorn.error")
        log.disabled, server.should_exit = True, True
        thread.join(STOP_SECONDS)
        log.disabled = False


@contextmanager
def _settings(wanted: dict[str, str]) -> Iterator[None]:
    """Environment variables for a while."""
    earlier = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in earlier.items():
            if value is None:
                with suppress(KeyError):
                    del os.environ[name]
            else:
                os.environ[name] = value


def model_name(place: str) -> str:
    """What visitors are told of where the model is: of a path on this machine its last part alone."""
    return Path(place).resolve().name if Path(place).exists() else place


def _address(host: str, listener: socket.socket) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
