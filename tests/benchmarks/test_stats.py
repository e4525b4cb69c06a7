"""Statistics of latencies, against closed forms and on noise whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mggc_edge.benchmarks.stats import (
    compare,
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


def test_the_ratio_and_its_intervals_are_those_of_the_t_test_on_log_ratios() -> None:
    logs = (0.10, 0.20, 0.30, 0.15, 0.25)
    error = float(np.std(logs, ddof=1)) / math.sqrt(5)
    ratio = compare(of_logs(*logs), 0.05)
    assert ratio.value == pytest.approx(math.exp(0.2))
    for interval, t in ((ratio.ci95, 2.7764451), (ratio.ci99, 4.6040949)):
        assert interval == pytest.approx((math.exp(0.2 - t * error), math.exp(0.2 + t * error)), rel=1e-7)
    assert ratio.processes == 5


def test_a_process_counts_once_with_the_median_of_its_pairs() -> None:
    wild = [[(2.0, 1.0), (2.0, 1.0), (90.0, 1.0)], [(8.0, 1.0)]]
    assert compare(wild, 0.05).value == pytest.approx(4.0)


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


def test_the_minimum_detectable_effect_is_what_80_percent_power_needs() -> None:
    logs = (0.10, 0.20, 0.30, 0.15, 0.25)
    error = float(np.std(logs, ddof=1)) / math.sqrt(5)
    by_noise = math.exp((4.6040949 + 0.9409646) * error) - 1
    assert compare(of_logs(*logs), 0.05).minimum_detectable_effect == pytest.approx(by_noise, rel=1e-6)
    # Without noise the margin is what has to be exceeded.
    assert compare(of_logs(0.1, 0.1, 0.1), 0.05).minimum_detectable_effect == pytest.approx(0.05)


# --- noise whose truth is known: lognormal, slow drift, spikes, and what stays with a process ---

NOISE = {  # sigma, drift, share of spikes, offset per process, share by which half of the processes are slower
    "good": (0.02, 0.01, 0.05, 0.0, 0.0),
    "bad": (0.05, 0.03, 0.15, 0.0, 0.0),
    "bad, with an offset per process": (0.05, 0.03, 0.15, 0.03, 0.0),
    "two kinds of process": (0.01, 0.005, 0.02, 0.0, 0.10),
}


def noisy(kind: str, speedup: float, rng: np.random.Generator, processes: int = 10, pairs: int = 4) -> Pairs:
    """Samples in the order A B, B A, ... of b that is `speedup` times as fast as a, on a machine with such noise."""
    sigma, drift, spikes, offset, kinds = NOISE[kind]
    count = processes * pairs * 2
    steps = drift * math.sqrt(1 - 0.95**2) * rng.standard_normal(count)
    slow = np.zeros(count)
    for index in range(1, count):
        slow[index] = 0.95 * slow[index - 1] + steps[index]
    times = np.exp(sigma * rng.standard_normal(count) + slow)
    times *= np.where(rng.random(count) < spikes, 1 + rng.exponential(0.3, count), 1)
    sides = offset * rng.standard_normal((processes, 2)) + kinds * (rng.random((processes, 2)) < 0.5)
    a, b = np.exp(sides).T
    result: Pairs = []
    for process, block in enumerate(times.reshape(processes, pairs, 2)):
        block[1::2] = block[1::2, ::-1]
        result.append([(first * a[process], second * b[process] / speedup) for first, second in block])
    return result


@pytest.mark.parametrize("kind", NOISE)
def test_intervals_cover_what_they_promise_and_equal_models_are_not_called_different(kind: str) -> None:
    rng = np.random.default_rng(1)
    trials = 300
    ratios = [compare(noisy(kind, 1.0, rng), 0.05) for _ in range(trials)]
    covered = {
        name: sum(interval is not None and interval[0] <= 1 <= interval[1] for interval in intervals) / trials
        for name, intervals in (("95", [r.ci95 for r in ratios]), ("99", [r.ci99 for r in ratios]))
    }
    assert covered["95"] >= 0.91
    assert covered["99"] >= 0.97
    assert sum(ratio.verdict(0.05) in ("faster", "slower") for ratio in ratios) <= 0.02 * trials
    if kind == "good":
        assert sum(ratio.verdict(0.05) == "same" for ratio in ratios) >= 0.85 * trials


@pytest.mark.parametrize(
    ("kind", "speedup", "found"),
    [("good", 1.10, 0.95), ("bad", 1.10, 0.75), ("bad", 1.25, 0.98), ("two kinds of process", 1.25, 0.98)],
)
def test_a_faster_model_is_found_and_never_called_slower(kind: str, speedup: float, found: float) -> None:
    rng = np.random.default_rng(2)
    verdicts = [compare(noisy(kind, speedup, rng), 0.05).verdict(0.05) for _ in range(200)]
    assert verdicts.count("faster") >= found * 200
    assert verdicts.count("slower") == 0
    backwards = [compare(noisy(kind, 1 / speedup, rng), 0.05).verdict(0.05) for _ in range(200)]
    assert backwards.count("slower") >= found * 200


def test_an_effect_of_the_minimum_detectable_size_is_found_in_about_80_percent() -> None:
    rng = np.random.default_rng(3)
    effects = [compare(noisy("bad", 1.0, rng), 0.05).minimum_detectable_effect or 0.0 for _ in range(200)]
    typical = 1 + float(np.median(effects))
    found = [compare(noisy("bad", typical, rng), 0.05).verdict(0.05) == "faster" for _ in range(200)]
    assert 0.70 <= np.mean(found) <= 0.93
