"""Another version of the operators: what is converted computes the same, and what cannot be is one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import opset_of
from mggc_edge.compiler.opset import in_opset
from mggc_edge.compiler.rewrite import rewrite_folder
from mggc_edge.errors import ArtifactError
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.quality.parity import only_output
from mggc_edge.settings import Settings
from tests.compiler.export_helpers import FOLDERS, SIZE, exported, model_of, picture, torch_output
from tests.compiler.export_helpers import network_of as generator

RESNET = resnet_spec(blocks=1, ngf=4)  # with reflecting Pads
PLAIN = ExportSettings(image_size=SIZE, simplify=False)


@pytest.fixture(scope="module", autouse=True)
def folder_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDERS.append(tmp_path_factory.mktemp("opsets"))


def graph(opset: int, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A model from x to y [1, 3, 8, 8], with pads of one pixel and axes 2, 3 as constants."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y"))
    constants = [
        helper.make_tensor("pads", TensorProto.INT64, [8], [0, 0, 1, 1, 0, 0, 1, 1]),
        helper.make_tensor("pads2", TensorProto.INT64, [4], [1, 1, 1, 1]),
        helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
        helper.make_tensor("w", TensorProto.FLOAT, [3, 3, 3, 3], np.linspace(-1, 1, 81)),
    ]
    made = helper.make_graph(list(nodes), "g", [x], [y], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def padded(opset: int, *more: str, mode: str = "reflect") -> onnx.ModelProto:
    pads = ["pads2", "", *more] if more else ["pads"]
    pad = helper.make_node("Pad", ["x", *pads], ["p"], mode=mode)
    return graph(opset, pad, helper.make_node("Conv", ["p", "w"], ["y"]))


def outputs(model: onnx.ModelProto, folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    path = folder / f"{opset_of(model)}.onnx"
    path.write_bytes(model.SerializeToString())
    with OnnxRuntimeRunner(path) as runner:
        feed = np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)
        return only_output(runner, feed)


@pytest.mark.parametrize(("there", "wanted"), [(18, 17), (20, 15), (13, 20), (17, 18)])
def test_a_reflecting_pad_is_the_same_in_both_versions(there: int, wanted: int, tmp_path: Path) -> None:
    model = padded(there)
    made = in_opset(model, wanted)
    assert (opset_of(made), opset_of(model)) == (wanted, there)
    assert [entry.domain for entry in made.opset_import] == [""]
    assert {node.domain for node in made.graph.node} == {""}
    assert np.array_equal(outputs(made, tmp_path), outputs(model, tmp_path))
    assert made.ir_version == helper.find_min_ir_version_for(list(made.opset_import))


def test_the_version_that_it_has_is_the_model_itself() -> None:
    model = padded(18)
    assert in_opset(model, 18) is model


@pytest.mark.parametrize(
    ("model", "operator"),
    [(padded(18, "axes"), "Pad"), (graph(20, helper.make_node("Gelu", ["x"], ["y"])), "Gelu")],
    ids=["axes", "younger operator"],
)
def test_an_operator_without_an_equal_is_one_sentence(model: onnx.ModelProto, operator: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        in_opset(model, 17)
    start, _, reason = caught.value.message.partition(": ")
    assert start == f"a graph of opset {opset_of(model)} cannot be had in opset 17"
    assert operator in reason
    assert "\n" not in reason
    assert "onnx/" not in reason  # the converter's own source
    assert caught.value.hint == (
        "give a newer opset that the target reads (--opset, or export.opset), or another target (portable keeps the "
        "file's own), or write the file with an older opset"
    )


def test_an_old_operator_that_cannot_be_had_in_a_newer_version_has_a_way_out_too() -> None:
    split = helper.make_node("Split", ["x"], ["y"], axis=1, split=[3])
    with pytest.raises(ArtifactError) as caught:
        in_opset(graph(1, split), 13)
    assert caught.value.message == (
        "a graph of opset 1 cannot be had in opset 13: No Adapter From Version $1 for Split"
    )
    assert caught.value.hint == (
        "write the file with a newer opset, or give an older one that the target reads: --opset, or export.opset"
    )


def test_a_network_is_exported_for_the_parser_of_tensorrt_8() -> None:
    found = exported(RESNET, replace(PLAIN, opset=17, target="tensorrt"))
    model = model_of(found)
    assert (opset_of(model), model.ir_version, found.artifact.settings["opset"]) == (17, 8, 17)
    with OnnxRuntimeRunner(found.artifact.path) as runner:
        output = runner.infer({"input": picture()})["output"]
    assert np.abs(output - torch_output(generator(RESNET), picture())).max() <= 1e-4


@pytest.mark.parametrize(
    ("there", "target", "asked", "wanted"),
    [(12, "portable", None, 13), (23, "tensorrt", None, 20), (20, "tensorrt", None, 20), (20, "tensorrt", 17, 17)],
)
def test_a_file_is_brought_to_what_its_target_reads(
    there: int, target: str, asked: int | None, wanted: int, tmp_path: Path
) -> None:
    source = tmp_path / "g.onnx"
    source.write_bytes(padded(there).SerializeToString())
    made = rewrite_folder(
        source, tmp_path / "out", target=target, settings=Settings(), command="export", effective={}, opset=asked
    )
    assert opset_of(onnx.load(made.generator.artifact.path)) == made.after.opset == wanted
    said = f"its operators are those of opset {wanted} now; '{source}' has opset {there}"
    assert made.remarks == (() if there == wanted else (said,))


def test_a_version_that_the_target_does_not_read_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "g.onnx"
    source.write_bytes(padded(20).SerializeToString())
    with pytest.raises(ArtifactError, match="opset 21 is too high for the target tensorrt"):
        rewrite_folder(
            source, tmp_path / "out", target="tensorrt", settings=Settings(), command="export", effective={}, opset=21
        )
    assert not (tmp_path / "out").exists()


def test_where_a_file_is_too_new_for_its_target_the_hint_is_a_way_out(tmp_path: Path) -> None:
    norm = helper.make_node("RMSNormalization", ["x", "scale"], ["n"])  # since 23
    model = graph(23, norm, helper.make_node("Conv", ["n", "w"], ["y"], pads=[1] * 4))
    model.graph.initializer.append(helper.make_tensor("scale", TensorProto.FLOAT, [8], np.linspace(1, 2, 8)))
    source = tmp_path / "g.onnx"
    source.write_bytes(model.SerializeToString())

    def opset_for(target: str, asked: int | None = None) -> int:
        folder = tmp_path / f"{target}-{asked}"
        made = rewrite_folder(
            source, folder, target=target, settings=Settings(), command="export", effective={}, opset=asked
        )
        return made.after.opset

    with pytest.raises(ArtifactError, match="a graph of opset 23 cannot be had in opset 20") as caught:
        opset_for("tensorrt")
    assert caught.value.hint is not None
    assert "that the target reads" in caught.value.hint
    with pytest.raises(ArtifactError, match="opset 23 is too high for the target tensorrt"):
        opset_for("tensorrt", 23)
    assert "another target (portable keeps the file's own)" in caught.value.hint
    assert opset_for("portable") == 23
