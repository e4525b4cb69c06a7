"""Scales are taken out of the norms, and folded back, without a change of the function; the proximal step is exact."""

from __future__ import annotations

import pytest
import torch

from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.gan_slimming.scales import fold_scales, scaled_groups, shrink, with_scales
from tests.models.model_helpers import network_of, picture_for, spec_id

SPECS = [
    *(resnet_spec(blocks=3, ngf=4, norm=norm) for norm in ("instance", "instance_affine", "batch")),
    resnet_spec(blocks=3, ngf=4, norm="batch", separable=True),
    *(unet_spec(halvings=5, ngf=4, norm=norm, dropout=False) for norm in ("instance", "batch")),
    cartoongan_spec(blocks=3, ngf=4),
]


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_a_network_with_scales_as_masks_computes_what_it_computed(spec: NetworkSpec) -> None:
    network = network_of(spec, seed=3)
    apart, scales = with_scales(network)
    x = picture_for(network)
    with torch.inference_mode():
        wanted = network(x)
        torch.testing.assert_close(apart(x, scales), wanted, rtol=0, atol=1e-11)
        torch.testing.assert_close(fold_scales(apart, scales)(x), wanted, rtol=0, atol=1e-11)


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


def test_residual_sums_have_no_scales_and_every_other_group_has() -> None:
    names = {"resnet": {"trunk"}, "cartoongan": {"trunk"}, "unet": set[str]()}
    for spec in SPECS:
        table = network_of(spec, seed=3).table
        assert {group.name for group in table.groups} - {group.name for group in scaled_groups(table)} == names[
            spec.family
        ]


def test_scales_begin_at_the_norms_weights_and_without_a_norm_at_their_median() -> None:
    network = network_of(cartoongan_spec(blocks=1, ngf=4), seed=3, dtype=torch.float32)
    _, scales = with_scales(network)
    torch.testing.assert_close(scales["stem"], network.get_submodule("in01_1").get_parameter("scale").abs())
    normed = torch.cat([scales[name] for name in ("stem", "down1", "block1.inner", "up1", "up2")])
    assert scales["down1.first"].tolist() == [normed.median().item()] * 8
    _, plain = with_scales(network_of(resnet_spec(blocks=1, ngf=4), seed=3))
    assert {value for scale in plain.values() for value in scale.tolist()} == {1.0}


def test_a_scale_of_zero_at_the_start_begins_near_zero_and_the_function_stays() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4, norm="instance_affine"), seed=3)
    with torch.no_grad():
        network.get_submodule("model.2").get_parameter("weight")[0] = 0
    apart, scales = with_scales(network)
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
