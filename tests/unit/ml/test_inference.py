"""The model part's scores: right label, right window, the same every time, or an error."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shield_engine.errors import ConfigError, InferenceError
from shield_engine.ml import InferenceEngine, LoadedModel
from tests import tiny_models

LONG = "the quick brown fox jumps over the lazy dog. " * 12
ATTACK = LONG + "ignore ignore ignore ignore " + LONG


def _engine(folder: Path, **options: object) -> InferenceEngine:
    return InferenceEngine(tiny_models.load(folder, **options), threads=2)


def _by_hand(model: LoadedModel, text: str) -> list[float]:
    """Run the graph directly on a text that fits one window."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(model.info.path.with_suffix(".tokenizer.json")))
    encoding = made.encode(text)
    feeds = {
        "input_ids": np.asarray([encoding.ids], np.int64),
        "attention_mask": np.ones((1, len(encoding.ids)), np.int64),
    }
    logits = model.session.run(None, feeds)[0][0].astype(float)
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("tokenizer", tiny_models.TOKENIZERS)
def test_score_equals_the_graph_run_by_hand(tmp_path: Path, tokenizer: str) -> None:
    """A short text scores what the tokenizer and the graph alone give, softmax computed by hand."""
    model = tiny_models.load(tmp_path, tokenizer=tokenizer, max_length=64)
    with InferenceEngine(model, threads=1) as engine:
        score = engine.infer("Please ignore the dog!")
    expected = _by_hand(model, "Please ignore the dog!")
    assert score.probabilities == pytest.approx(expected, abs=1e-12)
    assert score.score == score.probabilities[1]
    assert score.windows == 1


@pytest.mark.parametrize("tokenizer", tiny_models.TOKENIZERS)
def test_riskiest_window_decides_and_is_reported(tmp_path: Path, tokenizer: str) -> None:
    """One risky phrase in a long text gives the risk, and the window's span covers it."""
    with _engine(tmp_path, tokenizer=tokenizer) as engine:
        calm, attack = engine.infer(LONG * 2), engine.infer(ATTACK)
    start, end = attack.window
    assert attack.windows > 5
    assert "ignore" in ATTACK[start:end]
    assert end - start < len(ATTACK) / 3
    assert attack.score > 0.9 > calm.score


def test_other_label_order_gives_the_same_score(tmp_path: Path) -> None:
    """A model whose outputs stand the other way round scores by name, not by position."""
    risky = {"ignore": "injection"}
    with _engine(tmp_path / "a", labels=("injection", "benign"), risky=risky) as engine:
        score = engine.infer("ignore ignore")
    assert score.score > 0.9
    assert score.probabilities[1] == score.score


def test_label_map_translates_foreign_names(tmp_path: Path) -> None:
    """Labels of other names are read through `label_map`; labels of one class add up."""
    options = {
        "labels": ("SAFE", "JAILBREAK", "INDIRECT"),
        "label_map": {"SAFE": "benign", "JAILBREAK": "injection", "INDIRECT": "injection"},
        "risky": {"ignore": "JAILBREAK", "reveal": "INDIRECT"},
    }
    with _engine(tmp_path, **options) as engine:
        for text in ("ignore", "reveal"):
            score = engine.infer(text)
            assert score.score > 0.9
            assert sum(score.probabilities) == pytest.approx(1)


def test_temperature_and_bias_scale_the_logits(tmp_path: Path) -> None:
    """A label's bias is added to its logit, and the sum divided by the temperature."""
    model = tiny_models.load(tmp_path)
    entry = replace(model.entry, temperature=2.5, bias={"injection": -1.5})
    with (
        InferenceEngine(model) as plain,
        InferenceEngine(replace(model, entry=entry)) as scaled,
    ):
        for text in ("ignore the garden", "what a lovely day"):
            safe, risky = plain.infer(text).probabilities
            odds = (np.log(risky / safe) - 1.5) / 2.5
            assert scaled.infer(text).score == pytest.approx(1 / (1 + np.exp(-odds)))


def test_sigmoid_labels_are_judged_each_alone(tmp_path: Path) -> None:
    """Of independent labels the highest risky one is the risk; safe ones do not lower it."""
    options = {
        "task": "toxicity",
        "head": "sigmoid",
        "labels": ("insult", "threat"),
        "label_map": {"insult": "toxic", "threat": "toxic"},
        "risky": {"fool": "insult", "hate": "threat"},
    }
    model = tiny_models.load(tmp_path, **options)
    with InferenceEngine(model, threads=1) as engine:
        score = engine.infer("fool hate")
    shares = _by_hand(model, "fool hate")
    assert score.score > 0.9
    assert score.probabilities == pytest.approx((1 - score.score, score.score))
    assert max(shares) < 0.9  # a soft maximum would have split the risk between the two


def test_single_sigmoid_output_works(tmp_path: Path) -> None:
    """A head of one logit is the risk itself."""
    with _engine(
        tmp_path, task="toxicity", head="sigmoid", labels=("toxic",), risky={"hate": "toxic"}
    ) as engine:
        assert engine.infer("hate hate").score > 0.9


def test_sentiment_is_the_mean_over_windows(tmp_path: Path) -> None:
    """A long review's probabilities are its windows' mean, weighted by the tokens each adds."""
    labels = ("negative", "neutral", "positive")
    model = tiny_models.load(
        tmp_path, task="sentiment", labels=labels, risky={"awful": "negative", "lovely": "positive"}
    )
    text = "awful awful awful " + "lovely day " * 40
    with InferenceEngine(model, threads=2) as engine:
        score = engine.infer(text)
        windows = list(model.windows.windows(text))
        parts = []
        for window in windows:
            feeds = {
                "input_ids": window.ids[None],
                "attention_mask": np.ones((1, len(window.ids)), np.int64),
            }
            logits = model.session.run(None, feeds)[0][0].astype(float)
            powers = np.exp(logits - logits.max())
            parts.append(powers / powers.sum())
    weights = [window.place.fresh for window in windows]
    assert len(windows) > 3
    assert score.probabilities == pytest.approx(np.average(parts, axis=0, weights=weights))
    assert score.score == score.probabilities[0]
    assert score.window[0] == 0  # the window with the highest P(negative) is the first


def test_token_type_ids_are_fed_only_when_asked_for(tmp_path: Path) -> None:
    """A graph with three inputs and 32-bit integers gets them; one with two is not disturbed."""
    with _engine(tmp_path / "three", type_ids=True, int32=True) as three:
        assert three.infer("ignore").score > 0.9
    with _engine(tmp_path / "two") as two:
        assert two.infer("ignore").score > 0.9


@pytest.mark.parametrize("text", ["", " ", "\ud800", "\x00", "\u200b", "a" * 5000, "😀" * 300])
@pytest.mark.parametrize("tokenizer", tiny_models.TOKENIZERS)
def test_odd_texts_are_scored(tmp_path: Path, tokenizer: str, text: str) -> None:
    """Empty, unpaired, invisible and unbroken texts get a finite score and a span inside them."""
    with _engine(tmp_path, tokenizer=tokenizer) as engine:
        score = engine.infer(text)
    assert 0 <= score.score <= 1
    assert 0 <= score.window[0] <= score.window[1] <= len(text)


def test_a_million_characters_are_read_to_the_end(tmp_path: Path) -> None:
    """A risky word at the very end of a million characters is found where it stands."""
    text = "the quick brown fox " * 50_000 + "ignore ignore ignore"
    with _engine(tmp_path, max_length=512, stride=64) as engine:
        score = engine.infer(text)
    assert score.window[1] == len(text)
    assert score.tokens > 200_000


@pytest.mark.parametrize("quantized", [False, True])
def test_same_text_same_score_everywhere(tmp_path: Path, quantized: bool) -> None:
    """Alone, in any batch, in any order, in any thread and asynchronously: bit for bit equal.

    The quantized graph takes its scale from the whole batch, as dynamic INT8 does.
    """
    model = tiny_models.load(tmp_path, quantized=quantized)
    texts = ["ignore this", "hello", "", ATTACK, "what a lovely day", LONG] * 3
    with InferenceEngine(model, threads=1) as one:
        alone = [one.infer(text).probabilities for text in texts]
    with InferenceEngine(model, threads=4) as four:
        batch = [score.probabilities for score in four.infer_batch(texts)]
        backwards = [score.probabilities for score in four.infer_batch(texts[::-1])][::-1]
        spread = [four.infer(text).probabilities for text in texts]

        async def gather() -> list[tuple[float, ...]]:
            scores = await asyncio.gather(*(four.infer_async(text) for text in texts))
            return [score.probabilities for score in scores]

        later = asyncio.run(gather())
        seen: list[tuple[float, ...]] = [()] * len(texts)

        def ask(position: int) -> None:
            seen[position] = four.infer(texts[position]).probabilities

        threads = [threading.Thread(target=ask, args=(p,)) for p in range(len(texts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert alone == batch == backwards == spread == later == seen


def test_batch_of_nothing_is_empty(tmp_path: Path) -> None:
    """An empty batch gives an empty list."""
    with _engine(tmp_path) as engine:
        assert engine.infer_batch([]) == []


@pytest.mark.parametrize(
    ("fault", "message"), [("nan", "not finite"), ("wide", r"shape \(1, \d+\), not \(1, 2\)")]
)
def test_broken_output_is_an_error(tmp_path: Path, fault: str, message: str) -> None:
    """NaN or too many logits never become a score."""
    with _engine(tmp_path, fault=fault) as engine, pytest.raises(InferenceError, match=message):
        engine.infer("hello")


def test_error_in_a_batch_names_the_text(tmp_path: Path) -> None:
    """A model that fails on one text of a batch says on which, and still works afterwards."""
    with _engine(tmp_path, fault="refuses_long") as engine:
        with pytest.raises(InferenceError, match=r"text 1 of the batch: .*failed on a window"):
            engine.infer_batch(["hello", LONG])
        assert engine.infer("hello").windows == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_time_out_stops_a_model_that_would_run_for_hours(tmp_path: Path, threads: int) -> None:
    """At the time-out the run is ended and an error raised; the next call gets a new deadline."""
    model = tiny_models.load(tmp_path, fault="slow")
    with InferenceEngine(model, threads=threads, timeout_s=0.1) as engine:
        for _ in range(2):
            with pytest.raises(InferenceError, match=r"longer than 0\.1 s"):
                engine.infer("hello")
        with pytest.raises(InferenceError, match=r"longer than 0\.1 s"):
            engine.infer_batch(["hello", "world"])


def test_time_out_leaves_fast_texts_alone(tmp_path: Path) -> None:
    """Under a generous time-out scores are the same as without one."""
    model = tiny_models.load(tmp_path)
    with (
        InferenceEngine(model, threads=2) as free,
        InferenceEngine(model, threads=2, timeout_s=60) as bound,
    ):
        assert bound.infer(ATTACK).probabilities == free.infer(ATTACK).probabilities


def test_time_out_covers_a_text_of_many_windows(tmp_path: Path) -> None:
    """The limit is for the whole text, so many quick windows run out of time too."""
    model = tiny_models.load(tmp_path)
    with (
        InferenceEngine(model, threads=2, timeout_s=0.001) as engine,
        pytest.raises(InferenceError, match="longer than"),
    ):
        engine.infer(LONG * 200)


def test_special_tokens_in_a_text_are_text(tmp_path: Path) -> None:
    """A text that spells the end token does not put one into the model's input."""
    model = tiny_models.load(tmp_path, tokenizer="bpe", max_length=64)
    (window,) = model.windows.windows("hello </s> <pad> world")
    assert list(window.ids).count(1) == 1
    assert list(window.ids).count(3) == 0


def test_closed_engine_refuses(tmp_path: Path) -> None:
    """After `close` a call says so and the model itself stays usable."""
    model = tiny_models.load(tmp_path)
    engine = InferenceEngine(model, threads=2)
    engine.close()
    with pytest.raises(InferenceError, match="was closed"):
        engine.infer("hello")
    with InferenceEngine(model, threads=2) as again:
        assert again.infer("ignore").score > 0.9


@pytest.mark.parametrize(("threads", "timeout_s"), [(0, None), (1, 0.0), (1, math.nan)])
def test_useless_settings_are_refused(
    tmp_path: Path, threads: int, timeout_s: float | None
) -> None:
    """No threads, or no time, is a mistake that shows at once."""
    model = tiny_models.load(tmp_path)
    with pytest.raises(ConfigError, match="not above 0"):
        InferenceEngine(model, threads=threads, timeout_s=timeout_s)
