"""Which requests the server answers, and the headers of its answers.

The page's framework offers more than the page needs: reading files from other servers for a visitor, an API,
dashboards. Only the addresses that the page uses are answered; a body that is larger than allowed is cut off during the
upload; and browsers are told to load nothing from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

UPLOAD = "/gradio_api/upload"
_LET_THROUGH = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte|results)/.+"
    r"|/gradio_api/(upload|upload_progress|app_id|startup-events|heartbeat/[\w-]+|queue/(join|data)|run/predict|cancel|reset)/?"
    r"|/gradio_api/file=(?!\w*:).+"  # of this server; one with a protocol would be fetched from another
)
MAX_BODY = 2**20
"""Bytes of any request but an upload."""
_MULTIPART_ROOM = 2**16
HEADERS = {
    # The framework's own scripts stand in the page and are compiled there; nothing comes from, or goes, elsewhere.
    "content-security-policy": (
        "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class TooLarge(Exception):
    """A body that is larger than it may be."""


class Guard:
    """ASGI middleware in front of everything."""

    def __init__(self, app: App, max_upload_bytes: int) -> None:
        """
        Args:
            app: what is guarded.
            max_upload_bytes: of one file.
        """
        self._app = app
        self._max_upload = max_upload_bytes + _MULTIPART_ROOM

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if scope["type"] != "http" or not _LET_THROUGH.fullmatch(path) or ".." in path.split("/"):
            await _answer(send, 404, b"there is nothing here")
            return
        limit = self._max_upload if path.startswith(UPLOAD) else MAX_BODY
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if not claimed.isdigit() or int(claimed) > limit:
            await _answer(send, 413, b"larger than this page takes")
            return
        count, has_begun = 0, False

        async def receive_some() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > limit:
                raise TooLarge
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message = {**message, "headers": [*_without(message["headers"], path), *_headers(path)]}
            await send(message)

        try:
            await self._app(scope, receive_some, send_with_headers)
        except TooLarge:
            if has_begun:
                raise
            await _answer(send, 413, b"larger than this page takes")


def _headers(path: str) -> list[tuple[bytes, bytes]]:
    """Those of `HEADERS`; what never changes may be kept by the browser."""
    lasting = path.startswith(("/assets/", "/static/"))
    return [
        (name.encode(), value.encode()) for name, value in HEADERS.items() if not (lasting and name == "cache-control")
    ]


def _without(headers: Any, path: str) -> list[tuple[bytes, bytes]]:
    own = {name for name, _ in _headers(path)}
    return [(name, value) for name, value in headers if name.lower() not in own]


async def _answer(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_headers("/")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
