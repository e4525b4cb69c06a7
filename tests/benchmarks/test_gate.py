"""The gate: what fails, what passes, and what it says of facts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mggc_edge.benchmarks.comparison import Comparison
from mggc_edge.benchmarks.file_facts import (
    FACTS,
    FactRow,
    FileFacts,
    check_known,
    fact_rows,
    operator_changes,
)
from mggc_edge.benchmarks.gate import ONE_ROUND, Gate, Limits, ModelGate, judge
from mggc_edge.benchmarks.stats import Ratio
from mggc_edge.errors import InputError


def comparison(slowdown: float, low: float, high: float, **changes: Any) -> Comparison:
    """A model that takes so much longer, with this interval, as fractions."""
    ends = (1 / (1 + high), 1 / (1 + low))
    return Comparison("baseline", "head", Ratio(1 / (1 + slowdown), ends, ends, 0.05, 10), 0.05, None, 20, **changes)


def test_a_round_that_is_left_out_is_the_reason_only_where_it_would_have_failed() -> None:
    for numbers, limit, verdict, reason in (
        ((0.12, 0.08, 0.16), 0.05, "inconclusive", ONE_ROUND),
        ((0.06, -0.001, 0.12), 0.05, "inconclusive", "the 99 % interval is too wide"),
        ((0.02, 0.01, 0.04), 0.03, "inconclusive", None),  # it may be beyond the limit, or not
        ((0.02, 0.01, 0.03), 0.05, "pass", None),
    ):
        gate = ModelGate(comparison(*numbers, rounds=(False, True)), limit)
        assert (gate.latency_verdict, gate.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("slowdown", "low", "high", "verdict"),
    [
        (0.12, 0.08, 0.16, "fail"),
        (0.06, 0.001, 0.12, "fail"),  # slower, and by estimate by more than is allowed
        (0.06, -0.001, 0.12, "inconclusive"),  # perhaps as fast
        (0.04, 0.02, 0.06, "inconclusive"),  # slower; whether by more than is allowed is not known
        (0.02, 0.01, 0.03, "pass"),  # slower, and within what is allowed
        (0.0, -0.02, 0.02, "pass"),
        (-0.5, -0.6, -0.4, "pass"),
        (-0.1, -0.3, 0.1, "inconclusive"),
    ],
)
def test_the_verdict_follows_estimate_interval_and_limit(
    slowdown: float, low: float, high: float, verdict: str
) -> None:
    gate = ModelGate(comparison(slowdown, low, high), 0.05)
    assert gate.slowdown == pytest.approx(slowdown)
    assert gate.interval == pytest.approx((low, high))
    assert gate.latency_verdict == gate.verdict == verdict


def test_disturbed_samples_and_a_single_process_are_inconclusive() -> None:
    assert ModelGate(comparison(0.3, 0.2, 0.4, codes=("load",)), 0.05).verdict == "inconclusive"
    alone = Comparison("baseline", "head", Ratio(0.5, None, None, None, 1), 0.05, None, 1)
    assert (ModelGate(alone, 0.05).interval, ModelGate(alone, 0.05).verdict) == (None, "inconclusive")


def test_without_a_limit_nothing_is_judged() -> None:
    gate = Gate(Limits(), (ModelGate(comparison(0.3, 0.2, 0.4), None),))
    assert (gate.verdict, gate.exit_code) == (None, 0)


@pytest.mark.parametrize(
    ("slowdowns", "warn", "verdict", "code"),
    [
        (((0.0, -0.01, 0.01), (0.0, -0.01, 0.01)), False, "pass", 0),
        (((0.0, -0.01, 0.01), (0.0, -0.1, 0.1)), False, "inconclusive", 4),
        (((0.0, -0.01, 0.01), (0.0, -0.1, 0.1)), True, "inconclusive", 0),
        (((0.0, -0.1, 0.1), (0.2, 0.1, 0.3)), True, "fail", 3),
    ],
)
def test_the_worst_model_decides_and_warn_lets_pass_what_is_inconclusive(
    slowdowns: tuple[tuple[float, float, float], ...], warn: bool, verdict: str, code: int
) -> None:
    limits = Limits(regression=0.05)
    gate = Gate(limits, judge([comparison(*one) for one in slowdowns], limits, {}), warn)
    document = gate.to_json()
    assert (gate.verdict, gate.exit_code) == (verdict, code)
    assert (document["threshold"], document["verdict"], document["exit_code"]) == (0.05, verdict, code)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_a_fact_beyond_its_limit_fails_a_model_whose_latency_passes() -> None:
    limits = Limits(0.05, {"size_bytes": 0.01, "reorders": 2})
    facts = {
        "baseline": FileFacts(size_bytes=1000, reorders=4, parameters=10),
        "head": FileFacts(size_bytes=1011, reorders=6, parameters=90),
    }
    (model,) = judge([comparison(0.0, -0.01, 0.01)], limits, facts)
    assert {row.name: row.verdict for row in model.facts} == {
        "size_bytes": "fail",
        "reorders": "pass",
        "parameters": None,
    }
    assert (model.latency_verdict, model.verdict) == ("pass", "fail")
    rows = {row["fact"]: row for row in model.to_json()["facts"]}
    assert rows["size_bytes"] == {
        "fact": "size_bytes", "baseline": 1000, "model": 1011, "change": 0.011, "limit": 0.01, "verdict": "fail",
    }  # fmt: skip
    assert rows["reorders"]["change"] == 2


@pytest.mark.parametrize(
    ("name", "baseline", "model", "limit", "verdict"),
    [
        ("macs_executed", 100, 100, 0.0, "pass"),
        ("macs_executed", 100, 101, 0.0, "fail"),
        ("macs_executed", 100, 99, 0.0, "pass"),
        ("quantizers", 0, 1, 0.0, "fail"),
        ("size_bytes", 200, 202, 0.01, "pass"),
        ("size_bytes", 100, 115, 0.15, "pass"),  # 100 * 1.15 is 114.99999999999999
        ("size_bytes", 100, 116, 0.15, "fail"),
    ],
)
def test_a_limit_of_zero_allows_what_is_equal_or_less(
    name: str, baseline: int, model: int, limit: float, verdict: str
) -> None:
    assert FactRow(name, baseline, model, limit).verdict == verdict


def test_a_limit_on_what_is_not_known_is_refused_before_anything_is_measured() -> None:
    known, bare = FileFacts(parameters=1, size_bytes=2), FileFacts(size_bytes=3)
    assert [row.name for row in fact_rows(known, bare, {})] == ["size_bytes"]
    check_known(("a", "b"), known, bare, {"size_bytes": 0.0})
    with pytest.raises(InputError, match="parameters of 'b' are not known, so that they can have no limit"):
        check_known(("a", "b"), known, bare, {"parameters": 0.0})
    assert set(FACTS) | {"operators"} == set(known.to_json())


def test_operators_that_came_and_went_are_named() -> None:
    a, b = FileFacts(operators={"Conv": 3, "Pad": 2}), FileFacts(operators={"Conv": 4, "Relu": 1})
    assert operator_changes(a, b) == (("Conv", 1), ("Pad", -2), ("Relu", 1))
    assert operator_changes(a, a) == operator_changes(a, FileFacts()) == ()


@pytest.mark.parametrize("regression", [0.0, -0.1, 1.5])
def test_a_regression_that_makes_no_limit_is_refused(regression: float) -> None:
    with pytest.raises(InputError, match="a regression is allowed between 0 and 100 %"):
        Limits(regression)
