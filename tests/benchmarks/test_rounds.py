"""Two rounds: when there is a second one, what it is asked for, and what both together say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mggc_edge.benchmarks.disturbance import Noted
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.rounds import measure_in_rounds, pooled
from tests.benchmarks.bench_helpers import run_of

MS = 1_000_000


def report(*b_ms: float, warnings: tuple[str, ...] = (), **context: Any) -> BenchmarkReport:
    """Models a, which takes 10 ms, and b, which takes these times in a process each."""
    runs = [
        run_of("a", [[[10 * MS]] for _ in b_ms], warnings=warnings),
        run_of("b", [[[int(one * MS)]] for one in b_ms], warnings=warnings),
    ]
    return BenchmarkReport(context, tuple(runs), 0.05)


class Rounds:
    """Gives reports one after the other, and notes what it was asked for."""

    def __init__(self, *reports: BenchmarkReport) -> None:
        self.reports = reports
        self.asked: list[tuple[int, int, Sequence[int] | None]] = []

    def __call__(
        self, number: int, pairs: int, runs: Sequence[int] | None, keep: Callable[[BenchmarkReport], None]
    ) -> BenchmarkReport:
        self.asked.append((number, pairs, runs))
        return self.reports[number]


def measured(rounds: Rounds, pairs: int, *, settled: bool) -> tuple[Any, list[str]]:
    told: list[str] = []
    found = measure_in_rounds(rounds, pairs, lambda _: settled, keep=lambda _: None, tell=lambda: told.append("again"))
    return found, told


def test_what_the_first_round_settles_is_not_measured_again() -> None:
    rounds = Rounds(report(10, 10))
    found, told = measured(rounds, 40, settled=True)
    assert rounds.asked == [(0, 20, None)]
    assert (found.report, told) == (rounds.reports[0], [])


def test_the_second_round_has_the_other_half_and_samples_of_the_same_length() -> None:
    rounds = Rounds(report(10, 10, 10), report(12, 12))
    found, told = measured(rounds, 41, settled=False)
    assert rounds.asked == [(0, 21, None), (1, 20, [1, 1])]
    assert told == ["again"]
    assert found.each == rounds.reports
    assert [len(run.processes) for run in found.report.runs] == [5, 5]
    assert found.report.comparisons[0].pairs == 5


def test_a_single_pair_has_no_second_round() -> None:
    rounds = Rounds(report(10))
    measured(rounds, 1, settled=False)
    assert rounds.asked == [(0, 1, None)]


def test_together_they_have_the_sums_and_the_last_load() -> None:
    first = report(10, 10, seconds=3.0, pairs=2, processes=2, others_running=[1], created="one", load_after=1.0)
    second = report(10, 10, seconds=4.0, pairs=2, processes=2, others_running=[0, 2], created="two", load_after=2.0)
    assert pooled((first, second)).context == {
        "seconds": 7.0, "pairs": 4, "processes": 4, "others_running": [1, 0, 2], "clock_khz": [], "created": "one",
        "load_after": 2.0,
    }  # fmt: skip


def test_together_they_say_what_was_stolen_of_both_and_the_clock_at_the_end() -> None:
    cpu = {"model": "CPU", "frequency_khz_before": 1.0, "frequency_khz_after": 2.0}
    first = report(10, 10, seconds=30.0, stolen=0.0, cpu=cpu)
    second = report(10, 10, seconds=10.0, stolen=0.2, cpu={**cpu, "frequency_khz_after": 3.0})
    context = pooled((first, second)).context
    assert context["stolen"] == pytest.approx(0.05)
    assert context["cpu"] == {"model": "CPU", "frequency_khz_before": 1.0, "frequency_khz_after": 3.0}
    unknown = report(10, 10, seconds=10.0, stolen=None, cpu=cpu)
    assert pooled((first, unknown)).context["stolen"] is None


def test_a_disturbed_round_is_left_out_where_the_other_was_not() -> None:
    bad = report(30, 30, 30, warnings=("load", "few_samples"))
    good = report(10, 10, 10, 10, 10, warnings=("frequency",))
    both = pooled((bad, good))
    comparison = both.comparisons[0]
    assert comparison.ratio.value == pytest.approx(1.0)
    assert (comparison.pairs, comparison.left_out, comparison.verdict) == (5, 3, "same")
    assert len(both.runs[1].samples_ns) == 8  # none is lost
    assert both.runs[0].warnings == ("few_samples", "frequency")


def test_a_round_in_which_one_model_was_disturbed_counts_for_the_others() -> None:
    def of_three(b_ms: float, c_ms: float, c_warnings: tuple[str, ...]) -> BenchmarkReport:
        two = report(b_ms, b_ms)
        c = run_of("c", [[[int(c_ms * MS)]]] * 2, warnings=c_warnings)
        return replace(two, runs=(*two.runs, c))

    rounds = Rounds(of_three(10, 30, ("preempted",)), of_three(10, 10, ()))
    found, _ = measured(rounds, 8, settled=False)
    b, c = found.report.comparisons
    assert (b.pairs, b.left_out, b.rounds, b.verdict) == (4, 0, (True, True), "same")
    assert (c.pairs, c.left_out, c.rounds, c.verdict) == (2, 2, (False, True), "same")
    document = found.report.to_json()["runs"]
    assert [[process["left_out"] for process in run["processes"]] for run in document] == [
        [[], [], [], []], [[], [], [], []], [[0], [0], [], []],
    ]  # fmt: skip


def test_where_both_rounds_were_disturbed_both_count_and_say_so() -> None:
    both = pooled((report(30, 30, warnings=("load",)), report(10, 10, warnings=("preempted",))))
    comparison = both.comparisons[0]
    assert (comparison.pairs, comparison.verdict) == (4, "inconclusive")
    assert comparison.disturbed == ("load", "preempted")


def test_warnings_about_samples_are_those_of_all_samples() -> None:
    few = report(*[10.0] * 18, warnings=("few_samples",))
    assert pooled((few, few)).runs[0].warnings == ()


def test_what_is_complete_of_the_second_round_comes_with_the_first() -> None:
    kept: list[BenchmarkReport] = []
    first, part = report(10, 10), replace(report(12), complete=False)

    def stopped(
        number: int, pairs: int, runs: Sequence[int] | None, keep: Callable[[BenchmarkReport], None]
    ) -> BenchmarkReport:
        if number == 0:
            return first
        keep(part)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_in_rounds(stopped, 6, lambda _: False, keep=kept.append, tell=lambda: None)
    together = kept[-1]
    assert not together.complete
    assert [len(run.processes) for run in together.runs] == [3, 3]


def test_the_first_round_is_kept_where_the_second_ends_without_a_pair() -> None:
    kept: list[BenchmarkReport] = []

    def stopped(
        number: int, pairs: int, runs: Sequence[int] | None, keep: Callable[[BenchmarkReport], None]
    ) -> BenchmarkReport:
        if number == 0:
            return report(10, 10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_in_rounds(stopped, 6, lambda _: False, keep=kept.append, tell=lambda: None)
    (first,) = kept
    assert not first.complete
    assert [len(run.processes) for run in first.runs] == [2, 2]


def test_a_machine_that_slept_is_said_of_the_round_and_of_both() -> None:
    asleep = report(10, 10)
    runs = tuple(
        replace(run, processes=tuple(replace(one, noted=(Noted(1, suspended_ns=10**9),)) for one in run.processes))
        for run in asleep.runs
    )
    assert "suspended" in pooled((replace(asleep, runs=runs), report(10, 10))).runs[0].warnings
