"""How Guards adds one: the form of each kind, written into `guards.toml`."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.state import resources
from dashboard.text import TASK_TITLES
from dashboard.widgets import errors_shown, pick
from shield_engine.guards import add_guard
from shield_engine.guards.document import presets
from shield_engine.guards.fields import entry_values
from shield_engine.types import Task

__all__ = ["GUARD_IN_URL", "VIEW_IN_URL", "offer_adding"]

VIEW_IN_URL = "view"
"""Where the URL says which view is open."""
GUARD_IN_URL = "guard"
"""Where it says which guard is shown."""

_KINDS = {
    "preset": "A known service",
    "http": "Another HTTP API",
    "python": "A Python function",
    "onnx": "A model file",
}
_SECRETS = (
    "One a line, NAME: VALUE. A secret is the name of a variable, env:NAME, which is read when a "
    "text is sent and stands nowhere else."
)


def offer_adding(listed: str) -> None:
    """Ask for a guard and write it down; then show it.

    Args:
        listed: The view that shows all guards.
    """
    kind = pick("What is it?", _KINDS, key="guard_kind", segmented=True)
    if kind == "onnx":
        _show_model_way()
        return
    preset = pick("Service", list(presets()), key="guard_preset") if kind == "preset" else None
    with st.form("add_guard", enter_to_submit=False):
        given = _name_and_task(preset)
        given |= _python_fields() if kind == "python" else _http_fields(preset)
        given |= _limits(is_http=kind != "python")
        is_wanted = st.form_submit_button(
            "Add this guard", type="primary", icon=":material/add:", key="add_guard"
        )
    if is_wanted:
        base = {"preset": preset} if preset else {"kind": kind}
        with errors_shown("The guard was not added"):
            _add(base | given, listed)


def _add(given: dict[str, Any], listed: str) -> None:
    server = resources()
    models = {entry.id for entry in server.shield.registry.entries}
    entry = add_guard(server.settings.guards_path, entry_values(given), taken=models)
    st.toast("The guard was added.", icon=":material/check_circle:")
    st.query_params.update({VIEW_IN_URL: listed, GUARD_IN_URL: entry.title})
    st.rerun()


def _name_and_task(preset: str | None) -> dict[str, Any]:
    tasks = list(Task)
    own = presets()[preset]["task"] if preset else tasks[0]
    left, middle, right = st.columns(3)
    name = left.text_input("Name", key="new_name", help="What candidates are called; unique.")
    task = middle.selectbox(
        "Task",
        tasks,
        index=tasks.index(Task(own)),
        key=f"new_task_{preset}",
        format_func=lambda task: TASK_TITLES[Task(task)],
        help="What its risk is about. A sentiment needs three scores: a Python function.",
    )
    version = right.text_input("Version", key="new_version", placeholder="none")
    return {"name": name, "task": Task(task).value, "version": version}


def _http_fields(preset: str | None) -> dict[str, Any]:
    """Ask where and how it is asked; a known service needs none of it, and takes all of it."""
    known = presets()[preset] if preset else {}
    url = st.text_input(
        "Address",
        key="new_url",
        placeholder=known.get("url", "https://api.example.com/v1/moderations"),
        help="Asked by POST. A secret is sent by https only, or to this machine.",
    )
    own = "\n".join(f"{name}: {value}" for name, value in known.get("headers", {}).items())
    headers = st.text_area(
        "Headers",
        key="new_headers",
        height=68,
        placeholder=own or "Authorization: Bearer env:MODERATION_KEY",
        help=_SECRETS,
    )
    if preset:
        return {"url": url, "headers": headers}
    body = st.text_area(
        "Body",
        key="new_body",
        height=68,
        placeholder='{"input": "{text}"}',
        help="JSON to send. {text} stands for the text; of a batch, {texts} for the list.",
    )
    left, middle, right = st.columns(3)
    score = left.text_input(
        "Score",
        key="new_score",
        placeholder="results[0].score",
        help="JMESPath of the risk in the answer, from 0 to 1.",
    )
    verdict = middle.text_input(
        "or Verdict",
        key="new_verdict",
        placeholder="action",
        help="Instead of a score: JMESPath of a verdict.",
    )
    flagged = right.text_input(
        "Flagged verdicts",
        key="new_flagged",
        placeholder="BLOCK, true",
        help="Verdicts that mean risky, with commas between them.",
    )
    ends = left.text_input(
        "Range of the score", key="new_range", placeholder="0, 1", help="Stretched to 0 to 1."
    )
    return {
        "url": url,
        "headers": headers,
        "body": body,
        "score": score,
        "verdict": verdict,
        "flagged": flagged,
        "range": ends,
    }


def _python_fields() -> dict[str, Any]:
    callable_ = st.text_input(
        "Callable",
        key="new_callable",
        placeholder="my_package.guards:risk",
        help="package.module:name of what takes a text and returns a risk, a probability for each "
        "label, or a mapping of label to probability; or the name under which an installed "
        "package offers it.",
    )
    options = st.text_area(
        "Options",
        key="new_options",
        height=68,
        placeholder='{"guardrail": "prompt_guard"}',
        help="JSON, of a factory: what it is called with, once, to make the function.",
    )
    with st.container(horizontal=True):
        is_factory = st.checkbox("A factory: it makes the function", key="new_factory")
        is_alone = st.checkbox("One call at a time: it is not thread-safe", key="new_unsafe")
    return {
        "callable": callable_,
        "options": options,
        "factory": is_factory or None,
        "thread_safe": False if is_alone else None,
    }


def _limits(*, is_http: bool) -> dict[str, Any]:
    """Ask for what decides no score: threshold, price, limits, coverage."""
    given: dict[str, Any] = {}
    columns = st.columns(3)

    def ask(place: int, field: str, title: str, shown: str, **more: Any) -> None:
        given[field] = columns[place].number_input(
            title, value=None, key=f"new_{field}", placeholder=shown, **more
        )

    share = {"min_value": 0.0, "max_value": 1.0, "step": 0.05}
    ask(0, "threshold", "Threshold", "0.5", help="At or above it a text is flagged.", **share)
    ask(1, "price_per_1000", "Price of 1,000 calls", "0", min_value=0.0, format="%.4g")
    ask(2, "concurrency", "Calls at once", "1", min_value=1, step=1)
    ask(0, "timeout_s", "Longest wait, seconds", "10", min_value=0.1, format="%.4g")
    if is_http:
        ask(1, "per_second", "Most calls a second", "no limit", min_value=0.001, format="%.4g")
        ask(2, "attempts", "Tries of a call", "5", min_value=1, step=1)
        ask(0, "batch", "Texts a call", "1", min_value=1, step=1)
    ask(1, "longest_text", "Longest text, characters", "unknown", min_value=1, step=1)
    given["languages"] = columns[2].text_input(
        "Languages", key="new_languages", placeholder="en, de", help="ISO 639-1, with commas."
    )
    return given


def _show_model_way() -> None:
    st.markdown(
        "`shield guards add hf:OWNER/NAME` or `shield guards add model.onnx` finds file, tokenizer "
        "and labels, tries the model and writes its entry into your registry; it then appears here "
        "and on New run, without a restart. `shield guards catalogue` lists known models. "
        "WordPiece, BPE and SentencePiece tokenizers, softmax and sigmoid heads, and any order of "
        "labels work. `docs/guards.md` and `docs/adding-a-model.md` say more; `shield train` "
        "fine-tunes the small encoder on your own labels."
    )
