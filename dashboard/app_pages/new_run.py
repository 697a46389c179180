"""New run: what to score a dataset with, how long it will take, and a trial on 500 rows first."""

from __future__ import annotations

from dashboard.new_run.parts import (
    choose_dataset,
    choose_spec,
    offer_start,
    show_estimate,
    show_watched,
)
from dashboard.state import resources
from dashboard.widgets import empty_state, page_title

page_title("New run", "Score every row of a dataset once; compare modes and thresholds afterwards.")
stored = resources().store.datasets.all()
datasets = {info.dataset_id: info for info in stored if not info.purged}
if datasets:
    dataset = choose_dataset(datasets)
    spec = choose_spec(dataset)
    offer_start(dataset, spec)
    show_watched()
    show_estimate(dataset, spec)
else:
    empty_state(
        "There is no dataset to score yet",
        "Import a file of texts, with labels if you have them, or a bundled sample.",
        "Import a dataset",
        "app_pages/datasets.py",
    )
