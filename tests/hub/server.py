"""A model hub on this machine, for tests: what huggingface_hub 2.4 and ModelScope's API ask for, and ways to fail.

GET  /api/models/ID/revision/R          {"id", "sha"}
GET  /api/models/ID/tree/SHA            [{"type", "path", "size", "oid"}]
HEAD /ID/resolve/SHA/FILE               ETag, X-Repo-Commit, Content-Length; large files X-Linked-Etag, their sha256
GET  /ID/resolve/SHA/FILE               the file, or with Range the rest of it
GET  /cdn/SIGNATURE/ID/FILE             a large file at another host (localhost), where the hub sends everybody if it has a signature
GET  /api/v1/models/ID/repo/files       ModelScope's list
GET  /models/ID/resolve/R/FILE          ModelScope's file
"""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

SHA = "c0ffee" + 34 * "0"


class Hub(ThreadingHTTPServer):
    """Models by id; ``requests`` is what was asked, and the sets say which models are how."""

    daemon_threads = True

    def __init__(self, models):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models, self.requests = models, []
        self.gated, self.token = set(), "hf_right"
        self.breaks = {}  # file name → how many bytes of it come before the connection breaks, once
        self.down = False
        self.lies = set()  # files that come with one bit turned
        self.ranges = True  # whether the rest of a file can be had alone
        self.signature = None  # the address of a large file elsewhere is good as long as this is in it
        self.refuses = False  # whether that other host lets nobody in
        self.trusted = set()  # the hosts that have seen a token

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        parts, query = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
        self.server.requests.append((self.command, parts.path, self.headers.get("Range")))
        words = parts.path.strip("/").split("/")
        if "Authorization" in self.headers:
            self.server.trusted.add(self.headers["Host"].split(":")[0])
        if self.server.down:
            return self.error(503)
        if words[0] == "cdn":
            good = words[1] == str(self.server.signature) and not self.server.refuses
            return self.send(self.server.models["/".join(words[2:4])] / words[4], body) if good else self.error(403)
        if words[:3] == ["api", "v1", "models"]:
            return self.modelscope(words, query, body)
        if words[0] == "models":
            return self.file(words[1:], body)
        if words[0] == "api":
            return self.api(words, body)
        return self.file(words, body)

    def api(self, words, body):
        id = "/".join(words[2:4])
        if id not in self.server.models:
            return self.error(401, "RepoNotFound")
        if words[4:5] == ["revision"] and words[5] not in ("main", SHA):
            return self.error(404, "RevisionNotFound")
        files = sorted(path for path in self.server.models[id].iterdir())
        if words[4:5] == ["tree"]:
            return self.json([{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": etag(f)} for f in files], body)
        return self.json({"id": id, "modelId": id, "sha": SHA, "siblings": [{"rfilename": f.name} for f in files]}, body)

    def modelscope(self, words, query, body):
        id = "/".join(words[3:5])
        if id not in self.server.models or query["Revision"] != ["master"]:
            return self.error(404)
        if id in self.server.gated and f"m_session_id={self.server.token}" not in self.headers.get("Cookie", ""):
            return self.error(403)
        files = [
            {"Path": f.name, "Name": f.name, "Type": "blob", "Size": f.stat().st_size, "Sha256": sha256(f)}
            for f in sorted(self.server.models[id].iterdir())
        ]
        return self.json(
            {"Code": 200, "Success": True, "Data": {"Files": [{"Path": "sub", "Type": "tree", "Size": 0}, *files]}}, body
        )

    def file(self, words, body):
        id, path = "/".join(words[:2]), self.server.models.get("/".join(words[:2]), Path("/nowhere")) / words[-1]
        right = self.headers.get("Authorization") == f"Bearer {self.server.token}" or "m_session_id" in self.headers.get(
            "Cookie", ""
        )
        if id in self.server.gated and not right:
            return self.error(403, "GatedRepo")
        if not path.exists():
            return self.error(404, "EntryNotFound")
        if self.server.signature is not None and is_large(path):
            return self.send_on(f"cdn/{self.server.signature}/{id}/{path.name}", path)
        self.send(path, body)

    def send_on(self, place, path):
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/{place}")
        self.send_header("Content-Length", "0")
        self.describe(path)
        self.end_headers()

    def describe(self, path):
        self.send_header("ETag", f'"{etag(path)}"')
        self.send_header("X-Repo-Commit", SHA)
        if is_large(path):
            self.send_header("X-Linked-Etag", f'"{sha256(path)}"')
            self.send_header("X-Linked-Size", str(path.stat().st_size))

    def send(self, path, body):
        data = path.read_bytes()
        if path.name in self.server.lies:
            data = bytes([data[0] ^ 1]) + data[1:]
        asked = self.headers.get("Range") if self.server.ranges else None
        begin = int((asked or "bytes=0-")[6:].split("-")[0])
        if begin >= len(data):
            return self.error(416)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.describe(path)
        self.end_headers()
        stop = self.server.breaks.pop(path.name, None) if body else None
        if body:
            self.wfile.write(data[begin : len(data) if stop is None else begin + stop])
        if stop is not None:
            self.server.down = True  # and nobody answers until the test says so
            self.close_connection = True

    def json(self, data, body):
        raw = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if body:
            self.wfile.write(raw)

    def error(self, status, code=None):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()


def is_large(path):
    return path.suffix in (".safetensors", ".bin")


def etag(path):
    return sha256(path) if is_large(path) else hashlib.sha1(path.read_bytes()).hexdigest()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def running(models):
    """A hub that answers while the block runs."""
    hub = Hub(models)
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
