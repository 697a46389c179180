"""Turns registered files into running models: once each, shared, and within a memory budget.

Hides ONNX Runtime's session options and what is checked before a model may score anything.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shield_engine.errors import ArtifactError, ConfigError
from shield_engine.ml.download import ArtifactStore, FetchProgress, ModelFiles
from shield_engine.ml.registry import ModelEntry, ModelRegistry
from shield_engine.ml.tokenizer import Place, WindowTokenizer
from shield_engine.types import Variant

__all__ = [
    "Handover",
    "LoadedInfo",
    "LoadedModel",
    "ModelLoader",
    "WindowLogits",
    "default_session",
    "read_heads",
]

_CPU = "CPUExecutionProvider"
_MIB = 1 << 20
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_INTEGERS = {"tensor(int64)": "int64", "tensor(int32)": "int32"}
# Measured on MiniLM-L6: a 23 MB INT8 file adds 28-43 MB, a 90 MB FP32 file about 130 MB.
_MEMORY_PER_BYTE = 1.5
_MEMORY_BASE_MB = 16.0
_TEXTS = 64  # scanners of one pipeline follow each other closely
_WINDOWS = 64  # a longer text is computed anew, so that memory stays bounded


@dataclass(frozen=True, slots=True)
class WindowLogits:
    """One window of a text and what each head said of it.

    Attributes:
        place: Where the window lies in the text.
        logits: By name of the output, each of shape (1, n_labels).
        infer_ms: Time in the model.
    """

    place: Place
    logits: Mapping[str, NDArray[np.floating[Any]]]
    infer_ms: float


class Handover:
    """A few texts' logits, by text; safe to share between threads.

    A file with a head for each task gives all logits at once. The first scanner of a text keeps its
    own and leaves the others here; each is handed out once, so that a text that is scanned again by
    the same scanner is computed again and never looks faster than it is.
    """

    def __init__(self, texts: int = _TEXTS) -> None:
        self._texts = texts
        self._waiting: OrderedDict[str, tuple[Sequence[WindowLogits], set[str]]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, text: str, windows: Sequence[WindowLogits], outputs: Sequence[str]) -> None:
        """Keep the windows of `text` for the heads named, unless it is too long."""
        if len(windows) > _WINDOWS:
            return
        with self._lock:
            self._waiting[text] = windows, set(outputs)
            self._waiting.move_to_end(text)
            if len(self._waiting) > self._texts:
                self._waiting.popitem(last=False)

    def take(self, text: str, output: str) -> Sequence[WindowLogits] | None:
        """Return the windows of `text` once for each head, or None."""
        with self._lock:
            windows, outputs = self._waiting.get(text, ((), set()))
            if output not in outputs:
                return None
            outputs.discard(output)
            if not outputs:
                del self._waiting[text]
            return windows


@dataclass(frozen=True, slots=True)
class LoadedInfo:
    """One model in memory.

    Attributes:
        id: Name of the model.
        variant: Precision of the weights.
        sha256: Digest of the file that runs.
        load_ms: Time to verify, tokenizer and session together; downloads included.
        memory_mb: Growth of the process's resident memory while it was loaded.
        providers: ONNX Runtime's execution providers, in order of preference.
        path: The file that runs.
    """

    id: str
    variant: Variant
    sha256: str
    load_ms: float
    memory_mb: float
    providers: tuple[str, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run; safe to share between threads.

    Attributes:
        entry: What the registry says of it.
        session: The ONNX Runtime session.
        windows: The model's tokenizer.
        inputs: Names of the graph's inputs and their NumPy type.
        outputs: Names of the graph's logits; the entry's own first. A file with heads for several
            tasks has several, and one pass gives them all.
        handover: Where one pass leaves the logits of the other heads; None with one output.
        info: What loading it cost.
    """

    entry: ModelEntry
    session: Any
    windows: WindowTokenizer
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    handover: Handover | None
    info: LoadedInfo


class ModelLoader:
    """Loads each model on first use, exactly once, and hands the same one to everybody.

    Attributes:
        registry: What may be loaded by name.
        artifacts: Where the files come from.
        loads_ok: How many models were loaded.
        loads_failed: How many attempts to load one failed.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        artifacts: ArtifactStore,
        *,
        intra_threads: int = 1,
        max_memory_mb: int | None = None,
        providers: Sequence[str] = (_CPU,),
    ) -> None:
        """Prepare to load; nothing is read yet.

        Args:
            registry: What may be loaded by name.
            artifacts: Where the files come from.
            intra_threads: Threads inside one run. One is best: texts run beside each other.
            max_memory_mb: Budget of all loaded models together; no limit by default.
            providers: Execution providers of ONNX Runtime, best first.

        Raises:
            ConfigError: A number is not above 0.
        """
        if intra_threads < 1 or (max_memory_mb is not None and max_memory_mb < 1):
            raise ConfigError("intra_threads and max_memory_mb must be above 0")
        self.registry = registry
        self.artifacts = artifacts
        self._intra_threads = intra_threads
        self._max_memory_mb = max_memory_mb
        self._providers = tuple(providers)
        self._loaded: dict[tuple[str, Variant], LoadedModel] = {}
        self._key_locks: dict[tuple[str, Variant], threading.Lock] = {}
        self._lock = threading.Lock()
        # One session is made at a time, so that its memory can be told from another's.
        self._session_lock = threading.Lock()
        self.loads_ok = 0
        self.loads_failed = 0

    @property
    def has_gpu(self) -> bool:
        """True if models run on something else than the CPU first."""
        return self._providers[:1] != (_CPU,)

    def load(self, entry: ModelEntry, progress: FetchProgress | None = None) -> LoadedModel:
        """Return the model of `entry`, loading it if nobody has.

        A failure is not remembered: the next call tries again.

        Raises:
            ArtifactError: A file is missing or altered, is not what the entry says, or does not
                fit the memory budget.
            ConfigError: This build of ONNX Runtime lacks a provider.
        """
        key = (entry.id, entry.variant)
        model = self._loaded.get(key)
        if model is None or model.entry != entry:
            with self._lock:
                key_lock = self._key_locks.setdefault(key, threading.Lock())
            with key_lock:
                model = self._loaded.get(key)
                if model is None or model.entry != entry:
                    model = self._load(entry, progress)
        return model

    def loaded(self) -> tuple[LoadedInfo, ...]:
        """Return what is in memory, oldest first."""
        with self._lock:
            return tuple(model.info for model in self._loaded.values())

    def unload(self, model_id: str, variant: Variant) -> bool:
        """Forget a model; its memory is freed when the last engine lets go of it.

        Returns:
            False if it was not loaded.
        """
        with self._lock:
            return self._loaded.pop((model_id, variant), None) is not None

    def _load(self, entry: ModelEntry, progress: FetchProgress | None) -> LoadedModel:
        started = time.perf_counter()
        try:
            self._check_budget(entry)
            files = self.artifacts.fetch(entry, progress)
            with self._session_lock:
                self._check_budget(entry)
                model = self._open(entry, files, started)
                with self._lock:
                    self._loaded[entry.id, entry.variant] = model
                    self.loads_ok += 1
        except Exception:
            with self._lock:
                self.loads_failed += 1
            raise
        return model

    def _check_budget(self, entry: ModelEntry) -> None:
        if self._max_memory_mb is None:
            return
        with self._lock:
            # Entries of one file share its session.
            sizes: dict[str, float] = {}
            for key, model in self._loaded.items():
                if key != (entry.id, entry.variant):
                    size = max(model.info.memory_mb, _expected_mb(model.entry))
                    sizes[model.entry.sha256] = max(size, sizes.get(model.entry.sha256, 0.0))
        if entry.sha256 in sizes:
            return
        used, needed = sum(sizes.values()), _expected_mb(entry)
        if used + needed > self._max_memory_mb:
            raise ArtifactError(
                f"{entry.id} {entry.variant.value} needs about {needed:.0f} MB beside the "
                f"{used:.0f} MB of models already loaded, more than the budget of "
                f"{self._max_memory_mb} MB; unload a model, choose a smaller variant or raise "
                "SHIELD_MAX_MODEL_MB"
            )

    def _open(self, entry: ModelEntry, files: ModelFiles, started: float) -> LoadedModel:
        before = _resident_bytes()
        windows = WindowTokenizer.from_file(
            files.tokenizer, max_length=entry.max_length, stride=entry.stride
        )
        twin = self._twin(entry)
        session = twin.session if twin else self._session(entry, files.model)
        _check_labels(entry, files.model, session.get_modelmeta().custom_metadata_map)
        outputs = _outputs(entry, files.model, session)
        info = LoadedInfo(
            id=entry.id,
            variant=entry.variant,
            sha256=entry.sha256,
            load_ms=(time.perf_counter() - started) * 1000,
            memory_mb=max(_resident_bytes() - before, 0) / _MIB,
            providers=tuple(session.get_providers()),
            path=files.model,
        )
        return LoadedModel(
            entry,
            session,
            windows,
            _inputs(files.model, session),
            outputs,
            _handover(twin, entry) if len(outputs) > 1 else None,
            info,
        )

    def _twin(self, entry: ModelEntry) -> LoadedModel | None:
        """Return a loaded model of the same file that runs in the same way, if there is one."""
        with self._lock:
            for model in self._loaded.values():
                other = model.entry
                alike = other.default_optimisations == entry.default_optimisations
                if other.sha256 == entry.sha256 and alike:
                    return model
        return None

    def _session(self, entry: ModelEntry, path: Path) -> Any:
        import onnxruntime

        known = onnxruntime.get_available_providers()
        for provider in self._providers:
            if provider not in known:
                raise ConfigError(f"ONNX Runtime here has no {provider}; it has {', '.join(known)}")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self._intra_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; they also arrive as exceptions
        # Waiting threads must not burn the CPUs that other texts run on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Under dynamic INT8 the fused node keeps its neighbours from fusing: 1.12-1.2 times slower.
        is_ours = entry.variant is Variant.INT8 and not entry.default_optimisations
        disabled = {"SkipLayerNormFusion"} if is_ours else set()
        try:
            session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=list(self._providers),
                disabled_optimizers=disabled,
            )
        except Exception as error:  # the package's errors share no narrower class
            raise ArtifactError(
                f"{path} cannot be opened as an ONNX model: {error}; export it again"
            ) from error
        # ONNX Runtime falls back to the CPU without a word where a provider cannot start.
        if self._providers and session.get_providers()[0] != self._providers[0]:
            raise ArtifactError(
                f"{entry.id} runs on {session.get_providers()[0]} although "
                f"{self._providers[0]} was asked for; check its drivers"
            )
        return session


def read_heads(path: Path) -> tuple[dict[str, int | None], dict[str, str]]:
    """Return the width of each output of an ONNX file, where it is fixed, and what it carries.

    Raises:
        ArtifactError: It is no ONNX file.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=[_CPU])
    except Exception as error:  # the package's errors share no narrower class
        raise ArtifactError(f"{path} cannot be opened as an ONNX model: {error}") from error
    widths = {
        item.name: item.shape[-1] if item.shape and isinstance(item.shape[-1], int) else None
        for item in session.get_outputs()
    }
    return widths, dict(session.get_modelmeta().custom_metadata_map)


def default_session(path: Path, like: Any) -> Any:
    """Return a session with ONNX Runtime's own optimisations, to compare with.

    Args:
        path: An ONNX file.
        like: A session whose number of threads and providers to take.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = like.get_session_options().intra_op_num_threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=like.get_providers())


def _expected_mb(entry: ModelEntry) -> float:
    return entry.size_bytes * _MEMORY_PER_BYTE / _MIB + _MEMORY_BASE_MB


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _inputs(path: Path, session: Any) -> tuple[tuple[str, str], ...]:
    inputs = []
    for item in session.get_inputs():
        if item.name not in _INPUTS or item.type not in _INTEGERS:
            raise ArtifactError(
                f"{path} asks for input {item.name} of {item.type}; a classifier may ask for "
                f"{', '.join(_INPUTS)} as int64 or int32"
            )
        inputs.append((item.name, _INTEGERS[item.type]))
    if "input_ids" not in {name for name, _ in inputs}:
        raise ArtifactError(f"{path} has no input input_ids; export a text classifier")
    return tuple(inputs)


def _handover(twin: LoadedModel | None, entry: ModelEntry) -> Handover:
    """Return the twin's handover if both cut texts alike, else a new one."""
    if twin and twin.handover and _cut_of(twin.entry) == _cut_of(entry):
        return twin.handover
    return Handover()


def _cut_of(entry: ModelEntry) -> tuple[str, int, int]:
    return entry.tokenizer_sha256, entry.max_length, entry.stride


def _outputs(entry: ModelEntry, path: Path, session: Any) -> tuple[str, ...]:
    outputs = {item.name: item for item in session.get_outputs()}
    names = ", ".join(outputs)
    wanted = entry.output or ("logits" if "logits" in outputs else next(iter(outputs)))
    if wanted not in outputs:
        raise ArtifactError(f"{path} has no output {wanted}; it has {names}: correct `output`")
    if entry.output is None and wanted != "logits" and len(outputs) != 1:
        raise ArtifactError(
            f"{path} has outputs {names}; name the right one `logits`, or name it in `output`"
        )
    shape = outputs[wanted].shape
    width = shape[-1] if shape else None
    if isinstance(width, int) and width != len(entry.labels):
        raise ArtifactError(
            f"{path} gives {width} logits but {entry.id} is registered with "
            f"{len(entry.labels)} labels ({', '.join(entry.labels)}); correct `labels`"
        )
    if entry.output is None:
        return (wanted,)
    return (wanted, *(name for name in outputs if name != wanted))


def _check_labels(entry: ModelEntry, path: Path, metadata: dict[str, str]) -> None:
    """Compare the registry's labels with the model's own, if its file carries any."""
    written = metadata.get(f"id2label.{entry.output}") or metadata.get("id2label")
    if written is None:
        return
    try:
        table = json.loads(written)
        if isinstance(table, dict):
            table = [table[str(position)] for position in range(len(table))]
        own = tuple(str(label) for label in table)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} carries an id2label that cannot be read: {written}") from error
    if own != entry.labels:
        raise ArtifactError(
            f"{path} says its labels are {', '.join(own)}, the registry says "
            f"{', '.join(entry.labels)} for {entry.id}; correct `labels`, in the model's order"
        )
