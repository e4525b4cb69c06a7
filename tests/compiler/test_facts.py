"""What is told of an ONNX file is true of it, and a file that is none is refused by name."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mggc_edge.compiler import facts as facts_module
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import CROPPING, OnnxFacts, onnx_facts, read_onnx
from mggc_edge.compiler.finishing import rewriting
from mggc_edge.compiler.passes.contract import GraphPass, apply_passes
from mggc_edge.compiler.passes.merge_pad import MergePad
from mggc_edge.compiler.passes.thin_layer import ThinLayer
from mggc_edge.compiler.passes.transposed_convolution import TransposedConvolution
from mggc_edge.compiler.targets import PASSES
from mggc_edge.errors import ArtifactError, MissingDependencyError
from mggc_edge.models.cost import macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.tensors import TensorSpec
from tests.compiler.export_helpers import FOLDERS, SIZE, exported, small_generators, spec_id

SMALL = resnet_spec(blocks=1, ngf=4)
Shape = Sequence[int | str | None]


@pytest.fixture(scope="module", autouse=True)
def folder_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDERS.append(tmp_path_factory.mktemp("exports"))


def weight(*shape: int, name: str = "w") -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    x: Shape,
    y: Shape,
    weights: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 20,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Write a graph from `x` to `y` as an ONNX file from elsewhere."""
    graph = helper.make_graph(
        nodes,
        "elsewhere",
        [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info("y", kind, y)],
        list(weights),
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path


def conv_net(path: Path, x: Shape, y: Shape) -> Path:
    """Conv 3 -> 8 with stride 2, ReLU, ConvTranspose 8 -> 3 with stride 2."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ConvTranspose", ["b", "v"], ["y"], kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    return save(path, nodes, x, y, [weight(8, 3, 4, 4), weight(8, 3, 4, 4, name="v")])


def refused(path: Path) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        onnx_facts(path)
    return caught.value


# --- our own files ---


@pytest.mark.parametrize("spec", small_generators(), ids=spec_id)
def test_the_graph_costs_what_the_layer_table_says(spec: NetworkSpec) -> None:
    facts, table = onnx_facts(exported(spec).artifact.path), layer_table(spec, SIZE)
    assert facts.macs_true == macs(table, "true")
    assert facts.macs_paper == macs(table, "paper")
    assert facts.macs_true < facts.macs_paper


def test_the_facts_of_an_export() -> None:
    facts = onnx_facts(exported(SMALL).artifact.path)
    assert facts.inputs == (TensorSpec("input", "float32", (1, 3, 32, 32)),)
    assert facts.outputs == (TensorSpec("output", "float32", (1, 3, 32, 32)),)
    assert facts.operators == {
        "Conv": 6,
        "ConvTranspose": 2,
        "InstanceNormalization": 7,
        "Pad": 4,
        "Relu": 6,
        "Add": 1,
        "Tanh": 1,
    }
    assert list(facts.operators.values()) == sorted(facts.operators.values(), reverse=True)
    assert (facts.opset, facts.spec) == (20, SMALL)
    assert (facts.metadata["image_size"], facts.metadata["bn"], facts.metadata["precision"]) == (
        "32x32",
        "eval",
        "fp32",
    )


def test_a_folded_file_has_as_many_parameters_as_its_convolutions() -> None:
    spec = resnet_spec(blocks=1, ngf=4, norm="batch", padding="zeros", dropout=True)
    table = layer_table(spec, SIZE)
    weights = sum(layer.in_channels * layer.out_channels * layer.kernel**2 for layer in table.layers)
    biases = sum(layer.out_channels for layer in table.layers)
    assert onnx_facts(exported(spec).artifact.path).parameters == weights + biases


def test_an_open_batch_does_not_hide_the_macs() -> None:
    facts = onnx_facts(exported(SMALL, ExportSettings(image_size=SIZE, dynamic_batch=True)).artifact.path)
    assert facts.inputs[0].shape == (None, 3, 32, 32)
    assert facts.macs_true == macs(layer_table(SMALL, SIZE), "true")


# --- files from elsewhere ---


def test_a_foreign_network_is_counted_by_its_own_shapes(tmp_path: Path) -> None:
    facts = onnx_facts(conv_net(tmp_path / "f.onnx", [1, 3, 32, 48], [1, 3, 32, 48]))
    inner = 16 * 24 * 3 * 8 * 4 * 4  # both convolutions work at 16 x 24
    assert (facts.macs_true, facts.macs_paper) == (inner + inner, inner + 4 * inner)
    assert facts.operators == {"Conv": 1, "Relu": 1, "ConvTranspose": 1}
    assert (facts.parameters, facts.metadata, facts.spec, facts.opset) == (2 * 8 * 3 * 4 * 4, {}, None, 20)


def test_macs_are_those_of_one_picture_whatever_the_batch(tmp_path: Path) -> None:
    one = onnx_facts(conv_net(tmp_path / "1.onnx", [1, 3, 32, 32], [1, 3, 32, 32]))
    four = onnx_facts(conv_net(tmp_path / "4.onnx", [4, 3, 32, 32], [4, 3, 32, 32]))
    assert one.macs_true == four.macs_true == 2 * 16 * 16 * 3 * 8 * 4 * 4


def test_a_foreign_network_with_open_sizes_has_no_macs(tmp_path: Path) -> None:
    facts = onnx_facts(conv_net(tmp_path / "f.onnx", ["n", 3, "h", "w"], ["n", 3, "h2", "w2"]))
    assert facts.inputs == (TensorSpec("x", "float32", (None, 3, None, None)),)
    assert (facts.macs_true, facts.macs_paper) == (None, None)


def test_a_weight_that_is_fed_has_no_macs(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "f.onnx", [1, 3, 32, 32], [1, 3, 32, 32])
    model = onnx.load(path)
    del model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 3, 4, 4]))
    path.write_bytes(model.SerializeToString())
    facts = onnx_facts(path)
    assert (facts.macs_true, facts.macs_paper) == (None, None)
    assert [tensor.name for tensor in facts.inputs] == ["x", "w"]


def test_grouped_convolutions_count_their_own_channels_only(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=6, pads=[1, 1, 1, 1])
    path = save(tmp_path / "g.onnx", [node], [1, 6, 8, 8], [1, 6, 8, 8], [weight(6, 1, 3, 3)])
    assert onnx_facts(path).macs_true == 8 * 8 * 9 * 6


def test_weights_that_old_files_list_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "f.onnx", [1, 3, 32, 32], [1, 3, 32, 32])
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 3, 4, 4]))
    path.write_bytes(model.SerializeToString())
    assert [tensor.name for tensor in onnx_facts(path).inputs] == ["x"]


def test_a_file_without_convolutions_has_zero_macs(tmp_path: Path) -> None:
    facts = onnx_facts(save(tmp_path / "r.onnx", [helper.make_node("Relu", ["x"], ["y"])], [2, 5], [2, 5]))
    assert (facts.macs_true, facts.macs_paper, facts.parameters, facts.operators) == (0, 0, 0, {"Relu": 1})


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"schema": "mggc-edge/spec/99"}', "[" * 100_000, '{"schema": "mggc-edge/spec/1", "family": 3}'],
    ids=["no json", "a list", "another version", "deep", "incomplete"],
)
def test_a_spec_that_cannot_be_read_is_no_spec(text: str, tmp_path: Path) -> None:
    path = save(tmp_path / "r.onnx", [helper.make_node("Relu", ["x"], ["y"])], [2, 5], [2, 5])
    model = onnx.load(path)
    helper.set_model_props(model, {"mggc_edge.spec": text, "other.key": "theirs"})
    path.write_bytes(model.SerializeToString())
    facts = onnx_facts(path)
    assert (facts.spec, facts.metadata) == (None, {"spec": text})


# --- files that passes rewrote ---


def cropped(
    path: Path, *, size: int, kernel: int, stride: int, pads: int, outputs: int, before: int = 0, lanes: int = 0
) -> tuple[OnnxFacts, OnnxFacts]:
    """A padded picture and a transposed convolution, and the same rewritten, with what it was in its metadata."""
    nodes = [
        helper.make_node("Pad", ["x", "around"], ["p"]),
        helper.make_node("ConvTranspose", ["p", "w"], ["y"], strides=[stride] * 2, pads=[pads] * 4),
    ]
    side = stride * (size + 2 * before - 1) + kernel - 2 * pads
    around = numpy_helper.from_array(np.array([0, 0, before, before] * 2), "around")
    weights = [around, weight(4, outputs, kernel, kernel)]
    save(path, nodes, [1, 4, size, size], [1, outputs, side, side], weights)
    was = onnx_facts(path)
    passes: list[GraphPass] = [TransposedConvolution("transposed_convolution_any", None), MergePad()]
    passes += [ThinLayer(lanes)] if lanes else []
    made, reports = apply_passes(read_onnx(path), passes)
    applied = [report.name for report in reports if report.applied]
    assert len(applied) == len(passes)
    helper.set_model_props(made, rewriting("portable", applied, (was.macs_true, was.macs_paper)))
    path.write_bytes(made.SerializeToString())
    return was, onnx_facts(path)


@pytest.mark.parametrize(
    ("shape", "executed"),
    [
        ({"size": 8, "kernel": 4, "stride": 2, "pads": 2, "outputs": 5}, 7 * 7 * 20 * 16),
        ({"size": 6, "kernel": 6, "stride": 2, "pads": 4, "outputs": 5}, 4 * 4 * 20 * 36),
        ({"size": 6, "kernel": 4, "stride": 2, "pads": 2, "outputs": 5, "before": 1}, 7 * 7 * 20 * 16),
        ({"size": 6, "kernel": 9, "stride": 3, "pads": 7, "outputs": 1}, 4 * 4 * 4 * 81),
        ({"size": 4, "kernel": 6, "stride": 2, "pads": 4, "outputs": 1, "lanes": 16}, 1 * 1 * 64 * 16),
    ],
)
def test_what_was_cropped_is_believed_though_it_is_not_executed(
    shape: dict[str, int], executed: int, tmp_path: Path
) -> None:
    was, facts = cropped(tmp_path / "g.onnx", **shape)
    size = shape["size"] + 2 * shape.get("before", 0)
    true = size**2 * 4 * shape["outputs"] * shape["kernel"] ** 2
    assert (was.macs_true, facts.macs_executed) == (true, executed)
    assert (facts.macs_true, facts.macs_paper) == (true, was.macs_paper)
    assert executed < true


@pytest.mark.parametrize("seed", range(40))
def test_the_count_of_a_cropped_network_is_believed_whatever_its_sizes(seed: int, tmp_path: Path) -> None:
    drawn = np.random.default_rng(seed)
    stride, kernel = int(drawn.integers(2, 4)), int(drawn.integers(3, 9))
    shape = {"stride": stride, "kernel": kernel, "pads": int(drawn.integers(kernel)), "outputs": seed % 3 + 1}
    was, facts = cropped(tmp_path / "g.onnx", size=int(drawn.integers(7, 12)), before=seed % 2 * 2, **shape)
    assert (facts.macs_true, facts.macs_paper) == (was.macs_true, was.macs_paper)


@pytest.mark.parametrize(
    ("passes", "claim", "believed"),
    [
        ("transposed_convolution", 10 * 10 * 27, True),  # each place that its kernels meet
        ("dead_bias,transposed_convolution_any", 10 * 10 * 27, True),
        ("transposed_convolution", 10 * 10 * 27 + 1, False),
        ("transposed_convolution", 2 * 8 * 8 * 27, False),
        ("thin_layer,depth_to_space", 8 * 8 * 27 + 1, False),
        ("thin_layer,depth_to_space", 8 * 8 * 27, True),
        ("transposed", 8 * 8 * 27 + 1, False),
        (",", 8 * 8 * 26, False),
    ],
)
def test_a_claim_is_believed_up_to_what_may_have_been_cropped(
    passes: str, claim: int, believed: bool, tmp_path: Path
) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    path = save(tmp_path / "g.onnx", [node], [1, 3, 8, 8], [1, 1, 8, 8], [weight(1, 3, 3, 3)])
    model = onnx.load(path)
    helper.set_model_props(model, rewriting("portable", passes.split(","), (claim, claim)))
    path.write_bytes(model.SerializeToString())
    facts = onnx_facts(path)
    assert (facts.macs_true, facts.macs_executed) == (claim if believed else 8 * 8 * 27, 8 * 8 * 27)


def test_the_passes_that_crop_have_these_names() -> None:
    assert [name for name, make in PASSES.items() if isinstance(make(16), TransposedConvolution)] == list(CROPPING)


# --- no ONNX file ---


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "f.onnx", [1, 3, 32, 32], [1, 3, 32, 32])
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    error = refused(path)
    assert error.message.endswith("it keeps its weights in another file")
    assert error.hint is not None
    assert error.hint.startswith("mggc-edge export makes a single file")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08\x0a", b"hello world", bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(100)],
    ids=["empty", "a version only", "text", "zeros", "a picture"],
)
def test_bytes_that_are_no_onnx_file_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    assert refused(path).message.startswith(f"'{path}' is not a valid ONNX file: ")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = exported(SMALL).artifact.path.read_bytes()
    path = tmp_path / "cut.onnx"
    for size in [*range(0, 2000, 97), *range(2000, len(data) - 2000, 4999)]:
        path.write_bytes(data[:size])
        assert refused(path).message.startswith(f"'{path}' is not a valid ONNX file: "), size


def test_damaged_bytes_are_refused_or_read_and_never_a_traceback(tmp_path: Path) -> None:
    # The end of the file, where names, shapes and metadata are; most of the rest is weights.
    data = conv_net(tmp_path / "f.onnx", [1, 3, 8, 8], [1, 3, 8, 8]).read_bytes()
    random = np.random.default_rng(0)
    path, outcomes = tmp_path / "damaged.onnx", Counter[str]()
    for _ in range(300):
        damaged = bytearray(data)
        for place in random.integers(0, 120, 2).tolist() + random.integers(len(data) - 120, len(data), 2).tolist():
            damaged[place] = int(random.integers(256))
        path.write_bytes(damaged)
        try:
            onnx_facts(path)
            outcomes["read"] += 1
        except ArtifactError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 200


@pytest.mark.parametrize("field", ["key", "value"])
def test_metadata_that_are_no_text_are_refused(field: str, tmp_path: Path) -> None:
    path = save(tmp_path / "r.onnx", [helper.make_node("Relu", ["x"], ["y"])], [2, 5], [2, 5])
    model = onnx.load(path)
    helper.set_model_props(model, {"mggc_edge.AAAA": "BBBB"})
    damaged = model.SerializeToString().replace(b"AAAA" if field == "key" else b"BBBB", b"\xff\xfe\xfd\xfc")
    path.write_bytes(damaged)
    assert refused(path).message.startswith(f"'{path}' is not a valid ONNX file: ")


def test_an_unknown_operator_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.onnx", [helper.make_node("NoSuchOperator", ["x"], ["y"])], [1], [1])
    assert "No Op registered for NoSuchOperator" in refused(path).message
    assert (refused(path).hint or "").startswith("an operator that is not ONNX's own stands in a domain of its own")


def test_an_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.onnx", [helper.make_node("SequenceConstruct", ["x"], ["y"])], [1], [1])
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    path.write_bytes(model.SerializeToString())
    assert refused(path).message == "'y' has an element type that this version does not know"


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert (
        refused(tmp_path / "no.onnx").message == f"'{tmp_path / 'no.onnx'}' cannot be read: No such file or directory"
    )
    assert refused(tmp_path).message.startswith(f"'{tmp_path}' is not a valid ONNX file: ")


def test_a_file_of_more_than_two_gibibytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)  # sparse: takes no room
    assert "2,147,483,649 bytes; ONNX files with their weights have at most 2 GiB" in refused(path).message


def test_of_shapes_that_contradict_each_other_no_multiplications_are_counted(tmp_path: Path) -> None:
    facts = onnx_facts(conv_net(tmp_path / "f.onnx", [1, 3, 32, 32], [1, 3, 33, 32]))
    assert (facts.macs_true, facts.macs_paper) == (None, None)


def test_without_onnx_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported(SMALL).artifact.path
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError) as caught:
        read_onnx(path)
    assert caught.value.hint == 'pip install "mggc-edge[onnx]"'


def test_element_types_have_numpys_names(tmp_path: Path) -> None:
    for kind, name in ((TensorProto.FLOAT16, "float16"), (TensorProto.UINT8, "uint8"), (TensorProto.INT64, "int64")):
        path = save(tmp_path / "x.onnx", [helper.make_node("Identity", ["x"], ["y"])], [1, 2], [1, 2], kind=kind)
        assert onnx_facts(path).inputs == (TensorSpec("x", name, (1, 2)),)
    assert facts_module.MAX_ONNX_BYTES == 2**31
