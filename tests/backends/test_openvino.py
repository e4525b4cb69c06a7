"""OpenVINO: precisions, threads, metadata, and what it cannot run."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.backends import openvino as backend
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.backends.openvino import OpenVinoRunner, check_bf16, reason
from mggc_edge.errors import ArtifactError, InputError, MissingDependencyError
from mggc_edge.machine import BF16_SETS, Machine, this_machine
from mggc_edge.tensors import FloatArray, TensorSpec
from tests.benchmarks.bench_helpers import convolutions, passing, without_rule

BF16 = Machine("Zen 4", "x86_64", ("AVX2", "AVX-512", "AVX-512 BF16"), 1, None, None)
PLAIN = Machine("Atom", "x86_64", ("AVX2",), 1, None, None)


def picture() -> FloatArray:
    return np.random.default_rng(0).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)


def difference(path: Path, **chosen: Any) -> float:
    """The largest difference from ONNX Runtime, relative to the largest output."""
    with OnnxRuntimeRunner(path) as a, OpenVinoRunner(path, **chosen) as b:
        wanted, given = (runner.infer({"x0": picture()})["x1"] for runner in (a, b))
    return float(np.abs(wanted - given).max() / np.abs(wanted).max())


def test_float32_is_computed_in_float32_though_the_processor_has_bfloat16(tmp_path: Path) -> None:
    # Rounding to bfloat16 costs about 2**-9; OpenVINO would do it unless it is told not to.
    assert difference(convolutions(tmp_path / "a.onnx")) < 1e-6


@pytest.mark.skipif(not this_machine().has_any(BF16_SETS), reason="needs a processor with bfloat16")
def test_bfloat16_is_computed_where_it_was_asked_for(tmp_path: Path) -> None:
    found = difference(convolutions(tmp_path / "a.onnx"), precision="bf16")
    # Below the rounding of bfloat16, above that of float32.
    assert 2**-14 < found < 2**-6


def test_a_processor_without_bfloat16_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_bf16(BF16)
    monkeypatch.setattr(backend, "this_machine", lambda: PLAIN)
    with pytest.raises(InputError) as caught:
        OpenVinoRunner(tmp_path / "a.onnx", precision="bf16")
    assert caught.value.message == "this processor, Atom, has no instructions for bf16 (AVX-512 BF16, AMX bf16)"
    assert caught.value.hint == "run it in fp32"


def test_threads_latency_and_precision_reach_the_engine(tmp_path: Path) -> None:
    runner = OpenVinoRunner(convolutions(tmp_path / "a.onnx"), threads=1)
    with runner:
        assert runner._request is not None
        compiled = runner._request.get_compiled_model()
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
        assert compiled.get_property("NUM_STREAMS") == 1
        assert compiled.get_property("ENABLE_CPU_PINNING") is False
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert "INFERENCE_NUM_THREADS" not in backend.properties(0, "fp32")


def test_a_file_in_16_bits_is_run_as_it_is(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx", dtype=TensorProto.FLOAT16)
    with OpenVinoRunner(path) as runner:
        assert runner.inputs == (TensorSpec("x0", "float16", (1, 3, 16, 16)),)
        assert runner.infer({"x0": picture().astype(np.float16)})["x1"].dtype == np.float16


def test_a_file_in_8_bits_gives_the_levels_that_onnx_runtime_gives(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weight = generator.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)
    constants = {
        "s": np.float32(2 / 255), "z": np.uint8(128), "w": weight, "ws": np.full(8, 0.002, np.float32),
        "wz": np.zeros(8, np.int8), "t": np.float32(4 / 255), "u": np.uint8(127),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x0", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=0),
        helper.make_node("Conv", ["d", "dw"], ["c"], pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["c", "t", "u"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "t", "u"], ["x1"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("x1", TensorProto.FLOAT, [1, 8, 16, 16])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with OnnxRuntimeRunner(path) as a, OpenVinoRunner(path) as b:
        wanted, given = (runner.infer({"x0": picture()})["x1"] * (255 / 4) for runner in (a, b))
    assert np.abs(given - given.round()).max() < 1e-3
    assert np.abs(wanted - given).max() < 1 + 1e-3  # a level, where a sum lies between two
    assert (np.abs(wanted - given) < 1e-3).mean() > 0.99


@pytest.mark.parametrize(
    ("kind", "name"),
    [("FLOAT16", "float16"), ("DOUBLE", "float64"), ("UINT8", "uint8"), ("INT64", "int64"), ("BOOL", "bool")],
)
def test_element_types_have_numpys_names(kind: str, name: str, tmp_path: Path) -> None:
    with OpenVinoRunner(passing(tmp_path / "a.onnx", getattr(TensorProto, kind), ["n", 2])) as runner:
        assert runner.inputs == (TensorSpec("x", name, (None, 2)),)
        assert np.array_equal(runner.infer({"x": np.ones((3, 2), name)})["y"], np.ones((3, 2), name))


def test_an_element_type_that_cannot_be_fed_is_refused(tmp_path: Path) -> None:
    path = passing(tmp_path / "a.onnx", TensorProto.UINT16, [2])
    with pytest.raises(ArtifactError) as caught, OpenVinoRunner(path):
        pass
    assert caught.value.message == "'x' has the type u16, which mggc-edge cannot feed"


def test_metadata_are_those_of_the_file(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    with OpenVinoRunner(path) as runner:
        assert runner.metadata == {}
    model = onnx.load(path)
    helper.set_model_props(model, {"mggc_edge.bn": "eval", "mggc_edge.macs_true": "7", "other": '{"a": 1}'})
    onnx.save(model, path)
    with OpenVinoRunner(path) as runner:
        assert runner.metadata == {"mggc_edge.bn": "eval", "mggc_edge.macs_true": "7", "other": '{"a": 1}'}


def test_a_left_runner_keeps_nothing_of_the_engine(tmp_path: Path) -> None:
    runner = OpenVinoRunner(convolutions(tmp_path / "a.onnx"))
    with runner:
        request = weakref.ref(runner._request)
    gc.collect()
    assert request() is None


def test_nothing_is_opened_before_the_runner_is_entered(tmp_path: Path) -> None:
    made = OpenVinoRunner(tmp_path / "gone.onnx")
    assert (made.name, made.engine) == ("gone.onnx", "openvino")
    with pytest.raises(ArtifactError, match=r"OpenVINO cannot run '.*gone\.onnx': Could not open the file"), made:
        pass


@pytest.mark.parametrize("damage", ["empty", "text", "half", "zeros"])
def test_a_damaged_file_is_refused_in_one_line(damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = convolutions(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "a.onnx"
    path.write_bytes(
        {"empty": b"", "text": b"hello world", "half": data[: len(data) // 2], "zeros": bytes(4096)}[damage]
    )
    with pytest.raises(ArtifactError) as caught, OpenVinoRunner(path):
        pass
    assert caught.value.message.startswith(f"OpenVINO cannot run '{path}': ")
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_an_operation_that_it_does_not_have_is_named(tmp_path: Path) -> None:
    path = without_rule(tmp_path / "a.onnx")
    with pytest.raises(ArtifactError) as caught, OpenVinoRunner(path):
        pass
    assert caught.value.message == f"OpenVINO cannot run '{path}': it has no operation Det-20"
    with OnnxRuntimeRunner(path) as runner:  # which has it
        assert runner.infer({"x": picture()})["y"].shape == (1, 3, 16, 16)


def test_what_fails_while_it_runs_names_the_file(tmp_path: Path) -> None:
    # Two pictures, reshaped into one.
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 2])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [1, 2])],
    )
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with OpenVinoRunner(path) as runner:
        assert runner.infer({"x": np.ones((1, 2), np.float32)})["y"].shape == (1, 2)
        with pytest.raises(ArtifactError) as caught:
            runner.infer({"x": np.ones((2, 2), np.float32)})
    assert caught.value.message.startswith(f"OpenVINO failed while running '{path}': ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Exception from src/a.cpp:1:\nCheck 'x' failed at b:2:\nthe sentence\n\n", "the sentence"),
        ("Summary:\n-- No conversion rule found for operations: A-1, B-2\n-- more", "it has no operation A-1, B-2"),
        ("Check 'x' failed at b:2:\n", "Check 'x' failed at b:2:"),
        ("", "RuntimeError"),
        ("x" * 500, "x" * 200),
    ],
)
def test_the_reason_is_what_remains_without_places_in_the_engine(text: str, said: str) -> None:
    assert reason(RuntimeError(text)) == said


def test_without_openvino_the_install_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError) as caught, OpenVinoRunner(tmp_path / "a.onnx"):
        pass
    assert caught.value.message.startswith("openvino cannot be imported here: ")
    assert caught.value.hint == 'pip install "mggc-edge[openvino]"'
