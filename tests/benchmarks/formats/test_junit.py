"""JUnit's XML against the rules of its schemas, also with names and texts that are hostile."""

from __future__ import annotations

import pytest

from mggc_edge.benchmarks.formats.case import Case
from mggc_edge.benchmarks.formats.junit import junit
from tests.benchmarks.formats.junit_rules import check_junit

CONTEXT = {
    "created": "2026-11-30T05:50:45+00:00", "seconds": 1234.5678, "device": "x86", "threads": 2,
    "cpu": {"model": "A&B"}, "versions": {"numpy": "2.4", "torch": None},
}  # fmt: skip
HOSTILE = ' <a b="c">&\n]]>\x1b[2J\x00\ud800\ufffe\'  é '
CASES = [
    Case("head", "pass", "it is fast.", "Details.", 1.25),
    Case("wide", "fail", "it is slow.", "More.", 2.0),
    Case("noisy", "inconclusive", "these samples cannot tell."),
    Case("alone", "measured", "it takes 3 ms."),
]


def test_every_outcome_is_what_readers_of_junit_make_of_it() -> None:
    (suite,) = check_junit(junit(CASES, CONTEXT, warn=False))
    assert [[child.tag for child in case] for case in suite.iter("testcase")] == [[], ["failure"], ["error"], []]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "4",
        "1",
        "1",
        "0",
    )
    failure = next(suite.iter("failure"))
    assert (failure.get("message"), failure.get("type"), failure.text) == ("it is slow.", "fail", "More.")
    said = suite.find("system-out")
    assert said is not None
    assert said.text == "it is fast. Details.\nit takes 3 ms."
    assert (suite.get("timestamp"), suite.get("time")) == ("2026-11-30T05:50:45", "1234.568")


def test_what_is_inconclusive_is_skipped_where_it_is_let_pass() -> None:
    (suite,) = check_junit(junit(CASES, CONTEXT, warn=True))
    assert [child.tag for case in suite.iter("testcase") for child in case] == ["failure", "skipped"]


@pytest.mark.parametrize("outcome", ["pass", "fail", "inconclusive"])
def test_hostile_names_and_texts_are_escaped(outcome: str) -> None:
    case = Case(HOSTILE, outcome, HOSTILE, HOSTILE)  # type: ignore[arg-type]
    text = junit([case], {**CONTEXT, "cpu": {"model": HOSTILE}}, warn=False)
    text.encode("ascii")
    (suite,) = check_junit(text)
    (found,) = suite.iter("testcase")
    assert found.get("name") == '<a b="c">&\\n]]>\\x1b[2J\\x00\\ud800\\ufffe\' é'


def test_a_report_without_facts_about_the_machine_is_still_valid() -> None:
    check_junit(junit([Case("", "pass", "")], {}, warn=False))
