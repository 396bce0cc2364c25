"""A small server that answers as the hub does, and serves plain files with ranges; what it was asked is kept."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "c" * 40
LARGE = (".safetensors", ".bin", ".pt")  # what the hub stores apart, addressed by SHA-256


@dataclass
class Hub:
    """What is served: repositories by name, plain files by path.

    Attributes:
        asked: method, path and range of every request, in order.
        cut: of a plain file, after how many bytes the connection is closed; taken away once it was.
        lie: the SHA-256 that the hub says of every large file, instead of the true one.
    """

    repositories: dict[str, Path] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    cut: int | None = None
    lie: str | None = None
    ranges: bool = True
    url: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve it on a port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if path.startswith("/files/"):
            return self._content(self.hub.files.get(path.removeprefix("/files/")), {}, body)
        api = path.startswith("/api/models/")
        name = "/".join(path.removeprefix("/api/models/").strip("/").split("/")[:2])
        rest = path.removeprefix("/api/models/").strip("/").removeprefix(name).strip("/").split("/")
        if name not in self.hub.repositories:
            return self._refuse("RepoNotFound")
        if len(rest) > 1 and rest[1] not in (COMMIT, "main"):
            return self._refuse("RevisionNotFound")
        return self._api(name, rest) if api else self._resolve(name, "/".join(rest[2:]), body)

    def _api(self, name: str, rest: list[str]) -> None:
        folder = self.hub.repositories[name]
        files = sorted(each for each in folder.rglob("*") if each.is_file())
        if rest[0] == "tree":
            listed = [
                {"type": "file", "path": each.relative_to(folder).as_posix(), **self._entry(each)} for each in files
            ]
            return self._json(listed)
        siblings = [{"rfilename": each.relative_to(folder).as_posix(), **self._entry(each)} for each in files]
        return self._json(
            {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
        )

    def _entry(self, file: Path) -> dict[str, Any]:
        size = file.stat().st_size
        entry: dict[str, Any] = {"size": size, "blobId": "b" * 40, "oid": "b" * 40}
        if file.suffix in LARGE:
            entry["lfs"] = {"sha256": self._sha256(file), "oid": self._sha256(file), "size": size, "pointerSize": 130}
        return entry

    def _sha256(self, file: Path) -> str:
        return self.hub.lie or hashlib.sha256(file.read_bytes()).hexdigest()

    def _resolve(self, name: str, file: str, body: bool) -> None:
        path = self.hub.repositories[name] / file
        if not path.is_file():
            return self._refuse("EntryNotFound")
        tag = self._sha256(path) if path.suffix in LARGE else hashlib.sha1(path.read_bytes()).hexdigest()
        return self._content(path.read_bytes(), {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"'}, body)

    def _content(self, content: bytes | None, headers: dict[str, str], body: bool) -> None:
        if content is None:
            return self._refuse("EntryNotFound")
        wanted, begin = self.headers.get("Range", "") if self.hub.ranges else "", 0
        if wanted:
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
            if begin >= len(content):
                return self._send(416, b"", {}, body)
        return self._send(206 if wanted else 200, content[begin:], {**headers, "Accept-Ranges": "bytes"}, body)

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"}, True)

    def _refuse(self, code: str) -> None:
        self._send(404, b"", {"X-Error-Code": code, "X-Error-Message": code}, True)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        if self.hub.cut is not None and self.path.startswith("/files/"):
            content, self.hub.cut = content[: self.hub.cut], None
            self.close_connection = True
        self.wfile.write(content)
