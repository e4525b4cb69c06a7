"""`mggc-edge bench --baseline`: verdicts, exit codes, rounds, facts, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks import harness
from mggc_edge.benchmarks.gate import ONE_ROUND, Gate, Limits, ModelGate
from mggc_edge.cli.gate_pages import model_details
from mggc_edge.errors import ArtifactError
from tests.benchmarks.bench_helpers import convolutions
from tests.benchmarks.test_gate import comparison
from tests.cli.conftest import Command
from tests.cli.gate_helpers import Measure

GATE = ("--max-regression", "5%")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """base.onnx with two convolutions, head.onnx with three."""
    return convolutions(tmp_path / "base.onnx", 2), convolutions(tmp_path / "head.onnx", 3)


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Measure]:
    """Put a fake in the place of the measurement; without a latency all models take 10 ms."""

    def put(latency_ms: Callable[[Path], float] = lambda _: 10.0, **words: Any) -> Measure:
        fake = Measure(latency_ms, **words)
        monkeypatch.setattr(harness, "measure", fake)
        return fake

    return put


def slower_head(factor: float) -> Callable[[Path], float]:
    return lambda path: 10.0 * (factor if path.name == "head.onnx" else 1.0)


@pytest.mark.parametrize(
    ("factor", "spread", "words", "verdict", "code"),
    [
        (1.0, 0.002, (), "pass", 0),
        (0.5, 0.002, (), "pass", 0),
        (1.1, 0.002, (), "fail", 3),
        (1.1, 0.002, ("--inconclusive", "warn"), "fail", 3),
        (1.0, 0.4, (), "inconclusive", 4),
        (1.0, 0.4, ("--inconclusive", "warn"), "inconclusive", 0),
    ],
)
def test_the_exit_code_is_that_of_the_verdict(
    command: Command,
    files: Any,
    measuring: Any,
    factor: float,
    spread: float,
    words: tuple[str, ...],
    verdict: str,
    code: int,
) -> None:
    fake = measuring(slower_head(factor), spread=spread)
    ran = command("bench", files[1], "--baseline", files[0], *GATE, *words, "--json")
    assert ran.code == code
    gate = ran.document["gate"]
    assert (gate["threshold"], gate["verdict"], gate["exit_code"]) == (0.05, verdict, code)
    assert len(fake.calls) == (1 if verdict == "pass" else 2)
    assert ("warning: the gate is inconclusive" in ran.err) == (verdict == "inconclusive" and code == 0)


def test_a_failure_is_measured_again_with_as_many_pairs_in_all_as_were_asked_for(
    command: Command, files: Any, measuring: Any
) -> None:
    fake = measuring(slower_head(1.1))
    ran = command("bench", files[1], "--baseline", files[0], *GATE, "--json", "--seed", 7)
    assert [(call["pairs"], call["seed"], call["runs"]) for call in fake.calls] == [(20, 7, None), (20, 8, [1, 1])]
    assert {call["margin"] for call in fake.calls} == {0.05}
    assert [call["max_seconds"] for call in fake.calls] == [150.0, 150.0]
    assert ran.err == "the first 20 pairs do not settle it: measuring once more, in fresh processes\n"
    gate = ran.document["gate"]
    assert [(one["pairs"], one["processes"], one["verdicts"]) for one in gate["rounds"]] == [
        (20, 10, {"head.onnx": "fail"}),
    ] * 2  # fmt: skip
    (model,) = gate["models"]
    assert (model["latency"]["pairs"], model["latency"]["processes"]) == (40, 20)
    assert model["latency"]["slowdown"] == pytest.approx(0.1, abs=0.01)
    assert len(ran.document["runs"][0]["samples_ns"]) == 40


def test_the_page_says_it_in_a_sentence_with_the_facts(command: Command, files: Any, measuring: Any) -> None:
    measuring(slower_head(1.1))
    lines = command("bench", files[1], "--baseline", files[0], *GATE, "--max-size-increase", "1%").out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "failed: head.onnx takes 1.10" in text
    assert "times as long is allowed. File size grew by more than is" in text.replace("\n", " ")
    assert "Measured twice: the first 20 pairs alone fail; all together decide." in " ".join(text.split())
    rows = {line.split("  ")[0].strip(): line.split() for line in lines if line.startswith(" ")}
    assert rows["MACs executed"][-3:] == ["62.21", "k", "+50.00%"] or rows["MACs executed"][-2:] == ["+50.00%", "-"]
    assert rows["file size"][-1] == "+1.00%"
    assert "Operators: Conv +1." in text


@pytest.mark.parametrize(("lost", "which"), [(0, "first"), (1, "last")])
def test_no_model_fails_on_the_one_round_of_two_that_others_left_alone(
    command: Command, files: Any, measuring: Any, lost: int, which: str
) -> None:
    codes: list[tuple[str, ...]] = [(), ()]
    codes[lost] = ("load",)
    measuring(slower_head(1.2), warnings=codes)
    ran = command("bench", files[1], "--baseline", files[0], *GATE, "--json")
    assert (ran.code, ran.document["gate"]["verdict"]) == (4, "inconclusive")
    assert [one["used"] for one in ran.document["gate"]["rounds"]] == [lost == 1, lost == 0]
    (model,) = ran.document["gate"]["models"]
    assert model["latency"]["interval"][0] > 0.05
    measuring(slower_head(1.2), warnings=codes)
    text = " ".join(command("bench", files[1], "--baseline", files[0], *GATE).out.split())
    assert f"Measured twice: the {which} 20 pairs are left out, because others disturbed them;" in text


def test_each_model_is_told_which_rounds_are_in_its_own_verdict(
    command: Command, files: Any, measuring: Any, tmp_path: Path
) -> None:
    third = Path(shutil.copy(files[1], tmp_path / "third.onnx"))

    def fake() -> None:
        measuring(
            lambda path: 10.0 if path == files[0] else 12.0,
            warnings=[("preempted",), ()],
            warned=lambda path: path == third,
        )

    fake()
    ran = command("bench", files[1], third, "--baseline", files[0], *GATE, "--json")
    assert ran.code == 3
    found = {one["model"]: one["latency"] for one in ran.document["gate"]["models"]}
    assert {name: (one["verdict"], one["rounds_used"], one["pairs"]) for name, one in found.items()} == {
        "head.onnx": ("fail", [True, True], 40),
        "third.onnx": ("inconclusive", [False, True], 20),
    }
    assert found["head.onnx"]["reason"] is None
    assert found["third.onnx"]["reason"] == ONE_ROUND
    assert [one["used"] for one in ran.document["gate"]["rounds"]] == [False, True]
    fake()
    text = " ".join(command("bench", files[1], third, "--baseline", files[0], *GATE).out.split())
    assert text.index("failed: head.onnx") < text.index("inconclusive: these samples cannot tell whether third.onnx")
    head, other = text.split("inconclusive: these samples", 1)
    assert "Measured twice: the first 20 pairs alone fail; all together decide." in head
    assert "left out" not in head
    assert "Measured twice: the first 20 pairs are left out, because others disturbed them;" in other


def test_a_model_passes_on_the_one_round_of_two_that_others_left_alone(
    command: Command, files: Any, measuring: Any
) -> None:
    measuring(slower_head(1.0), warnings=[("load",), ()])
    ran = command("bench", files[1], "--baseline", files[0], *GATE, "--json")
    assert (ran.code, ran.document["gate"]["verdict"], len(ran.document["gate"]["rounds"])) == (0, "pass", 2)


def test_pairs_in_which_a_board_lowered_its_clocks_are_not_called_disturbed() -> None:
    model = ModelGate(comparison(0.0, -0.01, 0.01, left_out=6, throttled=4), 0.05)
    assert model_details(model, Gate(Limits(0.05), (model,)))[-2:] == [
        "Of 26 pairs 4 were left out, in which the board had lowered its clocks.",
        "Of 26 pairs 2 were left out, because others disturbed them.",
    ]


def test_markdown_has_the_same(command: Command, files: Any, measuring: Any) -> None:
    measuring(slower_head(1.0))
    out = command("bench", files[1], "--baseline", files[0], *GATE, "--format", "markdown").out
    assert "**passed**: head.onnx takes " in out
    assert "| fact | baseline | model | change | allowed |" in out
    assert "\nOperators: Conv +1.\n" in out


def test_facts_fail_alone_and_need_no_limit_on_latency(command: Command, files: Any, measuring: Any) -> None:
    fake = measuring(slower_head(1.0))
    limits = ("--max-macs-increase", "0%", "--max-qdq-increase", 0, "--max-reorders-increase", 5)
    ran = command("bench", files[1], "--baseline", files[0], *limits, "--json")
    gate = ran.document["gate"]
    assert (ran.code, gate["verdict"], gate["threshold"]) == (3, "fail", None)
    assert gate["limits"] == {"macs_executed": 0.0, "quantizers": 0.0, "reorders": 5.0}
    verdicts = {row["fact"]: row["verdict"] for row in gate["models"][0]["facts"]}
    assert (verdicts["macs_executed"], verdicts["quantizers"], verdicts["parameters"]) == ("fail", "pass", None)
    assert {one["model"]: one["operators"] for one in gate["files"]} == {
        "head.onnx": {"Conv": 3},
        "baseline": {"Conv": 2},
    }
    assert [call["pairs"] for call in fake.calls] == [40]  # nothing to settle
    assert command("bench", files[1], "--baseline", files[0], "--max-macs-increase", "50%").code == 0


def test_without_limits_the_baseline_is_only_compared_with(command: Command, files: Any, measuring: Any) -> None:
    measuring(slower_head(1.5))
    ran = command("bench", files[1], "--baseline", files[0], "--json")
    assert (ran.code, ran.document["gate"]["verdict"], ran.document["gate"]["exit_code"]) == (0, None, 0)
    assert ran.document["comparisons"][0]["verdict"] == "slower"


def test_every_model_is_gated_at_a_level_for_all(command: Command, files: Any, measuring: Any, tmp_path: Path) -> None:
    fake = measuring(slower_head(1.1))
    other = convolutions(tmp_path / "other.onnx")
    ran = command("bench", other, files[1], "--baseline", files[0], *GATE, "--json")
    models = {model["model"]: model["latency"] for model in ran.document["gate"]["models"]}
    assert fake.names[0] == ["baseline", "other.onnx", "head.onnx"]
    assert {name: one["verdict"] for name, one in models.items()} == {"other.onnx": "pass", "head.onnx": "fail"}
    assert {one["level"] for one in models.values()} == {0.995}
    assert ran.code == 3


def test_a_run_is_gated_by_its_compressed_generator(
    command: Command, material: Path, measuring: Any, tmp_path: Path
) -> None:
    fake = measuring()
    main = Path(shutil.copytree(material / "run", tmp_path / "main"))
    (main / "export/portable/original.fp32.onnx").unlink()  # of the baseline, only the generator is needed
    ran = command("bench", material / "run", "--baseline", main, *GATE, "--json")
    assert ran.code == 0, ran.err
    assert fake.names == [["baseline", "compressed"]]
    paths = [Path(model["path"]) for model in ran.document["models"]]
    assert paths == [folder / "export/portable/generator.fp32.onnx" for folder in (main, material / "run")]


def test_engines_are_gated_each_by_its_own_baseline(command: Command, files: Any, measuring: Any) -> None:
    fake = measuring()
    words = ("--runtime", "onnxruntime,openvino", *GATE, "--json")
    ran = command("bench", files[1], "--baseline", files[0], *words)
    pairs = [(one["a"], one["b"]) for one in ran.document["comparisons"]]
    assert pairs == [
        ("baseline, onnxruntime cpu fp32", "head.onnx, onnxruntime"),
        ("baseline, openvino cpu fp32", "head.onnx, openvino"),
    ]
    assert len(fake.names[0]) == 4


# --- the control ---


def test_the_control_measures_the_baseline_twice(command: Command, files: Any, measuring: Any) -> None:
    fake = measuring()
    ran = command("bench", files[1], "--baseline", files[0], *GATE, "--control", "--json")
    assert fake.names == [["baseline", "head.onnx", "baseline (again)"]]
    assert [one["b"] for one in ran.document["comparisons"]] == ["head.onnx"]
    control = ran.document["control"]
    assert (control["a"], control["b"], control["verdict"]) == ("baseline", "baseline (again)", "same")
    assert ran.document["gate"]["models"][0]["latency"]["level"] == 0.99  # it is none of the models


def test_a_control_that_fails_makes_it_inconclusive(command: Command, files: Any, measuring: Any) -> None:
    calls: list[Path] = []

    def biased(path: Path) -> float:
        calls.append(path)
        return 10.0 if len(calls) % 3 else 10.4  # whatever is measured last takes longer

    measuring(biased)
    ran = command("bench", files[1], "--baseline", files[0], *GATE, "--control", "--json")
    assert (ran.code, ran.document["gate"]["verdict"]) == (4, "inconclusive")
    assert ran.document["comparisons"][0]["disturbed"] == ["control"]
    assert "differs from itself" in ran.document["gate"]["models"][0]["latency"]["reason"]


def test_a_control_works_without_a_baseline(command: Command, files: Any, measuring: Any) -> None:
    measuring()
    ran = command("bench", *files, "--control", "--json")
    assert [one["b"] for one in ran.document["comparisons"]] == ["head.onnx"]
    assert ran.document["control"]["b"] == "base.onnx (again)"


# --- interrupted ---


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (ArtifactError("it died"), 1)])
def test_samples_of_a_measurement_that_ends_early_are_kept(
    command: Command, files: Any, measuring: Any, tmp_path: Path, error: BaseException, code: int
) -> None:
    measuring(slower_head(1.1), error=error)
    target = tmp_path / "bench.json"
    ran = command("bench", files[1], "--baseline", files[0], *GATE, "--output", target)
    assert ran.code == code
    document = json.loads(target.read_text())
    gate = document["gate"]
    assert (document["complete"], gate["verdict"], gate["exit_code"], gate["threshold"]) == (False, None, None, 0.05)
    assert [len(run["samples_ns"]) for run in document["runs"]] == [21, 21]  # of both rounds
    assert "baseline" in ran.out
    assert f"after 21 complete pairs: what they say is shown, and kept in '{target}'" in " ".join(ran.err.split())


def test_an_early_end_is_shown_as_json_where_that_was_asked_for(command: Command, files: Any, measuring: Any) -> None:
    measuring(error=KeyboardInterrupt(), warnings=((),))
    ran = command("bench", *files, "--json")
    assert (ran.code, ran.document["complete"]) == (130, False)
    assert "after 1 complete pair: " in ran.err
