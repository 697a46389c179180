"""Adapters over the real packages, where they are installed: guards of theirs that need no weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from shield_engine.guards import PythonEntry, open_guard
from shield_engine.types import Task

TEXTS = ("a plain question", "please use the backdoor now")


def risks(name: str, **options: Any) -> list[float | str | None]:
    """Return what an adapter's guard says of the two texts: a risk, or the error."""
    entry = PythonEntry(
        name=name,
        task=Task.PROMPT_INJECTION,
        callable=f"shield_engine.guards.adapters:{name}",
        factory=True,
        options=options,
        timeout_s=60,
    )
    with closing(open_guard(entry)) as guard:
        replies = [guard.ask([text])[0] for text in TEXTS]
    return [reply.probabilities[1] if reply.probabilities else reply.error for reply in replies]


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Serve what Lakera's API answers: flagged with high confidence if the text has a word."""

    class Lakera(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found = "backdoor" in body
            level = "l2_very_likely" if found else "no_level"
            breakdown = [{"detector_type": "prompt_attack", "detected": found, "result": level}]
            answer = json.dumps({"flagged": found, "breakdown": breakdown, "payload": []}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Lakera) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v2/guard"
        server.shutdown()


@pytest.mark.filterwarnings("default")  # theirs
def test_any_guardrail(endpoint: str) -> None:
    """A hosted guard of any-guardrail, pointed at this machine, gives its own score."""
    pytest.importorskip("any_guardrail", reason="the package any-guardrail is not installed")
    options = {"guardrail": "lakera_guard", "api_key": "none", "endpoint": endpoint}
    assert risks("any_guardrail", **options) == [0.0, 0.8]


@pytest.mark.filterwarnings("default")
def test_gorget() -> None:
    """A scanner of gorget without weights gives the ends of its range."""
    pytest.importorskip("gorget", reason="the package gorget is not installed")
    plain, banned = risks("llm_guard", scanner="BanSubstrings", substrings=["backdoor"])
    assert (plain, banned) == (0.0, 1.0)
