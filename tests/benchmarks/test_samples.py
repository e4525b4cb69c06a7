"""Which pairs a comparison of two models uses, and what it says where too few are left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mggc_edge.benchmarks.comparison import Comparison
from mggc_edge.benchmarks.gate import ONE_ROUND, ModelGate
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.samples import Paired, ProcessSamples, paired
from tests.benchmarks.bench_helpers import run_of

A, B = 10, 20
Lost = tuple[int, ...]


def side(latency: int, *rounds: tuple[Lost, ...], void: Lost = (), throttled: bool = False) -> list[ProcessSamples]:
    """Processes of four pairs each; what is given are the pairs that each leaves out, by round."""
    plain = run_of("x", [[[latency]] * 4]).processes[0]
    return [
        replace(plain, left_out=out, round=number, void=number in void, throttled=("hot",) if throttled and out else ())
        for number, processes in enumerate(rounds)
        for out in processes
    ]


def used(found: Paired) -> list[int]:
    """How many pairs of each process are used."""
    return [len(process) for process in found.medians]


def test_pairs_are_used_in_which_neither_was_disturbed() -> None:
    found = paired(side(A, ((0,), (), ())), side(B, ((1,), (), (3,))))
    assert used(found) == [2, 4, 3]
    assert set(found.medians[0]) == set(found.means[0]) == {(A, B)}
    assert (found.count, found.left_out, found.rounds, found.codes) == (9, 3, (True,), ())


def test_a_process_of_which_nothing_is_left_has_no_part() -> None:
    found = paired(side(A, ((0, 1), (), ())), side(B, ((2, 3), (), ())))
    assert (used(found), found.left_out, found.codes) == ([4, 4], 4, ())


def test_where_too_few_are_left_everything_is_used_and_what_did_it_is_said() -> None:
    few, others = ((0, 1), (0, 1), (0, 1)), ((2,), (2,), (2,))
    found = paired(side(A, few), side(B, others))
    assert (used(found), found.left_out, found.rounds, found.codes) == ([4, 4, 4], 0, (True,), ("preempted",))
    found = paired(side(A, few, throttled=True), side(B, others, throttled=True))
    assert found.codes == ("throttled",)
    found = paired(side(A, few), side(B, others), whole=True)  # who asks knows why
    assert (used(found), found.codes) == ([4, 4, 4], ())


def test_a_round_in_which_two_have_too_little_in_common_is_left_out_where_there_is_another() -> None:
    found = paired(side(A, ((0, 1), (0, 1)), ((), ())), side(B, ((2,), (2,)), ((), (3,))))
    assert (used(found), found.left_out, found.rounds, found.codes) == ([4, 3], 9, (False, True), ())


def test_two_that_share_no_round_are_not_judged() -> None:
    found = paired(side(A, ((),), ((),), void=(0,)), side(B, ((),), ((),), void=(1,)))
    assert (used(found), found.left_out, found.rounds, found.codes) == ([4, 4], 0, (True, True), ("preempted",))


def gated(a: list[ProcessSamples], b: list[ProcessSamples]) -> tuple[Comparison, ModelGate]:
    runs = [replace(run_of(name, [[[1]]]), processes=tuple(made)) for name, made in (("a", a), ("b", b))]
    comparison = BenchmarkReport({}, tuple(runs), 0.05).comparisons[0]
    return comparison, ModelGate(comparison, 0.05)


@pytest.mark.parametrize(("lost", "verdict"), [((2,), "inconclusive"), ((), "fail")])
def test_a_gate_does_not_fail_on_one_round_where_two_models_share_too_little_of_the_other(
    lost: Lost, verdict: str
) -> None:
    first = ((0, 1),) * 5
    clean: tuple[Lost, ...] = ((),) * 5
    comparison, gate = gated(side(A, first, clean), side(B, (lost,) * 5, clean))
    assert comparison.ratio.value == A / B
    assert comparison.ratio.ci99 == (A / B, A / B)
    assert (gate.latency_verdict, gate.reason) == (verdict, ONE_ROUND if lost else None)
    assert gate.to_json()["latency"]["rounds_used"] == [not lost, True]


@pytest.mark.parametrize(("lost", "codes"), [((1,), ("few_samples",)), ((0,), ())])
def test_two_models_with_enough_pairs_may_have_few_in_common(lost: Lost, codes: tuple[str, ...]) -> None:
    comparison, _ = gated(side(A, ((0,),) * 5), side(B, (lost,) * 5))
    assert comparison.codes == codes
