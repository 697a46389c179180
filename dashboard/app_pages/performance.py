"""Performance: what was measured on this machine or another, beside the reference's targets."""

from __future__ import annotations

from dashboard.performance.parts import (
    choose_benchmark,
    show_actions,
    show_benchmark,
    show_comparison,
)
from dashboard.state import resources
from dashboard.widgets import empty_state, errors_shown, page_title
from shield_engine.store.library import benchmarks

page_title("Performance", "Load times, throughput and latency, measured and not promised.")
show_actions()
documents = benchmarks(resources().store)
if documents:
    chosen = choose_benchmark(documents)
    with errors_shown("This benchmark cannot be shown"):
        show_benchmark(documents[chosen])
        show_comparison(documents, chosen)
else:
    empty_state(
        "Nothing measured yet",
        "Measure this machine with the button above, or load a file that `shield bench --json "
        "FILE` wrote on another one.",
    )
