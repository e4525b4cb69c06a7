"""GAN Slimming on 8-bit grids: the masked network is the sliced one, weights and scales are trained, grids follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.convert import without_quantization
from mggc_edge.models.fake_quant import input_grid, weight_scale
from mggc_edge.models.layers import INPUT_GRID
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.gan_slimming.result import slimmed
from mggc_edge.pruning.gan_slimming.scales import fold_scales, with_scales
from mggc_edge.pruning.gan_slimming.settings import SlimmingSettings
from mggc_edge.pruning.gan_slimming.stage import GanSlimming
from mggc_edge.training.likeness import PixelLikeness
from mggc_edge.training.quantize import QuantizeSettings, calibrate, quantize, range_parameters
from tests.models.model_helpers import spec_id
from tests.training.training_helpers import assert_equal, copied, pictures, run_steps, trained

SIZE, STEPS, BUDGET = (32, 32), 10, 0.4
RESNET = resnet_spec(blocks=2, ngf=8)
SPECS = [
    RESNET,
    resnet_spec(blocks=2, ngf=8, norm="batch"),
    resnet_spec(blocks=1, ngf=8, norm="instance_affine", separable=True),
    unet_spec(halvings=5, ngf=16, dropout=False),
    cartoongan_spec(blocks=2, ngf=8),
]


def on_grids(network: Network, **how: Any) -> Network:
    def some() -> Iterator[Tensor]:
        yield pictures(3, SIZE, seed=6).batch([0, 1, 2])

    return quantize(network, some, QuantizeSettings(**how))


def grids_of(network: Network) -> dict[str, tuple[float, int]]:
    return calibrate(network, lambda: iter([pictures(3, SIZE, seed=6).batch([0, 1, 2])]), "mse")


def stage(
    spec: NetworkSpec = RESNET, *, how: dict[str, Any] | None = None, fitted: bool = False, **changes: Any
) -> GanSlimming:
    generator = trained(spec, seed=1, size=SIZE)
    judge = trained(patchgan_spec(ndf=4, layers=2), seed=2, size=SIZE)
    settings = SlimmingSettings(**{"pool": 3, "beta": 1.0, **changes})
    return GanSlimming(
        generator, judge, pictures(6, (36, 34), seed=3), PixelLikeness(spec.output_format), settings,
        start=on_grids(generator, **(how or {})), grids=grids_of if fitted else None, budget=BUDGET, seed=4,
        steps=STEPS, batch_size=2,
    )  # fmt: skip


def ranges(made: GanSlimming) -> list[float]:
    return [scale.item() for scale in range_parameters(made.student)]


def closed_at_random(scales: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Scales of which about half are 0, whole inner groups among them."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, scale in scales.items():
        drawn = scale * (torch.rand(len(scale), generator=generator) < 0.5)
        if name == "block1.inner":
            drawn = torch.zeros_like(scale)
        elif not bool(drawn.any()):
            drawn = scale.clone()
        found[name] = drawn
    return found


# --- what scales do on grids ---


@pytest.mark.parametrize("per_channel", [True, False], ids=["channel", "tensor"])
@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_closed_channels_and_scales_give_what_slicing_and_folding_gives(spec: NetworkSpec, per_channel: bool) -> None:
    network = on_grids(trained(spec, seed=1, size=SIZE), per_channel=per_channel)
    student, scales = with_scales(network, trained(spec, seed=1, size=SIZE))
    student.double().eval()
    masks = closed_at_random({name: scale.double() for name, scale in scales.items()}, seed=2)
    kept = {group.name: tuple(range(group.size)) for group in student.table.groups}
    kept |= {name: tuple(torch.nonzero(mask)[:, 0].tolist()) for name, mask in masks.items()}
    x = pictures(2, SIZE, seed=5).batch([0, 1]).double()
    with torch.inference_mode():
        masked, sliced = student(x, masks), slim(fold_scales(student, masks), kept)(x)
    assert masked.std() > 0.01
    # A value that lies between two levels up to rounding may fall to either side, and moves what follows by a level.
    assert (masked - sliced).abs().mean() < 1e-9


def test_slicing_changes_the_largest_weight_and_so_the_grid_that_masks_must_follow() -> None:
    network = on_grids(trained(RESNET, seed=1, size=SIZE))
    layer = next(row for row in network.table.layers if row.inputs == ("block1.inner",))
    conv = network.get_submodule(layer.name)
    with torch.no_grad():
        conv.get_parameter("weight")[:, 0] = 3.0
    kept = {group.name: tuple(range(group.size)) for group in network.table.groups}
    kept["block1.inner"] = kept["block1.inner"][1:]
    less = slim(network, kept).get_submodule(layer.name).get_parameter("weight")
    assert (weight_scale(less, layer) < 0.5 * weight_scale(conv.get_parameter("weight"), layer)).all()


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_scales_of_folded_batch_norms_begin_as_those_of_the_original_and_compute_the_same(spec: NetworkSpec) -> None:
    original = trained(spec, seed=1, size=SIZE)
    network = on_grids(original)
    student, scales = with_scales(network, original)
    floats = with_scales(original)[1]
    assert_equal(scales, floats)
    x = pictures(2, SIZE, seed=5).batch([0, 1])
    with torch.inference_mode():
        wanted = without_quantization(network.eval())(x)
        torch.testing.assert_close(without_quantization(student.eval())(x, scales), wanted, rtol=0, atol=1e-4)


# --- the stage ---


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_a_run_ends_in_its_budget_with_a_network_on_grids_that_is_the_masked_one(spec: NetworkSpec) -> None:
    made = stage(spec)
    run_steps(made, 4, 0, STEPS)
    original = trained(spec, seed=1, size=SIZE)
    found = slimmed(original, made, budget=BUDGET, seed=4, convention="true", source_sha256=None)
    assert 0.98 * BUDGET <= found.plan.budget_met <= BUDGET
    assert (found.network.spec.quantization, found.plan.spec) == ("int8", original.spec)
    assert found.network.spec.norm == ("none" if spec.norm == "batch" else "instance_affine")
    if found.opened == 0:
        x = pictures(2, SIZE, seed=5).batch([0, 1]).double()
        scales = {name: scale.detach().double() for name, scale in made.scales.items()}
        with torch.inference_mode():
            masked = made.student.eval().double()(x, scales)
            again = slim(fold_scales(made.student, scales), found.plan.kept).eval()
            assert (again(x) - masked).abs().mean() < 1e-9


def test_a_step_trains_weights_and_scales_and_leaves_the_grids() -> None:
    made = stage()
    before, scales = copied(made.student.state_dict()), copied(made.scales)
    run_steps(made, 4, 0, 1)
    after = made.student.state_dict()
    grids = {key for key in after if "input_" in key}
    assert len(grids) == 2 * (len(made.student.table.layers) - 1)
    assert all(torch.equal(after[key], before[key]) for key in grids)
    weights = [key for key in after if key.endswith(".weight") and after[key].ndim == 4]
    assert not any(torch.equal(after[key], before[key]) for key in weights)
    assert not any(torch.equal(scale, scales[name]) for name, scale in made.scales.items())


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_grids_are_fitted_to_what_is_open_until_the_budget_is_met(spec: NetworkSpec) -> None:
    made = stage(spec, fitted=True)
    closed = made.steering.closed
    assert made._marks == [2, 4, 6, 8]
    assert (closed, STEPS) == (8, 10)
    before = ranges(made)
    run_steps(made, 4, 0, 1)
    assert ranges(made) == before
    run_steps(made, 4, 1, 2)
    assert ranges(made) != before
    run_steps(made, 4, 2, closed)
    wanted = grids_of(without_quantization(fold_scales(made.student, made.scales)))
    for name, (scale, zero_point) in wanted.items():
        row = made.student.get_submodule(name)
        found = input_grid(*(getattr(row, key) for key in INPUT_GRID))
        assert found[0] == pytest.approx(scale, rel=1e-6)
        assert found[1] == zero_point
    met = ranges(made)
    run_steps(made, 4, closed, STEPS)
    assert ranges(made) == met


def test_a_fit_that_other_step_numbers_jump_over_is_made_up_for() -> None:
    first, again = stage(fitted=True), stage(fitted=True)
    run_steps(first, 4, 0, 5)
    again.load_state(copied(first.state()))
    before = ranges(again)
    run_steps(again, 4, 6, 7)  # with other processes the same place of a run has another number: 6 is jumped over
    fitted = ranges(again)
    assert fitted != before
    assert again.state()["passed"] == 3
    run_steps(again, 4, 6, 7)
    assert ranges(again) == fitted


def test_ranges_that_are_learned_are_not_fitted() -> None:
    made = stage(fitted=True, learned_ranges=True)
    assert made._grids is None


def test_ranges_that_are_learned_move_and_do_not_decay() -> None:
    made = stage(learned_ranges=True, weight_decay=0.9)
    before = [scale.detach().clone() for scale in range_parameters(made.student)]
    groups = made._adams["G"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.9, 0.0]
    assert len(groups[1]["params"]) == len(before)
    run_steps(made, 4, 0, 1)
    assert not any(torch.equal(a, b) for a, b in zip(range_parameters(made.student), before, strict=True))
    fixed = stage()._adams["G"].param_groups
    assert [group["weight_decay"] for group in fixed] == [1e-3]


def test_a_channel_that_is_closed_can_open_again_where_its_activation_lets_gradients_through() -> None:
    made = stage(SPECS[3], rho=1e-9)
    with torch.no_grad():
        made.scales["down1"][0] = made.scales["down2"][0] = 0  # without a norm, and with one; both before a LeakyReLU
    run_steps(made, 4, 0, 1)
    assert made.scales["down1"][0] != 0
    assert made.scales["down2"][0] != 0


@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
def test_a_stage_that_was_stopped_goes_on_bit_for_bit(learned: bool) -> None:
    whole = stage(SPECS[1], fitted=True, learned_ranges=learned)
    log = run_steps(whole, 4, 0, STEPS)
    first = stage(SPECS[1], fitted=True, learned_ranges=learned)
    run_steps(first, 4, 0, 6)
    again = stage(SPECS[1], fitted=True, learned_ranges=learned)
    again.load_state(copied(first.state()))
    assert run_steps(again, 4, 6, STEPS) == log[6:]
    assert_equal(again.state(), whole.state())
