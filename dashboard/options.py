"""Ways to judge a run: its modes, the policies that fit it, and the modes of other runs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from dashboard.text import MODE_TITLES, visible
from shield_engine.config import DEFAULT_THRESHOLD
from shield_engine.decide.candidates import Candidate, candidate_of, candidate_title, of_policy
from shield_engine.decide.views import available_modes
from shield_engine.errors import ConfigError
from shield_engine.policy import Policy
from shield_engine.store import RunInfo

__all__ = ["Option", "judge_options", "mode_options", "policy_options", "run_options"]


@dataclass(frozen=True, slots=True)
class Option:
    """One way of judging to choose.

    Attributes:
        key: What widgets and links carry: `mode:hybrid`, `policy:strict:2`, `run:1a2b:ml`.
        label: What the list of choices shows.
        candidate: What judges, with its short title.
        policy: Where it came from; `None` for a mode.
    """

    key: str
    label: str
    candidate: Candidate
    policy: Policy | None = None

    @property
    def threshold(self) -> float:
        """Where a row is flagged, where a threshold decides."""
        threshold = self.candidate.threshold
        return DEFAULT_THRESHOLD if threshold is None else threshold


def mode_options(run: RunInfo, thresholds: Mapping[str, float]) -> list[Option]:
    """Return the modes of a run, each at its balanced threshold.

    Those of a guard are called by its name; those of a model by the mode alone.
    """
    options = []
    for mode in available_modes(run):
        title = MODE_TITLES[mode]
        if run.stamp.get("guard"):
            title = visible(candidate_title(mode, run.scorer or ""))
        candidate = replace(candidate_of(run, thresholds, mode=mode), title=title)
        options.append(Option(f"mode:{mode.value}", title, candidate))
    return options


def policy_options(run: RunInfo, policies: Iterable[Policy]) -> tuple[list[Option], list[str]]:
    """Return the policies that a run's scores can judge, and why the task's others cannot be."""
    options, reasons = [], []
    for policy in policies:
        if policy.task is not run.task:
            continue
        try:
            candidate = of_policy(policy, run)
        except ConfigError as error:
            reasons.append(str(error))
            continue
        candidate = replace(candidate, title=f"Policy {visible(policy.title)}")
        decides = "most probable label"
        if policy.threshold is not None:
            decides = f"threshold {policy.threshold:g}"
        label = f"{candidate.title} ({MODE_TITLES[policy.mode]}, {decides})"
        options.append(Option(f"policy:{policy.name}:{policy.version}", label, candidate, policy))
    return options, reasons


def judge_options(
    run: RunInfo, thresholds: Mapping[str, float], policies: Iterable[Policy]
) -> dict[str, Option]:
    """Return a run's modes, then the policies that fit it, by what a link to its rows carries."""
    modes = {
        option.candidate.mode.value: replace(option, label=f"{option.label}, balanced")
        for option in mode_options(run, thresholds)
    }
    fitting, _ = policy_options(run, policies)
    return modes | {
        option.key: replace(
            option,
            label=f"{option.candidate.title} ({MODE_TITLES[option.candidate.mode].lower()})",
        )
        for option in fitting
    }


def run_options(
    run: RunInfo,
    others: Iterable[RunInfo],
    datasets: Mapping[str, str],
    thresholds_of: Callable[[RunInfo], Mapping[str, float]],
) -> list[Option]:
    """Return the modes of other runs of the same task, those over the same dataset first.

    A candidate is called by what scored it. Of several runs that scored one dataset alike, the
    latest stands for all; so does the run at hand for the rules, which every run repeats.
    """
    fitting = [
        other
        for other in others
        if other.task is run.task and other.run_id != run.run_id and other.rows_done
    ]
    fitting.sort(key=lambda other: other.dataset_id != run.dataset_id)
    options: dict[tuple[str, str], Option] = {}
    shown = {
        (run.dataset_id, candidate_title(mode, run.scorer or "")) for mode in available_modes(run)
    }
    for other in fitting:
        dataset = visible(datasets.get(other.dataset_id, other.dataset_id))
        for option in mode_options(other, thresholds_of(other)):
            mode = option.candidate.mode
            title = visible(candidate_title(mode, other.scorer or ""))
            if (other.dataset_id, title) in shown:
                continue
            shown.add((other.dataset_id, title))
            place = f"{title} on {dataset}" if other.dataset_id != run.dataset_id else title
            options[other.dataset_id, title] = Option(
                f"run:{other.run_id}:{mode.value}", place, replace(option.candidate, title=place)
            )
    return list(options.values())
