"""What the tests of measurements share: tiny ONNX files, and processes that answer as they are told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mggc_edge.benchmarks.agent.surroundings import Moment, Surroundings
from mggc_edge.benchmarks.report import ModelRun
from mggc_edge.benchmarks.samples import ProcessSamples
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError
from mggc_edge.machine import Machine

PICTURE = (1, 3, 16, 16)


def convolutions(
    path: Path, count: int = 1, shape: Iterable[int | str | None] = PICTURE, dtype: int = TensorProto.FLOAT
) -> Path:
    """Write a file with so many 3x3 convolutions of 3 channels, and return its path."""
    weight = np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(helper.tensor_dtype_to_np_dtype(dtype))
    nodes = [
        helper.make_node("Conv", [f"x{index}", "w"], [f"x{index + 1}"], pads=[1, 1, 1, 1]) for index in range(count)
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x0", dtype, list(shape))],
        [helper.make_tensor_value_info(f"x{count}", dtype, list(shape))],
        [numpy_helper.from_array(weight, "w")],
    )
    return _saved(graph, path)


def passing(path: Path, dtype: int, shape: Iterable[int | str | None] = PICTURE) -> Path:
    """Write a file that gives what it takes, and return its path."""
    node = helper.make_node("Identity", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, dtype, list(shape)) for name in ("x", "y")]
    return _saved(helper.make_graph([node], "passing", values[:1], values[1:]), path)


def without_rule(path: Path) -> Path:
    """Write a file with an operator that ONNX Runtime has and OpenVINO has not: y = x + det(x), and return its path."""
    nodes = [
        helper.make_node("Det", ["x"], ["det"]),
        helper.make_node("Unsqueeze", ["det", "axes"], ["grown"]),
        helper.make_node("Add", ["x", "grown"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(PICTURE)) for name in ("x", "y")]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    return _saved(helper.make_graph(nodes, "determinant", values[:1], values[1:], [axes]), path)


def _saved(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(model, path)
    return path


def script(path: Path, text: str) -> Path:
    """Write a program for sh, and return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


class Told(Surroundings):
    """What a machine of two cores tells of itself, on which nothing else runs."""

    def __init__(self) -> None:
        super().__init__(lambda _: Machine("CPU", "x86_64", (), 2, None, None))
        self.moment: Callable[[], Moment] = lambda: Moment(0.0, None, None, (), None)
        self.others: Callable[[], int | None] = lambda: 0
        self.answers["moment"] = lambda: asdict(self.moment())
        self.clock_khz: Callable[[], int | None] = lambda: None
        self.answers["others"] = lambda: {"running": self.others(), "clock_khz": self.clock_khz()}


class Clock:
    """A clock that is moved by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Counts = Callable[[int, int], dict[str, int | None]]


def quiet(_: int, wall_ns: int) -> dict[str, int | None]:
    """What the kernel counts in a sample that nobody disturbs."""
    return {"cpu_ns": wall_ns, "involuntary_switches": 0, "waited_ns": wall_ns // 1000}


class FakeWorker:
    """A process that answers at once; a run takes `latency_ns(run number)` on a clock moved by hand.

    What the kernel counted in a sample is `counts(sample number, its time in ns)`.
    """

    def __init__(
        self,
        clock: Clock,
        latency_ns: Callable[[int], int],
        log: list[str],
        name: str = "",
        counts: Counts = quiet,
    ) -> None:
        self._clock, self._latency_ns, self._log, self.name = clock, latency_ns, log, name
        self._counts = counts
        self._runs = self._samples = 0
        self.ended = False

    def _run(self) -> int:
        latency = self._latency_ns(self._runs)
        self._runs += 1
        self._clock.now += latency / 1e9
        return latency

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Answer as the worker would, which is given up where that takes too long."""
        began = self._clock.now
        answer = self._answer(request)
        if self._clock.now - began > timeout:
            raise ArtifactError(f"the process that measures '{self.name}' takes too long: no answer in {timeout:.0f} s")
        return answer

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        do = request["do"]
        self._log.append(f"{do} {self.name}")
        if do == "open":
            inputs = [{"name": "x", "dtype": "float32", "shape": list(PICTURE)}]
            return {
                "load_ns": 2_000_000, "first_ns": self._run(), "rss_before_bytes": 1000, "provider": "P",
                "inputs": inputs, "versions": {"onnxruntime": "1", "numpy": "2"},
            }  # fmt: skip
        if do == "warm":
            times = [self._run() for _ in range(2)]
            return {"runs": 2, "ns": sum(times), "settled": True, "median_ns": float(np.median(times))}
        if do == "sample":
            for _ in range(request["untimed"]):
                self._run()
            samples = [self._run() for _ in range(request["runs"])]
            self._samples += 1
            noted = {"wall_ns": sum(samples), **self._counts(self._samples - 1, sum(samples))}
            return {"samples_ns": samples, "noted": noted}
        if do == "steady":
            runs, start = 0, round(self._clock.now * 1e9)
            while round(self._clock.now * 1e9) - start < request["ns"]:
                self._run()
                runs += 1
            return {"runs": runs, "start_ns": start, "end_ns": round(self._clock.now * 1e9)}
        return {"rss_peak_bytes": 5000}

    def end(self) -> None:
        """Note that it was ended."""
        self.ended = True
        self._log.append(f"end {self.name}")


def run_of(name: str, processes: list[list[list[int]]], macs: int | None = None, **changes: Any) -> ModelRun:
    """A run with these samples in ns: per process, per pair."""
    measured = tuple(
        ProcessSamples(4_000_000, 3_000_000, 10, 2_000_000_000, True, tuple(map(tuple, pairs)), 1000, 5000 + index)
        for index, pairs in enumerate(processes)
    )
    values: dict[str, Any] = {
        "model": Workload(name, Path(f"{name}.onnx"), macs_true=macs, macs_paper=macs),
        "sha256": "0" * 64,
        "size_bytes": 7,
        "provider": "CPUExecutionProvider",
        "threads": 2,
        "runs_per_pair": len(processes[0][0]) if processes else 1,
        "inputs": ({"name": "x", "dtype": "float32", "shape": [1, 3, 16, 16]},),
        "processes": measured,
        "warnings": (),
    }
    return ModelRun(**{**values, **changes})
