"""From a file to a stored dataset: what it is, which columns and labels mean what, the import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import streamlit as st

from dashboard.datasets.files import FILE_TYPES, allowed_file, unmapped
from dashboard.datasets.scores import choose_scores, store_scores
from dashboard.datasets.tables import preview_frame, sniffed_facts
from dashboard.state import label_counts, resources, samples, source_file, upload_path
from dashboard.text import TASK_TITLES, plain, visible
from dashboard.widgets import errors_shown
from shield_engine.datasets import (
    MAX_LABEL_VALUES,
    ColumnMapping,
    ScoreColumn,
    Sniffed,
    SourceFile,
    dataset_name,
    default_label_map,
)
from shield_engine.datasets.labels import class_of
from shield_engine.evaluate import store_rows
from shield_engine.types import LABELS, Task

__all__ = ["show_import"]

_NONE = "(none)"
_ROLES = ("user", "assistant", "system", "tool")

_COLUMN_HELP = {
    "label": "The true class. Without one you still get scores, flag rates, disagreement and "
    "latency.",
    "id": "Your own name of a row.",
    "group": "Rows that belong together, such as turns of one conversation; intervals resample "
    "them together.",
}


def show_import() -> str | None:
    """Walk from a file to a stored dataset, and return its id once it is stored."""
    with errors_shown("This file cannot be used"):
        picked = _choose_file()
        if picked is None:
            st.caption("Nothing leaves this machine: files are read and stored here.")
            return None
        path, sample_task = picked
        stat = path.stat()
        source = source_file(path, stat.st_size, stat.st_mtime_ns)
        file = source.sniffed
        _show_sniffed(file)
        task = st.segmented_control(
            "Task",
            list(Task),
            default=sample_task or next(iter(Task)),
            required=True,
            format_func=TASK_TITLES.__getitem__,
            key=f"task:{path}",
            help="What the texts are scanned for, and what the labels mean.",
        )
        mapping = _choose_columns(file)
        scores: tuple[ScoreColumn, ...] | None = ()
        if task is not Task.SENTIMENT:  # one number a row cannot be three probabilities
            scores = choose_scores(file, mapping.columns)
        mapping = replace(mapping, scores=scores or ())
        label_map, is_ready = None, bool(mapping.text and mapping.roles and scores is not None)
        if mapping.label is not None:
            label_map = _choose_labels(file, mapping.label, task)
            is_ready = is_ready and label_map is not None
        name = _ask_name(path, is_ready=is_ready)
        if name is not None:
            return _import(source, name, task, mapping, label_map)
    return None


def _choose_file() -> tuple[Path, Task | None] | None:
    """Ask for an upload, a bundled sample, or an allowed file on this machine."""
    roots = resources().settings.data_roots
    sources = ["Upload", "Bundled sample", *(["File on this machine"] if roots else [])]
    source = st.segmented_control(
        "Where from", sources, default=sources[0], required=True, key="source"
    )
    if source == "Upload":
        upload = st.file_uploader(
            "CSV, TSV, JSON Lines, JSON or Parquet, plain or gzip",
            type=FILE_TYPES,
            key="upload",
            help="At most 200 MB. Larger files: name their folder in SHIELD_DATA_ROOTS when you "
            "start the dashboard, or use `shield eval`.",
        )
        if upload is None:
            return None
        return upload_path(upload.file_id, upload.name, upload), None
    if source == "Bundled sample":
        bundled = samples()
        title = st.selectbox("Sample", list(bundled), key="sample")
        return bundled[title] if title else None
    under = f"Under {', '.join(map(str, roots))}"
    written = st.text_input("Path", key="server_path", help=under, placeholder="a.csv")
    return (allowed_file(written, roots), None) if written else None


def _show_sniffed(file: Sniffed) -> None:
    """Show what a file was found to be, before anything is done with it."""
    st.markdown(f"**{plain(file.path.name)}**: {plain(', '.join(sniffed_facts(file)))}")
    for warning in file.warnings:
        st.warning(plain(warning), icon=":material/warning:")
    st.caption(f"The first {len(file.preview)} rows, as text")
    st.dataframe(preview_frame(file), hide_index=True, height=220, alt="First rows of the file")


def _choose_columns(file: Sniffed) -> ColumnMapping:
    """Ask which column plays which part; what sniffing suggests is chosen already."""
    columns, hint = list(file.columns), file.suggested

    def choose(part: str, suggested: str | None) -> str | None:
        options = [_NONE, *columns]
        index = options.index(suggested) if suggested in options else 0
        chosen = st.selectbox(
            part.capitalize(),
            options,
            index=index,
            key=f"{part}:{file.path}",
            help=_COLUMN_HELP[part],
        )
        return None if chosen == _NONE else chosen

    left, middle, right = st.columns(3)
    with left:
        index = columns.index(hint.text) if hint.text in columns else 0
        text = st.selectbox(
            "Text", columns, index=index, key=f"text:{file.path}", help="The column to scan."
        )
        label = choose("label", hint.label)
    with middle:
        row_id = choose("id", hint.id)
        group = choose("group", hint.group)
    with right:
        slices = st.multiselect(
            "Slices",
            columns,
            default=[name for name in hint.slices if name in columns],
            key=f"slices:{file.path}",
            help="Columns by which results can be broken down, such as category or language.",
        )
        roles: tuple[str, ...] = hint.roles
        if text and file.holds_messages(text):
            roles = tuple(
                st.pills(
                    "Scan messages of",
                    _ROLES,
                    default=[role for role in hint.roles if role in _ROLES],
                    selection_mode="multi",
                    key=f"roles:{file.path}",
                    help="Contents of these roles are joined by blank lines.",
                )
            )
    return ColumnMapping(text or "", label, row_id, group, tuple(slices), roles)


def _choose_labels(file: Sniffed, column: str, task: Task) -> dict[str, int] | None:
    """Ask what each label value means; `None` while one has no class."""
    stat = file.path.stat()
    counts = label_counts(file.path, stat.st_size, stat.st_mtime_ns, column)
    if len(counts) > MAX_LABEL_VALUES:
        problem = (
            f"Column {column!r} has more than {MAX_LABEL_VALUES} distinct values, so it holds no "
            "labels of classes. Choose another column, or none."
        )
        st.error(plain(problem))
        return None
    known, names = default_label_map(task), LABELS[task]
    chosen: dict[str, int | None] = {}
    st.markdown("**What each label means**")
    with st.container(horizontal=True):
        for position, (value, rows) in enumerate(counts.items()):
            name = st.selectbox(
                f"{plain(value)} ({rows:,} rows)",
                names,
                index=class_of(value, known),
                placeholder="Choose a class",
                key=f"class{position}:{task.value}:{column}:{file.path}",
                width=220,
            )
            chosen[value] = names.index(name) if name else None
    left_open = unmapped(counts, chosen)
    if left_open:
        shown = ", ".join(repr(value) for value in left_open[:10])
        warning = (
            f"No class is known for {shown}: an unknown label would make every figure wrong. Say "
            "what it means to go on."
        )
        st.warning(plain(warning), icon=":material/block:")
        return None
    return {value: index for value, index in chosen.items() if index is not None}


def _ask_name(path: Path, *, is_ready: bool) -> str | None:
    """Ask for the dataset's name, and return it when the import is wanted."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Dataset name",
            value=visible(dataset_name(path.name)),
            max_chars=100,
            key=f"name:{path}",
            help="A known name with other rows becomes its next version.",
            width=320,
        )
        is_wanted = st.button(
            "Import",
            type="primary",
            key="import",
            icon=":material/download:",
            disabled=not (is_ready and name and name.strip()),
        )
    return name.strip() if is_wanted and is_ready and name else None


def _import(
    source: SourceFile,
    name: str,
    task: Task,
    mapping: ColumnMapping,
    label_map: Mapping[str, int] | None,
) -> str | None:
    """Import and store, and return the dataset's id."""
    with errors_shown("Nothing was imported"):
        bar = st.progress(0.0, text="Reading")

        def note(rows: int, share: float | None) -> None:
            bar.progress(share or 0.0, text=f"{rows:,} rows read")

        imported = source.read(task, mapping, label_map, progress=note)
        bar.progress(1.0, text="Storing")
        dataset = store_rows(resources().store, name, task, source.sniffed.path, imported)
        return dataset.dataset_id if store_scores(dataset, imported.scores) else None
    return None
