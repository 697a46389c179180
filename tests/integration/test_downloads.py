"""Model files arrive whole and verified, or not at all, from a server that fails on purpose."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stamina

from shield_engine.errors import ArtifactError
from shield_engine.ml import ArtifactStore, InferenceEngine, ModelEntry, ModelLoader, ModelRegistry
from shield_engine.ml.download import plan
from shield_engine.ml.sources import parse_source
from tests import tiny_models

BODY = bytes(range(256)) * 1200  # 307 kB: several network reads
SHA = hashlib.sha256(BODY).hexdigest()


@dataclass
class Site:
    """What the server gives, and what it was asked.

    Attributes:
        files: Path → content.
        faults: Taken one per request, in order: a status, or the name of a misbehaviour.
        ranges: Honour `Range`.
        asked: (path, Range header) of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[int | str] = field(default_factory=list)
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, asked_range = self.site, self.headers.get("Range")
        site.asked.append((self.path, asked_range))
        fault = site.faults.pop(0) if site.faults else None
        body = site.files.get(self.path)
        if isinstance(fault, int) or body is None:
            self._head(fault if isinstance(fault, int) else 404, 0)
            return
        if fault == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://models.example/x")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(asked_range[6:-1]) if asked_range and site.ranges else 0
        if start and start >= len(body):
            self._head(416, 0, f"bytes */{len(body)}")
            return
        if fault == "corrupt":
            body = body[:-1] + b"?"
        part = body[start:]
        where = f"bytes {start}-{len(body) - 1}/{len(body)}" if start else None
        if fault == "wrong_range" and start:
            part = body
            where = f"bytes 0-{len(body) - 1}/{len(body)}"
        self._head(206 if start else 200, len(part), where)
        if fault == "truncate":
            part = part[: len(part) // 2]
            self.close_connection = True
        self.wfile.write(part)

    def _head(self, status: int, length: int, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Keep the test's output clean."""


@pytest.fixture
def site() -> Iterator[Site]:
    """Serve `site.files` on this machine."""
    site = Site(files={"/model.onnx": BODY})
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    with stamina.set_testing(True, attempts=4):  # keeps the tries, drops the waiting
        yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def entry(tmp_path: Path, site: Site) -> ModelEntry:
    """Return an entry whose model is on the server and whose tokenizer is bundled."""
    row = tiny_models.build(tmp_path / "registry") | {
        "sources": [f"{site.address}/model.onnx"],
        "sha256": SHA,
        "size_bytes": len(BODY),
    }
    return ModelRegistry.load(tiny_models.write_registry(tmp_path / "registry", row)).entries[0]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """Return a store with an empty cache that may download."""
    return ArtifactStore(tmp_path / "cache", timeout_s=5)


def _written(store: ArtifactStore) -> set[str]:
    """Return the names in the cache, locks aside."""
    return {
        path.name
        for path in store.cache_dir.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_download_is_verified_kept_and_reported(
    store: ArtifactStore, entry: ModelEntry, site: Site
) -> None:
    """The file arrives whole, progress rises to its size, and a second fetch asks nobody."""
    seen: list[tuple[int, int | None]] = []
    files = store.fetch(entry, lambda done, total: seen.append((done, total)))
    assert files.model.read_bytes() == BODY
    assert _written(store) == {"model.onnx"}
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert store.fetch(entry).model == files.model
    assert ArtifactStore(store.cache_dir, offline=True).fetch(entry).model == files.model
    assert len(site.asked) == 1


@pytest.mark.parametrize("faults", [[500], [503, 429], ["truncate"], ["truncate", 500, "truncate"]])
def test_passing_trouble_is_retried(
    store: ArtifactStore, entry: ModelEntry, site: Site, faults: list[int | str]
) -> None:
    """Errors of the server and broken connections are tried again until the file is whole."""
    site.faults = list(faults)
    assert store.fetch(entry).model.read_bytes() == BODY
    assert len(site.asked) == len(faults) + 1


def test_broken_transfer_is_resumed(store: ArtifactStore, entry: ModelEntry, site: Site) -> None:
    """After half of the file the next try asks only for the rest."""
    site.faults = ["truncate"]
    assert store.fetch(entry).model.read_bytes() == BODY
    assert site.asked == [
        ("/model.onnx", None),
        ("/model.onnx", f"bytes={len(BODY) // 2}-"),
    ]


@pytest.mark.parametrize("fault", [None, "wrong_range"])
def test_server_without_ranges_is_read_from_the_start(
    store: ArtifactStore, entry: ModelEntry, site: Site, fault: str | None
) -> None:
    """A server that ignores `Range`, or answers with another one, does not spoil the file."""
    site.ranges = fault is not None
    site.faults = ["truncate", fault] if fault else ["truncate"]
    assert store.fetch(entry).model.read_bytes() == BODY


def test_part_of_an_earlier_process_is_continued(
    store: ArtifactStore, entry: ModelEntry, site: Site
) -> None:
    """What a killed process left is the start of the file, and a whole part needs no byte more."""
    folder = store.cache_dir / SHA
    folder.mkdir(parents=True)
    (folder / "model.onnx.part").write_bytes(BODY[:1000])
    assert store.fetch(entry).model.read_bytes() == BODY
    assert site.asked == [("/model.onnx", "bytes=1000-")]
    (folder / "model.onnx").rename(folder / "model.onnx.part")
    assert store.fetch(entry).model.read_bytes() == BODY
    assert site.asked[-1] == ("/model.onnx", f"bytes={len(BODY)}-")


@pytest.mark.parametrize("left", [b"?" * 1000, b"?" * (len(BODY) + 5)])
def test_foreign_part_is_thrown_away(store: ArtifactStore, entry: ModelEntry, left: bytes) -> None:
    """A part that belongs to another file, or is too long, costs one more download, no error."""
    folder = store.cache_dir / SHA
    folder.mkdir(parents=True)
    (folder / "model.onnx.part").write_bytes(left)
    assert store.fetch(entry).model.read_bytes() == BODY


def test_corrupt_file_is_set_aside(store: ArtifactStore, entry: ModelEntry, site: Site) -> None:
    """A file of the wrong hash is renamed, named in the error, and never at its final path."""
    site.faults = ["corrupt"]
    with pytest.raises(ArtifactError, match=rf"registered is {SHA}; set aside as model.onnx.rej"):
        store.fetch(entry)
    assert _written(store) == {"model.onnx.rejected"}
    assert store.fetch(entry).model.read_bytes() == BODY


def test_next_mirror_is_tried(
    store: ArtifactStore, entry: ModelEntry, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing file and a corrupt one each lead to the next mirror, with a warning each."""
    site.files["/bad.onnx"] = BODY[::-1]
    names = ("gone.onnx", "bad.onnx", "model.onnx")
    mirrored = replace(entry, sources=tuple(f"{site.address}/{name}" for name in names))
    assert store.fetch(mirrored).model.read_bytes() == BODY
    assert [path for path, _ in site.asked] == ["/gone.onnx", "/bad.onnx", "/model.onnx"]
    warnings = [record.getMessage() for record in caplog.records if "source" in record.msg]
    assert ["404" in warnings[0], "SHA-256" in warnings[1]] == [True, True]


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (500, 4)])
def test_lasting_trouble_is_an_error_with_the_answer(
    store: ArtifactStore, entry: ModelEntry, site: Site, status: int, tries: int
) -> None:
    """A refusal is not repeated, a server error is; both end as an error that says the answer."""
    site.faults = [status] * 10
    with pytest.raises(ArtifactError, match=f"the server answered {status}"):
        store.fetch(entry)
    assert len(site.asked) == tries
    assert _written(store) == set()


def test_unreachable_server_is_an_error(
    store: ArtifactStore, entry: ModelEntry, site: Site
) -> None:
    """Where nobody listens the message says that the transfer failed."""
    unused = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    port = unused.server_port
    unused.server_close()
    moved = replace(entry, sources=(f"http://127.0.0.1:{port}/model.onnx",))
    with pytest.raises(ArtifactError, match="the transfer failed after"):
        store.fetch(moved)
    assert site.asked == []


def test_offline_asks_nobody(store: ArtifactStore, entry: ModelEntry, site: Site) -> None:
    """The offline switch refuses before any connection and says so."""
    with pytest.raises(ArtifactError, match="offline is on"):
        ArtifactStore(store.cache_dir, offline=True).fetch(entry)
    assert site.asked == []
    assert _written(store) == set()


def test_longer_body_than_registered_is_cut_off(
    store: ArtifactStore, entry: ModelEntry, site: Site
) -> None:
    """A server that offers more than the registered size is not downloaded."""
    site.files["/model.onnx"] = BODY * 2
    with pytest.raises(ArtifactError, match=f"announces {2 * len(BODY)} bytes; at most"):
        store.fetch(entry)
    assert _written(store) == set()


def test_redirect_out_of_tls_is_refused(
    store: ArtifactStore, entry: ModelEntry, site: Site
) -> None:
    """A redirect to a plain http address elsewhere ends the transfer."""
    site.faults = ["redirect"]
    with pytest.raises(ArtifactError, match=r"redirected to http://models\.example"):
        store.fetch(entry)


def test_altered_copy_is_set_aside_and_fetched_again(
    store: ArtifactStore, entry: ModelEntry, site: Site
) -> None:
    """A cached file that changed on disk is never used; online it is replaced, offline an error."""
    path = store.fetch(entry).model
    path.write_bytes(BODY[:-1] + b"!")
    with pytest.raises(ArtifactError, match="offline is on"):
        ArtifactStore(store.cache_dir, offline=True).fetch(entry)
    assert not path.exists()
    assert _written(store) == {"model.onnx.rejected"}
    path.write_bytes(b"again altered")
    assert store.fetch(entry).model.read_bytes() == BODY
    assert len(site.asked) == 2


def test_threads_download_once(store: ArtifactStore, entry: ModelEntry, site: Site) -> None:
    """Six stores on one folder, in six threads, cost one transfer."""
    stores = [ArtifactStore(store.cache_dir) for _ in range(6)]
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda each=each: paths.append(each.fetch(entry).model))
        for each in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 6
    assert len(site.asked) == 1


def _tar(member: str, body: bytes, link: str | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as bundle:
        other = tarfile.TarInfo("../../outside.txt")
        bundle.addfile(other)
        info = tarfile.TarInfo(member)
        if link is None:
            info.size = len(body)
            bundle.addfile(info, io.BytesIO(body))
        else:
            info.type, info.linkname = tarfile.SYMTYPE, link
            bundle.addfile(info)
    return packed.getvalue()


def _zip(member: str, body: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("../../outside.txt", b"x")
        bundle.writestr(member, body)
    return packed.getvalue()


@pytest.mark.parametrize(("name", "pack"), [("m.tar.gz", _tar), ("m.tgz", _tar), ("m.zip", _zip)])
@pytest.mark.parametrize("remote", [True, False])
def test_one_file_is_taken_from_an_archive(
    store: ArtifactStore,
    entry: ModelEntry,
    site: Site,
    name: str,
    pack: Callable[[str, bytes], bytes],
    remote: bool,
) -> None:
    """Only the named member is written, whatever else the archive would like to write."""
    packed = pack("deep/model.onnx", BODY)
    site.files[f"/{name}"] = packed
    (entry.root / name).write_bytes(packed)
    source = f"{site.address}/{name}" if remote else name
    found = store.fetch(replace(entry, sources=(f"{source}#deep/model.onnx",))).model
    assert found.read_bytes() == BODY
    assert _written(store) == {"model.onnx"}
    assert (entry.root / name).read_bytes() == packed
    assert not list(store.cache_dir.parent.rglob("outside.txt"))


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (_tar("other.onnx", BODY), "the archive has no file model.onnx"),
        (_tar("model.onnx", b"", link="/etc/hostname"), "not a regular file"),
        (_tar("model.onnx", BODY + b"?"), f"larger than {len(BODY)} bytes"),
        (_tar("model.onnx", BODY[:-1] + b"?"), "registered is"),
        (gzip.compress(b"no archive"), "the archive cannot be read"),
        (b"plain", "the archive cannot be read"),
        (_tar("model.onnx", BODY)[:-300], "the archive cannot be read"),
    ],
)
def test_bad_archive_is_an_error(
    store: ArtifactStore, entry: ModelEntry, site: Site, packed: bytes, message: str
) -> None:
    """Missing members, links, oversized, altered and broken archives leave no model behind."""
    site.files["/m.tar.gz"] = packed
    source = f"{site.address}/m.tar.gz#model.onnx"
    with pytest.raises(ArtifactError, match=message):
        store.fetch(replace(entry, sources=(source,)))
    assert _written(store) <= {"model.onnx.rejected"}


def test_bundled_file_and_package_sources_are_used_in_place(
    tmp_path: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local files are verified where they are and not copied."""
    root = tmp_path / "registry"
    row = tiny_models.build(root)
    package = tmp_path / "site" / "tiny_package" / "files"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise RuntimeError('must not run')\n")
    (package / "m.onnx").write_bytes((root / "tiny.onnx").read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for source, path in [
        ("tiny.onnx", root / "tiny.onnx"),
        (f"file://{root}/tiny.onnx", root / "tiny.onnx"),
        ("package:tiny_package/files/m.onnx", package / "m.onnx"),
    ]:
        registry = tiny_models.write_registry(root, row | {"sources": [source]})
        assert store.fetch(ModelRegistry.load(registry).entries[0]).model == path
    assert not store.cache_dir.exists()


def test_altered_bundled_model_is_refused_and_left_alone(
    tmp_path: Path, store: ArtifactStore
) -> None:
    """A model file that this store did not write is not renamed, only never loaded."""
    root = tmp_path / "registry"
    registry = ModelRegistry.load(tiny_models.write_registry(root, tiny_models.build(root)))
    path = root / "tiny.onnx"
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(ArtifactError, match=r"model tiny FP32 could not be had; tiny\.onnx: .*has"):
        ModelLoader(registry, store).load(registry.entries[0])
    assert path.exists()


def test_altered_tokenizer_is_refused(tmp_path: Path, store: ArtifactStore) -> None:
    """The tokenizer is verified like the model, and named as such."""
    root = tmp_path / "registry"
    registry = ModelRegistry.load(tiny_models.write_registry(root, tiny_models.build(root)))
    with (root / "tiny.tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ArtifactError, match="tokenizer of tiny FP32 could not be had"):
        store.fetch(registry.entries[0])


def test_full_disk_or_closed_folder_is_an_error(tmp_path: Path, entry: ModelEntry) -> None:
    """A cache folder that cannot be made is named, with the setting that moves it."""
    (tmp_path / "blocked").write_text("a file stands where the folder should be")
    with pytest.raises(ArtifactError, match=r"cannot be written .* SHIELD_HOME"):
        ArtifactStore(tmp_path / "blocked").fetch(entry)


def test_downloaded_model_scores(tmp_path: Path, site: Site) -> None:
    """The whole way: registry, download, load, score."""
    root = tmp_path / "registry"
    row = tiny_models.build(root)
    for key in ("onnx", "tokenizer.json"):
        site.files[f"/tiny.{key}"] = (root / f"tiny.{key}").read_bytes()
        (root / f"tiny.{key}").unlink()
    row |= {
        "sources": [f"{site.address}/tiny.onnx"],
        "tokenizer_sources": [f"{site.address}/tiny.tokenizer.json"],
    }
    registry = ModelRegistry.load(tiny_models.write_registry(root, row))
    model = ModelLoader(registry, ArtifactStore(tmp_path / "cache")).load(registry.entries[0])
    with InferenceEngine(model, threads=1) as engine:
        assert engine.infer("ignore").score > 0.9


def test_hub_source_is_pinned_and_resolved() -> None:
    """A hub source names a commit and becomes an https address; a branch is refused."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    source = parse_source(f"hf:owner/name@{commit}/onnx/model.onnx")
    assert source.kind == "url"
    assert re.fullmatch(
        rf"https://[\w.]+/owner/name/resolve/{commit}/onnx/model\.onnx", source.location
    )
    with pytest.raises(ValueError, match="commit of 40 digits"):
        parse_source("hf:owner/name@main/model.onnx")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("../outside.onnx", "leaves the folder"),
        ("/etc/passwd", "leaves the folder"),
        ("ftp://host/x", "a source is a path"),
        ("https:///x", "names no host"),
        ("https://user:word@host/x", "a password in the address of host"),
        ("http://host/x", "this machine only"),
        ("file://host/x", "file:///absolute/path"),
        ("package:name/../x", "package:NAME/path"),
        ("package:name", "package:NAME/path"),
        ("models.tar.gz", "without a member"),
        ("model.onnx#x", "only archives"),
        ("models.zip#../x", "a path inside them"),
        ("", "leaves the folder"),
    ],
)
def test_source_that_cannot_be_meant_is_refused(text: str, message: str) -> None:
    """Each source is checked when the registry is read, before anything is fetched."""
    with pytest.raises(ValueError, match=message):
        parse_source(text)


def test_presence_is_known_without_asking(
    store: ArtifactStore, entry: ModelEntry, site: Site
) -> None:
    """A model is present once both files are here, which nobody is asked for."""
    assert not store.is_present(entry)
    assert site.asked == []
    store.fetch(entry)
    assert store.is_present(entry)
    (entry.root / "tiny.tokenizer.json").unlink()
    assert not store.is_present(entry)


def test_plan_decides_without_acting(tmp_path: Path) -> None:
    """What is needed is known from the disk and the switch alone."""
    (tmp_path / "here.onnx").write_bytes(b"x")
    sources = ("here.onnx", "gone.onnx", "package:no_such_package_here/x", "https://host/x")
    online = [step.action for step in plan(sources, tmp_path, offline=False)]
    offline = [step.action for step in plan(sources, tmp_path, offline=True)]
    assert online == ["use", "impossible", "impossible", "download"]
    assert offline == ["use", "impossible", "impossible", "impossible"]
