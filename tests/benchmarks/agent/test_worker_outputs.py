"""What the worker notices beside the time: outputs that are no numbers, sleep of the machine, work handed out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.benchmarks.agent import worker
from mggc_edge.benchmarks.agent.worker import Worker
from tests.benchmarks.agent.test_worker import opened
from tests.benchmarks.bench_helpers import PICTURE

REFUSED = {"error": "model", "message": "it returns values that are not finite for a picture of random values"}


def one_operator(path: Path, op: str, constant: float | None = None) -> Path:
    """Write a file with y = op(x), or op(x, constant), and return its path."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(PICTURE)) for name in ("x", "y")]
    held = [] if constant is None else [helper.make_tensor("c", TensorProto.FLOAT, [], [constant])]
    node = helper.make_node(op, ["x", *(tensor.name for tensor in held)], ["y"])
    graph = helper.make_graph([node], "one", values[:1], values[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(model, path)
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_model_that_returns_nan_or_infinity_is_refused(tmp_path: Path, runtime: str) -> None:
    log = one_operator(tmp_path / "log.onnx", "Log")  # of values from -1 to 1
    divided = one_operator(tmp_path / "divided.onnx", "Div", 0.0)
    fine = one_operator(tmp_path / "fine.onnx", "Div", 2.0)
    assert opened(log, runtime=runtime) == opened(divided, runtime=runtime) == REFUSED
    assert "error" not in opened(fine, runtime=runtime)


class Handing:
    """An engine whose work goes on by itself: it says how long it took to hand it out."""

    metadata: dict[str, str] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self._handed = 1000

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        self._handed += 7
        return []

    def take_enqueue_ns(self) -> int:
        handed, self._handed = self._handed, 0
        return handed


def sampled(engine: Any, runs: int = 3) -> dict[str, Any]:
    one = Worker()
    one._engine = engine
    answer: dict[str, Any] = one.answer({"do": "sample", "runs": runs, "untimed": 1})
    noted: dict[str, Any] = answer["noted"]
    return noted


def test_the_time_to_hand_work_out_is_that_of_the_timed_runs() -> None:
    assert sampled(Handing())["enqueue_ns"] == 21


def test_where_the_machine_slept_is_noted_in_the_sample_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([5, 5, 5 + 10**9, 5 + 10**9])
    monkeypatch.setattr(worker, "_slept_ns", lambda: next(clock))
    one = Worker()
    one._engine = Handing()  # type: ignore[assignment]
    answers = [one.answer({"do": "sample", "runs": 1, "untimed": 0}) for _ in range(3)]
    assert [answer["noted"]["suspended_ns"] for answer in answers] == [0, 10**9, 0]


def test_the_clocks_of_a_machine_that_does_not_sleep_stay_together() -> None:
    before = worker._slept_ns()
    np.linalg.inv(np.eye(300))
    after = worker._slept_ns()
    if before is None or after is None:
        pytest.skip("this system has no clock that goes on in sleep")
    assert abs(after - before) < 10_000_000


def test_a_system_without_such_a_clock_notes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert sampled(Handing())["suspended_ns"] is None
