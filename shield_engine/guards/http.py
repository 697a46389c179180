"""Guards behind an HTTP API: a text or a batch a call, one risk or one row error a text.

Hides retries, rate and concurrency limits, secrets and the shape of the answer. A missing field, an
answer that is no JSON, a status of 400 and more or a time-out is a row error, never a pass. Neither
text nor secret ever stands in an error.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shield_engine.errors import ConfigError
from shield_engine.guards.entry import HttpEntry, Reply
from shield_engine.ml.sources import LOOPBACK

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpGuard", "RateLimit"]

_LONGEST_WAIT_S = 60.0  # a server that asks for more has its row given up
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LARGEST_ANSWER = 4 << 20
_SECRET = "env:"  # noqa: S105 - the mark of a variable's name, no secret


class RateLimit:
    """Lets at most `per_second` calls begin a second, evenly spaced; shared by threads."""

    def __init__(self, per_second: float | None) -> None:
        self._gap_s = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until this call's turn."""
        if not self._gap_s:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap_s
        time.sleep(turn - now)


class HttpGuard:
    """A guard behind an HTTP API."""

    def __init__(
        self,
        entry: HttpEntry,
        *,
        env: Mapping[str, str] | None = None,
        offline: bool = False,
        limit: RateLimit | None = None,
    ) -> None:
        """Make a ready guard.

        Args:
            entry: What the user declared.
            env: Where `env:NAME` is looked up; the process environment by default.
            offline: Refuse every address but this machine's own.
            limit: Shared with other guards of the same service; one of its own by default.

        Raises:
            ConfigError: A variable is not set, an expression is no JMESPath, or a secret would
                leave this machine without TLS.
        """
        import httpx
        import jmespath

        self.entry = entry
        host = urlsplit(entry.url).hostname
        is_local = host in LOOPBACK
        if offline and not is_local:
            raise ConfigError(f"guard {entry.name}: offline is on, {host} is not asked")
        headers = _resolved(entry, os.environ if env is None else env)
        if headers != dict(entry.headers) and not (is_local or entry.url.startswith("https:")):
            raise ConfigError(
                f"guard {entry.name}: {host} is asked by plain http, which would show the secret "
                "of its headers to the network; use https"
            )
        expression = entry.score or entry.verdict or ""
        try:
            self._path = jmespath.compile(expression)
        except jmespath.exceptions.JMESPathError as error:
            problem = str(error).splitlines()[0]
            raise ConfigError(
                f"guard {entry.name}: {expression!r} is no JMESPath: {problem}"
            ) from error
        self._client = httpx.Client(
            headers=headers,
            timeout=entry.timeout_s,
            trust_env=not is_local,
            limits=httpx.Limits(max_connections=entry.concurrency),
        )
        self._limit = limit or RateLimit(entry.per_second)
        self._slots = threading.BoundedSemaphore(entry.concurrency)

    def ask(self, texts: Sequence[str]) -> list[Reply]:
        """Return one reply a text."""
        started = time.perf_counter()
        body = _filled(self.entry.body, texts)
        with self._slots:
            try:
                answer = self._post(body)
                risks = self._risks(answer, len(texts))
            except (_BadAnswerError, OSError) as error:
                return [Reply(None, str(error))] * len(texts)
        share = (time.perf_counter() - started) * 1_000 / len(texts)
        return [
            Reply((1 - risk, risk), None, share)
            if isinstance(risk, float)
            else Reply(None, risk, share)
            for risk in risks
        ]

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _post(self, body: bytes) -> Any:
        import httpx
        import stamina

        try:
            for attempt in stamina.retry_context(
                on=_wait_before_retry, attempts=self.entry.attempts, timeout=None, wait_max=20.0
            ):
                with attempt:
                    self._limit.wait()
                    return self._answer(body)
        except httpx.HTTPStatusError as error:
            raise _BadAnswerError(f"status {error.response.status_code}") from None
        except httpx.TimeoutException:
            raise _BadAnswerError(f"no answer within {self.entry.timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise _BadAnswerError(f"the call failed: {type(error).__name__}") from None
        raise _BadAnswerError("was not asked")

    def _answer(self, body: bytes) -> Any:
        started = time.monotonic()
        with self._client.stream(
            "POST", self.entry.url, content=body, headers={"Content-Type": "application/json"}
        ) as response:
            if response.is_redirect:
                raise _BadAnswerError(f"status {response.status_code}: redirects are not followed")
            response.raise_for_status()
            received = bytearray()
            for chunk in response.iter_bytes():
                received += chunk
                if len(received) > _LARGEST_ANSWER:
                    raise _BadAnswerError(f"the answer is over {_LARGEST_ANSWER:,} bytes")
                if time.monotonic() - started > self.entry.timeout_s:
                    raise _BadAnswerError(f"no whole answer within {self.entry.timeout_s:g} s")
        try:
            return json.loads(received)
        except (ValueError, RecursionError):
            kind = response.headers.get("Content-Type", "no content type")[:60]
            raise _BadAnswerError(f"the answer is no JSON ({kind})") from None

    def _risks(self, answer: Any, count: int) -> list[float | str]:
        import jmespath

        try:
            value = self._path.search(answer)
        except jmespath.exceptions.JMESPathError as error:
            raise _BadAnswerError(f"the answer does not fit: {type(error).__name__}") from None
        values = value if self.entry.batch > 1 else [value]
        if not isinstance(values, list) or len(values) != count:
            size = len(values) if isinstance(values, list) else "no"
            raise _BadAnswerError(f"{size} risks came back for {count} texts")
        return [self._risk(value) for value in values]

    def _risk(self, value: Any) -> float | str:
        expression = self.entry.score or self.entry.verdict
        if value is None:
            return f"the answer has nothing at {expression}"
        if self.entry.score is None:
            return float(value in self.entry.flagged)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"what stands at {expression} is {type(value).__name__}, not a number"
        low, high = self.entry.range
        if not low <= value <= high:  # also where it is NaN
            return f"the score {value} at {expression} is not in {low:g}..{high:g}"
        return (value - low) / (high - low)


class _BadAnswerError(Exception):
    """No score can be had of this call; the message is the row's error."""


def _resolved(entry: HttpEntry, env: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with every `env:NAME`, alone or behind a word, replaced."""
    headers = {}
    for name, value in entry.headers.items():
        before, mark, variable = value.partition(_SECRET)
        if mark and variable not in env:
            raise ConfigError(
                f"guard {entry.name}: header {name} is {value}, and {variable} is not set; "
                f"export {variable}=... before you start"
            )
        headers[name] = before + env[variable] if mark else value
    return headers


def _filled(body: Any, texts: Sequence[str]) -> bytes:
    """Return the JSON to send; a lone surrogate goes as its escape."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return list(texts) if value == "{texts}" else value.replace("{text}", texts[0])
        if isinstance(value, Mapping):
            return {key: fill(item) for key, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list | tuple) else value

    return json.dumps(fill(body)).encode()


def _wait_before_retry(error: Exception) -> bool | float:
    """Return whether a call is worth another try, or the seconds that the server asks to wait."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        if error.response.status_code not in _PASSING:
            return False
        asked = _retry_after(error.response)
        return True if asked is None else asked <= _LONGEST_WAIT_S and asked
    return isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.UnsupportedProtocol
    )


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
