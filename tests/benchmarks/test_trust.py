"""The gate as a whole on noise whose truth is known: false alarms in at most 1 % of cases, and what is there is found.

A gate here is what `bench --baseline --max-regression 5%` does: 20 pairs in 10 fresh processes, and where these do not
settle it 20 more in 10 others; never more than 40 pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from mggc_edge.benchmarks.gate import Limits, judge
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.rounds import measure_in_rounds
from mggc_edge.benchmarks.stats import Ratio, compare
from tests.benchmarks.bench_helpers import run_of
from tests.benchmarks.noise import NOISE, Array, samples

LIMITS = Limits(regression=0.05)
PAIRS = 40
MS = 1_000_000
FEW, MANY = 150, 2000  # trials in the default tier and in the slow one


def verdicts(kind: str, slowdown: float, trials: int, seed: int = 0) -> Counter[str]:
    """Return how often each verdict is given of a model that takes 1 + `slowdown` times as long as its baseline."""
    rng = np.random.default_rng(seed)
    rounds = [samples(NOISE[kind], slowdown, rng, trials=trials, processes=10, pairs=2) for _ in range(2)]
    return Counter(verdict([(a[trial], b[trial]) for a, b in rounds]) for trial in range(trials))


def verdict(rounds: Sequence[tuple[Array, Array]]) -> str:
    measured = []

    def measure_round(number: int, pairs: int, runs: object, keep: object) -> BenchmarkReport:
        measured.append(pairs)
        return report(*rounds[number])

    def settled(found: BenchmarkReport) -> bool:
        return judge(found.comparisons, LIMITS, {})[0].latency_verdict == "pass"

    found = measure_in_rounds(measure_round, PAIRS, settled, keep=lambda _: None, tell=lambda: None)
    assert sum(measured) <= PAIRS
    return str(judge(found.report.comparisons, LIMITS, {})[0].verdict)


def report(a: Array, b: Array) -> BenchmarkReport:
    runs = [
        run_of(name, [[[int(10 * MS * sample)] for sample in process] for process in side])
        for name, side in (("baseline", a), ("head", b))
    ]
    return BenchmarkReport({}, tuple(runs), 0.05)


def check_no_false_alarms(kind: str, trials: int) -> None:
    found = verdicts(kind, 0.0, trials)
    assert found["fail"] <= 0.01 * trials
    if kind == "quiet":
        assert found["pass"] >= 0.99 * trials


def check_slowdowns_are_found(kind: str, trials: int) -> None:
    found = verdicts(kind, 0.10, trials, seed=1)
    assert found["fail"] >= (0.95 if kind == "quiet" else 0.85) * trials
    assert found["pass"] <= 0.01 * trials  # what is not found is called inconclusive


@pytest.mark.parametrize("kind", NOISE)
def test_a_gate_raises_no_false_alarm(kind: str) -> None:
    check_no_false_alarms(kind, FEW)


@pytest.mark.parametrize("kind", NOISE)
def test_a_gate_finds_a_slowdown_of_10_percent(kind: str) -> None:
    check_slowdowns_are_found(kind, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISE)
def test_a_gate_raises_no_false_alarm_in_2000_trials(kind: str) -> None:
    check_no_false_alarms(kind, MANY)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISE)
def test_a_gate_finds_a_slowdown_of_10_percent_in_2000_trials(kind: str) -> None:
    check_slowdowns_are_found(kind, MANY)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISE)
def test_a_model_that_is_slower_by_just_the_limit_passes_in_hardly_any_case(kind: str) -> None:
    found = verdicts(kind, 0.05, MANY, seed=2)
    assert found["pass"] <= 0.02 * MANY  # half a per cent of each of two looks, and what the intervals fall short


# --- the comparison below it ---


def ratios(kind: str, speedup: float, seed: int, *, trials: int, processes: int = 10, pairs: int = 4) -> list[Ratio]:
    a, b = samples(
        NOISE[kind], 1 / speedup - 1, np.random.default_rng(seed), trials=trials, processes=processes, pairs=pairs
    )
    return [
        compare([list(zip(*sides, strict=True)) for sides in zip(a[trial], b[trial], strict=True)], 0.05)
        for trial in range(trials)
    ]


def holds_one(interval: tuple[float, float] | None) -> bool:
    return interval is not None and interval[0] <= 1 <= interval[1]


@pytest.mark.parametrize("kind", NOISE)
def test_intervals_cover_what_they_promise(kind: str) -> None:
    trials = 300
    found = ratios(kind, 1.0, 1, trials=trials)
    assert sum(holds_one(ratio.ci95) for ratio in found) >= 0.91 * trials
    assert sum(holds_one(ratio.ci99) for ratio in found) >= 0.97 * trials


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize(("processes", "pairs"), [(10, 2), (10, 4), (20, 2)])
def test_intervals_cover_what_they_promise_in_2000_trials(kind: str, processes: int, pairs: int) -> None:
    found = ratios(kind, 1.0, 2, trials=MANY, processes=processes, pairs=pairs)
    assert sum(not holds_one(ratio.ci99) for ratio in found) <= 0.02 * MANY  # 1 % is promised


def test_a_faster_model_is_found_and_never_called_slower() -> None:
    found = [ratio.verdict(0.05) for ratio in ratios("bad", 1.25, 3, trials=100)]
    assert found.count("faster") >= 98
    assert found.count("slower") == 0


def test_an_effect_of_the_minimum_detectable_size_is_found_in_about_80_percent() -> None:
    effects = [ratio.minimum_detectable_effect or 0.0 for ratio in ratios("bad", 1.0, 4, trials=500)]
    typical = 1 + float(np.mean(effects))
    found = [ratio.verdict(0.05) == "faster" for ratio in ratios("bad", typical, 6, trials=500)]
    assert 0.70 <= np.mean(found) <= 0.90
