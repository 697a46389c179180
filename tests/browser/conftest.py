"""A real Chromium and the real app, each test with a server and a store of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = (
    "--no-sandbox",  # continuous integration runs as root, where the sandbox cannot start
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_S = 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A running Chromium; `NO_BROWSER=1` skips, a missing Chromium fails with the cure."""
    if os.environ.get("NO_BROWSER") == "1":
        pytest.skip("NO_BROWSER=1: browser tests were not run")
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        pytest.fail(
            "no Chromium was found; install it (Debian: apt-get install chromium) or skip these "
            "tests with NO_BROWSER=1"
        )
    expect.set_options(timeout=30_000)  # a first page on a busy machine takes several seconds
    # The driver's event loop would stay on in this thread, so it ends with the module.
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def app_url(home: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the real app, started by the command on a free port with an empty store."""
    port = _free_port()
    log = tmp_path / "server.log"
    command = "from shield_engine.cli import main; main()"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", command, "dashboard", "--no-browser", "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the command and the server it starts end together
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_healthy(url, server, log)
            yield url
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(timeout=20)


@pytest.fixture(params=["light"])
def page(browser: Browser, app_url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A fresh visitor on the first page, in the theme the test asks for."""
    # Tall enough to show a page whole: scrolling to a box closes the list it has just opened.
    context = browser.new_context(
        color_scheme=request.param, viewport={"width": 1280, "height": 2400}
    )
    context.set_default_timeout(30_000)
    visitor = context.new_page()
    visitor.goto(app_url)
    yield visitor
    context.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"the dashboard ended at once:\n{log.read_text(errors='replace')[-2000:]}")
        try:
            if httpx.get(f"{url}/_stcore/health", timeout=2, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"no answer after {START_S} s:\n{log.read_text(errors='replace')[-2000:]}")
