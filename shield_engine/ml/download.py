"""Brings a model's files to this machine and proves that they are the registered ones.

`plan` decides what to do for each source without touching the network; `ArtifactStore.fetch` then
acts: temporary file, SHA-256, fsync, atomic move. Hides sources, mirrors, archives, retries,
resumption and the cache folder. A file is never handed out before its hash was checked.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.util
import logging
import os
import re
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from shield_engine.errors import ArtifactError
from shield_engine.ml.hub import open_client, refusal
from shield_engine.ml.sources import Source, parse_source

if TYPE_CHECKING:
    import httpx

    from shield_engine.ml.registry import ModelEntry

__all__ = ["ArtifactStore", "FetchProgress", "ModelFiles", "Step", "plan"]

logger = logging.getLogger(__name__)

FetchProgress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all, if known."""

_CHUNK_BYTES = 1 << 20
_TOKENIZER_LIMIT_BYTES = 128 << 20  # the largest vocabularies in use (256,000 pieces) take 34 MB
_ARCHIVE_SLACK_BYTES = 1 << 30  # an archive may carry other files beside the one that is wanted
_POINTER = b"version https://git-lfs.github.com/spec/"
_UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # an encrypted member
    NotImplementedError,  # an unknown compression
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Verified files of one model."""

    model: Path
    tokenizer: Path


@dataclass(frozen=True, slots=True)
class Step:
    """What one source asks for: use the file at `path`, unpack that archive, or download."""

    action: Literal["use", "unpack", "download", "impossible"]
    source: Source
    path: Path = Path()
    reason: str = ""


def plan(sources: Sequence[str], root: Path, *, offline: bool) -> tuple[Step, ...]:
    """Decide what each source asks for, in order; looks at the disk, never at the network."""
    return tuple(_step(parse_source(source), root, offline=offline) for source in sources)


def _step(source: Source, root: Path, *, offline: bool) -> Step:
    if source.kind == "url":
        if offline:
            return Step("impossible", source, reason="offline is on, nothing is downloaded")
        return Step("download", source)
    if source.kind == "built":
        return Step("impossible", source, reason="not built here yet; run: shield models build")
    if source.kind == "bundled":
        path = root / source.location
    elif source.kind == "file":
        path = Path(source.location)
    else:
        package, _, inside = source.location.partition("/")
        spec = importlib.util.find_spec(package)  # finds it without running its code
        folders = (spec and spec.submodule_search_locations) or ()
        places = [Path(folder) / inside for folder in folders]
        if not places:
            reason = f"Python package {package} is not installed; install it"
            return Step("impossible", source, reason=reason)
        path = next((place for place in places if place.is_file()), places[0])
    if not path.is_file():
        return Step("impossible", source, reason=f"{path} is not a file")
    return Step("unpack" if source.member else "use", source, path)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One registered file: what it is called in a message, where it may be, what it must be."""

    name: str
    sources: tuple[str, ...]
    sha256: str
    root: Path
    limit: int = _TOKENIZER_LIMIT_BYTES

    @classmethod
    def model(cls, entry: ModelEntry) -> _Wanted:
        name = f"model {entry.id} {entry.variant.value}"
        return cls(name, entry.sources, entry.sha256, entry.root, entry.size_bytes)

    @classmethod
    def tokenizer(cls, entry: ModelEntry) -> _Wanted:
        name = f"tokenizer of {entry.id} {entry.variant.value}"
        return cls(name, entry.tokenizer_sources, entry.tokenizer_sha256, entry.root)


class ArtifactStore:
    """Files of models, verified; downloads are kept in `cache_dir` under their hash.

    Safe to share between threads and between processes: one of them downloads, the others wait.
    """

    def __init__(
        self,
        cache_dir: Path,
        *,
        offline: bool = False,
        attempts: int = 5,
        timeout_s: float = 30.0,
        hub_token: str | None = None,
    ) -> None:
        """Keep downloads under `cache_dir`.

        Args:
            cache_dir: Made when it is first needed.
            offline: Refuse every download.
            attempts: Tries per address before the next mirror.
            timeout_s: Longest silence of a server, connecting included.
            hub_token: Access token for gated models; sent to the hub alone.
        """
        self.cache_dir = cache_dir
        self.offline = offline
        self._attempts = attempts
        self._timeout_s = timeout_s
        self.hub_token = hub_token
        self._digests: dict[tuple[str, int, int, int], str] = {}
        self._lock = threading.Lock()

    def fetch(self, entry: ModelEntry, progress: FetchProgress | None = None) -> ModelFiles:
        """Return the model's files, downloaded if they are not here yet.

        `progress` follows the model file. A file from elsewhere that does not match its SHA-256 is
        left where it is; one that this store wrote is renamed to `*.rejected`. Neither is used.

        Raises:
            ArtifactError: No source gave the registered file; the message says why, source by
                source.
        """
        tokenizer = self._file(_Wanted.tokenizer(entry), None)
        return ModelFiles(self._file(_Wanted.model(entry), progress), tokenizer)

    def pin(
        self,
        text: str,
        *,
        limit: int,
        sha256: str | None = None,
        progress: FetchProgress | None = None,
    ) -> tuple[Path, str]:
        """Bring a file that no registry has yet; return where it lies, and its SHA-256.

        A download is kept under its hash, so that a registry entry with it finds it there.

        Args:
            text: Its source, as a registry writes it; no archive.
            limit: Most bytes it may have.
            sha256: What it must be, if a trusted place says so already.
            progress: Follows the download.

        Raises:
            ArtifactError: It could not be had, or is another.
        """
        (step,) = plan((text,), Path(), offline=self.offline)
        if step.action == "impossible":
            raise ArtifactError(f"{text}: {step.reason}")
        if step.action == "use":
            return step.path, self._digest(step.path)
        folder = self.cache_dir / (sha256 or "new")
        target = folder / self._target(step.source, "").name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_name(f"{target.name}.lock")):
                if sha256 and target.is_file() and self._digest(target) == sha256:
                    return target, sha256
                part = target.with_name(f"{target.name}.part")
                part.unlink(missing_ok=True)
                self._download(step.source, part, sha256 or "", limit, progress)
                _refuse_pointer(part)
                actual = _hash(part)
                final = self._target(step.source, actual) if sha256 is None else target
                final.parent.mkdir(parents=True, exist_ok=True)
                return self._publish(part, final, sha256 or actual), actual
        except ArtifactError as error:
            raise ArtifactError(f"{text}: {error}") from error
        except OSError as error:
            raise ArtifactError(
                f"{target} cannot be written ({error.strerror or error}); free some space or set "
                "SHIELD_HOME to another folder"
            ) from error

    def built_path(self, entry: ModelEntry) -> Path:
        """Return where the file of an entry that is built here belongs.

        Raises:
            ArtifactError: The entry names no `build:` source.
        """
        for text in entry.sources:
            source = parse_source(text)
            if source.kind == "built":
                return self._target(source, entry.sha256)
        raise ArtifactError(
            f"{entry.id} {entry.variant.value} is not built here; its sources are "
            f"{', '.join(entry.sources)}"
        )

    def is_present(self, entry: ModelEntry) -> bool:
        """Return whether both files are here already, so that `fetch` would download nothing."""
        return all(
            any(
                step.action == "use" or self._cached(step, wanted.sha256) is not None
                for step in plan(wanted.sources, wanted.root, offline=True)
            )
            for wanted in (_Wanted.model(entry), _Wanted.tokenizer(entry))
        )

    def _file(self, wanted: _Wanted, progress: FetchProgress | None) -> Path:
        steps = plan(wanted.sources, wanted.root, offline=self.offline)
        failures: list[str] = []
        for step, written in zip(steps, wanted.sources, strict=True):
            try:
                cached = self._cached(step, wanted.sha256)
                if cached is not None:
                    return cached
                if step.action == "impossible":
                    raise ArtifactError(step.reason)
                if step.action == "use":
                    self._verify(step.path, wanted.sha256)
                    return step.path
                return self._obtain(step, wanted, progress)
            except ArtifactError as error:
                failures.append(f"{written}: {error}")
                logger.warning("%s: source %s failed: %s", wanted.name, written, error)
        raise ArtifactError(
            f"{wanted.name} could not be had; {'; '.join(failures)}. Restore the file or correct "
            "the registry's source or SHA-256"
        )

    def _cached(self, step: Step, sha256: str) -> Path | None:
        """Return the copy that an earlier fetch wrote, if it is still the registered file."""
        if step.source.kind not in {"url", "built"} and step.source.member is None:
            return None
        path = self._target(step.source, sha256)
        try:
            if not path.is_file():
                return None
            if self._digest(path) == sha256:
                return path
            _set_aside(path, path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read ({error.strerror or error})") from error
        logger.warning("%s was altered; set aside as %s", path, _rejected(path).name)
        return None

    def _target(self, source: Source, sha256: str) -> Path:
        name = PurePosixPath(source.member or urlsplit(source.location).path).name
        return self.cache_dir / sha256 / re.sub(r"[^\w.-]", "_", name)

    def _obtain(self, step: Step, wanted: _Wanted, progress: FetchProgress | None) -> Path:
        """Return the file of a step that writes into the cache."""
        target = self._target(step.source, wanted.sha256)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_name(target.name + ".lock")):
                if target.is_file() and self._digest(target) == wanted.sha256:
                    return target  # another process was faster
                if step.source.member is None:
                    part = target.with_name(f"{target.name}.part")
                    self._download(step.source, part, wanted.sha256, wanted.limit, progress)
                    return self._publish(part, target, wanted.sha256)
                return self._extract(step, step.source.member, target, wanted, progress)
        except OSError as error:
            raise ArtifactError(
                f"{target} cannot be written ({error.strerror or error}); free some space or set "
                "SHIELD_HOME to another folder"
            ) from error

    def _extract(
        self, step: Step, member: str, target: Path, wanted: _Wanted, progress: FetchProgress | None
    ) -> Path:
        """Return the file that is a member of an archive, which is downloaded if it is not here."""
        is_download = step.action == "download"
        archive = step.path
        if is_download:
            archive = target.with_name(f"{target.name}.archive.part")
            # An archive has no hash of its own, so what an earlier process left cannot be told
            # from what the server has now.
            archive.unlink(missing_ok=True)
            limit = wanted.limit + _ARCHIVE_SLACK_BYTES
            self._download(step.source, archive, wanted.sha256, limit, progress)
        unpacked = target.with_name(f"{target.name}.part")
        kind = ".zip" if step.source.location.endswith(".zip") else ".tar.gz"
        try:
            _unpack(archive, kind, member, unpacked, wanted.limit)
            return self._publish(unpacked, target, wanted.sha256)
        except ArtifactError:
            unpacked.unlink(missing_ok=True)
            if is_download and archive.exists():
                _set_aside(archive, target)
            raise
        finally:
            if is_download:
                archive.unlink(missing_ok=True)

    def _publish(self, part: Path, target: Path, sha256: str) -> Path:
        """Move a finished file to its name, if it is the registered one."""
        actual = _hash(part)
        if actual != sha256:
            _set_aside(part, target)
            raise ArtifactError(
                f"SHA-256 is {actual}, registered is {sha256}; set aside as "
                f"{_rejected(target).name} in {target.parent}"
            )
        os.replace(part, target)
        _sync_folder(target.parent)
        with self._lock:
            self._digests[_identity(target)] = actual
        return target

    def _verify(self, path: Path, sha256: str) -> None:
        try:
            actual = self._digest(path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read ({error.strerror or error})") from error
        if actual != sha256:
            raise ArtifactError(f"{path} has SHA-256 {actual}, registered is {sha256}")

    def _digest(self, path: Path) -> str:
        """Return the file's SHA-256, computed once per path, size and time of change."""
        key = _identity(path)
        with self._lock:
            known = self._digests.get(key)
        if known is None:
            known = _hash(path)
            with self._lock:
                self._digests[key] = known
        return known

    def _download(
        self, source: Source, part: Path, sha256: str, limit: int, progress: FetchProgress | None
    ) -> None:
        """Fill `part`, going on from what an earlier try left of the same file."""
        import httpx
        import stamina

        resumed = part.exists() and part.stat().st_size > 0
        try:
            with open_client(source.location, self._timeout_s, self.hub_token) as client:
                for attempt in stamina.retry_context(
                    on=_is_worth_a_retry, attempts=self._attempts, timeout=None, wait_max=20.0
                ):
                    with attempt:
                        _transfer(client, source.location, part, limit, progress)
        except httpx.HTTPStatusError as error:
            raise ArtifactError(refusal(error.response)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ArtifactError(
                f"the transfer failed after {self._attempts} tries: "
                f"{str(error) or type(error).__name__}"
            ) from error
        if resumed and source.member is None and _hash(part) != sha256:
            # The server's file changed since the earlier process stopped: begin again, once.
            part.unlink()
            self._download(source, part, sha256, limit, progress)


def _is_worth_a_retry(error: Exception) -> bool:
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status == 429 or status >= 500
    return isinstance(error, httpx.TransportError) and not isinstance(
        error, (httpx.UnsupportedProtocol, httpx.ProxyError)
    )


def _transfer(
    client: httpx.Client, url: str, part: Path, limit: int, progress: FetchProgress | None
) -> None:
    import httpx

    have = part.stat().st_size if part.exists() else 0
    # Content coding would make lengths and ranges those of the compressed bytes.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:  # nothing is left: the part is whole, or too long
            if _whole_length(response) == have:
                return
            part.unlink()
            raise httpx.RemoteProtocolError("the part on disk did not fit; beginning again")
        response.raise_for_status()
        if response.status_code == 206 and _range_start(response) != have:
            part.unlink(missing_ok=True)
            raise httpx.RemoteProtocolError("the server sent another range than asked for")
        done = have if response.status_code == 206 else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        if total is not None and total > limit:
            raise ArtifactError(f"the server announces {total} bytes; at most {limit} are expected")
        with part.open("ab" if done else "wb") as file:
            if progress is not None:
                progress(done, total)
            for chunk in response.iter_bytes():
                done += len(chunk)
                if done > limit:
                    raise ArtifactError(
                        f"the server sends more than the {limit} bytes that are expected"
                    )
                file.write(chunk)
                if progress is not None:
                    progress(done, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done != total:
            raise httpx.RemoteProtocolError(f"{done} of {total} bytes arrived")


def _range_start(response: httpx.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else None


def _whole_length(response: httpx.Response) -> int | None:
    match = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else None


def _unpack(archive: Path, kind: str, member: str, target: Path, limit: int) -> None:
    """Copy one regular file out of an archive; its other members are never written.

    Only the named member is read, so a path that climbs out of the folder cannot be written; links
    and devices under that name are refused.
    """
    try:
        if kind == ".zip":
            with zipfile.ZipFile(archive) as packed:
                info = packed.getinfo(member)
                is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
                if info.is_dir() or is_link:
                    raise ArtifactError(f"{member} in the archive is not a regular file")
                with packed.open(info) as stream:
                    _copy(stream, target, limit)
        else:
            with tarfile.open(archive, "r:gz") as bundle:
                entry = bundle.getmember(member)
                content = bundle.extractfile(entry) if entry.isreg() else None
                if content is None:
                    raise ArtifactError(f"{member} in the archive is not a regular file")
                with content as stream:
                    _copy(stream, target, limit)
    except KeyError as error:
        raise ArtifactError(f"the archive has no file {member}") from error
    except _UNREADABLE as error:
        raise ArtifactError(f"the archive cannot be read: {error}") from error


def _copy(stream: IO[bytes], target: Path, limit: int) -> None:
    done = 0
    with target.open("wb") as file:
        while chunk := stream.read(_CHUNK_BYTES):
            done += len(chunk)
            if done > limit:
                raise ArtifactError(f"the archive's file is larger than {limit} bytes")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ArtifactError(
                "the server sent a git-LFS pointer in place of the file; fetch the repository "
                "with git lfs pull and add the file from this machine"
            )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _identity(path: Path) -> tuple[str, int, int, int]:
    stat = path.stat()
    return str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns


def _rejected(target: Path) -> Path:
    return target.with_name(target.name + ".rejected")


def _set_aside(bad: Path, target: Path) -> None:
    os.replace(bad, _rejected(target))


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # other systems cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes and threads."""
    with path.open("ab") as file:
        if os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
