"""Scales are taken out of the norms, and folded back, without a change of the function; the proximal step is exact."""

from __future__ import annotations

import pytest
import torch

from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.gan_slimming.scales import fold_scales, give_back, scaled_groups, shrink, with_scales
from tests.models.model_helpers import network_of, picture_for, spec_id

SPECS = [
    *(resnet_spec(blocks=3, ngf=4, norm=norm) for norm in ("instance", "instance_affine", "batch")),
    resnet_spec(blocks=3, ngf=4, norm="batch", separable=True),
    *(unet_spec(halvings=5, ngf=4, norm=norm, dropout=False) for norm in ("instance", "batch")),
    cartoongan_spec(blocks=3, ngf=4),
]


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_a_network_with_scales_as_masks_computes_what_it_computed(spec: NetworkSpec, sums: bool, even: bool) -> None:
    network = network_of(spec, seed=3)
    apart, scales = with_scales(network, sums=sums, even=even)
    x = picture_for(network)
    with torch.inference_mode():
        wanted = network(x)
        torch.testing.assert_close(apart(x, scales), wanted, rtol=0, atol=1e-11)
        torch.testing.assert_close(fold_scales(apart, scales)(x), wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.family != "unet"], ids=spec_id)
def test_what_a_removed_block_has_left_in_the_sum_is_scaled_with_it(spec: NetworkSpec, sums: bool) -> None:
    whole = network_of(spec, seed=3)
    kept = {group.name: tuple(range(group.size)) for group in whole.table.groups}
    network = slim(whole, {**kept, "block2.inner": ()}).eval()
    apart, scales = with_scales(network, sums=sums)
    x = picture_for(network)
    with torch.inference_mode():
        torch.testing.assert_close(apart(x, scales), network(x), rtol=0, atol=1e-11)
        if sums:
            scales["trunk"][::3] = 0
        kept = {group.name: tuple(range(group.size)) for group in apart.table.groups}
        kept |= {name: tuple(torch.nonzero(scale)[:, 0].tolist()) for name, scale in scales.items()}
        sliced = slim(fold_scales(apart, scales), kept).eval()
        torch.testing.assert_close(sliced(x), apart(x, scales), rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_with_scales_of_zero_the_masked_network_equals_the_sliced_one(spec: NetworkSpec) -> None:
    apart, scales = with_scales(network_of(spec, seed=3, dtype=torch.float32))
    minimum = {group.name: group.minimum for group in scaled_groups(apart.table)}
    for name, scale in scales.items():
        shrink(scale, scale.median().item(), minimum[name])
    if "block2.inner" in scales:
        scales["block2.inner"].zero_()  # as a whole
    kept = {group.name: tuple(range(group.size)) for group in apart.table.groups}
    kept |= {name: tuple(torch.nonzero(scale)[:, 0].tolist()) for name, scale in scales.items()}
    small = slim(fold_scales(apart, scales), kept)
    assert sum(map(len, kept.values())) < sum(group.size for group in apart.table.groups)
    x = picture_for(apart)
    with torch.inference_mode():
        torch.testing.assert_close(small(x), apart(x, scales), rtol=0, atol=1e-5)


def test_every_group_has_scales_and_residual_sums_where_they_are_asked_for() -> None:
    names = {"resnet": {"trunk"}, "cartoongan": {"trunk"}, "unet": set[str]()}
    for spec in SPECS:
        table = network_of(spec, seed=3).table
        every, without = ({group.name for group in scaled_groups(table, sums)} for sums in (True, False))
        assert every == {group.name for group in table.groups}
        assert every - without == names[spec.family]


def test_scales_begin_at_the_norms_weights_and_without_a_norm_at_their_median() -> None:
    network = network_of(cartoongan_spec(blocks=1, ngf=4), seed=3, dtype=torch.float32)
    _, scales = with_scales(network, sums=False, even=False)
    torch.testing.assert_close(scales["stem"], network.get_submodule("in01_1").get_parameter("scale").abs())
    normed = torch.cat([scales[name] for name in ("stem", "down1", "block1.inner", "up1", "up2")])
    assert scales["down1.first"].tolist() == [normed.median().item()] * 8
    _, plain = with_scales(network_of(resnet_spec(blocks=1, ngf=4), seed=3), even=False)
    assert {value for scale in plain.values() for value in scale.tolist()} == {1.0}


def test_even_scales_are_spaced_in_the_order_of_norms_or_of_filters_or_of_all_that_is_added() -> None:
    network = network_of(cartoongan_spec(blocks=2, ngf=4), seed=3, dtype=torch.float32)
    _, scales = with_scales(network)
    for scale in scales.values():
        spaced = [0.5 + (number + 0.5) / len(scale) for number in range(len(scale))]
        assert sorted(scale.tolist()) == pytest.approx(spaced)
    stem = network.get_submodule("in01_1").get_parameter("scale").abs()
    assert scales["stem"].argsort().tolist() == stem.argsort().tolist()
    filters = network.get_submodule("conv02_1").get_parameter("weight").abs().sum((1, 2, 3))
    assert scales["down1.first"].argsort().tolist() == filters.argsort().tolist()
    rows = [layer for layer in network.table.layers if layer.output == "trunk"]
    assert len(rows) == 3  # the last of the way down, and both blocks
    weights = [network.get_submodule(str(row.norm)).get_parameter("scale").detach() for row in rows]
    size = torch.stack(weights).square().sum(dim=0)
    assert scales["trunk"].argsort().tolist() == size.argsort().tolist()


def test_open_channels_get_back_what_was_taken_and_keep_what_they_gained() -> None:
    scale = torch.tensor([0.2, -0.3, 0.0, 1.7])
    give_back(scale, torch.tensor([1.0, 0.9, 1.2, 1.1]))
    torch.testing.assert_close(scale, torch.tensor([1.0, -0.9, 0.0, 1.7]))


def test_a_scale_of_zero_at_the_start_begins_near_zero_and_the_function_stays() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4, norm="instance_affine"), seed=3)
    with torch.no_grad():
        network.get_submodule("model.2").get_parameter("weight")[0] = 0
    apart, scales = with_scales(network, even=False)
    assert scales["stem"][0].item() == pytest.approx(1e-3)
    x = picture_for(network)
    with torch.inference_mode():
        torch.testing.assert_close(apart(x, scales), network(x), rtol=0, atol=1e-11)


def test_the_proximal_step_is_a_soft_threshold() -> None:
    scale = torch.tensor([0.5, -0.3, 0.1, -0.05, 0.2])
    assert shrink(scale, 0.2, 1) is False
    torch.testing.assert_close(scale, torch.tensor([0.3, -0.1, 0.0, 0.0, 0.0]))


def test_a_group_that_must_live_keeps_its_largest_scale_and_a_removable_one_may_go() -> None:
    scale = torch.tensor([0.1, -0.4, 0.2])
    assert shrink(scale, 5.0, 1) is True
    assert scale.tolist() == pytest.approx([0.0, -0.4, 0.0])
    assert shrink(scale, 5.0, 0) is False
    assert scale.tolist() == [0.0, 0.0, 0.0]
