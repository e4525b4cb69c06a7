"""A model in a fresh process: whatever becomes of it, the model is named and the process is ended."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.isolation import WorkerProcess, read_answer, start_worker
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError, InputError, MissingDependencyError
from tests.benchmarks.bench_helpers import convolutions

MODEL = Workload("small.onnx", Path("small.onnx"))
REQUEST = {"do": "close"}


def process(program: str) -> WorkerProcess:
    return WorkerProcess(MODEL, (sys.executable, "-S", "-c", program))


def failure(program: str, timeout: float = 20.0) -> ArtifactError:
    with process(program) as worker, pytest.raises(ArtifactError) as caught:
        worker.ask(REQUEST, timeout)
    return caught.value


def test_a_model_is_opened_and_sampled_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    worker = start_worker(Workload("a", path))
    try:
        request = {
            "do": "open", "path": str(path), "runtime": "onnxruntime", "provider": "CPUExecutionProvider",
            "precision": "fp32", "threads": 1, "image_size": None, "seed": 0,
        }  # fmt: skip
        opened = worker.ask(request, 60)
        sampled = worker.ask({"do": "sample", "runs": 2, "untimed": 0}, 60)
        closed = worker.ask(REQUEST, 60)
    finally:
        worker.end()
    assert opened["provider"] == "CPUExecutionProvider"
    assert len(sampled["samples_ns"]) == 2
    assert closed["rss_peak_bytes"] > opened["rss_before_bytes"]


OPENED: dict[str, Any] = {
    "load_ns": 1,
    "first_ns": 1,
    "rss_before_bytes": None,
    "cores": None,
    "provider": "p",
    "versions": {},
    "inputs": [{"name": "x", "dtype": "float32", "shape": [1]}],
}
SAMPLED: dict[str, Any] = {"samples_ns": [1, 2], "noted": {"wall_ns": 3, "cpu_ns": None}}


@pytest.mark.parametrize(
    ("request_", "answer", "fine"),
    [
        ({"do": "open"}, OPENED, True),
        ({"do": "open"}, {**OPENED, "cores": [0, 1]}, True),
        ({"do": "open"}, {**OPENED, "inputs": ["x"]}, False),
        ({"do": "open"}, {**OPENED, "versions": {"numpy": 2}}, False),
        ({"do": "open"}, {key: value for key, value in OPENED.items() if key != "provider"}, False),
        ({"do": "sample", "runs": 2}, SAMPLED, True),
        ({"do": "sample", "runs": 3}, SAMPLED, False),
        ({"do": "sample", "runs": 2}, {**SAMPLED, "samples_ns": [1, -2]}, False),
        ({"do": "sample", "runs": 2}, {**SAMPLED, "samples_ns": [1, True]}, False),
        ({"do": "sample", "runs": 2}, {**SAMPLED, "noted": {}}, False),
        ({"do": "sample", "runs": 2}, {**SAMPLED, "noted": {"wall_ns": 3, "cpu_ns": "4"}}, False),
        ({"do": "warm"}, {"runs": 2, "ns": 3, "settled": True, "median_ns": 1.5}, True),
        ({"do": "warm"}, {"runs": 2, "ns": 3, "settled": 1, "median_ns": 1.5}, False),
        ({"do": "close"}, {"rss_peak_bytes": None}, True),
        ({"do": "close"}, {"rss_peak_bytes": 1.5}, False),
    ],
)
def test_an_answer_holds_what_was_asked_for(request_: dict[str, Any], answer: dict[str, Any], fine: bool) -> None:
    line = json.dumps(answer)
    if fine:
        assert read_answer(MODEL, request_, line) == answer
        return
    with pytest.raises(ArtifactError, match="gave an answer that makes no sense"):
        read_answer(MODEL, request_, line)


def test_a_process_that_ends_with_an_error_is_quoted() -> None:
    error = failure("import sys; sys.stdin.readline(); sys.stderr.write('one\\nlast words\\n'); sys.exit(5)")
    assert error.message == "the process that measures 'small.onnx' ended with exit code 5"
    assert error.hint == "last words"


def test_a_process_that_crashes_is_named_by_its_signal() -> None:
    error = failure("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 11)")
    assert (error.message, error.hint) == ("the process that measures 'small.onnx' ended by SIGSEGV", None)


def test_a_process_that_is_killed_may_have_lacked_memory() -> None:
    error = failure("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)")
    assert error.message == "the process that measures 'small.onnx' ended by SIGKILL"
    assert error.hint == "the memory of the machine may have run out"


def test_a_process_that_is_gone_before_it_is_asked_is_an_error() -> None:
    with process("import sys; sys.exit(3)") as worker:
        worker._child.process.wait(20)
        with pytest.raises(ArtifactError, match="ended with exit code 3"):
            worker.ask(REQUEST, 20)


def test_a_process_that_does_not_answer_is_given_up() -> None:
    start = time.monotonic()
    error = failure("import sys; sys.stdin.readline(); sys.stdin.readline()", timeout=0.2)
    assert time.monotonic() - start < 5
    assert error.message == "'small.onnx' takes too long to measure: no answer in 0.2 s"
    assert error.hint == "give it more time with the setting bench.max_seconds"


@pytest.mark.parametrize(
    "answer",
    ["'no JSON\\n'", "'[1, 2]\\n'", "'x' * (2**22 + 70000)", "'[' * 100000 + '\\n'"],
    ids=["text", "list", "long", "nested"],
)
def test_an_answer_that_makes_no_sense_is_an_error(answer: str) -> None:
    error = failure(f"import sys; sys.stdin.readline(); sys.stdout.write({answer}); sys.stdout.flush()")
    assert error.message == "the process that measures 'small.onnx' gave an answer that makes no sense"


@pytest.mark.parametrize(
    ("kind", "error", "message", "hint"),
    [
        ("model", ArtifactError, "'small.onnx' cannot be measured: why", None),
        ("input", ArtifactError, "'small.onnx' cannot be measured: why", None),
        ("size", InputError, "'small.onnx' cannot be measured: why", "give an image size"),
        ("fixed", InputError, "'small.onnx' cannot be measured: why", "leave the image size out"),
        ("provider", InputError, "'small.onnx' cannot be measured: why", "see mggc-edge doctor"),
        ("missing", MissingDependencyError, "why", 'pip install "mggc-edge[ort]"'),
    ],
)
def test_what_a_worker_refuses_becomes_an_error_of_its_kind(
    kind: str, error: type[InputError], message: str, hint: str | None
) -> None:
    answer = f'{{"error": "{kind}", "message": "why"}}'
    with process(f"input(); print('{answer}')") as worker, pytest.raises(error) as caught:
        worker.ask(REQUEST, 20)
    assert (type(caught.value), caught.value.message, caught.value.hint) == (error, message, hint)


def test_a_missing_engine_comes_with_its_own_install_line() -> None:
    program = """input(); print('{"error": "missing", "message": "why"}')"""
    model = Workload("small.onnx", Path("small.onnx"), runtime="openvino")
    worker = WorkerProcess(model, (sys.executable, "-S", "-c", program))
    with worker, pytest.raises(MissingDependencyError) as caught:
        worker.ask(REQUEST, 20)
    assert caught.value.hint == 'pip install "mggc-edge[openvino]"'


def test_the_end_kills_a_process_that_goes_on() -> None:
    worker = process("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)")
    worker.end()
    assert worker._child.process.returncode == -9
    with pytest.raises(ProcessLookupError):
        os.kill(worker._child.process.pid, 0)


def test_a_program_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no process can be started to measure 'small.onnx': No such file"):
        WorkerProcess(MODEL, (str(tmp_path / "python"),))
