"""Network computes what the well-known implementation computes, under the same keys."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mggc_edge.models.convert import per_picture_norm
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from tests.models.model_helpers import (
    difference,
    network_of,
    picture_for,
    randomise,
    run,
    small_networks,
    spec_id,
)
from tests.models.reference_networks import reference_network

every_network = pytest.mark.parametrize("spec", small_networks(), ids=spec_id)


def reference_with_weights_of(network: Network) -> nn.Module:
    reference = reference_network(network.spec)
    reference.load_state_dict(network.state_dict(), strict=True)
    return reference


@every_network
def test_state_dicts_have_the_keys_and_shapes_of_the_reference(spec: NetworkSpec) -> None:
    ours = {key: tuple(value.shape) for key, value in Network(spec).state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in reference_network(spec).state_dict().items()}
    assert ours == theirs


@every_network
def test_the_layer_table_lists_the_tensors_of_the_reference(spec: NetworkSpec) -> None:
    reference = reference_network(spec)
    parameters = dict(reference.named_parameters())
    theirs = {
        key: (tuple(value.shape), key in parameters)
        for key, value in reference.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    ours = {key: (tensor.shape, tensor.parameter) for key, tensor in Network(spec).table.tensors.items()}
    assert ours == theirs


@every_network
def test_outputs_in_evaluation_mode_are_those_of_the_reference(spec: NetworkSpec) -> None:
    network = network_of(spec)
    picture = picture_for(network, batch=2)
    ours, theirs = run(network, picture), run(reference_with_weights_of(network), picture)
    assert float(ours.std()) > 1e-2
    if spec.family == "cartoongan":  # whose reference writes the norm out, in another order of operations
        assert difference(ours, theirs) <= 1e-12
    else:
        assert torch.equal(ours, theirs)


@every_network
def test_a_training_step_is_that_of_the_reference_with_the_same_dropout_and_statistics(spec: NetworkSpec) -> None:
    network = network_of(spec).train()
    reference = reference_with_weights_of(network).train()
    picture = picture_for(network, batch=2)
    torch.manual_seed(3)
    ours = run(network, picture)
    torch.manual_seed(3)
    theirs = run(reference, picture)
    assert difference(ours, theirs) <= (1e-12 if spec.family == "cartoongan" else 0)
    after = reference.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    "spec", [resnet_spec(blocks=2, ngf=4, dropout=True), unet_spec(halvings=6, ngf=4)], ids=spec_id
)
def test_the_dropout_layer_acts_in_training_mode_only(spec: NetworkSpec) -> None:
    network = network_of(spec)
    picture = picture_for(network)
    assert torch.equal(run(network, picture), run(network, picture))
    network.train()
    torch.manual_seed(0)
    assert difference(run(network, picture), run(network, picture)) > 1e-2


def test_a_fresh_network_draws_its_weights_as_the_well_known_implementation_does() -> None:
    torch.manual_seed(0)
    state = Network(resnet_spec(norm="batch")).state_dict()
    assert abs(float(state["model.12.conv_block.1.weight"].std()) - 0.02) < 1e-4
    assert abs(float(state["model.12.conv_block.1.weight"].mean())) < 1e-4
    assert abs(float(state["model.12.conv_block.2.weight"].mean()) - 1) < 5e-3
    assert 0.015 < float(state["model.12.conv_block.2.weight"].std()) < 0.025
    assert torch.equal(state["model.12.conv_block.2.bias"], torch.zeros(256))
    assert torch.equal(state["model.26.bias"], torch.zeros(3))


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_a_patchgan_of_any_depth_is_that_of_the_reference(layers: int) -> None:
    network = network_of(patchgan_spec(ndf=2, layers=layers), size=(128, 128))
    assert [width for _, width in network.spec.widths] == [2, 4, 8, 16, 16, 16][: layers + 1]
    picture = picture_for(network)
    assert torch.equal(run(network, picture), run(reference_with_weights_of(network), picture))


@pytest.mark.parametrize("halvings", [3, 4, 8])
def test_a_unet_of_any_depth_is_that_of_the_reference(halvings: int) -> None:
    network = network_of(unet_spec(halvings=halvings, ngf=2), size=(2**halvings, 2**halvings))
    picture = picture_for(network)
    assert torch.equal(run(network, picture), run(reference_with_weights_of(network), picture))


def test_the_input_picture_is_left_as_it_was() -> None:
    network = network_of(unet_spec(halvings=5, ngf=4))
    picture = picture_for(network)
    before = picture.clone()
    run(network, picture)
    assert torch.equal(picture, before)


@pytest.mark.parametrize(
    "spec",
    [spec for spec in small_networks() if spec.norm == "batch" and not spec.dropout],
    ids=spec_id,
)
def test_per_picture_norm_is_the_reference_in_training_mode_at_batch_size_1(spec: NetworkSpec) -> None:
    network = network_of(spec)
    reference = reference_with_weights_of(network).train()
    converted = per_picture_norm(network)
    assert converted.spec.norm == "instance_affine"
    assert not converted.training
    pictures = picture_for(network, batch=3)
    ours = run(converted, pictures)
    for index in range(3):
        single = pictures[index : index + 1]
        assert difference(ours[index : index + 1], run(reference, single)) <= 1e-12
    assert difference(ours, run(reference, pictures)) > 1e-3  # batch statistics mix the pictures
    assert difference(ours, run(network, pictures)) > 1e-3  # and running statistics are another thing again


@pytest.mark.parametrize("norm", ["instance", "instance_affine"])
def test_per_picture_norm_gives_a_network_without_batch_norm_back(norm: str) -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4, norm=norm))  # type: ignore[arg-type]
    assert per_picture_norm(network) is network


def test_randomise_leaves_no_beta_bias_or_mean_at_zero() -> None:
    reference = reference_network(resnet_spec(blocks=1, ngf=4, norm="batch"))
    randomise(reference)
    state = reference.state_dict()
    assert all(bool((state[f"model.2.{name}"] != 0).all()) for name in ("bias", "running_mean"))
