"""Charts: axes with round ends, every point inside, every extreme kept."""

from __future__ import annotations

import re

import pytest

from mggc_edge.report.charts import Axis, Series, axis_for, line_chart, nice_step, smooth, strip_plot, thin_samples
from mggc_edge.report.curves import Curve


@pytest.mark.parametrize(("raw", "step"), [(0.7, 1), (1, 1), (1.1, 2), (3, 5), (6, 10), (0.03, 0.05), (1e-320, 1e-300)])
def test_a_step_is_1_2_or_5_times_a_power_of_10(raw: float, step: float) -> None:
    assert nice_step(raw) == pytest.approx(step)


@pytest.mark.parametrize(
    ("values", "zero", "axis"),
    [
        ([0.3, 2.4], False, Axis(0.0, 2.5)),
        ([14.8, 27.4], True, Axis(0, 30)),
        ([5.0, 5.0], False, Axis(4.4, 5.6)),
        ([0.0, 0.0], True, Axis(0, 1)),
        ([-3.0, 1e9], False, Axis(-5e8, 1e9)),
        ([0.002, 300], False, Axis(0.001, 1000, logarithmic=True)),
        ([-1e300, 1e300], False, Axis(-1e300, 1e300)),
    ],
)
def test_an_axis_has_round_ends_around_all_values(values: list[float], zero: bool, axis: Axis) -> None:
    found = axis_for(values, zero=zero)
    assert (found.low, found.high) == pytest.approx((axis.low, axis.high))
    assert found.logarithmic == axis.logarithmic
    assert all(0 <= found.place(value) <= 1 for value in values)
    assert 2 <= len(found.ticks()) <= 8
    assert all(found.low * 0.999 <= tick <= found.high * 1.001 for tick in found.ticks() if tick > 0)


def test_a_logarithmic_axis_has_powers_of_10() -> None:
    axis = Axis(0.01, 100.0, logarithmic=True)
    assert axis.ticks() == pytest.approx((0.01, 0.1, 1, 10, 100))
    assert axis.place(1) == pytest.approx(0.5)
    assert (axis.place(-5), axis.place(1e9)) == (0, 1)


def test_a_curve_goes_from_the_left_end_to_the_right_and_high_values_are_up() -> None:
    curve = Curve("loss_g", ((0, 1.0), (50, 0.5), (100, 0.0)))
    text = line_chart([Series("generator", curve, 3)], title="a < b", description="falls")
    assert '<polyline class="series s3" points="52,12 210,99 368,186"/>' in text
    assert "<title>a &lt; b</title><desc>falls</desc>" in text


def test_the_budget_is_a_line_at_its_height_even_where_no_value_reaches_it() -> None:
    curve = Curve("macs_fraction", ((0, 1.0), (100, 0.5)))
    text = line_chart([Series("T", curve, 2)], title="", description="", zero=True, level=0.25, as_percent=True)
    assert '<line class="level" x1="52" x2="368" y1="142.5" y2="142.5"/>' in text
    assert ">100\u00a0%</text>" in text


def test_a_single_point_is_a_dot() -> None:
    text = line_chart([Series("x", Curve("x", ((7, 1.0),)), 1)], title="", description="")
    assert '<circle class="series s1" cx="210" cy="99" r="3"/>' in text


def test_a_noisy_curve_is_pale_under_its_mean() -> None:
    curve = Curve("x", tuple((float(step), float(step % 2)) for step in range(100)))
    text = line_chart([Series("x", curve, 4)], title="", description="")
    assert re.findall(r'<polyline class="([^"]*)"', text) == ["series s4 raw", "series s4"]
    assert [value for _, value in smooth(curve)][50] == pytest.approx(0.4)  # two to both sides: 0 1 0 1 0
    assert smooth(curve)[0] == (0.0, 0.0)


def test_ticks_far_from_0_can_be_told_apart() -> None:
    curve = Curve("x", tuple((1_000_000.0 + step, 1.0) for step in range(100)))
    text = line_chart([Series("x", curve, 1)], title="", description="")
    labels = re.findall(r'text-anchor="(?:middle|end)">([\d,]{7,})</text>', text)
    assert labels == ["1,000,000", "1,000,050"]


def test_a_strip_shows_every_sample_and_its_median_on_an_axis_from_0() -> None:
    text = strip_plot([("Original", "s1", [80.0, 100.0], 90.0), ("Small", "s2", [10.0], None)], title="samples")
    assert re.findall(r'<circle class="(s\d)" cx="([\d.]+)%"', text) == [
        ("s1", "79.64"),
        ("s1", "99.40"),
        ("s2", "10.48"),
    ]
    assert re.findall(r'class="median (s\d)" x1="([\d.]+)%"', text) == [("s1", "89.52")]
    assert re.findall(r'class="tick[^>]*>([^<]*)<', text)[:2] == ["0", "20.0\u00a0ms"]


def test_many_samples_are_thinned_by_rank_with_both_ends() -> None:
    samples = [float(number * 7919 % 5000) for number in range(5000)]
    thin = thin_samples(samples)
    assert (len(thin), thin[0], thin[-1]) == (300, 0.0, 4999.0)
    assert thin[150] == pytest.approx(2508, abs=10)
    assert thin_samples([3.0, 1.0]) == (3.0, 1.0)
