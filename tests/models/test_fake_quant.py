"""A quantized network computes on 8-bit grids alone, passes gradients through the rounding, and is saved with them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mggc_edge.errors import CheckpointError, InputError, SpecError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.convert import fold_batch_norm, with_quantization, without_quantization
from mggc_edge.models.cost import macs, parameters
from mggc_edge.models.fake_quant import (
    input_grid,
    input_levels,
    output_axis,
    rounded_bias,
    rounded_input,
    rounded_weight,
    weight_levels,
    weight_scale,
)
from mggc_edge.models.layers import INPUT
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import load_network, save_network, weights_sha256
from tests.models.model_helpers import network_of, picture_for, some_kept, spec_id

SPECS = [
    resnet_spec(blocks=2, ngf=4),
    resnet_spec(blocks=2, ngf=4, norm="batch", padding="zeros"),
    resnet_spec(blocks=1, ngf=4, norm="instance_affine", separable=True),
    unet_spec(halvings=5, ngf=4),
    cartoongan_spec(blocks=2, ngf=4),
]


def plain(spec: NetworkSpec) -> Network:
    return fold_batch_norm(network_of(spec, dtype=torch.float32))


def on_grids(network: Network, scale: float = 0.05, zero_point: int = 100, **more: str) -> Network:
    rows = [layer.name for layer in network.table.layers if layer.op != "constant" and INPUT not in layer.reads]
    return with_quantization(network, dict.fromkeys(rows, (scale, zero_point)), **more)  # type: ignore[arg-type]


def one(value: float) -> Tensor:
    return torch.tensor([value])


# --- the grids ---


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_weights_are_rounded_to_whole_multiples_of_a_scale_whose_largest_is_127(spec: NetworkSpec) -> None:
    network = on_grids(plain(spec))
    for layer in network.table.layers:
        weight = network.get_submodule(layer.name).get_parameter("weight")
        levels, scale = weight_levels(weight, layer), weight_scale(weight, layer)
        assert scale.shape == (weight.shape[output_axis(layer)],) == (layer.out_channels,)
        assert torch.equal(levels, levels.round())
        others = [dim for dim in range(4) if dim != output_axis(layer)]
        assert torch.equal(levels.abs().amax(dim=others), torch.full((layer.out_channels,), 127.0))
        beside = scale.view((1, -1, 1, 1) if layer.op == "conv_transpose" else (-1, 1, 1, 1))
        assert torch.equal(rounded_weight(weight, layer), levels * beside)
        assert ((rounded_weight(weight, layer) - weight).abs() <= 0.5001 * beside).all()


def test_a_weight_can_have_one_scale_for_all_its_channels() -> None:
    network = on_grids(plain(SPECS[0]), quantization="int8_tensor")
    for layer in network.table.layers:
        weight = network.get_submodule(layer.name).get_parameter("weight")
        assert weight_scale(weight, layer).tolist() == [pytest.approx(weight.abs().max().item() / 127)]


def test_a_channel_of_zeros_stays_zero() -> None:
    layer = on_grids(plain(SPECS[0])).table.layers[1]
    assert torch.equal(rounded_weight(torch.zeros(8, 4, 3, 3), layer), torch.zeros(8, 4, 3, 3))


def test_a_bias_is_rounded_to_whole_products_of_both_scales_and_fits_32_bits() -> None:
    layer = on_grids(plain(SPECS[0])).table.layers[1]
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    bias = torch.linspace(-5, 5, 8).requires_grad_()
    log_scale = one(math.log(0.02))
    rounded = rounded_bias(bias, weight, log_scale, layer)
    step = log_scale.exp() * weight_scale(weight, layer)
    assert ((rounded / step).round() * step - rounded).abs().max() < 1e-6
    assert (rounded - bias).abs().max() < 1e-3
    assert (rounded / step).abs().max() < 2**31
    rounded.sum().backward()  # type: ignore[no-untyped-call]
    assert bias.grad is not None
    assert bias.grad.tolist() == [1] * 8


def test_activations_are_clamped_to_256_levels_and_halves_go_to_the_even_one() -> None:
    x = torch.tensor([-9.0, -1.0, -0.25, 0.0, 0.25, 0.75, 1.25, 126.9, 900.0])
    assert input_levels(x, one(math.log(0.5)), one(2.0)).tolist() == [0, 0, 2, 2, 2, 4, 4, 255, 255]
    assert rounded_input(x, one(math.log(0.5)), one(2.0)).tolist() == [-1, -1, 0, 0, 0, 1, 1, 126.5, 126.5]


def test_rounding_comes_back_in_float32_from_bfloat16() -> None:
    x = torch.tensor([0.3, 1.0], dtype=torch.bfloat16)
    assert rounded_input(x, one(math.log(0.25)), one(0.0)).dtype == torch.float32


def test_the_gradient_passes_on_the_grid_and_the_scales_is_that_of_lsq() -> None:
    x = torch.tensor([-3.0, 0.6, 1.1, 70.0], requires_grad=True)
    log_scale = one(math.log(0.25)).requires_grad_()
    rounded_input(x, log_scale, one(4.0)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert log_scale.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]
    # -3 and 70 lie beyond levels 0 and 255; 0.6 is 2.4 steps, 1.1 is 4.4.
    wanted = (0 - 4) + (2 - 2.4) + (4 - 4.4) + (255 - 4)
    assert log_scale.grad.item() == pytest.approx(0.25 * wanted, rel=1e-5)


def test_the_gradient_of_a_weight_is_that_of_the_rounded_one() -> None:
    layer = on_grids(plain(SPECS[0])).table.layers[1]
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    factor = torch.arange(288.0).view(8, 4, 3, 3)
    (rounded_weight(weight, layer) * factor).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert torch.equal(weight.grad, factor)


@pytest.mark.parametrize(
    ("log_scale", "zero_point"), [(200.0, 0), (float("nan"), 0), (0.0, 256), (0.0, -1), (0.0, 0.5)]
)
def test_what_is_no_grid_is_refused(log_scale: float, zero_point: float) -> None:
    with pytest.raises(SpecError, match=r"are no grid for 8-bit activations$"):
        input_grid(one(log_scale), one(zero_point))


# --- networks ---


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_every_row_but_those_that_read_the_picture_has_a_grid_in_the_state_dict(spec: NetworkSpec) -> None:
    network = on_grids(plain(spec))
    state = network.state_dict()
    assert set(state) == set(network.table.tensors)
    with_grid = {key.rpartition(".")[0] for key in state if key.endswith(".input_log_scale")}
    assert with_grid == {layer.name for layer in network.table.layers[1:]}
    assert parameters(network.table) == parameters(plain(spec).table)
    assert macs(network.table, "true") == macs(plain(spec).table, "true")


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_a_fine_grid_changes_little_and_without_it_the_network_is_as_before(spec: NetworkSpec) -> None:
    network = plain(spec)
    x = picture_for(network)
    with torch.no_grad():
        wanted, found = network(x), on_grids(network, scale=0.06, zero_point=128)(x)
        assert torch.equal(without_quantization(on_grids(network))(x), wanted)
    assert 0 < (found - wanted).square().mean().sqrt() < 0.2
    assert without_quantization(network) is network


def test_every_value_that_a_convolution_reads_lies_on_its_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    network = on_grids(plain(SPECS[4]))
    seen: list[Tensor] = []
    for name in ("conv2d", "conv_transpose2d"):
        usual = getattr(torch.nn.functional, name)

        def look(x: Tensor, *more: object, usual: object = usual, **names: object) -> Tensor:
            seen.append(x)
            return usual(x, *more, **names)  # type: ignore[operator, no-any-return]

        monkeypatch.setattr(f"torch.nn.functional.{name}", look)
    with torch.no_grad():
        network(picture_for(network))
    assert len(seen) == len(network.table.layers)
    for x in seen[1:]:
        steps = x / torch.tensor(math.log(0.05)).exp()
        assert (steps - steps.round()).abs().max() < 1e-4


def test_masks_that_close_nothing_change_nothing() -> None:
    network = on_grids(plain(SPECS[0]))
    masks = {group.name: torch.ones(group.size) for group in network.table.groups}
    x = picture_for(network)
    with torch.no_grad():
        assert (network(x, masks) - network(x)).abs().mean() < 0.02  # an instance norm takes the bias away, to rounding


def test_slicing_keeps_the_grids_of_activations(tmp_path: Path) -> None:
    network = on_grids(plain(SPECS[4]), scale=0.07)
    small = slim(network, some_kept(network.spec, 1))
    assert small.spec.quantization == "int8"
    for layer in small.table.layers:
        if layer.quantized_input:
            conv = small.get_submodule(layer.name)
            found = input_grid(conv.get_parameter("input_log_scale"), conv.get_buffer("input_zero_point"))
            assert found[0] == pytest.approx(0.07)
            assert found[1] == 100


def test_a_saved_network_comes_back_with_its_grids(tmp_path: Path) -> None:
    network = on_grids(plain(SPECS[3]))
    save_network(network, tmp_path / "net")
    again = load_network(tmp_path / "net", image_size=network.table.image_size)
    x = picture_for(network)
    with torch.no_grad():
        assert torch.equal(again(x), network(x))
    assert again.spec == network.spec


def test_a_saved_grid_that_is_none_is_refused(tmp_path: Path) -> None:
    network = on_grids(plain(SPECS[0]))
    with torch.no_grad():
        network.get_buffer("model.4.input_zero_point").fill_(-3)
    save_network(network, tmp_path / "net")
    with pytest.raises(CheckpointError) as error:
        load_network(tmp_path / "net")
    assert error.value.message == (
        f"'{tmp_path / 'net/weights.safetensors'}' is damaged: layer model.4: scale 0.05 and zero point -3 are no grid "
        "for 8-bit activations"
    )


def test_grids_that_are_not_the_networks_are_refused() -> None:
    with pytest.raises(SpecError) as error:
        with_quantization(plain(patchgan_spec(ndf=4, norm="instance")), {"model.2": (1.0, 0)})
    assert error.value.message == (
        "the rows of this network and the grids do not belong together: model.11, model.5, model.8"
    )


# --- specs ---


def test_a_spec_with_batch_norms_has_no_grids() -> None:
    with pytest.raises(
        SpecError, match=r"^a batch norm is folded into its convolution before the weights are quantized$"
    ):
        replace(resnet_spec(norm="batch"), quantization="int8")


def test_an_unknown_grid_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^quantization must be one of none, int8, int8_tensor, not 'int4'$"):
        replace(resnet_spec(), quantization="int4")  # type: ignore[arg-type]


def test_a_description_of_an_older_version_is_of_floats_and_hashes_stay() -> None:
    spec = resnet_spec(blocks=1, ngf=4)
    document = json.loads(spec.dumps())
    assert document.pop("quantization") == "none"
    assert NetworkSpec.from_json(document) == spec
    network = plain(spec)
    assert weights_sha256(on_grids(network)) != weights_sha256(network)
    assert issubclass(SpecError, InputError)
