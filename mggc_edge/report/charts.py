"""Charts as inline SVG: lines over steps, and every raw sample as a dot. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mggc_edge.report.curves import Curve, Point
from mggc_edge.report.numbers import milliseconds, plain

WIDTH, HEIGHT = 380.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 34.0  # margins, for the tick labels
LOG_RANGE = 200  # curves above 0 that span more than this get a logarithmic axis
NOISY = 60  # a curve with more points than this is drawn pale, with its mean over it
MAX_DOTS = 300


@dataclass(frozen=True)
class Series:
    """A curve with its label, and the number (1 to 8) of its colour and dash in the page's style."""

    label: str
    curve: Curve
    style: int


@dataclass(frozen=True)
class Axis:
    """Where values lie between two ends: 0 at `low`, 1 at `high`."""

    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, cut to [0, 1]."""
        if self.logarithmic:
            low, high = math.log10(self.low), math.log10(self.high)
            return min(1.0, max(0.0, (math.log10(max(value, self.low)) - low) / (high - low)))
        # halves, because the distance of two huge numbers may be none
        return min(1.0, max(0.0, (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)))

    def ticks(self, wanted: int = 5, least: float = 0) -> tuple[float, ...]:
        """Return round values between the ends: 1, 2 or 5 times a power of 10 (at least `least`) apart.

        On a logarithmic axis they are powers of 10.
        """
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, math.ceil((last - first) / wanted))
            return tuple(10.0**power for power in range(first, last + 1, every))
        step = max(least, nice_step((self.high / 2 - self.low / 2) / wanted * 2))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(number * step for number in range(first, last + 1))


def nice_step(raw: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of 10 that is at least `raw`."""
    power = 10.0 ** max(-300, math.floor(math.log10(raw)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def axis_for(values: Sequence[float], *, zero: bool = False) -> Axis:
    """Return an axis with round ends that holds all values (at least one); `zero`: it begins at 0 if none is below."""
    low, high = min(values), max(values)
    if zero and low >= 0:
        low = 0.0
    elif low > 0 and high / low > LOG_RANGE:
        return Axis(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)), logarithmic=True)
    if high / 2 - low / 2 <= 1e-9 * max(abs(low), abs(high)):
        room = abs(high) / 10 or 1.0
        low, high = low - (0 if zero and low == 0 else room), high + room
    step = nice_step((high / 2 - low / 2) / 5 * 2)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    zero: bool = False,
    level: float | None = None,
    as_percent: bool = False,
) -> str:
    """Return a chart of curves over the step.

    Args:
        series: what is drawn; every curve has a point.
        title, description: for whoever cannot see it.
        zero: the axis begins at 0.
        level: a horizontal line, such as the budget.
        as_percent: tick labels are per cent.
    """
    steps = [step for one in series for step, _ in one.curve.points]
    values = [value for one in series for _, value in one.curve.points]
    x = Axis(min(steps), max(steps)) if max(steps) > min(steps) else Axis(min(steps) - 1, max(steps) + 1)
    y = axis_for([*values, *([] if level is None else [level])], zero=zero)
    parts = [_frame(x, y, as_percent=as_percent)]
    if level is not None:
        at = _number(_down(y, level))
        parts.append(f'<line class="level" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{at}" y2="{at}"/>')
    for one in series:
        noisy = len(one.curve.points) > NOISY
        parts.append(_line(one.curve.points, x, y, f"series s{one.style}{' raw' if noisy else ''}"))
    noisy_ones = (one for one in series if len(one.curve.points) > NOISY)  # means over all that is pale
    parts += [_line(smooth(one.curve), x, y, f"series s{one.style}") for one in noisy_ones]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )


def smooth(curve: Curve) -> tuple[Point, ...]:
    """Return the curve's mean over a sliding stretch of a twentieth of it."""
    points = curve.means or curve.points
    half = max(1, len(points) // 40)
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    result = []
    for index, (step, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)  # shorter at the ends, and the same to both sides
        low, high = index - reach, index + reach + 1
        result.append((step, (sums[high] - sums[low]) / (high - low)))
    return tuple(result)


def _frame(x: Axis, y: Axis, *, as_percent: bool) -> str:
    """Return grid lines, tick labels and the name of the x axis."""
    parts = []
    for tick in y.ticks():
        at = _number(_down(y, tick))
        label = f"{_tick(100 * tick)}\u00a0%" if as_percent else _tick(tick)
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7:g}" y="{at}" dy="0.33em" text-anchor="end">{label}</text>')
    bottom = HEIGHT - BOTTOM
    for tick in x.ticks(4, least=1):
        across = _across(x, tick)
        label = f"{tick:,.0f}" if abs(tick) < 1e7 else _tick(tick)
        crosses = across + 3.4 * len(label) > WIDTH  # half of it, at about 6.8 a character
        anchor, at_text = ("end", WIDTH) if crosses else ("middle", across)
        at = _number(across)
        parts.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{bottom:g}" y2="{bottom + 4:g}"/>')
        parts.append(
            f'<text class="tick" x="{_number(at_text)}" y="{bottom + 16:g}" text-anchor="{anchor}">{label}</text>'
        )
    parts.append(f'<line class="axis" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{bottom:g}" y2="{bottom:g}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis-name" x="{middle:g}" y="{HEIGHT - 4:g}" text-anchor="middle">step</text>')
    return "".join(parts)


def _line(points: Sequence[Point], x: Axis, y: Axis, style: str) -> str:
    if len(points) == 1:
        ((step, value),) = points
        return f'<circle class="{style}" cx="{_number(_across(x, step))}" cy="{_number(_down(y, value))}" r="3"/>'
    text = " ".join(f"{_number(_across(x, step))},{_number(_down(y, value))}" for step, value in points)
    return f'<polyline class="{style}" points="{text}"/>'


def _across(axis: Axis, step: float) -> float:
    return LEFT + axis.place(step) * (WIDTH - LEFT - RIGHT)


def _down(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _tick(value: float) -> str:
    """Return a tick's label: no digit more than it needs."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.10g}".replace("-", "\u2212")
    if 1e5 <= abs(value) < 1e6:
        return f"{value / 1000:.6g}\u00a0k".replace("-", "\u2212")
    return plain(value, 1 if float(f"{value:.0e}") == value else 2)


def strip_plot(rows: Sequence[tuple[str, str, Sequence[float], float | None]], *, title: str) -> str:
    """Return every raw sample as a dot on one axis of time that begins at 0, a row for each of `rows`.

    Positions across are per cent of the width, so that text keeps its size on any screen.

    Args:
        rows: label, style class, samples in ms (at least one), and their median in ms.
        title: for whoever cannot see it.
    """
    axis = axis_for([sample for _, _, samples, _ in rows for sample in samples], zero=True)
    row_height, top = 58, 4
    bottom = top + row_height * len(rows)
    parts = []
    ticks = axis.ticks()
    for index, tick in enumerate(ticks):
        at = _percent(axis, tick)
        style = f"tick{' odd' if index % 2 else ''}"  # every other label is left out on a small screen
        anchor = "start" if tick == ticks[0] else "end" if axis.place(tick) > 0.93 else "middle"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
        label = "0" if tick == 0 else milliseconds(tick)
        parts.append(f'<text class="{style}" x="{at}" y="{bottom + 16}" text-anchor="{anchor}">{label}</text>')
    for number, (label, style, samples, median) in enumerate(rows):
        base = top + number * row_height
        parts.append(f'<text class="row-name" x="0.6%" dx="7" y="{base + 14}">{escape(label)}</text>')
        for index, sample in enumerate(thin_samples(samples)):
            # golden-ratio steps spread the dots evenly over the height of the row, and the same each time
            y = base + 24 + 24 * ((index * 0.6180339887) % 1)
            parts.append(f'<circle class="{style}" cx="{_percent(axis, sample)}" cy="{y:.1f}" r="2.6"/>')
        if median is not None:
            at = _percent(axis, median)
            parts.append(f'<line class="median {style}" x1="{at}" x2="{at}" y1="{base + 19}" y2="{base + 53}"/>')
    return f'<svg class="strip" height="{bottom + 22}" role="img"><title>{escape(title)}</title>{"".join(parts)}</svg>'


def thin_samples(samples: Sequence[float]) -> tuple[float, ...]:
    """Return at most `MAX_DOTS` samples, evenly taken by rank, the fastest and the slowest among them."""
    if len(samples) <= MAX_DOTS:
        return tuple(samples)
    ranked = sorted(samples)
    last = len(ranked) - 1
    return tuple(ranked[round(index * last / (MAX_DOTS - 1))] for index in range(MAX_DOTS))


def _percent(axis: Axis, value: float) -> str:
    return f"{0.6 + 98.8 * axis.place(value):.2f}%"


def kept_bar(kept: int, total: int, largest: int) -> str:
    """Return a bar as long as the group is wide (of the widest), filled as far as channels stay."""
    whole = 100 * total / largest if largest else 0
    part = 100 * kept / largest if largest else 0
    return (
        '<svg class="bar" height="12" aria-hidden="true">'
        f'<rect class="whole" width="{whole:.2f}%" height="12" rx="2"/>'
        f'<rect class="part" width="{part:.2f}%" height="12" rx="2"/></svg>'
    )
