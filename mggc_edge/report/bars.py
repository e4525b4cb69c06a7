"""Bars of latency as inline SVG: one a row, from 0, with the interval of its median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mggc_edge.report.charts import axis_for
from mggc_edge.report.numbers import interval, milliseconds

ROW, TOP = 46, 2  # height of a row; room above the first
LONGEST = 0.84  # of the width that the longest bar takes: its number stands beside it
MOST_LABEL = 80  # characters of a label


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: what was measured.
        style: the number (1 to 8) of its colour in the page's style.
        value: in ms, 0 or more.
        ends: the interval in ms; None where it is not known.
    """

    label: str
    style: int
    value: float
    ends: tuple[float, float] | None = None


def bar_chart(bars: Sequence[Bar], *, title: str) -> str:
    """Return a chart of bars; positions across are per cent of the width, so that text keeps its size on any screen.

    Args:
        bars: at least one.
        title: for whoever cannot see it.
    """
    axis = axis_for([0.0, *(bar.value for bar in bars), *(bar.ends[1] for bar in bars if bar.ends)], zero=True)
    parts = []
    for number, bar in enumerate(bars):
        top = TOP + number * ROW
        width = _percent(axis.place(bar.value))
        parts.append(f'<text class="row-name" x="0" y="{top + 13}">{escape(_short(bar.label))}</text>')
        parts.append(f'<rect class="s{bar.style}" x="0" y="{top + 19}" width="{width}" height="16" rx="2"/>')
        furthest = bar.value
        if bar.ends is not None:
            low, high = (_percent(axis.place(end)) for end in bar.ends)
            furthest = max(bar.value, bar.ends[1])
            parts.append(f'<line class="whisker" x1="{low}" x2="{high}" y1="{top + 27}" y2="{top + 27}"/>')
            parts += [
                f'<line class="whisker" x1="{at}" x2="{at}" y1="{top + 23}" y2="{top + 31}"/>' for at in (low, high)
            ]
        at = _percent(axis.place(furthest))
        parts.append(f'<text class="tick" x="{at}" dx="7" y="{top + 31}">{milliseconds(bar.value)}</text>')
    described = "; ".join(_words(bar) for bar in bars)
    return (
        f'<svg class="bars" height="{TOP + ROW * len(bars)}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(described)}</desc>{''.join(parts)}</svg>"
    )


def _words(bar: Bar) -> str:
    ends = "" if bar.ends is None else f", {interval(bar.ends)}"
    return f"{_short(bar.label)}: {milliseconds(bar.value)}{ends}"


def _short(label: str) -> str:
    return label if len(label) <= MOST_LABEL else f"{label[: MOST_LABEL - 1]}\u2026"


def _percent(place: float) -> str:
    return f"{100 * LONGEST * place:.2f}%"
