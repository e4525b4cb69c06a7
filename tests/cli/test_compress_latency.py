"""What the terminal page of `compress` says of latency: no speed-up that the samples do not carry."""

from __future__ import annotations

from typing import Any

import pytest

from mggc_edge.benchmarks.remarks import remark_json
from mggc_edge.cli.compress_page import page
from mggc_edge.cli.output import Output
from tests.cli.test_compress import document_of


def lines_of_latency(capsys: pytest.CaptureFixture[str], **changes: Any) -> list[str]:
    """What the terminal page says of a latency: its row, and the facts between the budget and the quality."""
    Output(color=False).result(page(document_of(latency={**document_of()["latency"], **changes})))
    lines = capsys.readouterr().out.splitlines()
    facts = lines[next(n for n, line in enumerate(lines) if line.startswith("kept ")) + 1 :]
    end = next(n for n, line in enumerate(facts) if line.startswith("to the original"))
    return [next(line for line in lines if "latency, onnxruntime" in line).split("ms")[-1].strip(), *facts[:end]]


def test_disturbed_samples_give_no_speed_up_but_say_why_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = [remark_json(code) for code in ("few_samples", "preempted")]
    changes = {"verdict": "inconclusive", "reason": found[1]["text"], "disturbed": ["preempted"], "warnings": found}
    assert lines_of_latency(capsys, **changes) == [
        "?",
        (
            "latency          these samples cannot tell: other processes took more than 2 % of the time in too "
            "many of the pairs to leave those out"
        ),
        "                 `mggc-edge bench` measures it again, and longer with --pairs",
        (
            "warning          few samples: under 5 processes or 15 pairs, so that the intervals are wide; more pairs: "
            "mggc-edge bench --pairs (few_samples)"
        ),
        "warning          end what else runs, and measure again with mggc-edge bench (preempted)",
    ]


def test_a_wide_interval_is_shown_with_its_ratio_and_called_unclear(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    changes = {"speedup": 1.1, "ci99": [0.9, 1.3], "verdict": "inconclusive", "reason": "the 99 % interval is too wide"}
    assert lines_of_latency(capsys, **changes) == [
        "1.10x (99%: 0.90 to 1.30)",
        "latency          these samples cannot tell: the 99 % interval is too wide",
        "                 `mggc-edge bench` measures it again, and longer with --pairs",
    ]


def test_implausible_speed_and_pairs_left_out_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = [remark_json("implausible")]
    assert lines_of_latency(capsys, realisation=1.4, warnings=found, pairs_left_out=3) == [
        "8.22x (99%: 7.93 to 8.53)",
        "realisation      1.40 (ratio of latencies / ratio of MACs)",
        (
            "warning          a realisation above 1 is implausible: more speed was gained than multiplications were "
            "saved; measure again on a quiet machine, and with --threads 1 (implausible)"
        ),
        "left out         3 pairs of samples that other processes disturbed",
    ]


def test_a_run_of_an_older_version_shows_the_interval_that_it_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    old = {"runtime": "onnxruntime", "original_ms": 8.0, "compressed_ms": 1.0, "speedup": 8.0, "ci95": [7.5, 8.5],
           "realisation": 0.4}  # fmt: skip
    Output(color=False).result(page(document_of(latency=old)))
    assert "8.00x (95%: 7.50 to 8.50)" in capsys.readouterr().out
