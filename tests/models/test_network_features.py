"""A network shows its inner values without computing anything else, and can normalise by the batch alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mggc_edge.errors import SpecError
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.network import Network, Tap, _normalise
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from tests.models.model_helpers import (
    all_kept,
    difference,
    masks_of,
    network_of,
    picture_for,
    run,
    some_kept,
    spec_id,
)

SPECS = [
    *(resnet_spec(blocks=2, ngf=4, norm=norm) for norm in ("instance", "instance_affine", "batch")),
    resnet_spec(blocks=2, ngf=4, norm="batch", separable=True, dropout=True),
    *(unet_spec(halvings=5, ngf=4, norm=norm) for norm in ("instance", "batch")),
    *(patchgan_spec(ndf=4, layers=2, norm=norm) for norm in ("instance", "batch")),
]
BATCH = [spec for spec in SPECS if spec.norm == "batch"]
by_spec = pytest.mark.parametrize("spec", SPECS, ids=spec_id)


def every_tap(table: LayerTable) -> list[Tap]:
    taps: list[Tap] = []
    for layer in table.layers:
        taps += [(layer.name, "input"), (layer.name, "output")]
        if layer.norm is not None:
            taps.append((layer.name, "norm"))
    return taps


@torch.no_grad()
def looked(network: Network, picture: Tensor, taps: list[Tap]) -> tuple[Tensor, dict[Tap, Tensor]]:
    output, values = network.features(picture, taps)
    return output, dict(zip(taps, values, strict=True))


@by_spec
def test_looking_inside_changes_no_output(spec: NetworkSpec) -> None:
    network = network_of(spec)
    picture = picture_for(network)
    output, values = looked(network, picture, every_tap(network.table))
    assert torch.equal(output, run(network, picture))
    assert torch.equal(values[network.table.layers[-1].name, "output"], output)


@by_spec
def test_inner_values_are_what_the_modules_see_and_give(spec: NetworkSpec) -> None:
    network = network_of(spec)
    picture = picture_for(network)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for layer in network.table.layers:
        network.get_submodule(layer.name).register_forward_hook(
            lambda _module, inputs, output, name=layer.name: seen.__setitem__(name, (inputs[0], output))
        )
    _, values = looked(network, picture, every_tap(network.table))
    for layer in network.table.layers:
        given, made = seen[layer.name]
        if not (layer.padding and layer.padding_mode == "reflect"):
            assert torch.equal(values[layer.name, "input"], given)
        else:
            p = layer.padding
            assert torch.equal(values[layer.name, "input"], given[:, :, p:-p, p:-p])
        if layer.norm is None:
            continue
        norm = network.get_submodule(layer.norm)
        with torch.no_grad():
            assert difference(values[layer.name, "norm"], norm(made)) <= 1e-12


@by_spec
def test_inner_values_have_the_shapes_of_the_table(spec: NetworkSpec) -> None:
    network = network_of(spec)
    _, values = looked(network, picture_for(network, batch=2), every_tap(network.table))
    for layer in network.table.layers:
        assert tuple(values[layer.name, "input"].shape) == (2, layer.in_channels, *layer.in_size)
        assert tuple(values[layer.name, "output"].shape) == (2, layer.out_channels, *layer.out_size)


def test_values_come_in_the_order_of_the_taps_and_once_for_each() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4))
    picture = picture_for(network)
    taps: list[Tap] = [("model.4", "norm"), ("model.1", "output"), ("model.4", "norm")]
    with torch.no_grad():
        _, values = network.features(picture, taps)
    assert len(values) == 3
    _, known = looked(network, picture, [("model.1", "output"), ("model.4", "norm")])
    assert torch.equal(values[0], known["model.4", "norm"])
    assert torch.equal(values[1], known["model.1", "output"])
    assert torch.equal(values[2], values[0])


def test_inner_values_carry_gradients() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4))
    _, (value,) = network.features(picture_for(network), [("model.7", "output")])
    value.sum().backward()  # type: ignore[no-untyped-call]
    assert network.get_parameter("model.1.weight").grad is not None
    assert network.get_parameter("model.10.conv_block.1.weight").grad is None


def test_a_constant_row_has_an_output_to_look_at() -> None:
    network = network_of(resnet_spec(blocks=2, ngf=4, norm="batch"))
    kept = all_kept(network.spec) | {"block1.inner": ()}
    small = slim(network, kept)
    constant = next(layer for layer in small.table.layers if layer.op == "constant")
    _, values = looked(small, picture_for(small), [("model.7", "output"), (constant.name, "output")])
    shift = values[constant.name, "output"] - values["model.7", "output"]
    assert difference(shift.mean(dim=(0, 2, 3)), small.get_parameter(f"{constant.name}.constant").detach()) <= 1e-12


@pytest.mark.parametrize(
    ("tap", "said"),
    [
        (("model.99", "output"), "this network has no 'output' of a layer 'model.99' to look at"),
        (("model.0", "norm"), "this network has no 'norm' of a layer 'model.0' to look at"),
        (("", "input"), "this network has no 'input' of a layer '' to look at"),
    ],
)
def test_what_is_not_there_cannot_be_looked_at(tap: Tap, said: str) -> None:
    network = network_of(patchgan_spec(ndf=4, layers=2))
    with pytest.raises(SpecError) as caught:
        network.features(picture_for(network), [tap])
    assert caught.value.message == said


@by_spec
def test_masked_values_are_seen_behind_the_gates(spec: NetworkSpec) -> None:
    network = network_of(spec)
    masks = masks_of(network.table, some_kept(spec, 3, remove_blocks=False))
    picture = picture_for(network)
    taps: list[Tap] = [(layer.name, "norm") for layer in network.table.layers if layer.norm and layer.output in masks]
    with torch.no_grad():
        output, values = network.features(picture, taps, masks)
    assert torch.equal(output, run(network, picture, masks))
    groups = {layer.name: layer.output for layer in network.table.layers}
    for (name, _), value in zip(taps, values, strict=True):
        closed = masks[groups[name]] == 0
        assert value[:, closed].abs().max().item() == 0 if closed.any() else True
        assert value[:, ~closed].abs().amax(dim=(0, 2, 3)).min().item() > 0


# --- gates in the norms, and statistics of the batch ------------------------------------------------------------------


@by_spec
@pytest.mark.parametrize("statistics", ["module", "batch"])
def test_a_gate_in_a_norm_equals_a_multiplication_after_it(spec: NetworkSpec, statistics: str) -> None:
    network = network_of(spec)
    generator = torch.Generator().manual_seed(4)
    gates = {g.name: torch.rand(g.size, generator=generator, dtype=torch.float64) for g in network.table.groups}
    # Each row on its own: its gated norm, and its norm times the gate, from the same convolution.
    for layer in network.table.layers:
        if layer.norm is None or layer.output not in gates:
            continue
        y = torch.randn((2, layer.out_channels, 5, 7), generator=generator, dtype=torch.float64)
        norm, gate = network.get_submodule(layer.norm), gates[layer.output]
        with torch.no_grad():
            gated = _normalise(y, norm, gate, statistics)  # type: ignore[arg-type]
            after = _normalise(y, norm, None, statistics) * gate[:, None, None]  # type: ignore[arg-type]
        assert difference(gated, after) <= 1e-12


def copied_buffers(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.named_buffers()}


@pytest.mark.parametrize("spec", BATCH, ids=spec_id)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_statistics_of_the_batch_touch_no_buffer_and_equal_those_of_training(
    spec: NetworkSpec, training: bool, masked: bool
) -> None:
    network = network_of(spec)
    picture = picture_for(network, batch=2)
    masks = masks_of(network.table, some_kept(spec, 3, remove_blocks=False)) if masked else None
    before = copied_buffers(network)
    network.train(training)
    torch.manual_seed(0)
    found = run(network, picture, masks, "batch")
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    # Training mode, and dropout as it was.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    torch.manual_seed(0)
    wanted = run(network, picture, masks)
    assert difference(found, wanted) <= 1e-12
    assert not all(torch.equal(value, before[name]) for name, value in network.named_buffers())


@pytest.mark.parametrize("spec", BATCH, ids=spec_id)
def test_with_gates_training_keeps_the_same_statistics_as_batch_norm_does(spec: NetworkSpec) -> None:
    network, plain = network_of(spec).train(), network_of(spec).train()
    ones = {group.name: torch.ones(group.size, dtype=torch.float64) for group in network.table.groups}
    picture = picture_for(network, batch=2)
    for each, masks in ((network, ones), (plain, None)):
        torch.manual_seed(0)
        run(each, picture, masks)
    for (name, mine), (_, theirs) in zip(network.named_buffers(), plain.named_buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12, msg=name)
    assert {int(b) for n, b in network.named_buffers() if n.endswith("num_batches_tracked")} == {1}


def test_statistics_of_the_batch_change_nothing_for_instance_norms() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4, norm="instance_affine"))
    picture = picture_for(network)
    assert torch.equal(run(network, picture, None, "batch"), run(network, picture))


def test_gates_get_the_gradients_that_multiplication_would_give() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4, norm="batch"))
    layer = network.table.layers[0]
    assert layer.norm is not None
    picture = picture_for(network)
    gate = torch.rand(4, dtype=torch.float64).requires_grad_()
    _, (value,) = network.features(picture, [("model.1", "norm")], {"stem": gate})
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (value * weights).sum().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        _, (open_value,) = network.features(picture, [("model.1", "norm")])
    assert gate.grad is not None
    assert difference(gate.grad, (open_value * weights).sum(dim=(0, 2, 3))) <= 1e-9
