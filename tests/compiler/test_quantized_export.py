"""A quantized network's file has exactly its grids, layer by layer, and is a quarter of the size."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler.camera import make_camera_ready
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import check_onnx, onnx_facts
from mggc_edge.compiler.finishing import Exported
from mggc_edge.compiler.grid_parity import GridParity, check_grids, cut
from mggc_edge.compiler.qdq import Grid, insert_qdq
from mggc_edge.compiler.quantized import compare_grids, levels, network_grids
from mggc_edge.compiler.to_onnx import _remarks_on, to_onnx
from mggc_edge.errors import CheckFailedError, SpecError
from mggc_edge.machine import this_machine
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.cost import macs, parameters
from mggc_edge.models.fake_quant import input_grid
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.tensors import Array, Feeds
from mggc_edge.training.quantize import QuantizeSettings, quantize
from tests.compiler.export_helpers import SIZE, network_of

SPECS = {
    "resnet": resnet_spec(blocks=2, ngf=8, norm="batch"),
    "separable": resnet_spec(blocks=1, ngf=8, norm="instance_affine", padding="zeros", separable=True),
    "unet": unet_spec(halvings=5, ngf=4, norm="batch"),
    "cartoongan": cartoongan_spec(blocks=2, ngf=8),
}
SETTINGS = ExportSettings(image_size=SIZE, simplify=False, pictures=2)


def pictures(seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        small = torch.rand((1, 3, 8, 8), generator=generator) * 2 - 1
        yield torch.nn.functional.interpolate(small, SIZE, mode="bilinear")


def quantized(spec: NetworkSpec, *, per_channel: bool = True) -> Network:
    return quantize(network_of(spec), pictures, QuantizeSettings(per_channel=per_channel)).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Network, Exported]]:
    folder = tmp_path_factory.mktemp("exported")
    networks = {name: quantized(spec, per_channel=name != "separable") for name, spec in SPECS.items()}
    return {name: (network, to_onnx(network, folder / f"{name}.onnx", SETTINGS)) for name, network in networks.items()}


@pytest.mark.parametrize("name", SPECS)
def test_each_layer_finds_the_levels_of_torch_on_the_same_input(
    exported: dict[str, tuple[Network, Exported]], name: str
) -> None:
    network, result = exported[name]
    found = compare_grids(network, onnx.load(result.artifact.path), "input", [x.numpy() for x in pictures(seed=5)])
    assert found.equal >= 0.999
    assert found.levels <= 1
    assert found.values == 3 * sum(level.size for level in levels(network, next(pictures()).numpy())[0].values())
    assert result.grids == found or (result.grids is not None and result.grids.equal >= 0.999)


def test_a_processor_without_8_bit_sums_finds_the_same_levels(
    exported: dict[str, tuple[Network, Exported]], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = replace(this_machine(), instruction_sets=("AVX2",))
    monkeypatch.setattr("mggc_edge.backends.onnxruntime.this_machine", lambda: old)
    network, result = exported["resnet"]
    found = compare_grids(network, onnx.load(result.artifact.path), "input", [next(pictures(seed=5)).numpy()])
    found.check("the file")


@pytest.mark.parametrize(("name", "least"), [("resnet", 45), ("separable", 45), ("unet", 45), ("cartoongan", 40)])
def test_end_to_end_the_file_is_near_torch_and_a_remark_says_where_roundings_diverge(
    exported: dict[str, tuple[Network, Exported]], name: str, least: float
) -> None:
    network, result = exported[name]
    found = []
    with OnnxRuntimeRunner(result.artifact.path) as runner, torch.no_grad():
        for x in pictures(seed=6):
            difference = runner.infer({"input": x.numpy()})["output"] - network(x).numpy()
            found.append(10 * np.log10(4 / max(np.square(difference).mean(), 1e-12)))
    assert np.mean(found) >= least
    assert len(result.remarks) == (least < 45)


@pytest.mark.parametrize("name", ["resnet", "cartoongan"])
def test_with_bytes_around_it_the_file_gives_the_same_pictures(
    exported: dict[str, tuple[Network, Exported]], name: str, tmp_path: Path
) -> None:
    """The values that go in are the same bit for bit, or roundings would diverge from layer to layer."""
    network, result = exported[name]
    path, formats = tmp_path / "g.onnx", (network.spec.input_format, network.spec.output_format)
    path.write_bytes(result.artifact.path.read_bytes())
    report, (picture,), _ = make_camera_ready(path, onnx.load(path), formats, SIZE, pictures=3)
    assert (report.passed, report.images, picture.dtype) == (True, 3, "uint8")
    assert report.psnr is None or report.psnr > 80


@pytest.mark.parametrize("name", SPECS)
def test_the_graph_holds_the_trained_scales_and_int8_weights(
    exported: dict[str, tuple[Network, Exported]], name: str
) -> None:
    network, result = exported[name]
    model = onnx.load(result.artifact.path)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for layer, grid in zip(network.table.layers, network_grids(network), strict=True):
        weight = tensors[f"{layer.name}.weight_int8"]
        assert weight.dtype == np.int8
        assert np.array_equal(weight, grid.weight)
        assert np.array_equal(tensors[f"{layer.name}.weight_scale"], grid.weight_scale)
        assert tensors[f"{layer.name}.weight_scale"].ndim == (0 if name == "separable" else 1)
        if layer.quantized_input:
            conv = network.get_submodule(layer.name)
            wanted = input_grid(conv.get_parameter("input_log_scale"), conv.get_buffer("input_zero_point"))
            assert tensors[f"{layer.name}.input_scale"] == np.float32(wanted[0])
            assert tensors[f"{layer.name}.input_zero_point"] == wanted[1]
            assert tensors[f"{layer.name}.input_zero_point"].dtype == np.uint8
    floats = {key for key, value in tensors.items() if value.dtype == np.float32 and value.ndim == 4}
    assert floats == set()
    count = {
        kind: sum(node.op_type == kind for node in model.graph.node) for kind in ("QuantizeLinear", "DequantizeLinear")
    }
    rows = len(network.table.layers)
    assert count == {"QuantizeLinear": rows - 1, "DequantizeLinear": 2 * rows - 1}


def test_a_reflection_pad_copies_bytes_and_zero_padding_stays_in_the_convolution(
    exported: dict[str, tuple[Network, Exported]],
) -> None:
    model = onnx.load(exported["resnet"][1].artifact.path)
    pads = [node for node in model.graph.node if node.op_type == "Pad"]
    assert [pad.input[0].endswith(".input_quantized") for pad in pads] == [False, *[True] * 5]


def test_a_convolution_that_is_quantized_at_once_runs_in_int8(
    exported: dict[str, tuple[Network, Exported]], tmp_path: Path
) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(exported["resnet"][1].artifact.path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    # Down 1, and the first convolution of both blocks: each is read by one row alone, and by no transposed convolution.
    assert kinds.count("QLinearConv") == 3


def test_the_facts_count_8_bit_weights_and_their_multiplications(
    exported: dict[str, tuple[Network, Exported]],
) -> None:
    network, result = exported["resnet"]
    facts = onnx_facts(result.artifact.path)
    check_onnx(result.artifact.path)
    assert (facts.precision, facts.metadata["precision"]) == ("int8", "int8")
    assert facts.spec == network.spec
    assert (facts.macs_true, facts.macs_paper) == (macs(network.table, "true"), macs(network.table, "paper"))
    assert facts.parameters == parameters(network.table)
    assert json.loads(facts.metadata["spec"])["quantization"] == "int8"


def test_file_and_weights_shrink_by_nearly_four() -> None:
    wide = quantized(resnet_spec(blocks=1, ngf=32))
    grids = network_grids(wide)
    stored = sum(grid.weight.nbytes + grid.weight_scale.nbytes for grid in grids)
    assert 3.9 < 4 * sum(grid.weight.size for grid in grids) / stored < 4


def test_what_the_file_takes_is_said_beside_what_it_would_in_floats(
    exported: dict[str, tuple[Network, Exported]], tmp_path: Path
) -> None:
    _, result = exported["cartoongan"]
    assert result.artifact.precision == "int8"
    assert result.artifact.size_bytes == result.artifact.path.stat().st_size
    assert result.weights_bytes < 0.4 * result.float_weights_bytes
    plain = to_onnx(network_of(SPECS["cartoongan"]), tmp_path / "plain.onnx", SETTINGS)
    assert plain.grids is None
    assert plain.float_bytes == plain.artifact.size_bytes
    assert plain.float_weights_bytes == plain.weights_bytes == result.float_weights_bytes
    assert abs(result.float_bytes - plain.float_bytes) < 100  # the metadata


def test_a_file_whose_roundings_diverge_is_remarked_on(exported: dict[str, tuple[Network, Exported]]) -> None:
    _, result = exported["separable"]
    assert result.grids is not None
    assert result.parity.psnr is not None
    (remark,) = _remarks_on(result.parity, result.grids, replace(SETTINGS, min_psnr=result.parity.psnr + 1))
    assert remark == (
        f"end to end the 8-bit file is at {result.parity.psnr:.1f} dB to torch, below {result.parity.psnr + 1:g} dB: "
        f"its roundings diverge from layer to layer; on the same input {result.grids.equal:.3%} or more of a layer's "
        "values are equal"
    )
    assert list(_remarks_on(result.parity, None, replace(SETTINGS, min_psnr=1000))) == []


def test_passes_that_were_asked_for_are_said_to_leave_8_bit_convolutions(
    exported: dict[str, tuple[Network, Exported]],
) -> None:
    _, result = exported["separable"]
    quiet = replace(SETTINGS, min_psnr=0)
    wanted = [
        replace(quiet, target="x86-avx512"), replace(quiet, passes="thin_layer"), replace(quiet, passes="none"), quiet,
    ]  # fmt: skip
    found = [list(_remarks_on(result.parity, result.grids, settings)) for settings in wanted]
    rest = "do not rewrite 8-bit convolutions: their weights lie on grids (see docs/compiler.md)"
    assert found == [[f"graph passes for 'x86-avx512' {rest}"], [f"graph passes for 'portable' {rest}"], [], []]
    floats = _remarks_on(result.parity, None, replace(SETTINGS, target="x86-avx512"))
    assert list(floats) == []


# --- proofs that fail ---


def test_what_tensorrt_refuses_is_said_where_it_is_the_target(tmp_path: Path) -> None:
    network = quantized(resnet_spec(blocks=1, ngf=4))
    made = {
        target: to_onnx(network, tmp_path / f"{target}.onnx", ExportSettings(image_size=SIZE, target=target))
        for target in ("tensorrt", "portable")
    }
    said = {target: [text for text in one.remarks if "TensorRT refuses" in text] for target, one in made.items()}
    assert said["portable"] == []
    (text,) = said["tensorrt"]
    assert text.endswith("8 bits for TensorRT are made of a network in floats, with --precision int8")


def test_another_scale_in_the_file_is_found(exported: dict[str, tuple[Network, Exported]]) -> None:
    network, result = exported["resnet"]
    model = onnx.load(result.artifact.path)
    for tensor in model.graph.initializer:
        if tensor.name == "model.7.input_scale":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    found = compare_grids(network, model, "input", [next(pictures()).numpy()])
    assert found.worst == "model.7"
    assert found.equal < 0.999


def test_levels_that_differ_end_in_one_sentence() -> None:
    GridParity(1000, 0.999, 1, "a", 1e-5, 1).check("the file")
    with pytest.raises(CheckFailedError) as error:
        GridParity(1000, 0.9, 3, "model.7", 0.0, 100).check("the file")
    assert error.value.message == (
        "the file: in layer model.7 90.0000% of the quantized values are the same, and the largest difference of any "
        "is 3 levels; wanted were 99.9% and 1"
    )
    with pytest.raises(CheckFailedError):
        GridParity(1000, 1.0, 2, "model.7", 0.0, 1).check("the file")
    with pytest.raises(CheckFailedError, match=r"^the file: on the same levels, outputs differ by up to 0\.5$"):
        GridParity(1000, 1.0, 0, "model.7", 0.5, 0).check("the file")


def test_an_output_that_is_no_number_fails(exported: dict[str, tuple[Network, Exported]]) -> None:
    network, result = exported["resnet"]
    model, x = onnx.load(result.artifact.path), next(pictures()).numpy()
    wanted, output = levels(network, x)
    usual = (x, wanted, output)
    found = check_grids(model, "input", [usual, (x, wanted, np.full_like(output, np.nan)), usual])
    assert np.isnan(found.output)
    with pytest.raises(CheckFailedError, match=r"^the file: on the same levels, outputs differ by up to nan$"):
        found.check("the file")
    with pytest.raises(ValueError, match="no picture was compared"):
        check_grids(model, "input", [])


@pytest.mark.parametrize(("count", "passes"), [(0, True), (1, True), (2, False)])
def test_one_value_of_a_layer_of_few_may_be_off_and_no_more(
    exported: dict[str, tuple[Network, Exported]], monkeypatch: pytest.MonkeyPatch, count: int, passes: bool
) -> None:
    """Of the few values in the middle of a slim U-Net one is more than a thousandth, and a tie is no other grid."""
    network, result = exported["unet"]
    x = next(pictures()).numpy()
    wanted, output = levels(network, x)
    small = min(wanted, key=lambda name: wanted[name].size)
    assert 2 < wanted[small].size < 1000

    class Off(OnnxRuntimeRunner):
        def infer(self, feeds: Feeds) -> dict[str, Array]:
            found = super().infer(feeds)
            values = found[f"{small}.input_quantized"].reshape(-1)
            values[:count] = np.where(values[:count] > 0, values[:count] - 1, 1)
            return found

    monkeypatch.setattr("mggc_edge.compiler.grid_parity.OnnxRuntimeRunner", Off)
    found = check_grids(onnx.load(result.artifact.path), "input", [(x, wanted, output)])
    assert (found.different, found.levels) == (count, min(count, 1))
    if count:
        assert found.worst == small
        assert found.equal == 1 - count / wanted[small].size < 0.999
    with contextlib.nullcontext() if passes else pytest.raises(CheckFailedError, match=f"in layer {small} "):
        found.check("the file")


def test_a_cut_graph_reads_what_it_is_given(exported: dict[str, tuple[Network, Exported]]) -> None:
    network, result = exported["separable"]
    model = onnx.load(result.artifact.path)
    x = next(pictures()).numpy()
    wanted, output = levels(network, x)
    parts = cut(model, {name: level.shape for name, level in wanted.items()})
    assert len(parts.graph.input) == len(parts.graph.output) == 1 + len(wanted)
    assert len(model.graph.input) == 1
    wrong = {name: np.zeros_like(level) for name, level in wanted.items()}
    assert check_grids(model, "input", [(x, wrong, output)]).levels > 1


def test_a_graph_of_other_convolutions_takes_no_grids(exported: dict[str, tuple[Network, Exported]]) -> None:
    grids = network_grids(exported["resnet"][0])
    model = onnx.load(exported["unet"][1].artifact.path)
    with pytest.raises(CheckFailedError, match=r"^the exported graph has not the convolutions of the network, "):
        insert_qdq(model, grids)
    assert isinstance(grids[0], Grid)
    assert grids[0].scale is None


def test_a_grid_that_is_none_is_not_exported(tmp_path: Path) -> None:
    network = quantized(SPECS["resnet"])
    with torch.no_grad():
        network.get_parameter("model.4.input_log_scale").fill_(500.0)
    with pytest.raises(SpecError, match=r"^scale inf and zero point 0 are no grid for 8-bit activations$"):
        to_onnx(network, tmp_path / "n.onnx", SETTINGS)
    assert list(tmp_path.iterdir()) == []
