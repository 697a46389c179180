"""Reports of a run: one self-contained HTML file, Markdown, JSON, Parquet; a gate as JUnit XML."""

from shield_engine.reports.html import as_html
from shield_engine.reports.junit import gate_junit
from shield_engine.reports.markdown import as_markdown, gate_markdown
from shield_engine.reports.report import Report, build_report, scored_rows

__all__ = [
    "Report",
    "as_html",
    "as_markdown",
    "build_report",
    "gate_junit",
    "gate_markdown",
    "scored_rows",
]
