"""A model becomes a guard in one step: from a hub (a local server in its shape) or this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnxruntime
import pytest

from shield_engine import Shield
from shield_engine.errors import ArtifactError, ConfigError, RegistryError
from shield_engine.guards import OnnxEntry, read_guards
from shield_engine.guards.catalogue import known_models
from shield_engine.guards.onnx import NewOnnx, add_onnx, remove_onnx
from shield_engine.guards.probes import ATTACKS, HARMLESS
from shield_engine.ml import ModelRegistry, sources
from shield_engine.settings import Settings
from shield_engine.types import LABELS, Task, Variant
from tests import tiny_models

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "maker/tiny-guard"
GOOD, OTHER = "token-of-a-reader", "token-of-nobody"
RISKY = ("ignore", "previous", "instructions", "and", "prompt")
PLAIN = ("how", "i", "boil", "an", "egg", "the")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"


@dataclass
class Hub:
    """What the server has, and what it was asked.

    Attributes:
        files: Path in the repository → content; ONNX files lie outside it, as large files do.
        gated: Give files only to the token `GOOD`.
        status: What any request for a file is answered with, in place of it.
        hashes: Say of large files what they should be, where that differs.
        asked: (host, path, Authorization) of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    status: int | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    port: int = 0

    def description(self) -> dict[str, Any]:
        """Return what the API says of the repository."""
        siblings = []
        for path, body in self.files.items():
            item: dict[str, Any] = {"rfilename": path, "size": len(body), "blobId": "0" * 40}
            if path.endswith(".onnx"):
                digest = self.hashes.get(path, hashlib.sha256(body).hexdigest())
                item["lfs"] = {"sha256": digest, "size": len(body), "pointerSize": 134}
            siblings.append(item)
        return {
            "id": NAME,
            "sha": COMMIT,
            "gated": "manual" if self.gated else False,
            "siblings": siblings,
            "tags": ["onnx", "license:mit"],
        }


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        token = self.headers.get("Authorization")
        hub.asked.append((self.headers["Host"].partition(":")[0], path, token))
        if path.startswith(f"/api/models/{NAME}"):
            self._send(200, json.dumps(hub.description()).encode())
        elif path.startswith("/api/models/maker/old-name"):
            self._send(307, b"", Location=f"/api/models/{NAME}?blobs=true")
        elif path.startswith("/api/models/"):
            self._send(401, b"{}", **{"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/cdn/"):
            self._send(200, hub.files[path.removeprefix("/cdn/")])
        elif hub.gated and token != f"Bearer {GOOD}":
            status = 403 if token else 401
            self._send(status, b"{}", **{"X-Error-Code": "GatedRepo"})
        elif hub.status:
            self._send(hub.status, b"{}")
        else:
            inside = path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")
            if inside.endswith(".onnx"):
                # Another host, as the hub's store of large files is.
                self._send(302, b"", Location=f"http://localhost:{hub.port}/cdn/{inside}")
            else:
                self._send(200, hub.files[inside])

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def pushing(risky: str, plain: str) -> dict[str, str]:
    """Return what an attack's and a harmless text's words push up."""
    return dict.fromkeys(RISKY, risky) | dict.fromkeys(PLAIN, plain)


def model_files(folder: Path, **options: Any) -> dict[str, bytes]:
    """Return the files of a tiny model's repository."""
    labels = options.pop("labels", ("SAFE", "INJECTION"))
    config = options.pop("config", {})
    risky = options.pop("risky", pushing(labels[-1], labels[0]))
    tiny_models.build(folder, labels=labels, risky=risky, **options)
    table = {str(position): label for position, label in enumerate(labels)}
    config = {"id2label": table, "max_position_embeddings": 64, "model_type": "bert"} | config
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": (folder / "tiny.tokenizer.json").read_bytes(),
        "onnx/model.onnx": (folder / "tiny.onnx").read_bytes(),
        "README.md": b"# tiny",
    }


def local_files(folder: Path, **options: Any) -> Path:
    """Write a tiny model into a folder of this machine and return its ONNX file."""
    for place, body in model_files(folder / "made", **options).items():
        (folder / Path(place).name).write_bytes(body)
    return folder / "model.onnx"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a repository in the hub's shape."""
    hub = Hub(model_files(tmp_path / "repository"))
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.port = server.server_address[1]
    monkeypatch.setattr(sources, "HUB", f"http://127.0.0.1:{hub.port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings with a home of their own."""
    return Settings(home=tmp_path / "home")


def refused(new: NewOnnx, settings: Settings, error: type[Exception] = ConfigError) -> str:
    """Add a model that cannot be; return the message, having seen that nothing was written."""
    with pytest.raises(error) as caught:
        add_onnx(new, settings)
    assert not settings.registry_path.exists()
    assert not settings.guards_path.exists()
    return str(caught.value)


def test_a_hub_model_is_added_and_scores_without_a_restart(hub: Hub, settings: Settings) -> None:
    """One step writes both entries; an engine that runs already has the guard."""
    shield = Shield.create(settings)
    assert "tiny-guard" not in shield.guards
    added = add_onnx(NewOnnx(source=f"hf:{NAME}"), settings)
    assert added.attack > added.harmless
    assert added.notes == ()
    assert added.model.sources == (f"hf:{NAME}@{COMMIT}/onnx/model.onnx",)
    assert added.model.sha256 == hashlib.sha256(hub.files["onnx/model.onnx"]).hexdigest()
    assert (added.model.licence, added.model.revision) == ("mit", COMMIT)
    assert (added.model.max_length, added.model.stride) == (64, 16)
    assert added.model.label_map == {"SAFE": "benign", "INJECTION": "injection"}
    entry = shield.guard("tiny-guard", Task.PROMPT_INJECTION)
    assert isinstance(entry, OnnxEntry)
    assert (entry.version, entry.variant) == (COMMIT[:12], Variant.FP32)
    score = shield.guard_part(entry).ask(ATTACKS[Task.PROMPT_INJECTION][0]).score
    assert score == pytest.approx(added.attack)
    shield.close()


def test_a_model_is_checked_through_the_engine(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's guard answers every probe; its scores depend on the text alone."""
    monkeypatch.setattr("shield_engine.guards.probes._MEGABYTE", 20_000)
    added = add_onnx(NewOnnx(source=str(local_files(tmp_path)), name="mine"), settings)
    shield = Shield.create(settings)
    probes = {probe.name: probe for probe in shield.check_guard(added.guard)}
    shield.close()
    assert len(probes) == 13
    assert all(probes[name].passed for name in ("side", "repeat", "order", "empty", "characters"))
    assert probes["batch"].passed is None


def test_a_revision_is_pinned_to_its_commit(hub: Hub, settings: Settings) -> None:
    """A branch or tag is asked for by name and written down by commit."""
    added = add_onnx(NewOnnx(source=f"hf:{NAME}@refs/pr/1", name="pinned"), settings)
    assert hub.asked[0][1] == f"/api/models/{NAME}/revision/refs%2Fpr%2F1"
    assert f"@{COMMIT}/" in added.model.sources[0]


def test_a_renamed_repository_is_followed(hub: Hub, settings: Settings) -> None:
    """The hub redirects an old name; the new one is written."""
    added = add_onnx(NewOnnx(source="hf:maker/old-name"), settings)
    assert added.model.sources[0].startswith(f"hf:{NAME}@")


def test_a_gated_model_says_what_to_do(hub: Hub, settings: Settings) -> None:
    """Without a token, and with one that has no access yet, the message names the next step."""
    hub.gated = True
    message = refused(NewOnnx(source=f"hf:{NAME}"), settings, ArtifactError)
    assert "gated" in message
    assert f"accept its terms at {sources.HUB}/{NAME}" in message
    assert "export HF_TOKEN=" in message
    other = replace(settings, hub_token=OTHER)
    message = refused(NewOnnx(source=f"hf:{NAME}"), other, ArtifactError)
    assert "the token of HF_TOKEN belongs to that account" in message


def test_a_token_goes_to_the_hub_alone(hub: Hub, settings: Settings) -> None:
    """A gated model is fetched with a token, which the store of large files never sees."""
    hub.gated = True
    token = replace(settings, hub_token=GOOD)
    add_onnx(NewOnnx(source=f"hf:{NAME}"), token)
    assert {host for host, _, value in hub.asked if value} == {"127.0.0.1"}
    assert {host for host, _, value in hub.asked if not value} == {"localhost"}
    assert GOOD not in repr(token)
    written = settings.registry_path.read_text() + settings.guards_path.read_text()
    assert "Bearer" not in written


def test_an_unknown_repository_says_so(hub: Hub, settings: Settings) -> None:
    """The hub answers 401 for what is not there; the message says both."""
    message = refused(NewOnnx(source="hf:maker/nothing"), settings, ArtifactError)
    assert "there is no such model, or it is private or gated" in message


def test_a_missing_file_says_so(hub: Hub, settings: Settings) -> None:
    """A 404 names the repository."""
    hub.status = 404
    message = refused(NewOnnx(source=f"hf:{NAME}"), settings, ArtifactError)
    assert "404" in message
    assert f"check name and revision at {sources.HUB}/{NAME}" in message


def test_a_pointer_is_not_taken_for_the_file(hub: Hub, settings: Settings) -> None:
    """A git-LFS pointer in place of the file is refused with its own message."""
    hub.files["tokenizer.json"] = POINTER
    message = refused(NewOnnx(source=f"hf:{NAME}"), settings, ArtifactError)
    assert "git-LFS pointer" in message


def test_another_file_than_announced_is_refused(hub: Hub, settings: Settings) -> None:
    """What does not have the hash that the hub announced is not kept."""
    hub.hashes["onnx/model.onnx"] = "ab" * 32
    message = refused(NewOnnx(source=f"hf:{NAME}"), settings, ArtifactError)
    assert "SHA-256" in message


def test_offline_nothing_is_asked(hub: Hub, settings: Settings) -> None:
    """Offline the hub is not asked."""
    message = refused(NewOnnx(source=f"hf:{NAME}"), replace(settings, offline=True), ArtifactError)
    assert "offline" in message
    assert hub.asked == []


@pytest.mark.parametrize(
    ("paths", "file", "words"),
    [
        ((), None, "optimum-cli export onnx"),
        (("a.onnx", "b.onnx"), None, "--file: a.onnx, b.onnx"),
        (("model.onnx", "model.onnx_data"), None, "no ONNX file in one piece"),
        (("a.onnx",), "c.onnx", "no ONNX file c.onnx in one piece; it has a.onnx"),
    ],
)
def test_a_repository_without_one_usable_file(
    hub: Hub, settings: Settings, paths: tuple[str, ...], file: str | None, words: str
) -> None:
    """No file, several, or weights beside the file: the message says what to do."""
    body = hub.files.pop("onnx/model.onnx")
    hub.files |= dict.fromkeys(paths, body)
    assert words in refused(NewOnnx(source=f"hf:{NAME}", file=file), settings)


def test_a_named_file_is_taken(hub: Hub, settings: Settings) -> None:
    """`--file` chooses, and its name tells the precision."""
    hub.files["onnx/model_quantized.onnx"] = hub.files["onnx/model.onnx"]
    new = NewOnnx(source=f"hf:{NAME}", file="onnx/model_quantized.onnx")
    assert add_onnx(new, settings).model.variant is Variant.INT8


def test_a_changed_file_is_refused(hub: Hub, settings: Settings) -> None:
    """What was pinned is verified: neither an altered copy nor another file of the server runs."""
    added = add_onnx(NewOnnx(source=f"hf:{NAME}"), settings)
    copy = settings.models / added.model.sha256 / "model.onnx"
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    hub.files["onnx/model.onnx"] += b"changed"
    with pytest.raises(ArtifactError, match=r"bytes|SHA-256"):
        Shield.create(settings).inference(added.model)


def test_a_changed_local_file_is_refused(tmp_path: Path, settings: Settings) -> None:
    """A file of this machine is pinned, too."""
    path = local_files(tmp_path)
    added = add_onnx(NewOnnx(source=str(path), name="local"), settings)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="registered is"):
        Shield.create(settings).inference(added.model)


def test_unclear_labels_are_asked_for(tmp_path: Path, settings: Settings) -> None:
    """LABEL_0 and LABEL_1 mean nothing: the message names the option and what a try tells."""
    path = str(local_files(tmp_path, labels=("LABEL_0", "LABEL_1")))
    assert "--task" in refused(NewOnnx(source=path), settings)
    message = refused(NewOnnx(source=path, task=Task.PROMPT_INJECTION), settings)
    assert "LABEL_1 is the higher on an attack" in message
    assert "--labels benign,injection" in message
    new = NewOnnx(
        source=path, task=Task.PROMPT_INJECTION, labels="LABEL_1=injection,LABEL_0=benign"
    )
    added = add_onnx(new, settings)
    assert added.attack > 0.5 > added.harmless


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("benign", "1 labels, the model 2"),
        ("benign,evil", "'evil'"),
        ("SAFE=benign", "wrong: INJECTION"),
    ],
)
def test_labels_that_do_not_fit(
    tmp_path: Path, settings: Settings, labels: str, words: str
) -> None:
    """Too few, unknown or unnamed labels are named."""
    new = NewOnnx(source=str(local_files(tmp_path)), labels=labels, task=Task.PROMPT_INJECTION)
    assert words in refused(new, settings)


def test_turned_labels_are_found(tmp_path: Path, settings: Settings) -> None:
    """A model that calls its attacks safe is not added on its word; the user's word counts."""
    path = str(local_files(tmp_path, risky=pushing("SAFE", "INJECTION")))
    assert "look turned round" in refused(NewOnnx(source=path), settings)
    added = add_onnx(NewOnnx(source=path, labels="injection,benign"), settings)
    assert added.attack > added.harmless


def test_a_calibrated_two_headed_model_scores_as_its_package(
    tmp_path: Path, settings: Settings
) -> None:
    """First logit the attack, temperature 2.41, as StackOne's: the score is that of its formula."""
    path = local_files(tmp_path, labels=("main", "aux"), risky=pushing("main", "aux"))
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}')
    calibration = {"calibration": {"temperatureT": 2.41, "highRiskThreshold": 0.52}}
    (tmp_path / "classifier_config.json").write_text(json.dumps(calibration))
    new = NewOnnx(
        source=str(path),
        tokenizer=tmp_path / "tokenizer.json",
        task=Task.PROMPT_INJECTION,
        labels="injection,benign",
        head="sigmoid",
    )
    added = add_onnx(new, settings)
    assert (added.model.temperature, added.guard.threshold) == (2.41, 0.52)
    tokenizer = tiny_models.make_tokenizer("wordpiece")
    session = onnxruntime.InferenceSession(str(path))
    shield = Shield.create(settings)
    part = shield.guard_part(added.guard)
    for text in (*ATTACKS[Task.PROMPT_INJECTION], *HARMLESS[Task.PROMPT_INJECTION]):
        ids = np.asarray([tokenizer.encode(text).ids[:64]], dtype=np.int64)
        if ids.shape[1] == 64:
            continue  # more than one window
        (logits,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        expected = 1 / (1 + np.exp(-float(logits[0, 0]) / 2.41))
        assert part.ask(text).score == pytest.approx(expected, abs=1e-6)
    assert part.ask(ATTACKS[Task.PROMPT_INJECTION][0]).score != pytest.approx(0.5, abs=0.01)


def test_stackone_scores_as_its_package(settings: Settings) -> None:
    """The file that stackone-defender carries is one name, and scores as the package does."""
    package = pytest.importorskip("stackone_defender.classifiers.onnx_classifier")
    added = add_onnx(NewOnnx(source="stackone"), settings)
    assert added.model.temperature == 2.41
    classifier = package.OnnxClassifier(temperature_t=2.41)
    part = Shield.create(settings).guard_part(added.guard)
    for text in (*ATTACKS[Task.PROMPT_INJECTION], *HARMLESS[Task.PROMPT_INJECTION]):
        assert part.ask(text).score == pytest.approx(classifier.classify(text), abs=1e-3)


def test_six_independent_labels_are_one_risk(tmp_path: Path, settings: Settings) -> None:
    """A model without a safe label has sigmoid labels, all of them toxic."""
    labels = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
    path = local_files(tmp_path, labels=labels, risky={"you": "insult"})
    added = add_onnx(NewOnnx(source=str(path)), settings)
    assert added.guard.task is Task.TOXICITY
    assert added.model.post_processing == "sigmoid"
    assert set(added.model.label_map.values()) == {"toxic"}


def test_two_sentiments_never_say_neutral(tmp_path: Path, settings: Settings) -> None:
    """A model of negative and positive is a sentiment model."""
    path = local_files(tmp_path, labels=("POSITIVE", "NEGATIVE"), risky={"hate": "NEGATIVE"})
    added = add_onnx(NewOnnx(source=str(path)), settings)
    assert added.guard.task is Task.SENTIMENT
    answer = Shield.create(settings).guard_part(added.guard).ask(ATTACKS[Task.SENTIMENT][0])
    assert answer.probabilities[1] == 0
    assert sum(answer.probabilities) == pytest.approx(1)


def test_the_window_of_a_model_with_shifted_positions(tmp_path: Path, settings: Settings) -> None:
    """Positions of RoBERTa start behind its padding, so 66 of them hold 64 tokens."""
    config = {"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}
    added = add_onnx(NewOnnx(source=str(local_files(tmp_path, config=config))), settings)
    assert added.model.max_length == 64


def test_a_name_is_taken_once(tmp_path: Path, settings: Settings) -> None:
    """A second guard of one name, and one called as a model, are refused; the first stays."""
    path = str(local_files(tmp_path))
    add_onnx(NewOnnx(source=path, name="mine"), settings)
    before = settings.registry_path.read_bytes(), settings.guards_path.read_bytes()
    for name in ("mine", "injection-minilm-l6"):
        with pytest.raises(ConfigError, match="--name"):
            add_onnx(NewOnnx(source=path, name=name), settings)
    assert (settings.registry_path.read_bytes(), settings.guards_path.read_bytes()) == before


def test_a_guard_is_removed_with_its_model(tmp_path: Path, settings: Settings) -> None:
    """Both entries go, those of others stay, and it can be added again."""
    path = str(local_files(tmp_path))
    for name in ("first", "second"):
        add_onnx(NewOnnx(source=path, name=name), settings)
    shield = Shield.create(settings)
    remove_onnx(settings, "first")
    assert [guard.name for guard in read_guards(settings.guards_path)] == ["second"]
    (left,) = ModelRegistry.load(settings.registry_path).entries
    assert left.id.startswith("second-")
    assert "first" not in shield.guards
    add_onnx(NewOnnx(source=path, name="first"), settings)
    assert "first" in shield.guards


def test_a_broken_registry_is_not_overwritten(tmp_path: Path, settings: Settings) -> None:
    """What the user wrote stays, and the message names the file."""
    path = str(local_files(tmp_path))
    settings.home.mkdir()
    settings.registry_path.write_text('{"models": [')
    with pytest.raises(RegistryError, match=r"registry\.json"):
        add_onnx(NewOnnx(source=path), settings)
    assert settings.registry_path.read_text() == '{"models": ['


def test_another_registry_is_written_where_it_is_named(tmp_path: Path, settings: Settings) -> None:
    """With SHIELD_REGISTRY the model goes there, so that it is found."""
    own = tmp_path / "own.json"
    own.write_text('{"schema": 1, "models": []}')
    named = replace(settings, registry=own)
    added = add_onnx(NewOnnx(source=str(local_files(tmp_path)), name="mine"), named)
    assert Shield.create(named).registry.get(added.model.id) == added.model
    assert not (settings.home / "registry.json").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing.onnx", "is not a file of this machine"),
        ("hf:only-a-name", "write hf:OWNER/NAME"),
    ],
)
def test_a_source_that_is_none(settings: Settings, source: str, words: str) -> None:
    """What is neither file nor hub model is refused with the forms that are known."""
    assert words in refused(NewOnnx(source=source), settings)


def test_weights_in_a_second_file_are_refused(tmp_path: Path, settings: Settings) -> None:
    """A file whose weights lie beside it cannot be pinned by its hash."""
    path = local_files(tmp_path)
    (tmp_path / "model.onnx.data").write_bytes(b"weights")
    assert "second file" in refused(NewOnnx(source=str(path)), settings)


def test_the_catalogue_knows_labels_and_whether_a_file_was_seen(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each model has labels of its task; it is `not fetched here` until its hash was seen."""
    models = {model.name: model for model in known_models()}
    assert len(models) >= 12
    for model in models.values():
        assert set(model.labels) <= set(LABELS[model.task])
    assert models["toxic-bert"].labels == ("toxic",) * 6
    assert models["prompt-guard-2-22m"].gated
    tiny = replace(models["protectai-v2"], name="tiny-known", source=f"hf:{NAME}", max_length=32)
    monkeypatch.setattr("shield_engine.guards.catalogue.known_models", lambda: (tiny,))
    registry = Shield.create(settings).registry
    assert tiny.state(registry) == "not fetched here"
    added = add_onnx(NewOnnx(source="tiny-known"), settings)
    assert added.guard.name == "tiny-known"
    assert added.model.max_length == 32
    assert tiny.state(registry) == f"fetched, SHA-256 {added.model.sha256[:12]}"
