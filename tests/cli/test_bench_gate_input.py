"""What a gate refuses, in one sentence with the way out, and before anything is measured."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.artifacts import tool_versions
from mggc_edge.benchmarks import harness
from mggc_edge.benchmarks.agent.surroundings import moment
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.environment import context
from tests.benchmarks.bench_helpers import convolutions
from tests.cli.conftest import Command
from tests.cli.gate_helpers import Measure

GATE = ("--max-regression", "5%")
OLD = (*GATE, "--threads", 2)  # against numbers of another day, which were measured so


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return convolutions(tmp_path / "base.onnx", 2), convolutions(tmp_path / "head.onnx", 2)


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be measured."""
    monkeypatch.setattr(harness, "measure", None)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--max-regression", "5%"), "--max-regression needs a baseline"),
        (("--max-macs-increase", "0%"), "--max-macs-increase needs a baseline"),
        (("--max-qdq-increase", "0"), "--max-qdq-increase needs a baseline"),
        (("--inconclusive", "warn"), "--inconclusive needs a gate"),
        (("--baseline", "BASE", "--max-regression", "5"), "--max-regression takes a percentage such as 5% (or 0.05)"),
        (("--baseline", "BASE", "--max-regression", "-5%"), "takes a percentage such as 5%"),
        (("--baseline", "BASE", "--max-regression", "0%"), "more than 0% and at most 100%, not '0%'"),
        (("--baseline", "BASE", "--max-regression", "101%"), "more than 0% and at most 100%"),
        (("--baseline", "BASE", "--max-size-increase", "lots"), "--max-size-increase takes a percentage"),
        (("--baseline", "BASE", "--max-reorders-increase", "-1"), "Invalid value for '--max-reorders-increase'"),
        (("--baseline", "BASE", "--inconclusive", "pass"), "Invalid value for '--inconclusive'"),
        (("--baseline", "BASE", "--update"), "--update takes no --baseline"),
        (("--control", "--update"), "--update takes no --control"),
    ],
)
def test_flags_that_make_no_sense_are_usage_errors(
    command: Command, files: Any, never: None, words: tuple[str, ...], text: str
) -> None:
    ran = command("bench", files[1], *(files[0] if word == "BASE" else word for word in words))
    assert (ran.code, ran.out) == (2, "")
    assert text in " ".join(ran.err.replace("│", " ").split())


def test_a_baseline_of_another_input_size_is_refused(command: Command, files: Any, never: None, tmp_path: Path) -> None:
    base = convolutions(tmp_path / "small.onnx", shape=(1, 3, 8, 24))
    ran = command("bench", files[1], "--baseline", base, *GATE)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: the baseline takes pictures of 8x24 and 'head.onnx' of 16x16, so that their latencies cannot be "
        "compared\n"
        "hint: export both at one size: --image-size\n"
    )


def test_a_size_that_is_known_from_the_engine_alone_is_compared_after_the_first_round(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "base.ort", tmp_path / "head.ort"]
    for path in paths:
        path.write_bytes(b"ort")
    fake = Measure(lambda _: 10.0, shape=lambda path: [1, 3, 8, 8] if path == paths[0] else [1, 3, 16, 16])
    monkeypatch.setattr(harness, "measure", fake)
    ran = command("bench", paths[1], "--baseline", paths[0], *GATE)
    assert (ran.code, len(fake.calls)) == (1, 1)
    assert "the baseline takes pictures of 8x8 and 'head.ort' of 16x16" in ran.err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gone.onnx", "there is no file"),
        ("gone.json", "there is no file"),
        ("plan.json", "is no document of mggc-edge bench: its schema is 'mggc-edge/plan/1'"),
        ("generator.pth", "is a checkpoint; .onnx and .ort files can be measured"),
        ("empty", "is a folder without manifest.json or spec.json"),
    ],
)
def test_what_is_no_baseline_is_refused(
    command: Command, files: Any, never: None, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "generator.pth").write_bytes(b"PK")
    (tmp_path / "empty").mkdir()
    (tmp_path / "plan.json").write_text('{"schema": "mggc-edge/plan/1"}')
    ran = command("bench", files[1], "--baseline", tmp_path / name, *GATE)
    assert (ran.code, ran.out) == (1, "")
    assert text in " ".join(ran.err.split())
    assert "Traceback" not in ran.err


def test_a_fact_that_is_not_known_can_have_no_limit(command: Command, never: None, tmp_path: Path) -> None:
    for name in ("base.ort", "head.ort"):
        (tmp_path / name).write_bytes(b"ort")
    words = ("--max-parameters-increase", "0%", "--max-size-increase", "0%")
    ran = command("bench", tmp_path / "head.ort", "--baseline", tmp_path / "base.ort", *words)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: parameters of 'baseline' are not known, so that they can have no limit\nhint: ")


def test_one_pair_is_too_few_for_a_gate_and_says_so(
    command: Command, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Measure(lambda _: 10.0)
    monkeypatch.setattr(harness, "measure", fake)
    ran = command("bench", files[1], "--baseline", files[0], *GATE, "--pairs", 1)
    assert (ran.code, len(fake.calls)) == (4, 1)
    assert "a single process of each was measured, which cannot tell whether head.onnx is slower" in " ".join(
        ran.out.split()
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told_before_anything_is_measured(
    command: Command, files: Any, never: None, tmp_path: Path
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    ran = command("bench", files[1], "--output", folder / "bench.json")
    assert (ran.code, ran.out) == (1, "")


def test_a_machine_without_a_place_for_temporary_files_is_one_sentence(
    command: Command, files: Any, never: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*words: object, **more: object) -> None:  # as of a container whose every folder is read-only
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", none)
    ran = command("bench", files[1], "--baseline", files[0], *GATE)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: no temporary folder can be made here: No usable temporary directory found\n"
        "hint: TMPDIR names one that can be written\n"
    )


@pytest.mark.parametrize("place", ["no/bench.json", "."])
def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(
    command: Command, files: Any, never: None, tmp_path: Path, place: str
) -> None:
    (tmp_path / "no").write_text("a file, no folder")
    ran = command("bench", files[1], "--output", tmp_path / place)
    assert (ran.code, ran.out, ran.err.count("error: ")) == (1, "", 1)


# --- numbers of another day ---


@pytest.fixture
def earlier(command: Command, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write the document of a measurement of head.onnx on this machine, with 2 threads, which took 10 ms."""
    monkeypatch.setattr("mggc_edge.benchmarks.agent.surroundings.host_id", lambda _: "this one")

    def write(*models: Path, **changes: Any) -> Path:
        monkeypatch.setattr(harness, "measure", Measure(lambda _: 10.0))
        document = command("bench", *(models or files[1:]), "--json").document
        now = moment()
        versions = {name: version for name, version in tool_versions().items() if version is not None}
        facts = {**context(LocalDevice().facts, None, now, now, versions), **changes}
        path = tmp_path / "bench.json"
        path.write_text(json.dumps({**document, "context": {**document["context"], **facts}}))
        return path

    return write


def test_old_numbers_of_this_machine_are_taken_and_called_weaker(
    command: Command, files: Any, earlier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = earlier()
    fake = Measure(lambda _: 11.5)
    monkeypatch.setattr(harness, "measure", fake)
    ran = command("bench", files[1], "--baseline", path, *OLD)
    assert (ran.code, fake.names) == (3, [["head.onnx"]] * 2)  # the old numbers are not measured again
    text = " ".join(ran.out.split())
    assert "failed: head.onnx takes 1.15" in text
    assert "The baseline's numbers are of another measurement, on this machine" in text
    assert "Name the baseline's model file for a gate to rely on." in text
    monkeypatch.setattr(harness, "measure", Measure(lambda _: 11.5))
    gate = command("bench", files[1], "--baseline", path, *OLD, "--json").document["gate"]
    assert gate["baseline"] == {"path": str(path), "kind": "earlier document", "weaker": True}
    assert [row["fact"] for row in gate["models"][0]["facts"]] == ["size_bytes"]
    controlled = command("bench", files[1], "--baseline", path, *OLD, "--control", "--json").document["gate"]
    assert [model["model"] for model in controlled["models"]] == ["head.onnx"]  # the control is none of them


def test_each_of_several_models_has_the_old_facts_of_its_own_baseline(
    command: Command, earlier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (convolutions(tmp_path / f"{name}.onnx", count) for name, count in (("small", 1), ("large", 9)))
    path = earlier(large, small)
    monkeypatch.setattr(harness, "measure", Measure(lambda _: 10.0))
    ran = command("bench", large, small, "--baseline", path, *OLD, "--max-size-increase", "0%", "--json")
    assert ran.code == 0
    models = ran.document["gate"]["models"]
    assert [(one["baseline"], one["model"]) for one in models] == [
        ("baseline, large.onnx", "large.onnx"), ("baseline, small.onnx", "small.onnx"),
    ]  # fmt: skip
    assert [one["facts"][0]["baseline"] for one in models] == [path.stat().st_size for path in (large, small)]


def test_old_numbers_with_other_threads_are_refused_before_anything_is_measured(
    command: Command, files: Any, earlier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = earlier()
    monkeypatch.setattr(harness, "measure", None)
    ran = command("bench", files[1], "--baseline", path, *GATE, "--threads", 1)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: the baseline was measured with --threads 2, and 'head.onnx' with 1\nhint: give --threads 2\n"
    )
    ran = command("bench", files[1], "--baseline", path, *OLD, "--provider", "cuda")
    assert (ran.code, ran.out) == (1, "")
    assert "the baseline was measured on CPUExecutionProvider, and 'head.onnx' on CUDAExecutionProvider" in ran.err


def test_old_numbers_of_another_machine_are_refused(
    command: Command, files: Any, earlier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = earlier(kernel="5.4.0-tegra")
    monkeypatch.setattr(harness, "measure", None)
    ran = command("bench", files[1], "--baseline", path, *GATE)
    assert (ran.code, ran.out) == (1, "")
    assert f"error: '{path}' was measured elsewhere: its kernel is 5.4.0-tegra, here it is " in ran.err
    assert "hint: name the baseline's model file instead: it is measured beside the others, in the same job" in ran.err


def test_a_runs_own_measurement_is_no_baseline_unless_it_is_named(
    command: Command, material: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(material / "run", tmp_path / "run"))
    (run / "bench.json").write_text("{}")
    ran = command("bench", run, "--baseline", run / "bench.json", *GATE)
    assert (ran.code, ran.out) == (1, "")
    assert "its schema is None" in ran.err
