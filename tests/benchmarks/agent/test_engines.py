"""The engines that the worker opens, in this process and in one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from mggc_edge.backends.openvino import properties, reason
from mggc_edge.benchmarks.agent import engines
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.isolation import AGENT
from mggc_edge.benchmarks.workload import RUNTIMES, Workload
from mggc_edge.errors import InputError
from mggc_edge.machine import Machine
from tests.benchmarks.agent.test_worker import CLOSE, OPEN, served
from tests.benchmarks.bench_helpers import convolutions, passing, without_rule

OPENVINO = {**OPEN, "runtime": "openvino"}


def opened(path: Path, **changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = served({**OPENVINO, "path": str(path), **changes})[0]
    return answer


def test_every_runtime_that_can_be_measured_has_an_engine() -> None:
    assert set(engines.ENGINES) == set(RUNTIMES)


def test_openvino_is_opened_and_sampled(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx", shape=("batch", 3, "height", "width"))
    first, sampled, closed = served(
        {**OPENVINO, "path": str(path), "image_size": [8, 24]}, {"do": "sample", "runs": 2, "untimed": 1}, CLOSE
    )
    assert first["provider"] == "CPU"
    assert first["inputs"] == [{"name": "x0", "dtype": "float32", "shape": [1, 3, 8, 24]}]
    assert set(first["versions"]) == {"openvino", "numpy"}
    assert first["versions"]["openvino"].replace(".", "").isdigit()
    assert len(sampled["samples_ns"]) == 2
    assert closed["rss_peak_bytes"] > 2**20


def test_a_fresh_process_loads_the_engine_that_was_asked_for_alone(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    program = (
        f"import runpy, sys; sys.argv = ['agent', 'worker']; runpy.run_path({str(AGENT)!r}, run_name='__main__'); "
        "sys.stderr.write(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps({**OPENVINO, "path": str(path)}) + "\n" + json.dumps(CLOSE) + "\n",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stderr.split())
    assert {"numpy", "openvino"} <= loaded
    assert loaded & {"torch", "onnx", "onnxruntime", "mggc_edge", "rich", "typer"} == set()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino_gets_the_properties_of_the_library_and_ties_its_threads_to_the_cores_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    given: list[dict[str, Any]] = []

    class Core:
        def compile_model(self, model: object, device: str, chosen: dict[str, Any]) -> object:
            given.append(chosen)
            raise RuntimeError("enough")

    engine = engines.OpenVino()
    monkeypatch.setattr(engine, "_library", SimpleNamespace(Core=Core))
    request = {**OPENVINO, "path": str(convolutions(tmp_path / "a.onnx")), "threads": 2}
    for kind in (precision, "bf16"):
        for cores in (None, [0, 1]):
            with pytest.raises(engines.RefusalError, match="OpenVINO cannot run it: enough"):
                engine.open({**request, "precision": kind, "cores": cores})
    tied = {"ENABLE_CPU_PINNING": True}
    floats, halves = properties(2, "fp32"), properties(2, "bf16")
    assert given == [floats, {**floats, **tied}, halves, {**halves, **tied}]


def test_feeds_have_the_values_that_a_file_says_it_takes(tmp_path: Path) -> None:
    path = passing(tmp_path / "a.onnx", TensorProto.FLOAT)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"mggc_edge.input_format": '{"low": 0.0, "high": 255.0}'})
    onnx.save(model, path)
    engine = engines.OpenVino()
    engine.open({**OPENVINO, "path": str(path)})
    assert dict(engine.metadata) == {"mggc_edge.input_format": '{"low": 0.0, "high": 255.0}'}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello world", "OpenVINO cannot run it: Model can't be parsed"),
        (b"", "OpenVINO cannot run it: it holds no network"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.onnx").write_bytes(data)
    assert opened(tmp_path / "a.onnx") == {"error": "model", "message": message}


def test_an_operation_that_openvino_lacks_is_named(tmp_path: Path) -> None:
    assert opened(without_rule(tmp_path / "a.onnx")) == {
        "error": "model",
        "message": "OpenVINO cannot run it: it has no operation Det-20",
    }


def test_a_type_that_is_not_known_is_refused(tmp_path: Path) -> None:
    answer = opened(passing(tmp_path / "a.onnx", TensorProto.UINT16))
    assert answer == {"error": "input", "message": "its input 'x' has the type u16, which cannot be fed"}


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    answer = opened(tmp_path / "a.onnx")
    assert answer["error"] == "missing"
    assert answer["message"].startswith("openvino cannot be imported here: ")


def test_a_provider_that_is_not_there_is_refused_and_not_replaced(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    answer = served({**OPEN, "path": str(path), "provider": "CUDAExecutionProvider"})[0]
    there = ", ".join(onnxruntime.get_available_providers())
    assert answer == {
        "error": "provider",
        "message": f"this build of ONNX Runtime has no CUDAExecutionProvider, but {there}",
    }


def test_a_provider_that_does_not_start_is_refused_and_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a machine whose driver does not fit: the provider is listed, and the session runs on the processor.
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, **_: real(path, options))
    answer = served({**OPEN, "path": str(convolutions(tmp_path / "a.onnx")), "provider": "CUDAExecutionProvider"})[0]
    assert answer["error"] == "provider"
    assert answer["message"].startswith("ONNX Runtime's CUDAExecutionProvider does not start here; it would run on ")


@pytest.mark.parametrize("text", ["Exception from a:1:\nsaid\n", "-- No conversion rule found for operations: A\n", ""])
def test_the_worker_and_the_library_say_the_same_of_an_error(text: str) -> None:
    assert engines._openvino_line(RuntimeError(text)) == reason(RuntimeError(text))


def test_engines_are_measured_against_each_other(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    models = [Workload("ort", path), Workload("ov", path, runtime="openvino")]
    report = measure(models, threads=1, pairs=2, processes=2, warmup_seconds=0.01)
    rows = [(run["runtime"], run["provider"], run["precision"]) for run in report.to_json()["runs"]]
    assert rows == [("onnxruntime", "CPUExecutionProvider", "fp32"), ("openvino", "CPU", "fp32")]
    assert {"onnxruntime", "openvino"} <= set(report.context["versions"])


def test_bfloat16_is_not_measured_where_the_processor_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atom = Machine("Atom", "x86_64", ("AVX2",), 1, None, None)
    monkeypatch.setattr("mggc_edge.benchmarks.devices.local.this_machine", lambda _: atom)
    model = Workload("a", convolutions(tmp_path / "a.onnx"), runtime="openvino", precision="bf16")
    with pytest.raises(InputError, match=r"^this processor, Atom, has no instructions for bf16"):
        measure([model], pairs=1, processes=1)
