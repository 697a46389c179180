"""Where a model's file may come from, as a registry writes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Literal
from urllib.parse import unquote, urlsplit

__all__ = ["HUB", "LOOPBACK", "Source", "parse_source"]

Kind = Literal["bundled", "file", "package", "url", "built"]

_ARCHIVES = (".tar.gz", ".tgz", ".zip")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
HUB = "https://huggingface.co"
"""The hub that `hf:` means; tests put a server of this machine in its place."""

_HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)@([0-9a-f]{40})/(.+)")


@dataclass(frozen=True, slots=True)
class Source:
    """One place a file may come from.

    Attributes:
        kind: `bundled` (relative to the registry file), `file`, `package`, `url`, or `built`
            (made on this machine from another variant).
        location: Path, `package/path`, or URL without fragment.
        member: The file's path inside the archive at `location`, if that is an archive.
    """

    kind: Kind
    location: str
    member: str | None = None


def parse_source(text: str) -> Source:
    """Read a source as a registry writes it.

    Known forms are `path/beside/the/registry`, `file:///path`, `package:NAME/path`, `https://...`,
    `http://` to this machine only, `hf:OWNER/NAME@COMMIT/path`, and `build:NAME` for a file that
    `shield models build` makes. A `.tar.gz`, `.tgz` or `.zip`
    names the wanted file after `#`.

    Raises:
        ValueError: The text is none of these; the message ends a sentence about the source.
    """
    hub = _HUB.fullmatch(text)
    if hub:
        repository, revision, path = hub.groups()
        text = f"{HUB}/{repository}/resolve/{revision}/{path}"
    elif text.startswith("hf:"):
        raise ValueError(
            f"has {text!r}; a hub source is hf:OWNER/NAME@COMMIT/path with a commit of 40 digits"
        )
    location, _, fragment = text.partition("#")
    member = unquote(fragment) or None
    scheme = location.partition(":")[0] if ":" in location else ""
    if scheme not in _FORMS:
        raise ValueError(
            f"has {text!r}; a source is a path beside the registry file, file:///path, "
            "package:NAME/path, https://..., or hf:OWNER/NAME@COMMIT/path"
        )
    kind, place = _FORMS[scheme](location)
    name = urlsplit(location).path
    if name.endswith(_ARCHIVES) and member is None:
        raise ValueError(f"has archive {text!r} without a member; write ...#path/in/archive")
    if member is not None and not (name.endswith(_ARCHIVES) and _is_inside(member)):
        raise ValueError(f"has {text!r}; only archives have a #member, a path inside them")
    return Source(kind, place, member)


def _url(location: str) -> tuple[Kind, str]:
    url = urlsplit(location)
    if not url.hostname:
        raise ValueError(f"has {location!r}, which names no host")
    if url.username or url.password:
        raise ValueError(f"has a password in the address of {url.hostname}; leave it out")
    if url.scheme == "http" and url.hostname not in LOOPBACK:
        raise ValueError(f"has {location!r}; plain http is allowed to this machine only")
    return "url", location


def _file(location: str) -> tuple[Kind, str]:
    url = urlsplit(location)
    if url.netloc not in {"", "localhost"} or not url.path.startswith("/"):
        raise ValueError(f"has {location!r}; a file source is file:///absolute/path")
    return "file", unquote(url.path)


def _package(location: str) -> tuple[Kind, str]:
    place = location.partition(":")[2]
    package, _, inside = place.partition("/")
    if not re.fullmatch(r"[A-Za-z_]\w*", package) or not _is_inside(inside):
        raise ValueError(f"has {location!r}; a package source is package:NAME/path")
    return "package", place


def _bundled(location: str) -> tuple[Kind, str]:
    if not _is_inside(location):
        raise ValueError(
            f"has {location!r}, which leaves the folder of the registry file; use file:///path"
        )
    return "bundled", location


def _built(location: str) -> tuple[Kind, str]:
    name = location.partition(":")[2]
    if not re.fullmatch(r"[\w.-]+", name) or not _is_inside(name):
        raise ValueError(f"has {location!r}; a built file is build:NAME, without folders")
    return "built", name


_FORMS: Mapping[str, Callable[[str], tuple[Kind, str]]] = MappingProxyType(
    {
        "": _bundled,
        "file": _file,
        "package": _package,
        "https": _url,
        "http": _url,
        "build": _built,
    }
)


def _is_inside(path: str) -> bool:
    """Return whether a relative path stays in the folder it is read from."""
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\\" not in path
