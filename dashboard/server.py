"""The dashboard's server: this machine only, and only for pages that it served itself.

Whoever can reach the port is not yet allowed in: a web page that is open in the same browser can
send requests here, under any name that it made point to this machine. So each request must name a
host that is known, a WebSocket must come from the same origin, no page may frame ours, and ours
loads nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from starlette.middleware import Middleware

__all__ = ["Boundary", "content_policy", "serve"]

AsgiScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOCAL = ("localhost", "127.0.0.1", "::1")
OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "server.address": "127.0.0.1",
        "server.enableXsrfProtection": True,
        "server.maxUploadSize": 200,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
        # Without it, Streamlit asks a service for this machine's public address.
        "browser.serverAddress": "localhost",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "runner.magicEnabled": False,
    }
)
_HEADERS: Mapping[bytes, bytes] = MappingProxyType(
    {
        b"x-frame-options": b"DENY",
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"no-referrer",
        b"cross-origin-opener-policy": b"same-origin",
        b"cross-origin-resource-policy": b"same-origin",
    }
)
_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)


def content_policy() -> bytes:
    """Return the policy of our pages: everything from the server itself.

    Streamlit's page holds one script inline, which is named by its hash, and inline styles; Plotly
    makes workers and images of blobs.
    """
    page = (Path(st.__file__).parent / "static" / "index.html").read_bytes()
    digests = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page))
    inline = b"".join(b" 'sha256-" + base64.b64encode(digest) + b"'" for digest in digests)
    return (
        b"default-src 'self'; script-src 'self' 'wasm-unsafe-eval'" + inline + b"; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        b"worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        b"frame-ancestors 'none'"
    )


class Boundary:
    """ASGI middleware that lets in what the module's first paragraph allows, and nothing else."""

    def __init__(self, app: Any, hosts: Collection[str] = ()) -> None:
        """Guard `app`; `hosts` are further names under which it may be asked for (a tunnel's)."""
        self._app = app
        self._hosts = frozenset(name.lower().rstrip(".") for name in hosts)
        self._headers = {**_HEADERS, b"content-security-policy": content_policy()}

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request on with our headers on its answer, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
        elif (reason := self._refusal(scope["headers"])) is None:
            await self._app(scope, receive, self._with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8"), *self._headers.items()]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": reason.encode()})

    def _refusal(self, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        host, *more_hosts = [value for key, value in headers if key == b"host"] or [b""]
        if more_hosts or _name_of(b"//" + host) not in {*LOCAL, *self._hosts}:
            return "this name is not known here; start shield dashboard with --host NAME"
        origin, *more_origins = [value for key, value in headers if key == b"origin"] or [b""]
        # No origin: not a web page. A tunnel may put its own name into the origin only.
        is_ours = origin in {b"", b"http://" + host, b"https://" + host}
        if more_origins or not (is_ours or _name_of(origin) in self._hosts):
            return "requests of other pages are refused"
        return None

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                theirs = [pair for pair in message["headers"] if pair[0] not in self._headers]
                message = {**message, "headers": [*theirs, *self._headers.items()]}
            await send(message)

        return sending


def _name_of(address: bytes) -> str:
    try:
        return (urlsplit(address.decode("latin-1")).hostname or "").rstrip(".")
    except ValueError:
        return ""


def serve(arguments: Sequence[str] | None = None) -> None:
    """Serve the dashboard until it is stopped."""
    parser = argparse.ArgumentParser(prog="dashboard.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", action="append", default=[])
    parser.add_argument("--browser", action="store_true")
    given = parser.parse_args(arguments)
    boundary = Middleware(Boundary, hosts=tuple(given.host))
    app = st.App(Path(__file__).with_name("app.py"), middleware=[boundary])
    app.run(
        config={
            **OPTIONS,
            "server.port": given.port,
            "server.headless": not given.browser,
            "server.allowedHosts": [*LOCAL, *given.host],
        }
    )


if __name__ == "__main__":
    serve()
