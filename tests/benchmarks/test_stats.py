"""Statistics of latencies, against closed forms and on noise whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mggc_edge.benchmarks.stats import (
    compare,
    compare_apart,
    least_effect,
    level_for,
    median_absolute_deviation,
    t_cdf,
    t_quantile,
    typical_interval,
)
from mggc_edge.errors import InputError

Pairs = list[list[tuple[float, float]]]


def of_logs(*logs: float, scale: float = 5.0) -> Pairs:
    """One pair per process, with these values of ln(a / b)."""
    return [[(scale * math.exp(x), scale)] for x in logs]


# --- Student's t ---


@pytest.mark.parametrize("probability", [0.001, 0.25, 0.5, 0.9, 0.995])
def test_quantiles_of_one_and_two_degrees_are_the_closed_forms(probability: float) -> None:
    cauchy = math.tan(math.pi * (probability - 0.5))
    two = (2 * probability - 1) * math.sqrt(2 / (4 * probability * (1 - probability)))
    assert t_quantile(probability, 1) == pytest.approx(cauchy, rel=1e-9, abs=1e-12)
    assert t_quantile(probability, 2) == pytest.approx(two, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    [
        (0.975, 5, 2.5705818), (0.975, 9, 2.2621572), (0.995, 9, 3.2498355), (0.995, 5, 4.0321430),
        (0.8, 9, 0.8834039), (0.975, 30, 2.0422725), (0.975, 1000, 1.9623391), (0.025, 9, -2.2621572),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(probability: float, degrees: int, value: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 10, 99, 100])
def test_the_distribution_is_symmetric_and_its_own_quantile(degrees: int) -> None:
    assert t_cdf(0, degrees) == pytest.approx(0.5, abs=1e-15)
    for t in (0.3, 1.7, 6.0):
        assert t_cdf(t, degrees) + t_cdf(-t, degrees) == pytest.approx(1, abs=1e-14)
        assert t_quantile(t_cdf(t, degrees), degrees) == pytest.approx(t, rel=1e-6)


@pytest.mark.parametrize(("probability", "degrees"), [(0.0, 5), (1.0, 5), (0.5, 0)])
def test_a_quantile_that_does_not_exist_is_refused(probability: float, degrees: int) -> None:
    with pytest.raises(InputError, match="there is no t quantile"):
        t_quantile(probability, degrees)


# --- intervals ---


def test_without_outliers_the_ratio_and_its_intervals_are_those_of_the_t_test_on_log_ratios() -> None:
    logs = (0.17, 0.20, 0.23, 0.16, 0.24)  # none is farther from the middle than 2 median distances
    error = float(np.std(logs, ddof=1)) / math.sqrt(5)
    ratio = compare(of_logs(*logs), 0.05)
    assert ratio.value == pytest.approx(math.exp(0.2))
    for interval, t in ((ratio.ci95, 2.7764451), (ratio.ci99, 4.6040949)):
        assert interval == pytest.approx((math.exp(0.2 - t * error), math.exp(0.2 + t * error)), rel=1e-7)
    assert ratio.processes == 5


def test_a_wild_pair_does_not_move_the_ratio() -> None:
    steady = [0.30, 0.31, 0.29, 0.32, 0.28, 0.30]
    value = compare(of_logs(*steady), 0.05).value
    for wild in (3.0, 30.0):  # how far it lies does not matter
        moved = compare(of_logs(*steady, wild), 0.05).value
        assert moved == pytest.approx(value, rel=0.01)
        assert moved == pytest.approx(compare(of_logs(*steady, 3.0), 0.05).value, rel=1e-9)


def test_what_a_process_has_in_common_widens_the_interval() -> None:
    apart = [[(math.exp(x), 1.0)] for x in (0.1, 0.1, 0.2, 0.2, 0.3, 0.3)]
    together = [[(math.exp(x), 1.0)] * 2 for x in (0.1, 0.2, 0.3)]
    wide, narrow = compare(together, 0.05), compare(apart, 0.05)
    assert wide.value == pytest.approx(narrow.value)
    assert wide.ci99 is not None
    assert narrow.ci99 is not None
    assert wide.ci99[1] / wide.ci99[0] > 2 * narrow.ci99[1] / narrow.ci99[0]


def test_an_interval_at_another_level_is_what_the_verdict_goes_by() -> None:
    logs = (0.171, 0.20, 0.229)
    error = float(np.std(logs, ddof=1)) / math.sqrt(3)
    ratio = compare(of_logs(*logs), 0.05, level_for(2))
    assert ratio.level == 0.995
    assert ratio.interval == pytest.approx((math.exp(0.2 - 14.0890 * error), math.exp(0.2 + 14.0890 * error)), rel=1e-4)
    assert ratio.verdict(0.05) == "inconclusive"
    assert compare(of_logs(*logs), 0.05).verdict(0.05) == "faster"
    assert [level_for(count) for count in (0, 1, 4)] == [0.99, 0.99, 0.9975]


def test_sides_that_were_measured_apart_have_the_interval_of_welch() -> None:
    a, b = [[2.0], [2.2], [1.9], [2.1]], [[1.0], [1.02], [0.98]]
    x, y = np.log(np.ravel(a)), np.log(np.ravel(b))
    vx, vy = x.var(ddof=1) / 4, y.var(ddof=1) / 3
    degrees = int((vx + vy) ** 2 / (vx**2 / 3 + vy**2 / 2))
    half = t_quantile(0.995, degrees) * math.sqrt(vx + vy)
    ratio = compare_apart(a, b, 0.05)
    middle = x.mean() - y.mean()
    assert ratio.value == pytest.approx(math.exp(middle), rel=1e-3)
    assert ratio.ci99 == pytest.approx((math.exp(middle - half), math.exp(middle + half)), rel=0.02)
    assert ratio.processes == 3
    assert compare_apart([[2.0]], b, 0.05).verdict(0.05) == "inconclusive"
    with pytest.raises(InputError, match="there are no samples"):
        compare_apart([], b, 0.05)


def test_swapping_the_sides_inverts_everything() -> None:
    pairs = of_logs(0.1, 0.2, 0.3, 0.25)
    ratio = compare(pairs, 0.05)
    swapped = compare([[(b, a) for a, b in process] for process in pairs], 0.05)
    assert ratio.ci99 is not None
    assert swapped.ci99 is not None
    assert swapped.value == pytest.approx(1 / ratio.value)
    assert swapped.ci99 == pytest.approx((1 / ratio.ci99[1], 1 / ratio.ci99[0]))
    assert swapped.minimum_detectable_effect == pytest.approx(ratio.minimum_detectable_effect)


def test_the_unit_does_not_matter() -> None:
    assert compare(of_logs(0.1, 0.3, scale=1e6), 0.05).value == pytest.approx(
        compare(of_logs(0.1, 0.3, scale=1e-3), 0.05).value
    )


def test_one_process_gives_a_ratio_without_intervals() -> None:
    ratio = compare([[(3.0, 1.0), (3.0, 1.0)]], 0.05)
    assert ratio.value == pytest.approx(3.0)
    assert (ratio.ci95, ratio.ci99) == (None, None)
    assert (ratio.minimum_detectable_effect, ratio.verdict(0.05)) == (None, "inconclusive")


def test_two_wild_processes_give_finite_numbers() -> None:
    ratio = compare(of_logs(-9.0, 9.0), 0.05)
    assert ratio.ci99 is not None
    assert ratio.minimum_detectable_effect is not None
    assert all(map(math.isfinite, (*ratio.ci99, ratio.minimum_detectable_effect)))
    assert ratio.verdict(0.05) == "inconclusive"


@pytest.mark.parametrize("pairs", [[], [[]], [[(1.0, 1.0)], []]])
def test_no_pairs_are_refused(pairs: Pairs) -> None:
    with pytest.raises(InputError, match="no pairs of samples"):
        compare(pairs, 0.05)


def test_a_latency_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match="a latency must be above 0"):
        compare([[(1.0, 0.0)]], 0.05)


def test_the_typical_latency_has_the_interval_of_the_mean_log() -> None:
    interval = typical_interval([2.0, 8.0])  # ln: mean ln 4, s / sqrt(2) = ln 2, t of 1 degree = 12.706
    assert interval == pytest.approx((4 * 2**-12.7062047, 4 * 2**12.7062047), rel=1e-6)
    assert typical_interval([2.0]) is None


def test_the_median_absolute_deviation_ignores_one_outlier() -> None:
    assert median_absolute_deviation([1, 2, 3, 4, 1000]) == 1.0


# --- verdicts ---


@pytest.mark.parametrize(
    ("logs", "verdict"),
    [
        ((0.50, 0.51, 0.52), "faster"),
        ((-0.50, -0.51, -0.52), "slower"),
        ((0.001, 0.0, -0.001), "same"),
        ((0.03, 0.031, 0.032), "same"),  # a real difference, below the margin
        ((0.5, 0.0, -0.4), "inconclusive"),
        ((0.040, 0.045, 0.050), "inconclusive"),  # 1 is left out, but the ratio is within the margin and the rest not
        ((0.06, 0.10, 0.02), "inconclusive"),
    ],
)
def test_the_verdict_follows_the_99_percent_interval_and_the_margin(logs: tuple[float, ...], verdict: str) -> None:
    assert compare(of_logs(*logs), 0.05).verdict(0.05) == verdict


@pytest.mark.parametrize(("degrees", "margin"), [(9, 0.0488), (9, 0.001), (4, 0.3), (19, 0.12)])
def test_the_minimum_detectable_effect_is_what_80_percent_power_needs(degrees: int, margin: float) -> None:
    error, t = 0.04, t_quantile(0.995, degrees)
    effect = least_effect(error, degrees, t, margin)
    rng = np.random.default_rng(0)
    estimates = effect + error * rng.standard_normal(100_000)
    errors = error * np.sqrt(rng.chisquare(degrees, 100_000) / degrees)
    assert np.mean((estimates > margin) & (estimates > t * errors)) == pytest.approx(0.8, abs=0.01)


def test_without_noise_the_margin_is_what_has_to_be_exceeded() -> None:
    assert compare(of_logs(0.1, 0.1, 0.1), 0.05).minimum_detectable_effect == pytest.approx(0.05)
