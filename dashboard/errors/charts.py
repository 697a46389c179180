"""The chart of the Errors page: what stands out among errors. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.text import label
from dashboard.theme import PALETTE, figure_of
from shield_engine.review.contrasts import Contrast

__all__ = ["contrast_chart"]

_DRAWN = 15


def contrast_chart(contrasts: Sequence[Contrast], errors: int, others: int) -> go.Figure:
    """Return the strongest items as bars of their z, decided ones in full colour."""
    drawn = contrasts[:_DRAWN]
    names = [label(contrast.item) for contrast in drawn]
    return figure_of(
        go.Bar(
            x=[contrast.z for contrast in drawn],
            y=list(range(len(drawn))),
            orientation="h",
            marker={
                "color": [PALETTE["bad" if contrast.is_decided else "muted"] for contrast in drawn],
                "pattern": {"shape": ["" if contrast.is_decided else "/" for contrast in drawn]},
            },
            customdata=[
                [name, contrast.errors, contrast.others]
                for name, contrast in zip(names, drawn, strict=True)
            ],
            hovertemplate=(
                f"%{{customdata[0]}}: in %{{customdata[1]:,}} of {errors:,} errors and in "
                f"%{{customdata[2]:,}} of {others:,} other rows, z = %{{x:.1f}}<extra></extra>"
            ),
        ),
        height=90 + 24 * len(drawn),
        xaxis={"title": "z: standard errors above what the other rows show", "rangemode": "tozero"},
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "autorange": "reversed",
        },
        showlegend=False,
    )
