"""A stand-in for the Hub on this machine: what its API tells of one data set, and the files, from a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlparse

REPO, COMMIT = "acme/clips", "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_of(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a Hub that holds `acme/clips`, and the files that were asked of it with the bytes."""
    asked: list[str] = []

    def about(path: Path) -> dict[str, object]:
        name, kind = str(path.relative_to(folder)), "directory" if path.is_dir() else "file"
        return {"type": kind, "oid": sha1(name.encode()).hexdigest(), "size": path.stat().st_size, "path": name}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def answer(self, code: int, data: bytes, **headers: str) -> None:
            self.send_response(code)
            for name, value in {"Content_Length": str(len(data)), "X_Repo_Commit": COMMIT, **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_GET(self) -> None:
            path = unquote(urlparse(self.path).path)
            if re.fullmatch(rf"/api/datasets/{REPO}(/revision/\w+)?", path):
                return self.answer(200, json.dumps({"id": REPO, "sha": COMMIT, "tags": [], "siblings": []}).encode())
            listed = re.fullmatch(rf"/api/datasets/{REPO}/tree/\w+/?(.*)", path)
            if listed and (folder / listed[1]).is_dir():
                deep = "recursive=true" in self.path.lower()
                found = (folder / listed[1]).rglob("*") if deep else (folder / listed[1]).iterdir()
                return self.answer(200, json.dumps(list(map(about, sorted(found)))).encode())
            wanted = re.fullmatch(rf"/datasets/{REPO}/resolve/\w+/(.+)", path)
            if wanted and (folder / wanted[1]).is_file():
                data, span = (folder / wanted[1]).read_bytes(), self.headers.get("Range")
                tag = f'"{sha1(wanted[1].encode()).hexdigest()}"'
                if span is None:
                    return self.answer(200, data, ETag=tag)
                first, last = (int(number) for number in span.removeprefix("bytes=").split("-"))
                asked.append(f"{wanted[1]} {first}-{last}")
                return self.answer(
                    206, data[first : last + 1], ETag=tag, Content_Range=f"bytes {first}-{last}/{len(data)}"
                )
            return self.answer(404, b"{}", X_Error_Code="EntryNotFound")

        do_HEAD = do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
