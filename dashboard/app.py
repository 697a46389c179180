"""The dashboard's entry: navigation, and the one place where an error becomes a message."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.state import OVERVIEW_RUN, resources
from dashboard.text import plain
from dashboard.widgets import errors_shown

# A material icon would be fetched from a font host by every visitor.
ICON = Path(__file__).with_name("icon.svg")
st.set_page_config(page_title="LLM Shield", page_icon=str(ICON), layout="wide")

page = st.navigation(
    {
        "Evaluate": [
            st.Page(
                "app_pages/overview.py",
                title="Overview",
                icon=":material/home:",
                default=True,
                help="What is stored, the latest runs, and one button that compares all modes.",
            ),
            st.Page(
                "app_pages/datasets.py",
                title="Datasets",
                icon=":material/dataset:",
                help="Import a file of texts, map its columns and labels, and look at its rows.",
            ),
            st.Page(
                "app_pages/new_run.py",
                title="New run",
                icon=":material/play_arrow:",
                help="Score a dataset with rules, with a model, or with both.",
            ),
            st.Page(
                "app_pages/runs.py",
                title="Runs",
                icon=":material/list_alt:",
                help="Every run with its progress and settings; resume, export or delete one.",
            ),
        ],
        "Decide": [
            st.Page(
                "app_pages/compare.py",
                title="Compare",
                icon=":material/compare_arrows:",
                help="Modes, policies and runs on the same rows: what differs, and whether it is decided.",
            ),
            st.Page(
                "app_pages/threshold_lab.py",
                title="Threshold lab",
                icon=":material/tune:",
                help="Choose a threshold by limit, cost or hand, and save it as a policy.",
            ),
            st.Page(
                "app_pages/errors.py",
                title="Errors",
                icon=":material/rule:",
                help="Read false positives and false negatives, correct labels, export hard cases.",
            ),
        ],
        "Operate": [
            st.Page(
                "app_pages/performance.py",
                title="Performance",
                icon=":material/speed:",
                help="Load times, throughput and latency measured on this machine.",
            ),
            st.Page(
                "app_pages/playground.py",
                title="Playground",
                icon=":material/science:",
                help="Scan one text and see every score with its reasons.",
            ),
            st.Page(
                "app_pages/guards.py",
                title="Guards",
                icon=":material/shield:",
                help="Whatever can score a text: models, HTTP APIs, Python functions; add, check.",
            ),
            # Bookmarks of the page that Guards took the place of.
            st.Page("app_pages/guards.py", title="Guards", url_path="models", visibility="hidden"),
            st.Page(
                "app_pages/reports_gates.py",
                title="Reports and gates",
                icon=":material/task_alt:",
                help="Judge a run by requirements, for a release or in CI, and write reports.",
            ),
            st.Page(
                "app_pages/settings_page.py",
                title="Settings",
                icon=":material/settings:",
                url_path="settings",
                help="Where things lie, backup, purge and limits.",
            ),
        ],
    }
)

if page.url_path:
    # Who left Overview no longer waits there for the sample's comparison.
    st.session_state.pop(OVERVIEW_RUN, None)
with errors_shown():
    if "seen_notices" not in st.session_state:
        st.session_state["seen_notices"] = True
        for notice in resources().notices:
            st.toast(plain(notice), icon=":material/info:", duration="long")
    page.run()
