"""Datasets: bring a file in with its columns and labels mapped, and look at what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import streamlit as st

from dashboard.datasets.files import allowed_file, holds_messages, unmapped
from dashboard.datasets.tables import datasets_frame, preview_frame, rows_frame
from dashboard.state import drop_stale, label_counts, resources, samples, sniffed, upload_path
from dashboard.text import TASK_TITLES, megabytes, plain, visible
from dashboard.widgets import (
    csv_bytes,
    download,
    empty_state,
    errors_shown,
    page_title,
    paged,
    show_text,
)
from shield_engine.datasets import (
    MAX_LABEL_VALUES,
    ColumnMapping,
    Sniffed,
    dataset_name,
    default_label_map,
    import_rows,
)
from shield_engine.datasets.labels import class_of
from shield_engine.evaluate import store_rows
from shield_engine.store import DatasetInfo
from shield_engine.store.rows import dataset_page
from shield_engine.types import LABELS, Task

IMPORT, STORED = "Import a file", "Stored datasets"
NONE = "(none)"
ROLES = ("user", "assistant", "system", "tool")
PAGE_ROWS = 50
TYPES = ["csv", "tsv", "jsonl", "ndjson", "json", "parquet", "gz"]


# --- import ---------------------------------------------------------------------------------


def choose_file() -> tuple[Path, Task | None] | None:
    """Ask for an upload, a bundled sample, or an allowed file on this machine."""
    roots = resources().settings.data_roots
    sources = ["Upload", "Bundled sample", *(["File on this machine"] if roots else [])]
    source = st.segmented_control(
        "Where from", sources, default=sources[0], required=True, key="source"
    )
    if source == "Upload":
        upload = st.file_uploader(
            "CSV, TSV, JSON Lines, JSON or Parquet, plain or gzip",
            type=TYPES,
            key="upload",
            help="At most 200 MB. Larger files: name their folder in SHIELD_DATA_ROOTS when you "
            "start the dashboard, or use `shield eval`.",
        )
        if upload is None:
            return None
        return upload_path(upload.file_id, upload.name, upload), None
    if source == "Bundled sample":
        found = samples()
        title = st.selectbox("Sample", list(found), key="sample")
        return found[title] if title else None
    written = st.text_input(
        "Path", key="server_path", help=f"Under {', '.join(map(str, roots))}", placeholder="a.csv"
    )
    return (allowed_file(written, roots), None) if written else None


def show_sniffed(found: Sniffed) -> None:
    """Show what a file was found to be, before anything is done with it."""
    delimiters = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
    facts = [
        found.format.upper() + (f" in {found.compression}" if found.compression else ""),
        megabytes(found.size_bytes),
        f"encoding {found.encoding}",
        f"{len(found.columns)} columns",
    ]
    if found.delimiter:
        facts.append(f"split at {delimiters.get(found.delimiter, repr(found.delimiter))}")
    if found.format in {"csv", "tsv"}:
        facts.append("first row names the columns" if found.has_header else "no header row")
    st.markdown(f"**{plain(found.path.name)}**: {plain(', '.join(facts))}")
    for warning in found.warnings:
        st.warning(plain(warning), icon=":material/warning:")
    st.caption(f"The first {len(found.preview)} rows, as text")
    st.dataframe(preview_frame(found), hide_index=True, height=220, alt="First rows of the file")


def choose_columns(found: Sniffed) -> ColumnMapping:
    """Ask which column plays which part; what sniffing suggests is chosen already."""
    columns, hint = list(found.columns), found.suggested

    def one(label: str, suggested: str | None, key: str, help_: str) -> str | None:
        options = [NONE, *columns]
        index = options.index(suggested) if suggested in options else 0
        chosen = st.selectbox(label, options, index=index, key=f"{key}:{found.path}", help=help_)
        return None if chosen == NONE else chosen

    left, middle, right = st.columns(3)
    with left:
        index = columns.index(hint.text) if hint.text in columns else 0
        text = st.selectbox(
            "Text", columns, index=index, key=f"text:{found.path}", help="The column to scan."
        )
        label = one("Label", hint.label, "label", "The true class. Without one you still get "
                    "scores, flag rates, disagreement and latency.")  # fmt: skip
    with middle:
        row_id = one("Id", hint.id, "id", "Your own name of a row.")
        group = one("Group", hint.group, "group", "Rows that belong together, such as turns of one "
                    "conversation; intervals resample them together.")  # fmt: skip
    with right:
        slices = st.multiselect(
            "Slices",
            columns,
            default=[name for name in hint.slices if name in columns],
            key=f"slices:{found.path}",
            help="Columns by which results can be broken down, such as category or language.",
        )
        roles: tuple[str, ...] = hint.roles
        if text and holds_messages(found, text):
            roles = tuple(
                st.pills(
                    "Scan messages of",
                    ROLES,
                    default=[role for role in hint.roles if role in ROLES],
                    selection_mode="multi",
                    key=f"roles:{found.path}",
                    help="Contents of these roles are joined by blank lines.",
                )
            )
    return ColumnMapping(text or "", label, row_id, group, tuple(slices), roles)


def choose_labels(found: Sniffed, column: str, task: Task) -> dict[str, int] | None:
    """Ask what each label value means; `None` while one has no class."""
    stat = found.path.stat()
    counts = label_counts(found.path, stat.st_size, stat.st_mtime_ns, column)
    if len(counts) > MAX_LABEL_VALUES:
        st.error(
            plain(
                f"Column {column!r} has more than {MAX_LABEL_VALUES} distinct values, so it holds "
                "no labels of classes. Choose another column, or none."
            )
        )
        return None
    known, names = default_label_map(task), LABELS[task]
    chosen: dict[str, int | None] = {}
    st.markdown("**What each label means**")
    with st.container(horizontal=True):
        for position, (value, rows) in enumerate(counts.items()):
            suggested = class_of(value, known)
            name = st.selectbox(
                f"{plain(value)} ({rows:,} rows)",
                names,
                index=suggested,
                placeholder="Choose a class",
                key=f"class{position}:{task.value}:{column}:{found.path}",
                width=220,
            )
            chosen[value] = names.index(name) if name else None
    left_open = unmapped(counts, chosen)
    if left_open:
        shown = ", ".join(repr(value) for value in left_open[:10])
        st.warning(
            plain(
                f"No class is known for {shown}: an unknown label would make every figure wrong. "
                "Say what it means to go on."
            ),
            icon=":material/block:",
        )
        return None
    return {value: index for value, index in chosen.items() if index is not None}


def import_file(
    found: Sniffed,
    name: str,
    task: Task,
    mapping: ColumnMapping,
    label_map: Mapping[str, int] | None,
) -> None:
    """Import, store, and show the report."""
    with errors_shown("Nothing was imported"):
        bar = st.progress(0.0, text="Reading")

        def note(rows: int, share: float | None) -> None:
            bar.progress(share or 0.0, text=f"{rows:,} rows read")

        imported = import_rows(found.path, task, mapping, label_map, progress=note)
        bar.progress(1.0, text="Storing")
        info = store_rows(resources().store, name.strip(), task, found.path, imported)
        st.session_state["new_dataset"] = info.dataset_id
        st.session_state["shown_dataset"] = info.dataset_id
        st.session_state["next_view"] = STORED
        st.rerun()


def show_import() -> None:
    """Walk from a file to a stored dataset."""
    with errors_shown("This file cannot be used"):
        picked = choose_file()
        if picked is None:
            st.caption("Nothing leaves this machine: files are read and stored here.")
            return
        path, sample_task = picked
        stat = path.stat()
        found = sniffed(path, stat.st_size, stat.st_mtime_ns)
        show_sniffed(found)
        tasks = list(Task)
        task = st.segmented_control(
            "Task",
            tasks,
            default=sample_task or tasks[0],
            required=True,
            format_func=TASK_TITLES.__getitem__,
            key=f"task:{path}",
            help="What the texts are scanned for, and what the labels mean.",
        )
        mapping = choose_columns(found)
        label_map, is_ready = None, bool(mapping.text and mapping.roles)
        if mapping.label is not None:
            label_map = choose_labels(found, mapping.label, task)
            is_ready = is_ready and label_map is not None
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.text_input(
                "Dataset name",
                value=visible(dataset_name(path.name)),
                max_chars=100,
                key=f"name:{path}",
                help="A known name with other rows becomes its next version.",
                width=320,
            )
            pressed = st.button(
                "Import",
                type="primary",
                key="import",
                icon=":material/download:",
                disabled=not (is_ready and name and name.strip()),
            )
        if pressed and is_ready and name:
            import_file(found, name, task, mapping, label_map)


# --- stored ---------------------------------------------------------------------------------


def show_profile(info: DatasetInfo) -> None:
    """Show what was read, what was set aside, and what the rows look like."""
    profile = info.details.get("profile", {})
    read = info.details.get("rows_read", info.rows + info.quarantined)
    st.markdown(
        f"**{read:,} rows read = {info.rows:,} imported + {info.quarantined:,} quarantined**"
    )
    with st.container(horizontal=True):
        st.metric("Labelled", f"{info.labelled:,}", border=True)
        st.metric(
            "Duplicates",
            f"{profile.get('duplicates', 0):,}",
            border=True,
            help="Rows whose exact text occurred before. They are scored and counted.",
        )
        st.metric(
            "Conflicts",
            f"{profile.get('conflicts', 0):,}",
            border=True,
            help="Texts that occur with more than one label.",
        )
        st.metric(
            "Typical length",
            f"{profile.get('chars_p50', 0):,}",
            border=True,
            help="Median characters of a text. "
            f"95% have at most {profile.get('chars_p95', 0):,}, the longest "
            f"{profile.get('chars_max', 0):,}.",
        )
        st.metric(
            "Very long texts",
            f"{profile.get('very_long', 0):,}",
            border=True,
            help="More than 20,000 characters; they are scanned window by window.",
        )
    for warning in profile.get("warnings", ()):
        st.warning(plain(warning), icon=":material/warning:")
    left, right = st.columns(2)
    with left:
        if info.labelled:
            st.caption("Rows of each class")
            st.dataframe(
                _shares(profile.get("class_counts", {}), "Class", info.labelled),
                hide_index=True,
                alt="Rows of each class",
            )
    with right:
        st.caption("Languages, a rough guess from the first 300 characters")
        st.dataframe(
            _shares(profile.get("languages", {}), "Language", info.rows),
            hide_index=True,
            alt="Rows by guessed language",
        )


def _shares(counts: Mapping[str, int], name: str, total: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: list(counts),
            "Rows": list(counts.values()),
            "Share": [f"{rows / total:.1%}" if total else "-" for rows in counts.values()],
        }
    )


def show_quarantine(info: DatasetInfo) -> None:
    """List the rows that could not be read, with line and reason."""
    kept = info.details.get("quarantine") or []
    if not info.quarantined:
        st.caption("Every row could be read.")
        return
    frame = pd.DataFrame(
        [
            {
                "Line": row["line"],
                "Reason": visible(row["reason"]),
                "Sample": visible(row["sample"]),
            }
            for row in kept
        ]
    )
    st.caption(f"{len(kept):,} of {info.quarantined:,} quarantined rows are kept for this report.")
    st.dataframe(frame, hide_index=True, alt="Quarantined rows")
    download("CSV", csv_bytes(frame), f"quarantine-{info.dataset_id}.csv", key="quarantine_csv")


def show_rows(info: DatasetInfo) -> None:
    """Page and search through the rows; one can be read whole."""
    store = resources().store
    search = st.text_input(
        "Search in texts",
        key="row_search",
        icon=":material/search:",
        disabled=info.purged,
        bind="query-params",
    )
    if search:
        st.caption("The first 50 rows that contain it, without regard to case.")
        rows = dataset_page(store, info.dataset_id, search=search, limit=PAGE_ROWS)
    else:
        offset = paged(info.rows, key="row_page", size=PAGE_ROWS)
        rows = dataset_page(store, info.dataset_id, offset=offset, limit=PAGE_ROWS)
    if not rows:
        st.caption("No row contains it.")
        return
    st.dataframe(rows_frame(rows, info.task), hide_index=True, height=380, alt="Rows")
    indexes = [row.row_index for row in rows]
    chosen = st.selectbox(
        "Read a row whole", indexes, format_func=lambda index: f"Row {index + 1}", key="row_whole"
    )
    row = rows[indexes.index(chosen)]
    if row.text is not None:
        show_text(row.text)


def show_removal(info: DatasetInfo) -> None:
    """Offer to drop the texts, or everything; both ask first."""
    store = resources().store
    used = {run.run_id for run in store.runs.all(info.dataset_id)}
    is_busy = any(job.run_id in used for job in resources().worker.active())
    with st.container(horizontal=True):
        if st.button("New run", icon=":material/play_arrow:", key="run_this", disabled=info.purged):
            st.session_state["run_dataset"] = info.dataset_id
            st.switch_page("app_pages/new_run.py")
        with st.popover(
            "Purge texts", disabled=info.purged or is_busy, icon=":material/ink_eraser:"
        ):
            st.write(
                "Drops the prompts for good; labels, hashes, scores and figures stay. Their bytes leave "
                "the file when LLM Shield next starts."
            )
            if st.button("Purge the texts", key="purge", type="primary"):
                store.datasets.purge_texts(info.dataset_id)
                st.rerun()
        with st.popover("Delete", disabled=is_busy, icon=":material/delete:"):
            st.write(f"Drops the dataset with its {len(used):,} runs and their scores for good.")
            if st.button("Delete this dataset", key="delete_dataset", type="primary"):
                store.datasets.delete(info.dataset_id)
                st.rerun()


def show_stored(datasets: Mapping[str, DatasetInfo]) -> None:
    """Show what is stored, and one dataset in detail."""
    if not datasets:
        empty_state("No dataset yet", "Import a file of texts, or a bundled sample, above.")
        return
    st.dataframe(datasets_frame(datasets.values()), hide_index=True, alt="Stored datasets")
    drop_stale("shown_dataset", datasets)
    chosen = st.selectbox(
        "Show dataset",
        list(datasets),
        key="shown_dataset",
        format_func=lambda name: visible(datasets[name].title),
        bind="query-params",
    )
    info = datasets[chosen]
    if st.session_state.get("new_dataset") == info.dataset_id:
        st.success(
            plain(f"{info.title} is stored: {info.rows:,} rows, {info.labelled:,} labelled."),
            icon=":material/check_circle:",
        )
    show_removal(info)
    part = st.segmented_control(
        "Show",
        ["Profile", "Rows", f"Quarantine ({info.quarantined:,})"],
        default="Profile",
        required=True,
        key=f"part:{info.dataset_id}",
        label_visibility="collapsed",
    )
    if part == "Profile":
        show_profile(info)
    elif part == "Rows":
        show_rows(info)
    else:
        show_quarantine(info)


page_title("Datasets", "Files become immutable versions; every row is imported or accounted for.")
stored = {info.dataset_id: info for info in resources().store.datasets.all()}
# A widget's own key cannot be set after it was drawn, so a finished import leaves word here.
if "next_view" in st.session_state:
    st.session_state["view"] = st.session_state.pop("next_view")
st.session_state.setdefault("view", STORED if stored else IMPORT)
view = st.segmented_control(
    "View",
    [IMPORT, STORED],
    required=True,
    key="view",
    label_visibility="collapsed",
    persist_state="session",
)
if view == IMPORT:
    show_import()
else:
    with errors_shown():
        show_stored(stored)
