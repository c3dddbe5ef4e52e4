"""What the server lets in: the page's own addresses, bodies that are not too large, nothing from elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from deepavfusion.page.guard import MAX_BODY, Guard


def ask(
    path: str, *chunks: bytes, claimed: bytes | None = None, max_upload: int = 1000
) -> tuple[int, dict[str, str], int]:
    """Status, headers, and how many bytes the page behind the guard has read."""
    read = 0
    sent: list[MutableMapping[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        while True:
            message = await receive()
            read += len(message["body"])
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"public")]})
        await send({"type": "http.response.body", "body": b""})

    waiting = list(chunks) or [b""]

    async def receive() -> MutableMapping[str, Any]:
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [] if claimed is None else [(b"content-length", claimed)]
    scope = {"type": "http", "path": path, "headers": headers, "method": "POST"}
    asyncio.run(Guard(app, max_upload)(scope, receive, send))
    return sent[0]["status"], {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}, read


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/theme.css",
        "/assets/index.js",
        "/static/img/logo.svg",
        "/gradio_api/upload",
        "/gradio_api/queue/join",
        "/gradio_api/queue/data",
        "/gradio_api/run/predict",
        "/gradio_api/heartbeat/abc123",
        "/gradio_api/file=/tmp/x/film.mp4",
        "/results/token/film.zip",
    ],
)
def test_the_pages_own_addresses(path: str) -> None:
    assert ask(path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://example.org/x.mp4",
        "/gradio_api/file=https://example.org/x.mp4",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/proxy=https://example.hf.space/x",
        "/gradio_api/info",
        "/gradio_api/call/answer",
        "/gradio_api/component_server",
        "/gradio_api/custom_component/x/client/component/index.js",
        "/monitoring",
        "/login",
        "/docs",
        "/results/../../etc/passwd",
        "/gradio_api/file=/tmp/../etc/passwd",
    ],
)
def test_all_others(path: str) -> None:
    status, _, read = ask(path, b"body")
    assert (status, read) == (404, 0)


def test_bodies_are_cut_off_as_they_come() -> None:
    room = 2**16
    assert ask("/gradio_api/upload", bytes(1000))[0] == 200
    status, _, read = ask("/gradio_api/upload", *[bytes(1000)] * 200)
    assert status == 413
    assert read <= 1000 + room
    assert ask("/gradio_api/upload", b"x", claimed=b"999999999") == ask("/gradio_api/upload", b"x", claimed=b"-1")
    assert ask("/gradio_api/upload", b"x", claimed=b"999999999")[0] == 413
    assert ask("/gradio_api/queue/join", bytes(MAX_BODY + 1))[0] == 413


def test_browsers_load_nothing_from_elsewhere() -> None:
    _, headers, _ = ask("/")
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"  # what a visitor has given is not kept by the browser
    assert ask("/assets/index.js")[1]["cache-control"] == "public"
