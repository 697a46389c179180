"""The files that make a model: found in a repository or on this machine, and pinned by hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from shield_engine.errors import ArtifactError, ConfigError
from shield_engine.guards.catalogue import known_models
from shield_engine.ml import ArtifactStore
from shield_engine.ml.download import FetchProgress
from shield_engine.ml.hub import HubModel, describe_model

__all__ = ["ModelParts", "PinnedFile", "parts_of_hub", "parts_of_machine"]

_CANDIDATES = (
    "model.onnx",
    "onnx/model.onnx",
    "model_quantized.onnx",
    "onnx/model_quantized.onnx",
    "model_int8.onnx",
    "onnx/model_int8.onnx",
    "model_fp16.onnx",
    "onnx/model_fp16.onnx",
)
"""Where repositories keep their ONNX file, the one that is taken first."""

_WEIGHTS_BESIDE = (".data", "_data")  # ends of files that hold weights outside their ONNX file
_LARGEST_TEXT_FILE = 4 << 20
_LARGEST_TOKENIZER = 128 << 20
_LARGEST_MODEL = 16 << 30


@dataclass(frozen=True, kw_only=True)
class PinnedFile:
    """A file that is here, with its hash."""

    source: str
    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """A model's files and what they say of it."""

    title: str
    model: PinnedFile
    tokenizer: PinnedFile
    config: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "unknown"
    revision: str = ""


def parts_of_hub(
    repository: str,
    revision: str | None,
    wanted: str | None,
    store: ArtifactStore,
    progress: FetchProgress | None,
) -> ModelParts:
    """Fetch a model's files from the hub, at one commit."""
    if store.offline:
        raise ArtifactError(
            f"offline is on, {repository} is not asked for; add files of this machine"
        )
    model = describe_model(repository, revision, token=store.hub_token)
    path = _onnx_file(model, wanted)

    def pinned(place: str, limit: int, follow: FetchProgress | None = None) -> PinnedFile:
        file, source = model.files[place], model.source(place)
        size = limit if file.size is None else file.size
        if size > limit:
            raise ArtifactError(f"{source} has {size:,} bytes; at most {limit:,} are fetched")
        local, digest = store.pin(source, limit=size, sha256=file.sha256, progress=follow)
        return PinnedFile(source=source, path=local, sha256=digest)

    def document(name: str) -> dict[str, Any]:
        place = _beside(model, path, name)
        return _json(pinned(place, _LARGEST_TEXT_FILE).path) if place else {}

    tokenizer = _beside(model, path, "tokenizer.json")
    if tokenizer is None:
        raise ConfigError(
            f"{model.repository} has no tokenizer.json; save its fast tokenizer with transformers "
            "and add the files of this machine: shield guards add model.onnx --tokenizer "
            "tokenizer.json"
        )
    config = document("config.json")
    return ModelParts(
        title=model.repository.partition("/")[2],
        tokenizer=pinned(tokenizer, _LARGEST_TOKENIZER),
        model=pinned(path, _LARGEST_MODEL, progress),
        config=config,
        licence=model.licence,
        revision=model.commit,
    )


def _onnx_file(model: HubModel, wanted: str | None) -> str:
    """Return the path of the ONNX file in a repository."""
    whole = [
        path
        for path in sorted(model.files)
        if path.endswith(".onnx")
        # Weights in a second file are not covered by the hash of the first.
        and not any(path + end in model.files for end in _WEIGHTS_BESIDE)
    ]
    if wanted is not None:
        if wanted not in whole:
            known = ", ".join(whole) or "none"
            raise ConfigError(
                f"{model.repository} has no ONNX file {wanted} in one piece; it has {known}"
            )
        return wanted
    for path in _CANDIDATES:
        if path in whole:
            return path
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise ConfigError(
            f"{model.repository} has several ONNX files; name one with --file: {', '.join(whole)}"
        )
    raise ConfigError(
        f"{model.repository} has no ONNX file in one piece; make one with `optimum-cli export onnx "
        f"--model {model.repository} --task text-classification FOLDER`, then: shield guards add "
        "FOLDER/model.onnx"
    )


def _beside(model: HubModel, path: str, name: str) -> str | None:
    """Return a file in the folder of another, or at the top of the repository."""
    for place in (str(PurePosixPath(path).with_name(name)), name):
        if place in model.files:
            return place
    return None


def parts_of_machine(source: str, tokenizer: Path | None, store: ArtifactStore) -> ModelParts:
    """Take a model's files from this machine or an installed package."""
    if not source.startswith("package:"):
        path = Path(source).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(
                f"{source} is not a file of this machine, no hf:OWNER/NAME, and none of the "
                f"catalogue: {', '.join(known.name for known in known_models())}"
            )
        if any(path.with_name(path.name + end).exists() for end in _WEIGHTS_BESIDE):
            raise ConfigError(f"{path} keeps weights in a second file; export it in one piece")
        source = path.as_uri()
    model, digest = store.pin(source, limit=_LARGEST_MODEL)
    place = tokenizer.expanduser().absolute() if tokenizer else None
    if place is None and not model.with_name("tokenizer.json").is_file():
        raise ConfigError(f"{model} has no tokenizer.json beside it; name one with --tokenizer")
    beside = place.as_uri() if place else source.rpartition("/")[0] + "/tokenizer.json"
    if place is not None and not place.is_file():
        raise ConfigError(f"tokenizer {place} is not there; name its tokenizer.json")
    tokenizer_path, tokenizer_digest = store.pin(beside, limit=_LARGEST_TOKENIZER)
    documents = {}
    for name in ("config.json", "classifier_config.json"):
        near = model.with_name(name)
        documents[name] = _json(near) if near.is_file() else {}
    calibration = documents["classifier_config.json"].get("calibration")
    return ModelParts(
        title=model.parent.name if model.stem.startswith("model") else model.stem,
        model=PinnedFile(source=source, path=model, sha256=digest),
        tokenizer=PinnedFile(source=beside, path=tokenizer_path, sha256=tokenizer_digest),
        config=documents["config.json"],
        calibration=calibration if isinstance(calibration, dict) else {},
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{path} holds {type(document).__name__}, not an object")
    return document
