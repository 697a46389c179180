"""A local HTTP guard that fails on purpose, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Api:
    """What the server answers, and what it was asked.

    Attributes:
        risk_of: The risk of a text.
        fault_of: From a text and the number of times it came, the name of a misbehaviour or `None`:
            `stall`, `429`, `500`, `401`, `html`, `wrong`, `range`, `nan`, `text`, `redirect`, `cut`.
        stall_s: How long a stalled answer takes.
        asked: How often each text came.
        answered: How often each text got its score.
        headers: Those of the last request.
    """

    risk_of: Callable[[str], float]
    fault_of: Callable[[str, int], str | None] = lambda _text, _times: None
    stall_s: float = 0.5
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    headers: dict[str, str] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


_ANSWERS: dict[str, tuple[int, str]] = {
    "500": (500, "{}"),
    "401": (401, '{"error": "no such key"}'),
    "html": (200, "<html>proxy</html>"),
    "wrong": (200, '{"other": []}'),
    "range": (200, '{"score": 1.7}'),
    "nan": (200, '{"score": NaN}'),
    "text": (200, '{"score": "high"}'),
}


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        api = self.api
        with api.lock:
            api.headers = dict(self.headers)
            api.asked.update(texts)
            api.at_once += 1
            api.most_at_once = max(api.most_at_once, api.at_once)
            fault = api.fault_of(texts[0], api.asked[texts[0]])
        try:
            self._answer(fault, texts, isinstance(body["input"], list))
        finally:
            with api.lock:
                api.at_once -= 1

    def _answer(self, fault: str | None, texts: list[str], is_batch: bool) -> None:
        api = self.api
        if fault == "stall":
            time.sleep(api.stall_s)
        elif fault == "cut":
            self.close_connection = True
            return
        elif fault == "429":
            self._send(429, "{}", {"Retry-After": "0"})
            return
        elif fault == "redirect":
            self._send(302, "", {"Location": api.url})
            return
        elif fault is not None:
            self._send(*_ANSWERS[fault])
            return
        risks: list[dict[str, Any]] = [{"score": api.risk_of(text)} for text in texts]
        with api.lock:
            api.answered.update(texts)
        self._send(200, json.dumps({"results": risks} if is_batch else risks[0]))

    def _send(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the guard gave up waiting

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(api: Api) -> Iterator[Api]:
    """Serve an API on a free loopback port."""
    handler = type("Handler", (_Handler,), {"api": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}/guard"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
