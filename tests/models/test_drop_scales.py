"""Channels whose norm has the scale 0 leave: exactly where what they gave is seen as a constant everywhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mggc_edge.errors import PlanError, SpecError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.convert import affine_instance_norm
from mggc_edge.models.drop_scales import drop_zero_scales
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from tests.models.model_helpers import network_of, picture_for, small_resnets, small_unets, spec_id

AFFINE = resnet_spec(blocks=2, ngf=4, norm="instance_affine")


def closed(spec: NetworkSpec, *groups: str, shift: float = 0.8) -> Network:
    """A network of which the first two channels of some groups have the scale 0 and a shift above 0."""
    network = network_of(spec, seed=3)
    with torch.no_grad():
        for layer in network.table.layers:
            if layer.output in groups and layer.norm is not None:
                norm = network.get_submodule(layer.norm)
                norm.get_parameter(layer.norm_parameters[0])[:2] = 0
                norm.get_parameter(layer.norm_parameters[1])[:2] = shift
    return network


def dropped(network: Network) -> tuple[Tensor, tuple[str, ...], dict[str, int]]:
    """The difference that dropping makes [N, C, H, W], the layers named inexact, and the channels left."""
    found = drop_zero_scales(network)
    small = slim(found.network, found.kept)
    x = picture_for(network)
    with torch.inference_mode():
        return small(x) - network(x), found.inexact, {name: len(kept) for name, kept in found.kept.items()}


def test_a_constant_before_reflection_padding_is_folded_exactly() -> None:
    groups = ("up2", "block1.inner", "block2.inner")
    for spec in (AFFINE, cartoongan_spec(blocks=2, ngf=4)):
        difference, inexact, left = dropped(closed(spec, *groups))
        assert difference.abs().max().item() <= 1e-12
        assert inexact == ()
        assert [left[group] for group in groups] == [2, 14, 14]
        assert left["trunk"] == 16


def test_a_constant_between_zeros_and_before_a_transposed_convolution_is_inexact_and_named() -> None:
    difference, inexact, _ = dropped(closed(AFFINE, "stem", "up1"))
    assert inexact == ("model.4", "model.15")
    assert difference.abs().max().item() > 1e-3


def test_without_a_shift_above_zero_nothing_is_inexact() -> None:
    for shift in (0.0, -0.5):  # a ReLU follows
        difference, inexact, _ = dropped(closed(AFFINE, "stem", "up1", "up2", shift=shift))
        assert difference.abs().max().item() <= 1e-12
        assert inexact == ()


def test_a_u_net_folds_what_its_activations_make_of_the_constant_into_both_readers() -> None:
    spec = unet_spec(halvings=4, ngf=4, norm="instance_affine", dropout=False)
    network = closed(spec, "down2", shift=-0.5)
    found = drop_zero_scales(network)
    names = {layer.name: layer for layer in network.table.layers}
    readers = [layer for layer in network.table.layers if "down2" in layer.inputs]
    # What a halving sees goes through LeakyReLU, and is not 0; what the doubling sees goes through ReLU.
    for layer, slope in zip(readers, (-0.1, 0.0), strict=True):
        before, after = (net.get_submodule(layer.name) for net in (network, found.network))
        weight = before.get_parameter("weight")
        read = weight[:, :2].sum((1, 2, 3)) if layer.op == "conv" else weight[:2].sum((0, 2, 3)) / 4
        torch.testing.assert_close(after.get_parameter("bias"), before.get_parameter("bias") + slope * read)
    assert found.inexact == (readers[0].name,)
    assert names[readers[0].name].padding_mode == "zeros"


def test_behind_a_batch_norm_the_running_mean_takes_the_constant() -> None:
    spec = resnet_spec(blocks=2, ngf=4, norm="batch")
    difference, inexact, left = dropped(closed(spec, "block1.inner", "up2"))
    assert difference.abs().max().item() <= 1e-12
    assert (inexact, left["block1.inner"]) == ((), 14)


def test_a_whole_branch_leaves_and_a_whole_group_that_must_live_keeps_its_first_channel() -> None:
    network = closed(AFFINE, "block1.inner", "up2")
    with torch.no_grad():
        for layer in network.table.layers:
            if layer.output in ("block1.inner", "up2"):
                network.get_submodule(str(layer.norm)).get_parameter("weight").zero_()
    difference, inexact, left = dropped(network)
    assert (left["block1.inner"], left["up2"], inexact) == (0, 1, ())
    assert difference.abs().max().item() <= 1e-10


@pytest.mark.parametrize("spec", [*small_resnets(), *small_unets()], ids=spec_id)
def test_where_no_scale_is_zero_there_is_nothing_to_drop(spec: NetworkSpec) -> None:
    with pytest.raises(PlanError, match="no channel of this network has a norm with the scale 0"):
        drop_zero_scales(network_of(spec, seed=3))


def test_channels_of_a_sum_stay_and_where_there_are_no_others_that_is_said() -> None:
    network = closed(AFFINE, "trunk")
    with pytest.raises(PlanError) as error:
        drop_zero_scales(network)
    assert error.value.message == (
        "the channels with the scale 0 are those of trunk, which several layers write, and they stay"
    )


def test_folding_into_a_depthwise_convolution_is_refused() -> None:
    network = closed(resnet_spec(blocks=2, ngf=4, norm="instance_affine", separable=True), "block2.inner")
    with pytest.raises(SpecError, match=r"'model\.11\.conv_block\.5\.conv\.0' is a depthwise convolution, into which"):
        drop_zero_scales(network)


def test_folding_into_a_layer_with_neither_bias_nor_norm_is_refused() -> None:
    spec = unet_spec(halvings=4, ngf=4, norm="batch", dropout=False)
    with pytest.raises(SpecError, match=r"has neither a bias nor a norm, and constants"):
        drop_zero_scales(closed(spec, "down3"))


def test_the_network_that_was_given_survives() -> None:
    network = closed(AFFINE, "up2", "stem")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    drop_zero_scales(network)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# --- plain instance norms as affine ones ---


@pytest.mark.parametrize("spec", [spec for spec in [*small_resnets(), *small_unets()] if spec.norm == "instance"],
                         ids=spec_id)  # fmt: skip
def test_a_plain_instance_norm_with_scale_one_and_shift_zero_is_the_same_function(spec: NetworkSpec) -> None:
    network = network_of(spec, seed=3)
    if spec.family == "resnet":
        kept = {group.name: tuple(range(group.size)) for group in network.table.groups}
        network = slim(network, {**kept, "block2.inner": ()})  # a removed block leaves a constant of zeros
    affine = affine_instance_norm(network)
    assert affine.spec.norm == "instance_affine"
    x = picture_for(network)
    with torch.inference_mode():
        torch.testing.assert_close(affine(x), network(x), rtol=0, atol=1e-12)
    assert affine.training == network.training
    assert next(affine.parameters()).dtype == next(network.parameters()).dtype


def test_other_norms_stay_as_they_are() -> None:
    for norm in ("instance_affine", "batch"):
        network = network_of(resnet_spec(blocks=1, ngf=4, norm=norm), seed=3)
        assert affine_instance_norm(network) is network
