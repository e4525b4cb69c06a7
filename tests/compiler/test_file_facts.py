"""The facts about a file that a gate shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mggc_edge.compiler import file_facts as module
from mggc_edge.compiler.file_facts import count_reorders, file_facts
from mggc_edge.errors import ArtifactError, MissingDependencyError


def chain(path: Path, *, transposed: bool = False) -> Path:
    """Write a file with two convolutions of 16 channels at 8x8, and perhaps a transposition between them."""
    weight = np.ones((16, 16, 3, 3), np.float32)
    moved = [helper.make_node("Transpose", ["a"], ["t"], perm=[0, 1, 3, 2])] if transposed else []
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        *moved,
        helper.make_node("Conv", ["t" if transposed else "a", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_facts_are_counted_in_the_file(tmp_path: Path) -> None:
    path = chain(tmp_path / "a.onnx")
    facts = file_facts(path)
    assert facts.macs_executed == 2 * 8 * 8 * 16 * 16 * 9
    assert (facts.parameters, facts.quantizers, facts.operators) == (16 * 16 * 9, 0, {"Conv": 2})
    assert (facts.size_bytes, facts.picture_size) == (path.stat().st_size, (8, 8))


def test_a_transposition_moves_values_once_more_at_least(tmp_path: Path) -> None:
    plain, moved = (
        count_reorders(chain(tmp_path / "a.onnx")),
        count_reorders(chain(tmp_path / "b.onnx", transposed=True)),
    )
    assert plain is not None
    assert moved is not None
    assert moved > plain


def test_of_other_files_the_size_is_known(tmp_path: Path) -> None:
    (tmp_path / "a.ort").write_bytes(b"12345")
    facts = file_facts(tmp_path / "a.ort")
    assert (facts.size_bytes, facts.macs_executed, facts.reorders, facts.operators) == (5, None, None, None)


def test_a_file_that_onnxruntime_does_not_run_has_no_reorders(tmp_path: Path) -> None:
    model = onnx.load(chain(tmp_path / "a.onnx"))
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save_model(model, tmp_path / "b.onnx")
    assert count_reorders(tmp_path / "b.onnx") is None


def test_without_the_libraries_less_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chain(tmp_path / "a.onnx")

    def missing(*_: object) -> None:
        raise MissingDependencyError("onnx is not installed")

    monkeypatch.setattr(module, "write_optimized", missing)
    assert count_reorders(path) is None
    monkeypatch.setattr(module, "onnx_facts", missing)
    assert file_facts(path).parameters is None


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="is not a valid ONNX file"):
        file_facts(tmp_path / "a.onnx")
