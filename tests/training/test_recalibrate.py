"""Recalibrated statistics are the exact mean over the batches, and nothing else of a network changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.training.recalibrate import recalibrate
from tests.training.training_helpers import assert_equal, copied, trained

SPEC = unet_spec(halvings=4, ngf=4)
DROPOUT = resnet_spec(blocks=2, ngf=4, norm="batch", dropout=True)


def batches(count: int, size: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((size, 3, 16, 16), generator=generator) * 2 - 1 for _ in range(count)]


@pytest.mark.parametrize("spec", [SPEC, DROPOUT], ids=["unet", "resnet-dropout"])
def test_statistics_are_the_mean_over_the_batches_of_those_of_each(spec: object) -> None:
    assert spec in (SPEC, DROPOUT)
    network = trained(SPEC if spec is SPEC else DROPOUT, seed=1)
    rows = [layer for layer in network.table.layers if layer.norm_kind == "batch"]
    seen: dict[str, list[Tensor]] = {layer.name: [] for layer in rows}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen[name].append(output.detach())
        )
        for name in seen
    ]
    given = batches(5)
    assert recalibrate(network, given) == 5
    for handle in handles:
        handle.remove()
    state = network.state_dict()
    for layer in rows:
        values = seen[layer.name]
        assert len(values) == 5
        mean = torch.stack([value.double().mean(dim=(0, 2, 3)) for value in values]).mean(dim=0)
        variance = torch.stack([value.double().var(dim=(0, 2, 3)) for value in values]).mean(dim=0)
        torch.testing.assert_close(state[f"{layer.norm}.running_mean"].double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(state[f"{layer.norm}.running_var"].double(), variance, rtol=1e-5, atol=1e-6)


def test_statistics_do_not_depend_on_those_before_or_on_the_generator_of_random_numbers() -> None:
    found = []
    for seed in (1, 2):
        network = trained(DROPOUT, seed=1)
        with torch.no_grad():
            for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
                assert norm.running_mean is not None
                norm.running_mean.fill_(seed)
        torch.manual_seed(seed)
        recalibrate(network, batches(3))
        found.append(network.state_dict())
    assert_equal(*found)


@pytest.mark.parametrize("training", [True, False])
def test_weights_mode_and_momentum_are_as_before(training: bool) -> None:
    network = trained(SPEC, seed=1).train(training)
    before = copied(dict(network.named_parameters()))
    recalibrate(network, batches(2))
    assert_equal(dict(network.named_parameters()), before)
    assert {module.training for module in network.modules()} == {training}
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_a_network_without_batch_norm_is_left_alone_and_nothing_is_read() -> None:
    network = trained(resnet_spec(blocks=1, ngf=4, norm="instance_affine"), seed=1)
    before = copied(network.state_dict())

    given = iter(batches(2))
    assert recalibrate(network, given) == 0
    assert len(list(given)) == 2
    assert_equal(network.state_dict(), before)


def test_without_a_batch_the_old_statistics_stay() -> None:
    network = trained(SPEC, seed=1)
    before = copied(network.state_dict())
    assert recalibrate(network, []) == 0
    assert_equal(network.state_dict(), before)
