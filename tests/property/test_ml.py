"""Laws of windows and scores, for any text and every kind of tokenizer."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield_engine.ml import InferenceEngine, LoadedModel
from shield_engine.ml.tokenizer import WindowTokenizer
from tests import tiny_models
from tests.tiny_models import TOKENIZERS, TokenizerKind

WORDS = st.sampled_from(["ignore", "the", "fox", "hidden", "naïve", "你好", "😀", "a" * 90, "\n"])
TEXTS = st.one_of(
    st.text(max_size=200),
    st.text(alphabet=st.characters(exclude_categories=()), max_size=60),
    st.lists(WORDS, max_size=150).map(" ".join),
)
KINDS = pytest.mark.parametrize("kind", TOKENIZERS)


@functools.cache
def _tokenizer(kind: TokenizerKind, block_chars: int) -> WindowTokenizer:
    made = tiny_models.make_tokenizer(kind)
    return WindowTokenizer(made, max_length=12, stride=3, block_chars=block_chars)


@functools.cache
def _model(kind: TokenizerKind) -> LoadedModel:
    with tempfile.TemporaryDirectory() as folder:
        return tiny_models.load(Path(folder), tokenizer=kind, quantized=True)


@KINDS
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_windows_cover_every_token_once_and_in_order(kind: TokenizerKind, text: str) -> None:
    """Joining what each window adds gives the tokenizer's own ids: none lost, none invented."""
    tokenizer = tiny_models_tokenizer(kind)
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    expected = tokenizer.encode(clean, add_special_tokens=False).ids
    windows = list(_tokenizer(kind, 100_000).windows(clean))
    joined: list[int] = []
    for window in windows:
        own = window.ids.tolist()[1:-1]
        joined += own[len(own) - window.place.fresh :]
    assert joined == expected
    assert sum(window.place.fresh for window in windows) == len(expected)


@functools.cache
def tiny_models_tokenizer(kind: TokenizerKind) -> object:
    """Return the tokenizer with special tokens read as text, as the engine has it."""
    tokenizer = tiny_models.make_tokenizer(kind)
    tokenizer.encode_special_tokens = True
    return tokenizer


@KINDS
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_blocks_leave_no_character_out(kind: TokenizerKind, text: str) -> None:
    """Encoded in blocks of 64 characters, every character that has a token is in a window."""
    text = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    whole = tiny_models_tokenizer(kind).encode(text, add_special_tokens=False)
    covered = [False] * len(text)
    windows = list(_tokenizer(kind, 64).windows(text))
    for window in windows:
        assert 0 <= window.place.start <= window.place.end <= len(text)
        covered[window.place.start : window.place.end] = [True] * (
            window.place.end - window.place.start
        )
    for start, end in whole.offsets:
        missing = [at for at in range(start, end) if not covered[at] and not text[at].isspace()]
        # A token may also stand for characters that it swallowed (accents, joiners); alone they
        # have no token of their own when a block begins with them.
        assert all(not text[at].isprintable() or not text[at].isalnum() for at in missing)


@KINDS
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=6), threads=st.integers(1, 3))
def test_company_order_and_threads_never_change_a_score(
    kind: TokenizerKind, texts: list[str], threads: int
) -> None:
    """A text scores bit for bit the same alone, in a batch, and in the batch turned round."""
    with InferenceEngine(_model(kind), threads=threads) as engine:
        alone = [engine.infer(text).probabilities for text in texts]
        batch = [score.probabilities for score in engine.infer_batch(texts)]
        back = [score.probabilities for score in engine.infer_batch(texts[::-1])][::-1]
    assert alone == batch == back


@KINDS
@settings(max_examples=40, deadline=None)
@given(text=TEXTS)
def test_scores_are_probabilities_with_a_span_in_the_text(kind: TokenizerKind, text: str) -> None:
    """Probabilities lie in 0..1 and sum to 1; the deciding window lies inside the text."""
    with InferenceEngine(_model(kind), threads=1) as engine:
        score = engine.infer(text)
    assert all(0 <= value <= 1 for value in score.probabilities)
    assert sum(score.probabilities) == pytest.approx(1)
    assert 0 <= score.window[0] <= score.window[1] <= len(text)
