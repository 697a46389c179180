"""The model hub: what a repository holds, and why it refuses something.

Hides the hub's routes and headers. An access token goes to the hub alone, never to where it
redirects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from shield_engine.errors import ArtifactError
from shield_engine.ml import sources

if TYPE_CHECKING:
    import httpx

__all__ = ["HubFile", "HubModel", "describe_model", "open_client", "refusal"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"/(?:api/models/)?([\w.-]+/[\w.-]+)(?:/|$)")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository.

    Attributes:
        size: In bytes; `None` if the hub does not say.
        sha256: Of its content; known of large files only, which lie outside the repository.
    """

    size: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository at one commit.

    Attributes:
        repository: `OWNER/NAME`.
        commit: 40 hexadecimal digits; what is fetched by it never changes.
        files: By path.
        licence: As its card says; `unknown` if it does not.
        is_gated: Its files are given only to accounts that accepted its terms.
    """

    repository: str
    commit: str
    files: Mapping[str, HubFile]
    licence: str
    is_gated: bool

    def source(self, path: str) -> str:
        """Return where a registry says that a file lies."""
        return f"hf:{self.repository}@{self.commit}/{path}"


def open_client(url: str, timeout_s: float, token: str | None) -> httpx.Client:
    """Return a client for an address: it follows redirects, but never out of TLS.

    Args:
        url: What will be asked first.
        timeout_s: Longest silence of the server, connecting included.
        token: Sent if `url` is the hub's; a redirect to another host drops it.
    """
    import httpx

    is_hub = urlsplit(url).netloc == urlsplit(sources.HUB).netloc
    return httpx.Client(
        follow_redirects=True,
        timeout=timeout_s,
        headers={"Authorization": f"Bearer {token}"} if token and is_hub else {},
        # A proxy of the environment cannot reach this machine's own servers.
        trust_env=urlsplit(url).hostname not in sources.LOOPBACK,
        event_hooks={"request": [_refuse_plain_http]},
    )


def refusal(response: httpx.Response) -> str:
    """Return what a status of 400 or more means, and what the user can do about it."""
    status = response.status_code
    plain = f"the server answered {status} {response.reason_phrase}"
    first = (response.history or [response])[0].url
    repository = _REPOSITORY.match(first.path)
    if first.netloc.decode() != urlsplit(sources.HUB).netloc or repository is None:
        return plain
    page = f"{sources.HUB}/{repository.group(1)}"
    has_token = "Authorization" in _first_headers(response)
    if response.headers.get("X-Error-Code") == "GatedRepo" or status == 403:
        todo = (
            "and see that the token of HF_TOKEN belongs to that account and may read gated models"
            if has_token
            else "make a token in your account's settings there and export HF_TOKEN=..."
        )
        return f"{plain}: the model is gated; accept its terms at {page}, {todo}"
    if status == 401:
        # The hub says the same of a private model and of one that does not exist.
        return (
            f"{plain}: there is no such model, or it is private or gated; check the name at {page}"
            + (", and the token of HF_TOKEN" if has_token else ", and export HF_TOKEN=... for it")
        )
    return f"{plain}: check name and revision at {page}" if status == 404 else plain


def _first_headers(response: httpx.Response) -> httpx.Headers:
    """Return what was sent before any redirect."""
    return (response.history or [response])[0].request.headers


def describe_model(
    repository: str, revision: str | None, *, token: str | None = None, timeout_s: float = 30.0
) -> HubModel:
    """Ask the hub what a repository holds at a revision, the main branch by default.

    Raises:
        ArtifactError: It could not be asked, or refused; the message says what to do.
    """
    import httpx

    url = f"{sources.HUB}/api/models/{repository}"
    if revision:
        url += f"/revision/{quote(revision, safe='')}"
    try:
        with open_client(url, timeout_s, token) as client:
            response = client.get(url, params={"blobs": "true"})
            if response.status_code >= 400:
                raise ArtifactError(f"{repository}: {refusal(response)}")
            return _model(repository, response.json())
    except httpx.HTTPError as error:
        raise ArtifactError(
            f"{repository}: the hub could not be asked ({str(error) or type(error).__name__}); "
            "check the network, or add the files from this machine: shield guards add model.onnx"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{repository}: the hub's answer cannot be read") from error


def _model(repository: str, answer: Mapping[str, Any]) -> HubModel:
    commit = answer["sha"]
    if not _COMMIT.fullmatch(commit):
        raise ValueError(commit)
    tags = [tag for tag in answer.get("tags", []) if tag.startswith("license:")]
    card = (answer.get("cardData") or {}).get("license")
    licence = card if isinstance(card, str) else tags[0].partition(":")[2] if tags else "unknown"
    files = {}
    for item in answer["siblings"]:
        large = item.get("lfs") or {}
        size = large.get("size", item.get("size"))
        files[item["rfilename"]] = HubFile(size, large.get("sha256"))
    # A renamed repository answers under its new name.
    name = answer.get("id", repository)
    return HubModel(name, commit, files, licence, bool(answer.get("gated")))


def _refuse_plain_http(request: httpx.Request) -> None:
    """Keep a redirect from leaving TLS."""
    if request.url.scheme != "https" and request.url.host not in sources.LOOPBACK:
        raise ArtifactError(f"redirected to {request.url.scheme}://{request.url.host}, not to TLS")
