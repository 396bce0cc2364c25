"""A W&B server on this machine, as far as `wandb sync` asks of one: keeps what arrives; or refuses, hangs, dies.

It was written from the requests of wandb 0.31.0. The real server may differ.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANGS = 600  # seconds


class Server:
    """`with Server() as server:` listens on `server.url`; `kind` is good, hang, dies or a status such as 401."""

    def __init__(self, kind: str | int = "good", dies_after: int = 3) -> None:
        self.kind, self.left = kind, dies_after
        self.asked: list[str] = []  # every request: method, path, the name of its query
        self.bytes = b""  # all that arrived
        self.runs: dict[str, dict[str, Any]] = defaultdict(lambda: {"history": [], "summary": {}, "exit": None})
        self.uploads: dict[str, bytes] = {}
        self.artifacts: dict[str, list[str]] = {}  # name of an artifact -> its files
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # a client that was killed
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Nobody listens any more."""
        self.http.shutdown()
        self.http.server_close()

    def answer(self, path: str, method: str, body: bytes) -> dict[str, Any]:
        """What a good server says; what arrives is kept."""
        if method == "PUT":
            self.uploads[path.removeprefix("/put/")] = body
            return {}
        content = json.loads(body or b"{}")
        if path.endswith("/file_stream"):
            return self._stream(path.split("/")[-2], content)
        name = content.get("operationName") or ""
        self.asked[-1] += f" {name}"
        given = content.get("variables") or {}
        found = getattr(self, f"_{name}", lambda _: {})(given)
        return {"data": found}

    def _stream(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[name]
        for file, part in (content.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                run["history"][part["offset"] :] = [json.loads(line) for line in part["content"]]
            elif file == "wandb-summary.json":
                run["summary"] = json.loads(part["content"][-1])
        if content.get("complete"):
            run["exit"] = content.get("exitcode")
        return {"exitcode": None, "limits": {}}

    def _ServerFeaturesQuery(self, _: Any) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _Viewer(self, _: Any) -> dict[str, Any]:
        return {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["name"]]
        run["told"] = {**run.get("told", {}), **{key: value for key, value in given.items() if value is not None}}
        project = {"id": "2", "name": given["project"], "entity": {"id": "1", "name": given["entity"] or "me"}}
        own = {"id": f"id-{given['name']}", "name": given["name"], "displayName": given["displayName"]}
        rest = {"description": None, "config": given["config"] or "{}", "sweepName": None, "historyLineCount": 0}
        return {"upsertBucket": {"bucket": {**own, **rest, "project": project}, "inserted": True}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["input"]["artifactCollectionName"]
        self.artifacts[name] = []
        sequence = {"latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": name, "state": "PENDING", "artifactSequence": sequence}}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"createArtifactManifest": {"artifactManifest": self._manifest(given["artifactID"])}}

    def _UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(given["artifactManifestID"])}}

    def _manifest(self, name: str) -> dict[str, Any]:
        return {"id": name, "file": self._file(f"{name}/wandb_manifest.json")}

    def _file(self, name: str) -> dict[str, Any]:
        headers: list[str] = []
        return {"id": name, "name": name, "displayName": name, "uploadUrl": f"{self.url}/put/{name}"} | {
            "uploadHeaders": headers
        }

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for file in given["input"]["artifactFiles"]:
            self.artifacts[file["artifactID"]].append(file["name"])
            node = self._file(f"{file['artifactID']}/{file['name']}")
            more = {"storagePath": file["name"], "uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}
            edges.append({"node": {**node, **more, "name": file["name"], "displayName": file["name"]}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "0"}}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        found = [{"name": name, "uploadUrl": f"{self.url}/put/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": found}}


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            server.asked.append(f"{self.command} {self.path}")
            server.bytes += self.path.encode() + str(self.headers).encode() + body
            if server.kind == "hang":
                time.sleep(HANGS)
            if server.kind == "dies":
                server.left -= 1
                if server.left < 0:
                    self.connection.close()
                    return
            status = server.kind if isinstance(server.kind, int) else 200
            said = {"errors": [{"message": "no"}]} if status != 200 else server.answer(self.path, self.command, body)
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler
