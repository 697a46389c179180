"""Small charts as inline SVG: no script, colours by CSS class so that they follow the page's theme.

Numbers and labels in, escaped markup out. Hides scales, ticks and geometry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from shield_engine.hostile_text import visible

__all__ = ["Bar", "Curve", "Dot", "bars", "bounds_bar", "curves", "forest", "histogram"]

_WIDTH = 640


@dataclass(frozen=True, slots=True)
class Dot:
    """A dot with its interval on a scale of 0 to 100 percent.

    Attributes:
        label: What it is; equal neighbouring labels are written once.
        series: Position of its colour and marker.
        text: Read on hover and by screen readers.
    """

    label: str
    series: int
    value: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points in percent; `mark` is the point that is in force."""

    title: str
    series: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    mark: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a logarithmic scale; its label stands before it, its number behind."""

    label: str
    series: int
    value: float
    text: str


def forest(title: str, items: Sequence[Dot]) -> Markup:
    """Return dots with intervals, one line each, over 0 to 100 percent."""
    left, step, top = 150, 20, 8
    height = top + step * len(items) + 34
    x = _scale(0, 100, left, _WIDTH - 16)
    parts = [_percent_axis(x, top, height - 30)]
    previous = None
    for row, item in enumerate(items):
        y = top + step * (row + 0.5)
        if item.label != previous:
            if row:
                parts.append(_line(0, y - step / 2, _WIDTH, y - step / 2, "grid"))
            parts.append(_text(left - 10, y + 4, item.label, "end"))
            previous = item.label
        inner = f"<title>{_safe(item.text)}</title>"
        if item.low is not None and item.high is not None:
            inner += _line(x(item.low), y, x(item.high), y, f"line s{item.series}")
        inner += _marker(x(item.value), y, item.series)
        parts.append(f"<g>{inner}</g>")
    return _svg(title, height, parts)


def curves(title: str, items: Sequence[Curve], x_title: str, y_title: str) -> Markup:
    """Return lines over a square of 0 to 100 percent, with the diagonal of chance."""
    left, top, height = 56, 10, 340
    x = _scale(0, 100, left, _WIDTH - 16)
    y = _scale(0, 100, height - 40, top)
    parts = [_percent_axis(x, top, height - 40)]
    for tick in range(0, 101, 20):
        parts.append(_line(left, y(tick), _WIDTH - 16, y(tick), "grid"))
        parts.append(_text(left - 6, y(tick) + 4, f"{tick}%", "end"))
    parts.append(_line(x(0), y(0), x(100), y(100), "chance"))
    for item in items:
        places = " ".join(
            f"{x(a):.1f},{y(b):.1f}" for a, b in zip(item.x.tolist(), item.y.tolist(), strict=True)
        )
        parts.append(
            f'<polyline class="line s{item.series}" points="{places}">'
            f"<title>{_safe(item.title)}</title></polyline>"
        )
        if item.mark is not None:
            parts.append(_marker(x(item.mark[0]), y(item.mark[1]), item.series))
    parts.append(_text((left + _WIDTH) / 2, height - 4, x_title, "middle"))
    parts.append(
        f'<text class="label" transform="translate(12 {height / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{_safe(y_title)}</text>'
    )
    return _svg(title, height, parts)


def histogram(
    title: str,
    edges: NDArray[np.float64],
    classes: Sequence[tuple[str, NDArray[np.int64]]],
    mark: float | None,
) -> Markup:
    """Return one row of bars a class over scores 0 to 1, heights by the logarithm of the rows.

    Args:
        title: For screen readers.
        edges: Bin edges, shape (bins + 1,).
        classes: (name, rows of each bin), drawn one below the other.
        mark: The threshold.
    """
    left, band, top = 110, 84, 18
    height = top + band * len(classes) + 36
    x = _scale(0, 1, left, _WIDTH - 16)
    most = math.log10(1 + max((int(counts.max(initial=0)) for _, counts in classes), default=0))
    parts = []
    for tick in np.linspace(0, 1, 6).tolist():
        parts.append(_line(x(tick), top, x(tick), height - 34, "grid"))
        parts.append(_text(x(tick), height - 20, f"{tick:.1f}", "middle"))
    for row, (name, counts) in enumerate(classes):
        base = top + band * (row + 1) - 6
        parts.append(_text(left - 10, base - 4, name, "end"))
        parts.append(_line(left, base, _WIDTH - 16, base, "axis"))
        for place in np.flatnonzero(counts).tolist():
            tall = (band - 16) * math.log10(1 + int(counts[place])) / most
            width = x(edges[place + 1]) - x(edges[place]) - 1
            text = f"{name}: {int(counts[place]):,} rows at {edges[place]:.3g} to {edges[place + 1]:.3g}"
            parts.append(
                f'<rect class="fill c{row}" x="{x(edges[place]):.1f}" y="{base - tall:.1f}" '
                f'width="{width:.1f}" height="{tall:.1f}"><title>{_safe(text)}</title></rect>'
            )
    if mark is not None and 0 <= mark <= 1:
        parts.append(_line(x(mark), top - 2, x(mark), height - 34, "mark"))
        parts.append(_text(x(mark), top - 6, f"threshold {mark:g}", "middle"))
    parts.append(_text((left + _WIDTH) / 2, height - 4, "score", "middle"))
    return _svg(title, height, parts)


def bars(title: str, items: Sequence[Bar], unit: str) -> Markup:
    """Return horizontal bars on a logarithmic scale."""
    left, step, top = 190, 22, 6
    height = top + step * len(items) + 36
    positive = [item.value for item in items if item.value > 0] or [1.0]
    low = math.floor(math.log10(min(positive)))
    high = max(low + 1, math.ceil(math.log10(max(positive)) + 1e-9))
    x = _scale(low, high, left, _WIDTH - 70)
    parts = []
    for power in range(low, high + 1):
        parts.append(_line(x(power), top, x(power), height - 34, "grid"))
        parts.append(_text(x(power), height - 20, f"{10.0**power:g}", "middle"))
    for row, item in enumerate(items):
        y = top + step * row
        end = x(math.log10(item.value)) if item.value > 0 else left
        parts.append(_text(left - 10, y + 15, item.label, "end"))
        parts.append(
            f'<rect class="fill f{item.series}" x="{left}" y="{y + 4}" '
            f'width="{max(1.0, end - left):.1f}" height="{step - 8}">'
            f"<title>{_safe(item.text)}</title></rect>"
        )
        parts.append(_text(end + 6, y + 15, f"{item.value:.3g}", "start"))
    parts.append(_text((left + _WIDTH) / 2, height - 4, f"{unit}, logarithmic", "middle"))
    return _svg(title, height, parts)


def bounds_bar(text: str, value: float, low: float, high: float, limit: float) -> Markup:
    """Return a figure with its two bounds and the limit that one of them must clear."""
    width, height = 180, 24
    start, end = min(low, value, limit), max(high, value, limit)
    room = (end - start) * 0.08 or 1.0
    x = _scale(start - room, end + room, 2, width - 2)
    parts = [
        f"<title>{_safe(text)}</title>",
        _line(x(low), 12, x(high), 12, "line s0"),
        _line(x(low), 8, x(low), 16, "line s0"),
        _line(x(high), 8, x(high), 16, "line s0"),
        _marker(x(value), 12, 0),
        _line(x(limit), 2, x(limit), 22, "mark"),
    ]
    return Markup(  # noqa: S704 - built from numbers and from text that _safe escaped
        f'<svg class="small" viewBox="0 0 {width} {height}" role="img" aria-label="{_safe(text)}">'
        f"{''.join(parts)}</svg>"
    )


class _Scale:
    """A linear map from values to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float):
        self._low, self._start = low, start
        self._step = (end - start) / (high - low)

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._step


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    return _Scale(low, high, start, end)


def _percent_axis(x: _Scale, top: float, bottom: float) -> str:
    parts = []
    for tick in range(0, 101, 20):
        parts.append(_line(x(tick), top, x(tick), bottom, "grid"))
        parts.append(_text(x(tick), bottom + 16, f"{tick}%", "middle"))
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_safe(text)}</text>'
    )


def _marker(x: float, y: float, series: int) -> str:
    kind = f'class="fill f{series}"'
    corners = (
        ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        ((0, -5), (5, 4), (-5, 4)),
        ((0, -6), (5, 0), (0, 6), (-5, 0)),
    )
    if series % 4 == 0:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[series % 4 - 1])
    return f'<polygon {kind} points="{points}"/>'


def _safe(text: str) -> str:
    return str(escape(visible(text)))


def _svg(title: str, height: float, parts: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704 - built from numbers and from text that _safe escaped
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{_safe(title)}">'
        f"{''.join(parts)}</svg>"
    )
