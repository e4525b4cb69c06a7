"""Which layers cost most, and the smallest set to leave in float."""

from __future__ import annotations

import math
from collections.abc import Collection

import pytest

from mggc_edge.compiler.precision.judge import Difference
from mggc_edge.compiler.precision.sensitivity import Effect, find_sensitivity

ERRORS = {"a": 1e-4, "b": 4e-3, "c": 1e-3, "d": 2e-5}


def additive(chosen: Collection[str]) -> Difference:
    """Squared errors of layers add up, as independent roundings do."""
    total = sum(ERRORS[name] for name in chosen)
    return Difference(10 * math.log10(4 / total) if total else None, 0.1, 0.0)


def decibels(*names: str) -> float | None:
    return additive(names).psnr


def test_layers_are_measured_alone_and_without_and_sorted_by_what_they_cost() -> None:
    told: list[tuple[int, int]] = []
    found = find_sensitivity(list(ERRORS), additive, 30, lambda *done: told.append(done))
    assert found.layers == (
        Effect("b", decibels("b"), decibels("a", "c", "d")),
        Effect("c", decibels("c"), decibels("a", "b", "d")),
        Effect("a", decibels("a"), decibels("b", "c", "d")),
        Effect("d", decibels("d"), decibels("a", "b", "c")),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("least", "kept"), [(28.0, ()), (35.0, ("b",)), (44.0, ("b", "c")), (52.0, ("b", "c", "a")), (60.0, None)]
)
def test_the_set_to_leave_in_float_is_the_smallest_that_passes(least: float, kept: tuple[str, ...] | None) -> None:
    found = find_sensitivity(list(ERRORS), additive, least)
    assert found.keep_float == kept
    left = [name for name in ERRORS if name not in (kept or ())]
    assert found.psnr == (None if kept is None else decibels(*left))


def test_a_layer_that_turns_out_not_to_be_needed_is_put_back() -> None:
    """Alone b is the worst, but its error is that of c: with c in float it costs nothing."""

    def together(chosen: Collection[str]) -> Difference:
        total = 1e-5 * len(chosen) + (4e-3 if "c" in chosen or chosen == ["b"] else 0)
        return Difference(10 * math.log10(4 / total), 0.1, 0.0)

    found = find_sensitivity(["a", "b", "c"], lambda chosen: together(list(chosen)), 45)
    assert [one.name for one in found.layers][:2] == ["b", "c"]
    assert found.keep_float == ("c",)


def test_the_document_has_no_number_that_json_has_not() -> None:
    def broken(chosen: Collection[str]) -> Difference:
        return Difference(-math.inf if chosen else None, math.inf, 0.0)

    document = find_sensitivity(["a"], broken, 30).to_json()
    assert document == {
        "layers": [{"name": "a", "psnr_alone": None, "psnr_without": None}], "keep_float": None, "psnr": None
    }  # fmt: skip
