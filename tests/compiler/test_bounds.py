"""What an ONNX file may ask for: sound files pass, and each bound is the sentence that it ends in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mggc_edge.compiler import facts
from mggc_edge.compiler.bounds import MAX_FIELDS, MAX_NODES, check_contents, check_fields, check_runnable
from mggc_edge.compiler.facts import check_onnx, read_onnx
from mggc_edge.errors import ArtifactError
from mggc_edge.opening import open_runner

FLOAT = TensorProto.FLOAT


def model_of(*nodes: tuple[str, dict[str, Any]], size: int = 8) -> ModelProto:
    """Return a model that sends a picture of 3 channels through operators, each with a 3x3 weight to read."""
    graph = helper.make_graph(
        [
            helper.make_node(operator, [f"x{i}", "w"][: 2 if "Conv" in operator else 1], [f"x{i + 1}"], **attributes)
            for i, (operator, attributes) in enumerate(nodes)
        ],
        "graph",
        [helper.make_tensor_value_info("x0", FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info(f"x{len(nodes)}", FLOAT, [None] * 4)],
        [numpy_helper.from_array(np.zeros((3, 3, 3, 3), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_sound_model_passes_every_check() -> None:
    model = model_of(("Conv", {"pads": [1] * 4, "strides": [2, 2]}), ("Relu", {}), ("ConvTranspose", {"group": 1}))
    check_fields(model.SerializeToString())
    check_contents(model)
    check_runnable(model)


@pytest.mark.parametrize("name", ["dilations", "kernel_shape", "strides"])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "MaxPool", "AveragePool"])
def test_sizes_of_a_window_must_be_positive(operator: str, name: str) -> None:
    model = model_of((operator, {"kernel_shape": [3, 3], name: [1, 0]}))
    with pytest.raises(ArtifactError) as caught:
        check_runnable(model)
    assert caught.value.message == f"{operator} '' has an impossible {name}"


@pytest.mark.parametrize("group", [0, -1])
def test_a_convolution_has_at_least_one_group(group: int) -> None:
    with pytest.raises(ArtifactError, match=r"^ConvTranspose '' has an impossible group$"):
        check_runnable(model_of(("ConvTranspose", {"group": group})))


def test_a_tensor_of_two_gibibytes_is_the_largest() -> None:
    check_runnable(model_of(("Relu", {}), size=13_377))  # 3 * 13377^2 * 4 bytes: just below
    with pytest.raises(ArtifactError) as caught:
        check_runnable(model_of(("Relu", {}), size=13_379))
    assert caught.value.message == "'x0' would take 2,147,971,692 bytes, more than 2,147,483,648"


def test_many_nodes_pass_and_more_do_not() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model = ModelProto()
    model.graph.node.extend([node] * MAX_NODES)
    check_contents(model)
    model.graph.node.extend([node])
    with pytest.raises(ArtifactError, match=r"^it has 65,537 nodes with all its functions written out"):
        check_contents(model)


def test_many_fields_pass_and_more_do_not() -> None:
    check_fields(b"\x08\x0a" * MAX_FIELDS)
    with pytest.raises(ArtifactError, match=r"^more than 262,144 fields make no generator$"):
        check_fields(b"\x08\x0a" * (MAX_FIELDS + 1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x08", "it is cut off, or no protobuf"),
        (b"\x08" + b"\x80" * 11, "it is cut off, or no protobuf"),
        (b"\x0b\x00", "it is cut off, or no protobuf"),
        (b"\x3a\x05\x0a\x00", "a part reaches beyond its end"),
        (b"\x3a\x02\x0a\x01\x08\x01", "a part reaches beyond its end"),
        (b"\x12\x05ab", "a part reaches beyond its end"),
        (b"\x0d\x00", "a part reaches beyond its end"),
    ],
)
def test_what_is_no_protobuf_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        check_fields(data)
    assert caught.value.message == message


def test_a_path_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path, tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(ArtifactError, match=r"is not a valid ONNX file: it is not a regular file$"):
            read_onnx(path)


def test_what_shape_inference_raises_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: ModelProto) -> None:
        raise RuntimeError("[ShapeInferenceError]\nmore")

    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(("Relu", {})).SerializeToString())
    monkeypatch.setattr(facts, "check_runnable", fail)
    with pytest.raises(ArtifactError) as caught:
        check_onnx(path)
    assert caught.value.message == f"the shapes in '{path}' contradict each other: [ShapeInferenceError]\\nmore"


def test_the_file_is_named_when_it_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(("ConvTranspose", {"group": 0})).SerializeToString())
    for attempt in (check_onnx, open_runner):
        with pytest.raises(ArtifactError) as caught:
            attempt(path)
        assert caught.value.message == f"'{path}' is not run: ConvTranspose '' has an impossible group"


def test_without_the_onnx_library_a_file_is_still_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(("Relu", {})).SerializeToString())
    for name in [name for name in sys.modules if name.split(".")[0] == "onnx"]:
        monkeypatch.setitem(sys.modules, name, None)
    with open_runner(path) as runner:
        assert runner.infer({"x0": -np.ones((1, 3, 8, 8), np.float32)})["x1"].max() == 0
