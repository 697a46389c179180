"""Pipelines and the vault, with real scanners that tests can see through."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from shield_engine.errors import ConfigError
from shield_engine.pipeline import ScannerPipeline, Vault
from shield_engine.types import ScanResult


@dataclass
class WordScanner:
    """Flags texts that hold a word, and masks it."""

    name: str
    word: str
    scanned: int = 0

    def scan(self, text: str) -> ScanResult:
        """Judge `text`."""
        self.scanned += 1
        if self.word in text:
            return ScanResult.failed(text.replace(self.word, "***"), 0.8, scanner=self.name)
        return ScanResult.passed(text, scanner=self.name, risk_score=0.1)


def test_all_scanners_run_and_the_worst_counts() -> None:
    """Without short circuit every scanner speaks; one failure makes the text invalid."""
    pipeline = ScannerPipeline([WordScanner("a", "bad"), WordScanner("b", "worse")])
    result = pipeline.execute("a bad text")
    assert [part.is_valid for part in result] == [False, True]
    assert not result.is_valid
    assert result.risk_score == 0.8
    assert result.combined.risk_score == 0.8
    assert result.text == "a *** text"


def test_short_circuit_names_what_it_skipped() -> None:
    """After a failure the later scanners do not run and are listed."""
    last = WordScanner("b", "worse")
    pipeline = ScannerPipeline([WordScanner("a", "bad"), last], short_circuit=True)
    assert pipeline.execute("bad").skipped == ("b",)
    assert last.scanned == 0
    assert pipeline.execute("fine").skipped == ()
    assert last.scanned == 1


def test_batch_keeps_the_order_of_texts_over_threads() -> None:
    """Results of a batch line up with its texts at any number of threads."""
    texts = [f"text {number}{' bad' if number % 3 == 0 else ''}" for number in range(50)]
    for threads in (1, 4):
        results = ScannerPipeline([WordScanner("a", "bad")], threads=threads).execute_batch(texts)
        assert [result.is_valid for result in results] == ["bad" not in text for text in texts]


def test_two_scanners_of_one_name_are_refused() -> None:
    """Results are told apart by scanner name, so names must differ."""
    with pytest.raises(ConfigError, match="named same"):
        ScannerPipeline([WordScanner("same", "x"), WordScanner("same", "y")])


def test_empty_pipeline_passes_everything() -> None:
    """No scanner means no objection."""
    result = ScannerPipeline([]).execute("text")
    assert result.is_valid
    assert result.combined.is_valid
    assert result.risk_score == 0.0


def test_output_scan_shares_the_vault_of_the_input_scan() -> None:
    """A value stored for the prompt can be read when the answer is scanned."""
    pipeline = ScannerPipeline([], [WordScanner("out", "bad")])
    pipeline.vault.set("[NAME_1]", {"value": "Ada"})
    assert not pipeline.execute_output("bad answer").is_valid
    assert pipeline.execute_output("ok").is_valid
    assert pipeline.vault.keys() == ("[NAME_1]",)


def test_vault_keeps_json_values_apart_from_the_callers() -> None:
    """Set, get, contains, keys, remove, clear and length; values are copies."""
    vault = Vault()
    value = {"a": [1, None, "x"]}
    vault.set("k", value)
    value["a"].append(2)
    assert vault.get("k") == {"a": [1, None, "x"]}
    vault.get("k")["a"].clear()
    assert vault.get("k") == {"a": [1, None, "x"]}
    vault.set("n", None)
    assert vault.contains("n")
    assert "n" in vault
    assert vault.get("missing", 7) == 7
    assert vault.keys() == ("k", "n")
    assert vault.remove("k")
    assert not vault.remove("k")
    assert len(vault) == 1
    vault.clear()
    assert len(vault) == 0


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_vault_refuses_what_is_not_json(value: object) -> None:
    """A value that could not be read back is an error when stored."""
    with pytest.raises(ConfigError, match="not JSON"):
        Vault().set("k", value)


def test_vault_survives_threads() -> None:
    """Eight threads writing their own keys lose none."""
    vault = Vault()

    def write(thread: int) -> None:
        for number in range(200):
            vault.set(f"{thread}:{number}", number)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(vault) == 1_600
