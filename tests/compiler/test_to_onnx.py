"""An exported file computes what its network computes, carries no ballast, and says what it is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxsim
import pytest
import torch

import mggc_edge
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler import torch_graph as exporter
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import onnx_facts
from mggc_edge.compiler.finishing import Exported, random_pictures
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.compiler.torch_graph import torch_runner
from mggc_edge.errors import (
    ArtifactError,
    CheckFailedError,
    MissingDependencyError,
    OutputError,
    SettingError,
    SpecError,
)
from mggc_edge.models.convert import per_picture_norm
from mggc_edge.models.cost import macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.tensors import FloatArray, TensorSpec
from tests.compiler.export_helpers import (
    FOLDERS,
    SIZE,
    exported,
    model_of,
    network_of,
    picture,
    small_generators,
    spec_id,
    torch_output,
    without_torch_export,
)

AT_SIZE = ExportSettings(image_size=SIZE)
SMALL = resnet_spec(blocks=1, ngf=4)
every_generator = pytest.mark.parametrize("spec", small_generators(), ids=spec_id)


@pytest.fixture(scope="module", autouse=True)
def folder_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDERS.append(tmp_path_factory.mktemp("exports"))


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    without_torch_export(monkeypatch, SMALL)
    return monkeypatch


def run(export: Exported, feed: FloatArray) -> FloatArray:
    with OnnxRuntimeRunner(export.artifact.path) as runner:
        output: FloatArray = runner.infer({"input": feed})["output"]
    return output


def nodes(export: Exported, *operators: str) -> list[onnx.NodeProto]:
    return [node for node in model_of(export).graph.node if node.op_type in operators]


# --- the same function ---


@every_generator
def test_every_generator_gives_what_torch_gives(spec: NetworkSpec) -> None:
    export, feed = exported(spec), picture(seed=5)
    expected = torch_output(network_of(spec), feed)
    assert export.parity.passed
    assert expected.std() > 0.05  # a network that gives a constant proves nothing
    assert np.abs(run(export, feed) - expected).max() <= 1e-4


@every_generator
def test_no_batch_norm_reaches_the_file(spec: NetworkSpec) -> None:
    operators = {node.op_type for node in model_of(exported(spec)).graph.node}
    assert "BatchNormalization" not in operators
    assert ("InstanceNormalization" in operators) == (spec.norm != "batch")


@pytest.mark.parametrize("spec", [spec for spec in small_generators() if spec.norm == "batch"], ids=spec_id)
def test_batch_norm_ends_up_in_the_bias_of_every_convolution(spec: NetworkSpec) -> None:
    convolutions = nodes(exported(spec), "Conv", "ConvTranspose")
    unbiased = [node for node in convolutions if len(node.input) < 3]
    # A U-Net's first and innermost halvings have no norm, and no bias of their own.
    assert len(unbiased) == (2 if spec.family == "unet" else 0)


@pytest.mark.parametrize("spec", [spec for spec in small_generators() if spec.norm != "batch"], ids=spec_id)
def test_no_bias_stands_before_an_instance_norm(spec: NetworkSpec) -> None:
    graph = model_of(exported(spec)).graph
    normed = {node.input[0] for node in graph.node if node.op_type == "InstanceNormalization"}
    before = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose") and node.output[0] in normed]
    rows = [layer for layer in layer_table(spec, SIZE).layers if layer.norm is not None]
    assert len(before) == len(rows) > 0
    assert all(len(node.input) == 2 for node in before)


@pytest.mark.parametrize(
    "spec", [resnet_spec(blocks=1, ngf=4, norm="batch"), unet_spec(halvings=5, ngf=4, dropout=False)]
)
def test_bn_batch_gives_what_the_network_gives_in_training_mode_on_one_picture(spec: NetworkSpec) -> None:
    export, feed = exported(spec, replace(AT_SIZE, bn="batch")), picture(seed=5)
    expected = torch_output(network_of(spec).train(), feed)
    assert np.abs(run(export, feed) - expected).max() <= 1e-4
    assert np.abs(expected - torch_output(network_of(spec), feed)).max() > 0.1


@pytest.mark.usefixtures("cached")
def test_bn_batch_changes_nothing_where_there_is_no_batch_norm(tmp_path: Path) -> None:
    export = to_onnx(network_of(SMALL), tmp_path / "g.onnx", replace(AT_SIZE, bn="batch"))
    np.testing.assert_array_equal(run(export, picture()), run(exported(SMALL), picture()))


@pytest.mark.parametrize(("norm", "left"), [("instance", 1), ("instance_affine", 1), ("batch", 0)])
def test_a_slim_generator_with_removed_blocks_is_exported(norm: Any, left: int, tmp_path: Path) -> None:
    network = network_of(resnet_spec(blocks=2, ngf=4, norm=norm))
    kept = {group.name: tuple(range(0, group.size, 2)) for group in network.table.groups} | {"block1.inner": ()}
    slender, feed = slim(network, kept if left else kept | {"block2.inner": ()}), picture(seed=5)
    # A branch that is gone leaves a constant per channel, but nothing for a norm without parameters.
    constants = [layer.op for layer in slender.table.layers].count("constant")
    assert constants == (0 if norm == "instance" else 2 - left)
    export = to_onnx(slender, tmp_path / "g.onnx", AT_SIZE)
    assert np.abs(run(export, feed) - torch_output(slender, feed)).max() <= 1e-4
    assert len(nodes(export, "Conv")) == 4 + 2 * left  # 3 before the blocks, 1 after


# --- sizes ---


def test_a_fixed_export_takes_one_picture_of_one_size() -> None:
    artifact = exported(SMALL).artifact
    assert artifact.inputs == (TensorSpec("input", "float32", (1, 3, 32, 32)),)
    assert artifact.outputs == (TensorSpec("output", "float32", (1, 3, 32, 32)),)


@pytest.mark.parametrize(
    "spec", [SMALL, unet_spec(halvings=5, ngf=4, norm="instance")], ids=lambda spec: str(spec.family)
)
def test_an_open_batch_takes_one_and_three_pictures(spec: NetworkSpec) -> None:
    export = exported(spec, replace(AT_SIZE, dynamic_batch=True))
    assert export.artifact.inputs[0].shape == export.artifact.outputs[0].shape == (None, 3, 32, 32)
    assert export.parity.images == 2 * 1 + 2 * 3  # two arrays of each batch size
    for batch in (1, 3):
        feed = picture(batch, seed=5)
        output = run(export, feed)
        assert output.shape == (batch, 3, 32, 32)
        assert np.abs(output - torch_output(network_of(spec), feed)).max() <= 1e-4


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        (SMALL, (30, 32), "a ResNet generator cannot run at 30x32"),
        (unet_spec(halvings=5, ngf=4), (32, 40), "a U-Net that halves the picture 5 times cannot run at 32x40"),
    ],
)
def test_a_size_that_the_network_cannot_halve_is_refused(
    spec: NetworkSpec, size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as caught:
        to_onnx(Network(spec), tmp_path / "g.onnx", ExportSettings(image_size=size))
    assert caught.value.message == message
    assert list(tmp_path.iterdir()) == []


def test_a_discriminator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^this is a discriminator, and only generators are exported and run$"):
        to_onnx(Network(patchgan_spec(ndf=4)), tmp_path / "d.onnx", AT_SIZE)
    assert list(tmp_path.iterdir()) == []


# --- opsets ---


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_the_opset_that_was_asked_for_is_in_the_file(opset: int) -> None:
    export = exported(SMALL, replace(AT_SIZE, opset=opset))
    assert [(entry.domain, entry.version) for entry in model_of(export).opset_import] == [("", opset)]
    assert export.artifact.settings["opset"] == opset


@pytest.mark.parametrize("opset", [12, 24, 0, -1])
def test_an_opset_that_cannot_be_exported_is_refused(opset: int) -> None:
    with pytest.raises(ArtifactError) as caught:
        ExportSettings(opset=opset)
    assert str(caught.value) == f"opset {opset} cannot be exported (13 to 23 can)"


def test_an_exporter_that_writes_another_opset_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_opset(module: object, size: object, settings: ExportSettings) -> onnx.ModelProto:
        return model_of(exported(SMALL))

    monkeypatch.setattr(exporter, "_export", other_opset)
    with pytest.raises(CheckFailedError, match=r"^opset 18 was asked for, but the exporter wrote opset 20$"):
        to_onnx(network_of(SMALL), tmp_path / "g.onnx", replace(AT_SIZE, opset=18))
    assert list(tmp_path.iterdir()) == []


# --- what is in the file ---


@pytest.mark.usefixtures("cached")
def test_an_export_is_one_file_and_its_artifact_describes_it(tmp_path: Path) -> None:
    export = to_onnx(network_of(SMALL), tmp_path / "deep" / "g.onnx", AT_SIZE, parent_sha256="ab" * 32)
    data = export.artifact.path.read_bytes()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["g.onnx"]
    assert export.artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert export.artifact.size_bytes == len(data)
    assert (export.artifact.precision, export.artifact.parent_sha256) == ("fp32", "ab" * 32)
    assert export.artifact.settings == {
        "image_size": [32, 32],
        "opset": 20,
        "dynamic_batch": False,
        "bn": "eval",
        "simplify": True,
        "target": "portable",
        "io": "float",
        "tuning": None,
        "passes": [
            {"name": "fold_batch_norm", "applied": 0, "not_applied": {}},
            {"name": "dead_bias", "applied": 0, "not_applied": {"the convolution before it has no bias": 7}},
            {"name": "merge_pad", "applied": 0, "not_applied": {"it does not pad with a constant": 4}},
        ],
    }
    assert export.remarks == ()


@every_generator
def test_the_metadata_rebuild_the_spec(spec: NetworkSpec) -> None:
    metadata = {entry.key: entry.value for entry in model_of(exported(spec)).metadata_props}
    assert NetworkSpec.from_json(json.loads(metadata["mggc_edge.spec"])) == spec


def test_the_metadata_say_all_that_a_bare_file_is_used_with(tmp_path: Path) -> None:
    spec = resnet_spec(blocks=1, ngf=4, in_channels=1, out_channels=4)
    settings = ExportSettings(image_size=(32, 64), bn="batch", simplify=False)
    export = to_onnx(network_of(spec), tmp_path / "g.onnx", settings, parent_sha256="cd" * 32)
    assert export.artifact.inputs == (TensorSpec("input", "float32", (1, 1, 32, 64)),)
    assert export.artifact.outputs == (TensorSpec("output", "float32", (1, 4, 32, 64)),)
    metadata = {entry.key: entry.value for entry in model_of(export).metadata_props}
    table = layer_table(spec, (32, 64))
    assert metadata == {
        "mggc_edge.version": mggc_edge.__version__,
        "mggc_edge.spec": json.dumps(spec.to_json(), separators=(",", ":")),
        "mggc_edge.image_size": "32x64",
        "mggc_edge.bn": "batch",
        "mggc_edge.input_format": '{"channels": 1, "color": "L", "low": -1.0, "high": 1.0}',
        "mggc_edge.output_format": '{"channels": 4, "color": "RGBA", "low": -1.0, "high": 1.0}',
        "mggc_edge.precision": "fp32",
        "mggc_edge.parent_sha256": "cd" * 32,
        "mggc_edge.target": "portable",
        "mggc_edge.passes": "",
        "mggc_edge.macs_true": str(macs(table, "true")),
        "mggc_edge.macs_paper": str(macs(table, "paper")),
    }
    model = model_of(export)
    assert (model.producer_name, model.producer_version) == ("mggc-edge", mggc_edge.__version__)
    assert model.graph.name == "resnet_1blocks"


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("simplify", [True, False])
def test_nothing_in_the_file_tells_of_the_machine_that_wrote_it(simplify: bool, tmp_path: Path) -> None:
    export = to_onnx(network_of(SMALL), tmp_path / "g.onnx", replace(AT_SIZE, simplify=simplify))
    data = export.artifact.path.read_bytes()
    package = Path(mggc_edge.__file__).parent
    telling = [str(package), str(package.parent), str(Path(torch.__file__).parent), str(Path.home()), str(Path.cwd())]
    telling += ["site-packages", "stack_trace", "torch", "pkg.", "namespace", ".py", "/tmp", str(export.artifact.path)]
    assert [text for text in telling if text != "/" and text.encode() in data] == []
    graph = model_of(export).graph
    assert all(not node.metadata_props and not node.doc_string for node in graph.node)
    assert not graph.metadata_props
    assert not graph.value_info
    assert not graph.doc_string
    assert not model_of(export).functions


def test_exporting_twice_gives_identical_bytes_and_leaves_no_trace(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, network = exported(SMALL).artifact, network_of(SMALL)
    exported(unet_spec(halvings=5, ngf=4))  # whatever is exported in between
    capfd.readouterr()
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    second = to_onnx(network, tmp_path / "another name.onnx", AT_SIZE, seed=7)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert str(np.random.get_state()) == numpy_state  # noqa: NPY002
    assert second.artifact.path.read_bytes() == first.path.read_bytes()


@pytest.mark.slow
def test_another_process_with_other_hashes_gives_identical_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from export_helpers import *\n"
        "to_onnx(network_of(resnet_spec(blocks=1, ngf=4)), Path(sys.argv[1]), ExportSettings(image_size=SIZE))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "PYTHONHASHSEED": "12345"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "g.onnx"], env=environment, cwd=tmp_path, check=True)
    assert (tmp_path / "g.onnx").read_bytes() == exported(SMALL).artifact.path.read_bytes()


# --- what does not change ---


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_as_it_was(training: bool, tmp_path: Path) -> None:
    network = network_of(SMALL).train(training)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    names = [name for name, _ in network.named_parameters()]
    to_onnx(network, tmp_path / "g.onnx", replace(AT_SIZE, simplify=False))
    assert network.training is training
    assert all(module.training is training for module in network.modules())
    assert [name for name, _ in network.named_parameters()] == names
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


# --- onnxsim is welcome, never required ---


def test_onnxsim_that_fails_leaves_a_remark_and_a_sound_file(tmp_path: Path, cached: pytest.MonkeyPatch) -> None:
    def fails(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        raise RuntimeError("cannot simplify this")

    cached.setattr(onnxsim, "simplify", fails)
    export = to_onnx(network_of(SMALL), tmp_path / "g.onnx", AT_SIZE)
    assert export.remarks == ("onnxsim failed and was left out: cannot simplify this",)
    assert np.abs(run(export, picture()) - torch_output(network_of(SMALL), picture())).max() <= 1e-4


def test_onnxsim_that_changes_the_outputs_is_left_out(tmp_path: Path, cached: pytest.MonkeyPatch) -> None:
    cached.setattr(onnxsim, "simplify", lambda model: (onnx.ModelProto(), False))
    export = to_onnx(network_of(SMALL), tmp_path / "g.onnx", AT_SIZE)
    assert export.remarks == ("onnxsim changed the outputs and was left out",)
    assert np.abs(run(export, picture()) - torch_output(network_of(SMALL), picture())).max() <= 1e-4


def test_without_simplify_onnxsim_is_not_called(tmp_path: Path, cached: pytest.MonkeyPatch) -> None:
    cached.setitem(sys.modules, "onnxsim", None)
    assert to_onnx(network_of(SMALL), tmp_path / "g.onnx", replace(AT_SIZE, simplify=False)).remarks == ()


# --- failures leave nothing ---


@pytest.fixture
def wrong_weights(cached: pytest.MonkeyPatch) -> None:
    honest = exporter._export

    def changed(module: Network, size: Any, settings: ExportSettings) -> onnx.ModelProto:
        model = honest(module, size, settings)
        weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
        values = onnx.numpy_helper.to_array(weight) + np.float32(0.5)
        weight.raw_data = values.tobytes()
        return model

    cached.setattr(exporter, "_export", changed)


@pytest.mark.usefixtures("wrong_weights")
def test_a_file_that_differs_from_torch_never_appears(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError) as caught:
        to_onnx(network_of(SMALL), tmp_path / "g.onnx", AT_SIZE)
    assert caught.value.message.startswith("the exported 'g.onnx' does not equal the network: outputs differ by up to ")
    assert caught.value.message.endswith(" dB; wanted was at most 0.0001")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("wrong_weights")
def test_a_failed_export_leaves_the_older_file_alone(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"older")
    with pytest.raises(CheckFailedError):
        to_onnx(network_of(SMALL), tmp_path / "g.onnx", AT_SIZE)
    assert (tmp_path / "g.onnx").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("wrong_weights")
def test_a_larger_tolerance_lets_a_difference_pass(tmp_path: Path) -> None:
    export = to_onnx(network_of(SMALL), tmp_path / "g.onnx", replace(AT_SIZE, atol=2.0))
    assert 1e-3 < export.parity.max_abs <= 2


def test_a_file_that_no_engine_runs_never_appears(tmp_path: Path, cached: pytest.MonkeyPatch) -> None:
    def broken(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"

    cached.setattr(exporter, "strip", broken)
    with pytest.raises(ArtifactError, match=r"^ONNX Runtime cannot run"):
        to_onnx(network_of(SMALL), tmp_path / "g.onnx", replace(AT_SIZE, simplify=False))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("cached")
def test_a_path_under_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        to_onnx(network_of(SMALL), tmp_path / "file" / "g.onnx", replace(AT_SIZE, simplify=False))


@pytest.mark.parametrize(("module", "extra"), [("onnx", "onnx"), ("onnxscript", "onnx"), ("onnxruntime", "ort")])
def test_a_missing_library_is_named_with_its_install_line(
    module: str, extra: str, tmp_path: Path, cached: pytest.MonkeyPatch
) -> None:
    network = network_of(SMALL)
    cached.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError) as caught:
        to_onnx(network, tmp_path / "g.onnx", AT_SIZE)
    assert caught.value.message.startswith(f"{module} cannot be imported here: ")
    assert caught.value.hint == f'pip install "mggc-edge[{extra}]"'
    assert list(tmp_path.iterdir()) == []


def test_without_onnxsim_the_export_goes_through_with_a_remark(tmp_path: Path, cached: pytest.MonkeyPatch) -> None:
    cached.setitem(sys.modules, "onnxsim", None)
    result = to_onnx(network_of(SMALL), tmp_path / "g.onnx", AT_SIZE)
    assert result.remarks == ('onnxsim is not installed and was left out: pip install "mggc-edge[onnx]"',)
    assert result.parity.passed


@pytest.mark.parametrize("change", [{"bn": "foo"}, {"pictures": 0}, {"atol": float("nan")}, {"atol": float("inf")}])
def test_impossible_export_settings_are_refused_before_any_work(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError):
        replace(AT_SIZE, **change)


def test_a_network_in_double_precision_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        to_onnx(network_of(SMALL).double(), tmp_path / "g.onnx", AT_SIZE)
    assert (caught.value.message, caught.value.hint) == (
        "only networks in float32 are exported",
        "convert it first: network.float()",
    )


# --- the torch side ---


def test_the_torch_runner_has_the_names_and_sizes_of_the_export() -> None:
    network = network_of(SMALL)
    with torch_runner(network, SIZE, name="here", metadata={"a": "b"}) as runner:
        assert (runner.name, runner.engine, runner.metadata) == ("here", "pytorch", {"a": "b"})
        assert runner.inputs == (TensorSpec("input", "float32", (None, 3, 32, 32)),)
        assert runner.outputs == (TensorSpec("output", "float32", (None, 3, 32, 32)),)
        np.testing.assert_array_equal(runner.infer({"input": picture()})["output"], torch_output(network, picture()))


def test_the_reference_of_bn_batch_is_the_per_picture_form() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4, norm="batch"))
    reference = exporter.reference_network(network, "batch")
    assert (reference.spec.norm, reference.training) == ("instance_affine", False)
    np.testing.assert_array_equal(
        torch_output(reference, picture()), torch_output(per_picture_norm(network).eval(), picture())
    )
    assert exporter.reference_network(network, "eval").spec == network.spec


def test_parity_pictures_are_seeded_and_fill_the_range() -> None:
    first, again = (list(random_pictures(2, (1, 3), (3, 64, 48), seed=4)) for _ in range(2))
    assert [array.shape for array in first] == [(1, 3, 64, 48)] * 2 + [(3, 3, 64, 48)] * 2
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(array.dtype == np.float32 and -1 <= array.min() < -0.5 < 0.5 < array.max() <= 1 for array in first)
    (wide,) = random_pictures(1, (1,), (3, 64, 48), 4, (0.0, 255.0))
    assert np.allclose(wide, (first[0] + 1) * 127.5, rtol=0, atol=1e-4)
    other = next(random_pictures(1, (1,), (3, 64, 48), seed=5))
    assert not np.array_equal(first[0], other)


def test_onnxruntime_reads_the_metadata_back() -> None:
    session = onnxruntime.InferenceSession(exported(SMALL).artifact.path, providers=["CPUExecutionProvider"])
    meta = session.get_modelmeta()
    assert (meta.producer_name, meta.graph_name) == ("mggc-edge", "resnet_1blocks")
    assert meta.custom_metadata_map["mggc_edge.image_size"] == "32x32"


@pytest.mark.parametrize("target", ["x86-avx512", "x86-avx2"])
@pytest.mark.parametrize("spec", [SMALL, unet_spec(halvings=5, ngf=4)], ids=spec_id)
def test_a_graph_for_a_target_is_proven_like_any_other(spec: NetworkSpec, target: str, tmp_path: Path) -> None:
    settings = ExportSettings(image_size=SIZE, target=target, simplify=False)
    export = to_onnx(network_of(spec), tmp_path / "g.onnx", settings)
    table = layer_table(spec, SIZE)
    counts = {report.name: report.applied for report in export.passes}
    # The first convolution of so small a ResNet is thin too.
    expected = (0, 5) if spec.family == "unet" else (2, 0)
    assert (counts["thin_layer"], counts["transposed_convolution"]) == expected
    assert export.parity.passed
    assert export.macs_executed is not None
    assert export.macs_executed > macs(table, "true")
    facts = onnx_facts(export.artifact.path)
    assert (facts.macs_true, facts.macs_paper) == (macs(table, "true"), macs(table, "paper"))
    assert (facts.macs_executed, facts.metadata["target"]) == (export.macs_executed, target)


def test_passes_can_be_left_out_and_unknown_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch_export(monkeypatch, SMALL)
    settings = ExportSettings(image_size=SIZE, target="x86-avx512", passes="none", simplify=False)
    assert to_onnx(network_of(SMALL), tmp_path / "g.onnx", settings).passes == ()
    with pytest.raises(SettingError, match="names 'magic'"):
        ExportSettings(passes="magic")
