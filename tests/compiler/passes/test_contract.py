"""What runs passes over a model keeps what it does not touch, and says what became of every site."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mggc_edge.artifacts import PORTABLE
from mggc_edge.compiler.passes.contract import PassReport, apply_passes
from mggc_edge.compiler.passes.dead_bias import DeadBias
from mggc_edge.compiler.passes.thin_layer import ThinLayer
from mggc_edge.compiler.targets import PASSES, TARGETS, choose_passes, this_target
from mggc_edge.errors import ArtifactError, SettingError
from mggc_edge.machine import Machine
from tests.compiler.passes.pass_helpers import Values, applied, build, operators, random, report_of


def generator(opset: int) -> onnx.ModelProto:
    """A generator as other tools write them: pads and norms apart, every convolution with a bias, float32."""
    constants: dict[str, Values] = {
        "zeros": np.array([0, 0, 3, 3, 0, 0, 3, 3]), "w1": random(7, 3, 7, 7), "b1": random(7),
        "w2": random(10, 7, 3, 3), "b2": random(10), "one": np.ones(10), "none": np.zeros(10),
        "w3": random(10, 6, 4, 4), "b3": random(6), "w4": random(3, 6, 7, 7), "b4": random(3),
        **{f"{name}{n}": value for n, width in ((1, 7), (3, 6)) for name, value in statistics(width).items()},
    }  # fmt: skip
    nodes = [
        helper.make_node("Pad", ["x", "zeros"], ["p1"]),
        helper.make_node("Conv", ["p1", "w1", "b1"], ["c1"]),
        helper.make_node("BatchNormalization", ["c1", "scale1", "shift1", "mean1", "variance1"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("InstanceNormalization", ["c2", "one", "none"], ["n2"]),
        helper.make_node("LeakyRelu", ["n2"], ["r2"], alpha=0.2),
        helper.make_node("ConvTranspose", ["r2", "w3", "b3"], ["c3"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c3", "scale3", "shift3", "mean3", "variance3"], ["n3"]),
        helper.make_node("Relu", ["n3"], ["r3"]),
        helper.make_node("Pad", ["r3", "zeros"], ["p4"], mode="reflect"),
        helper.make_node("Conv", ["p4", "w4", "b4"], ["c4"]),
        helper.make_node("Tanh", ["c4"], ["y"]),
    ]
    small = {name: np.asarray(v, v.dtype if v.dtype == np.int64 else np.float32) for name, v in constants.items()}
    scaled = {
        name: value / np.float32(9) if name in ("w1", "w2", "w3", "w4") else value for name, value in small.items()
    }
    return build(nodes, ("batch", 3, 16, 24), scaled, opset=opset, kind=TensorProto.FLOAT)


def statistics(width: int) -> Mapping[str, Values]:
    return {
        "scale": random(width, seed=1), "shift": random(width, seed=2), "mean": random(width, seed=3),
        "variance": np.abs(random(width, seed=4)) + 0.2,
    }  # fmt: skip


def by_onnxruntime(model: onnx.ModelProto, feed: Values) -> Values:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": feed})
    assert isinstance(output, np.ndarray)
    return output


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("names", ["auto", ",".join(PASSES)])
def test_all_passes_together_are_exact_in_onnx_runtime(opset: int, names: str) -> None:
    model = generator(opset)
    passes = choose_passes(names, "x86-avx512")
    rewritten, reports = apply_passes(model, passes)
    onnx.checker.check_model(rewritten, full_check=True)
    again, second = apply_passes(rewritten, passes)
    assert [report.applied for report in second] == [0] * len(passes)
    assert again is rewritten
    assert {report.name: report.applied for report in reports[:6]} == {
        "fold_batch_norm": 2, "dead_bias": 1, "merge_pad": 1, "thin_layer": 1, "transposed_convolution": 1,
        **({"depth_to_space": 2} if names == "auto" else {"transposed_convolution_any": 0}),
    }  # fmt: skip
    feed = random(2, 3, 16, 24).astype(np.float32)
    expected, found = by_onnxruntime(model, feed), by_onnxruntime(rewritten, feed)
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_report_counts_sites_and_reasons() -> None:
    report = PassReport("p", (("a", None), ("b", "it is grouped"), ("c", "it is odd"), ("d", "it is grouped")))
    assert report.to_json() == {"name": "p", "applied": 1, "not_applied": {"it is grouped": 2, "it is odd": 1}}
    assert list(report.reasons) == ["it is grouped", "it is odd"]


def test_no_passes_and_no_sites_give_the_model_back() -> None:
    model = build([helper.make_node("Relu", ["x"], ["y"])], (1, 3, 4, 4))
    assert apply_passes(model, ()) == (model, ())
    same, reports = apply_passes(model, choose_passes("auto", PORTABLE))
    assert same is model
    assert [report.sites for report in reports] == [(), (), ()]


def test_an_opset_below_13_is_refused() -> None:
    model = build([helper.make_node("Relu", ["x"], ["y"])], (1, 3, 4, 4), opset=12)
    with pytest.raises(ArtifactError, match="opset 12") as caught:
        apply_passes(model, choose_passes("auto", PORTABLE))
    assert caught.value.message == "graph passes need opset 13, and the file has opset 12"
    assert caught.value.hint == "export it with a newer opset, or set export.passes=none"


def test_names_that_are_taken_are_not_taken_again() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["w_1"], name="c", pads=[3] * 4),
        helper.make_node("Conv", ["x", "w"], ["c_DepthToSpace_out"], name="c_DepthToSpace", pads=[3] * 4),
        helper.make_node("Add", ["w_1", "c_DepthToSpace_out"], ["y"]),
    ]
    rewritten = applied(build(nodes, (1, 5, 8, 12), {"w": random(3, 5, 7, 7)}), ThinLayer(16), (1, 5, 8, 12))
    names = [name for node in rewritten.graph.node for name in (*node.output,)]
    assert len(set(names)) == len(names) == 5


def test_names_of_constants_in_a_subgraph_are_taken_too() -> None:
    out = [helper.make_tensor_value_info("o", TensorProto.DOUBLE, None)]
    held = [helper.make_tensor(name, TensorProto.DOUBLE, [], [2.0]) for name in ("w_1", "bias_1")]
    add = [helper.make_node("Mul", ["c", "w_1"], ["m"]), helper.make_node("Add", ["m", "bias_1"], ["o"])]
    inner = helper.make_graph(add, "inner", [], out, held)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[3] * 4),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner),
    ]
    constants = {"w": random(3, 5, 7, 7), "yes": np.array(True)}
    rewritten = applied(build(nodes, (1, 5, 8, 12), constants), ThinLayer(16), (1, 5, 8, 12))
    names = {tensor.name for tensor in rewritten.graph.initializer}
    assert not names & {"w_1", "bias_1"}
    assert len(names) == 2


def test_what_a_file_says_of_its_inner_sizes_is_not_believed() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[3] * 4), helper.make_node("Tanh", ["c"], ["y"])]
    model = build(nodes, (1, 5, 9, 11), {"w": random(3, 5, 7, 7)})
    model.graph.value_info.append(helper.make_tensor_value_info("c", TensorProto.DOUBLE, [1, 3, 8, 12]))
    assert report_of(model, ThinLayer(16)).reasons == {"its output size is odd": 1}


def test_nodes_of_a_subgraph_are_left_alone_and_what_they_read_stays() -> None:
    conv = helper.make_node("Conv", ["x", "w", "b"], ["c"])
    norm = helper.make_node("InstanceNormalization", ["c", "s", "t"], ["n"])
    out = [helper.make_tensor_value_info("o", TensorProto.DOUBLE, None)]
    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["o"])], "inner", [], out)
    branch = helper.make_node("If", ["yes"], ["i"], then_branch=inner, else_branch=inner)
    constants = {
        "w": random(4, 5, 1, 1), "b": random(4), "s": np.ones(4), "t": np.zeros(4), "yes": np.array(True),
    }  # fmt: skip
    model = build([conv, norm, branch, helper.make_node("Add", ["n", "i"], ["y"])], (1, 5, 6, 7), constants)
    assert report_of(model, DeadBias()).reasons == {"others read the convolution before it": 1}


def test_a_site_that_is_itself_the_output_keeps_its_name() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[3] * 4)
    rewritten = applied(build([node], (1, 5, 8, 12), {"w": random(3, 5, 7, 7)}), ThinLayer(16), (1, 5, 8, 12))
    assert operators(rewritten) == ["Conv", "DepthToSpace"]
    assert rewritten.graph.node[1].output == ["y"]


# --- targets ---


def test_passes_of_a_target_none_or_names_are_chosen() -> None:
    def names(text: str, target: str) -> list[str]:
        return [graph_pass.name for graph_pass in choose_passes(text, target)]

    assert names("auto", PORTABLE) == ["fold_batch_norm", "dead_bias", "merge_pad"]
    assert names("auto", "x86-avx512") == [
        "fold_batch_norm", "dead_bias", "merge_pad", "thin_layer", "transposed_convolution", "depth_to_space",
    ]  # fmt: skip
    assert names(" none ", "x86-avx2") == []
    assert names("reflect_pad, dead_bias", PORTABLE) == ["reflect_pad", "dead_bias"]
    assert choose_passes("thin_layer", "x86-avx2") == (ThinLayer(8),)


def test_every_listed_pass_exists_under_its_name() -> None:
    assert {name for target in TARGETS.values() for name in target.passes} <= set(PASSES)
    assert [make(16).name for make in PASSES.values()] == list(PASSES)


def test_unknown_passes_and_targets_are_named() -> None:
    with pytest.raises(SettingError, match="magic") as caught:
        choose_passes("dead_bias,magic", PORTABLE)
    assert caught.value.message == "setting export.passes names 'magic', which is no graph pass"
    assert caught.value.hint == f"auto, none, or some of {', '.join(PASSES)}"
    with pytest.raises(SettingError, match="abacus") as caught:
        choose_passes("auto", "abacus")
    assert (caught.value.message, caught.value.hint) == (
        "there is no target 'abacus'",
        "one of portable, x86-avx2, x86-avx512, arm64, tensorrt, ort-mobile",
    )


@pytest.mark.parametrize(
    ("architecture", "sets", "target"),
    [
        ("x86_64", ("AVX2", "AVX-512"), "x86-avx512"),
        ("x86_64", ("AVX2",), "x86-avx2"),
        ("x86_64", (), "portable"),
        ("aarch64", ("NEON",), "arm64"),
        ("arm64", (), "arm64"),
        ("riscv64", (), "portable"),
    ],
)
def test_this_machine_is_a_target_by_its_instructions(architecture: str, sets: tuple[str, ...], target: str) -> None:
    assert this_target(Machine("p", architecture, sets, 2, None, None)) == target
