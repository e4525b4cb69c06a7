"""A network is put on grids that fit what it computes: batch norms folded first, ranges from pictures, 0 on a level."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mggc_edge.errors import TrainingError
from mggc_edge.models.fake_quant import input_grid, rounded_input
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.training.quantize import QuantizeSettings, calibrate, quantize
from tests.training.training_helpers import SIZE, trained

RESNET = resnet_spec(blocks=2, ngf=8, norm="batch")
UNET = unet_spec(halvings=4, ngf=8, dropout=False)


def some(count: int = 3, seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.rand((1, 3, *SIZE), generator=generator) * 2 - 1


def large() -> Iterator[Tensor]:
    """A picture with so many values that the largest of them are far from the others."""
    yield torch.rand((1, 3, 128, 128), generator=torch.Generator().manual_seed(3)) * 2 - 1


def psnr(a: Network, b: Network) -> float:
    with torch.no_grad():
        error = torch.stack([(a(x) - b(x)).square().mean() for x in some(seed=1)]).mean()
    return float(10 * (4 / error).log10())


@pytest.mark.parametrize("spec", [RESNET, UNET], ids=["resnet", "unet"])
def test_a_network_with_batch_norms_is_folded_and_stays_near_what_it_was(spec: object) -> None:
    network = trained(RESNET if spec is RESNET else UNET, seed=1)
    quantized = quantize(network, some, QuantizeSettings())
    assert (quantized.spec.norm, quantized.spec.quantization) == ("none", "int8")
    assert psnr(quantized.eval(), network) > 30
    per_tensor = quantize(network, some, QuantizeSettings(per_channel=False)).eval()
    assert per_tensor.spec.quantization == "int8_tensor"
    assert psnr(quantized, network) > psnr(per_tensor, network)


def test_the_range_is_all_that_was_seen_or_the_part_with_the_least_error() -> None:
    network = quantize(trained(resnet_spec(blocks=2, ngf=8), seed=2), some, QuantizeSettings()).eval()
    plain = trained(resnet_spec(blocks=2, ngf=8), seed=2)
    every, best = calibrate(plain, some, "minmax"), calibrate(plain, some, "mse")
    assert list(best) == [layer.name for layer in network.table.layers[1:]]
    assert calibrate(plain, large, "mse")["model.4"][0] < 0.95 * calibrate(plain, large, "minmax")["model.4"][0]
    for name in every:
        with torch.no_grad():
            values = torch.cat([plain.features(x, [(name, "input")])[1][0] for x in some()])
        low, high = min(values.min().item(), 0), max(values.max().item(), 0)
        assert every[name][0] == pytest.approx((high - low) / 255, rel=1e-5)
        assert every[name][1] == round(-low / every[name][0])

        def error(grid: tuple[float, int], values: Tensor = values) -> float:
            rounded = rounded_input(values, torch.tensor([grid[0]]).log(), torch.tensor([float(grid[1])]))
            return float((rounded - values).square().mean())

        assert error(best[name]) <= error(every[name])


def test_what_a_relu_gives_begins_at_level_0_and_a_trunk_lies_around_the_middle() -> None:
    quantized = quantize(trained(resnet_spec(blocks=2, ngf=8), seed=2), some, QuantizeSettings())
    zeros = {
        layer.name: input_grid(
            *(getattr(quantized.get_submodule(layer.name), f"input_{n}") for n in ("log_scale", "zero_point"))
        )[1]
        for layer in quantized.table.layers[1:]
    }
    assert [name for name, zero in zeros.items() if zero == 0] == [
        "model.4", "model.7", "model.10.conv_block.1", "model.10.conv_block.5", "model.11.conv_block.5",
        "model.15", "model.19",
    ]  # fmt: skip
    assert all(20 < zeros[name] < 235 for name in ("model.11.conv_block.1", "model.12"))


@pytest.mark.parametrize("learned", [True, False])
def test_ranges_are_learned_or_fixed_and_weights_always_learned(learned: bool) -> None:
    quantized = quantize(trained(UNET, seed=1), some, QuantizeSettings(learned=learned))
    for name, parameter in quantized.named_parameters():
        assert parameter.requires_grad is (learned or not name.endswith("input_log_scale")), name


def test_a_layer_that_reads_nothing_but_zeros_has_a_grid() -> None:
    network = trained(resnet_spec(blocks=1, ngf=4, norm="instance_affine"), seed=3)
    with torch.no_grad():
        network.get_parameter("model.2.weight").zero_()
        network.get_parameter("model.2.bias").zero_()
    assert calibrate(network, some, "mse")["model.4"] == (1e-12, 0)


def test_values_that_no_grid_holds_are_refused() -> None:
    network = trained(resnet_spec(blocks=1, ngf=4, norm="instance_affine"), seed=3)
    with torch.no_grad():
        network.get_parameter("model.2.weight").fill_(3e38)
    with pytest.raises(TrainingError) as error:
        quantize(network, some, QuantizeSettings())
    assert error.value.message.startswith("layer model.4 reads values from nan to nan, which no 8-bit grid holds")
    assert error.value.hint == "leave out --quantize"


def test_a_network_comes_back_in_the_mode_that_it_was_in() -> None:
    network = trained(UNET, seed=1).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert quantize(network, some, QuantizeSettings()).training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
