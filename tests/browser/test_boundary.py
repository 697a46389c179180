"""The dashboard answers to its own name and its own pages only, and asks nobody else."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

PAGES = (
    "", "datasets", "new_run", "runs", "compare", "threshold_lab", "errors", "performance",
    "playground", "guards", "reports_gates", "settings_page",
)  # fmt: skip
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_no_page_asks_another_host_or_breaks_its_own_policy(page: Page, app_url: str) -> None:
    """Every request of every page goes to the server itself, and nothing is blocked."""
    asked: set[str] = set()
    blocked: list[str] = []
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    page.on(
        "console",
        lambda line: blocked.append(line.text) if "Content Security Policy" in line.text else None,
    )
    for name in PAGES:
        page.goto(f"{app_url}/{name}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
    icon = page.locator("link[rel='shortcut icon'], link[rel='icon']").first.get_attribute("href")
    assert asked - {"", urlsplit(app_url).netloc} == set()
    assert blocked == []
    assert icon is not None
    assert urlsplit(icon).netloc in {"", urlsplit(app_url).netloc}


def test_a_foreign_name_for_this_machine_shows_nothing(app_url: str) -> None:
    """A name that a web page made point to this machine is refused on every route."""
    port = urlsplit(app_url).port
    for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "", "a@b"):
        answer = httpx.get(f"{app_url}/_stcore/health", headers={"Host": host}, trust_env=False)
        assert answer.status_code in {400, 403}, host


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("{own}", 101),
        ("http://evil.example", 403),
        ("http://127.0.0.1:9", 403),
        ("http://localhost:9", 403),
        ("http://192.168.0.1:{port}", 403),
        ("null", 403),
    ],
)
def test_a_websocket_of_another_origin_is_refused(app_url: str, origin: str, status: int) -> None:
    """Only the page that this server gave may open the stream that carries texts."""
    origin = origin.format(own=app_url, port=urlsplit(app_url).port)
    with httpx.stream(
        "GET",
        f"{app_url}/_stcore/stream",
        headers={**UPGRADE, "Origin": origin},
        trust_env=False,
        timeout=10,
    ) as answer:
        assert answer.status_code == status


def test_no_other_page_can_frame_it(browser: Browser, app_url: str) -> None:
    """A page of another origin that frames the dashboard shows an empty frame."""

    class Framing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<iframe src='{app_url}' width=900 height=900></iframe>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Framing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context()
        visitor = context.new_page()
        said: list[str] = []
        visitor.on("console", lambda line: said.append(line.text))
        visitor.goto(f"http://127.0.0.1:{server.server_port}/")
        visitor.wait_for_timeout(1_500)
        frame = visitor.frames[1]
        assert frame.get_by_text("LLM Shield").count() == 0
        assert any("frame" in line.lower() for line in said)
        context.close()
        server.shutdown()
