"""Cuts texts of any length into the windows a model can read, with their place in the text.

Hides the tokenizer's kind: special tokens come from its own post-processor, offsets from its own
encodings, so WordPiece, BPE and Unigram tokenizers are treated alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shield_engine.errors import ArtifactError

__all__ = ["Place", "Window", "WindowTokenizer"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_PROBES = ("a", "the", "A", "1", ".")
# One block of this many characters takes about 15 MB while it is encoded; nearly every text is
# shorter and is encoded whole.
_BLOCK_CHARS = 100_000
_BACK_CHARS = 200  # how far to look back for white space before cutting through a word


@dataclass(frozen=True, slots=True)
class Place:
    """Where a window lies in its text.

    Attributes:
        start: First character of the window in the text.
        end: Character after its last one.
        tokens: Tokens without the special ones.
        fresh: Tokens that the window before did not have.
    """

    start: int
    end: int
    tokens: int
    fresh: int


@dataclass(frozen=True, slots=True)
class Window:
    """One input of the model.

    Attributes:
        ids: Token ids with special tokens, shape (n,), int64.
        type_ids: Segment ids, shape (n,), int64.
        place: Where it lies in the text.
    """

    ids: NDArray[np.int64]
    type_ids: NDArray[np.int64]
    place: Place


class WindowTokenizer:
    """A tokenizer that yields overlapping windows; safe to share between threads.

    Text that spells a special token (`[SEP]`, `</s>`) is read as text, so that nobody can end or
    mask the input from inside.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        stride: int,
        block_chars: int = _BLOCK_CHARS,
    ) -> None:
        """Prepare windows of `max_length` tokens, special ones included, `stride` of them shared.

        Raises:
            ArtifactError: The window has no room, or the special tokens are not a fixed frame
                around the text.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._block_chars = block_chars
        self._before, self._after, self._type_id = _frame(tokenizer)
        self._room = max_length - len(self._before) - len(self._after)
        if self._room - stride < 1:
            raise ArtifactError(
                f"a window of {max_length} tokens, {stride} of them shared, leaves no room beside "
                f"{max_length - self._room} special tokens; correct max_length or stride"
            )
        self._step = self._room - stride

    @classmethod
    def from_file(cls, path: Path, *, max_length: int, stride: int) -> Self:
        """Load a `tokenizer.json`.

        Raises:
            ArtifactError: The file is no tokenizer.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ArtifactError(f"{path} is not a tokenizer.json: {error}") from error
        return cls(tokenizer, max_length=max_length, stride=stride)

    def count(self, text: str) -> int:
        """Return the number of tokens without special ones."""
        return sum(window.place.fresh for window in self.windows(text))

    def windows(self, text: str) -> Iterator[Window]:
        """Yield the windows of `text`, first to last; an empty text has one.

        Every token is in a window. Texts beyond a block are encoded block by block, so memory does
        not grow with the text; the block after starts where the last full window began, and white
        space is preferred for the cuts.
        """
        text = _SURROGATE.sub("\ufffd", text)
        start = shared = 0
        while True:
            end = self._block_end(text, start)
            is_last = end == len(text)
            encoding = self._tokenizer.encode(text[start:end], add_special_tokens=False)
            # Read once: each access to the attribute copies the whole list.
            ids = np.asarray(encoding.ids, dtype=np.int64)
            firsts = range(0, max(len(ids) - (self._room - self._step), 1), self._step)
            # The last window of a block may end in a word that the block's end cut through.
            whole = firsts if is_last or len(firsts) == 1 else firsts[:-1]
            for first in whole:
                yield self._window(ids, encoding, first, start, shared)
                shared = self._room - self._step
            if is_last:
                return
            if len(whole) == len(firsts):
                start, shared = end, 0
            else:
                start = self._restart(text, start, encoding, firsts)

    def _window(
        self,
        ids: NDArray[np.int64],
        encoding: Any,
        first: int,
        start: int,
        shared: int,
    ) -> Window:
        part = ids[first : first + self._room]
        last = first + len(part)
        begins, ends = 0, 0
        if len(part):
            begins = encoding.token_to_chars(first)[0]
            ends = encoding.token_to_chars(last - 1)[1]
        size = len(self._before) + len(part) + len(self._after)
        full = np.empty(size, dtype=np.int64)
        types = np.full(size, self._type_id, dtype=np.int64)
        head, tail = len(self._before), size - len(self._after)
        full[:head], types[:head] = self._before[:, 0], self._before[:, 1]
        full[head:tail] = part
        full[tail:], types[tail:] = self._after[:, 0], self._after[:, 1]
        fresh = max(len(part) - shared, 0)
        return Window(full, types, Place(start + begins, start + ends, len(part), fresh))

    def _block_end(self, text: str, start: int) -> int:
        end = start + self._block_chars
        if end >= len(text):
            return len(text)
        return _after_space(text, start + self._block_chars // 2, end) or end

    def _restart(self, text: str, start: int, encoding: Any, firsts: range) -> int:
        """Return where the next block starts: at or before the first token that has no window."""
        token = start + int(encoding.token_to_chars(firsts[-1])[0])
        token = max(token, start + 1)
        return _after_space(text, start + 1, token) or token


def _after_space(text: str, low: int, high: int) -> int | None:
    """Return the last position in low..high, not far before `high`, that follows white space."""
    for position in range(high, max(low, high - _BACK_CHARS), -1):
        if text[position - 1].isspace():
            return position
    return None


def _frame(tokenizer: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return (id, type id) of the special tokens before and after a text, and the text's type id.

    Raises:
        ArtifactError: The special tokens depend on the text.
    """
    frames = set()
    for probe in _PROBES:
        bare = tokenizer.encode(probe, add_special_tokens=False)
        full = tokenizer.encode(probe)
        if not bare.ids:
            continue
        pairs = list(zip(full.ids, full.type_ids, strict=True))
        added = len(full.ids) - len(bare.ids)
        matches = [
            head
            for head in range(added + 1)
            if full.ids[head : head + len(bare.ids)] == bare.ids
            and not any(full.special_tokens_mask[head : head + len(bare.ids)])
        ]
        if added < 0 or not matches:
            raise ArtifactError(
                "the tokenizer's post-processor does more than put special tokens around the "
                "text; windows cannot be built for it"
            )
        head = matches[0]
        frames.add(
            (
                tuple(pairs[:head]),
                tuple(pairs[head + len(bare.ids) :]),
                full.type_ids[head],
            )
        )
    if len(frames) != 1:
        raise ArtifactError(
            "the tokenizer gives no tokens for plain letters, or its special tokens change with "
            "the text; windows cannot be built for it"
        )
    before, after, type_id = frames.pop()
    return _pairs(before), _pairs(after), int(type_id)


def _pairs(pairs: tuple[tuple[int, int], ...]) -> NDArray[np.int64]:
    return np.asarray(pairs, dtype=np.int64).reshape(len(pairs), 2)
