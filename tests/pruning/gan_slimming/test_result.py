"""What a stage ends in: scores in the order in which channels left, and channels that can learn."""

from __future__ import annotations

import torch

from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.pruning.gan_slimming.result import channel_scores, in_first_order, slimmed
from mggc_edge.pruning.gan_slimming.settings import SlimmingSettings
from mggc_edge.pruning.gan_slimming.stage import GanSlimming
from mggc_edge.training.likeness import PixelLikeness
from tests.training.training_helpers import pictures, trained

SIZE = (32, 32)
SPEC = resnet_spec(blocks=1, ngf=4)


def stage() -> GanSlimming:
    judge = trained(patchgan_spec(ndf=4, layers=2), seed=2, size=SIZE)
    likeness = PixelLikeness(SPEC.output_format)
    return GanSlimming(
        trained(SPEC, seed=1, size=SIZE), judge, pictures(4, SIZE), likeness, SlimmingSettings(sums=False, even=False),
        budget=0.5, seed=0, steps=8,
    )  # fmt: skip


def test_scores_are_sizes_of_scales_then_when_a_channel_closed_and_sums_stay_longest() -> None:
    generator = trained(SPEC, seed=1, size=SIZE)
    scales = {group.name: torch.ones(group.size) for group in generator.table.groups if group.name != "trunk"}
    since = {name: torch.full_like(scale, 8.0) for name, scale in scales.items()}
    scales["stem"] = torch.tensor([-2.0, 0.5, 0.0, 0.0])
    since["stem"] = torch.tensor([8.0, 8.0, 2.0, 6.0])
    scores = channel_scores(generator, scales, since, 8)
    assert scores["stem"] == (2.0, 0.5, -0.75, -0.25)
    assert min(scores["trunk"]) > 3.0
    assert max(scores["trunk"]) == 4.0
    assert len(set(scores["trunk"])) == 16


def test_a_channel_that_the_repair_opens_begins_with_the_smallest_scale_of_its_group() -> None:
    made, generator = stage(), trained(SPEC, seed=1, size=SIZE)
    with torch.no_grad():
        for scale in made.scales.values():
            scale.mul_(0.25)
            scale[1:] = 0
        made.scales["block1.inner"].zero_()
    found = slimmed(generator, made, budget=0.5, seed=0, convention="true", source_sha256=None)
    assert found.fraction < 0.2  # of the trunk, which has no scales, most
    assert (found.opened > 4, found.closed) == (True, 0)
    assert 0.49 <= found.plan.budget_met <= 0.5
    scales = found.network.get_submodule("model.2").get_parameter("weight")
    assert found.plan.kept["stem"] == (0, 1)
    assert scales.tolist() == [0.25] * 2


def test_how_many_channels_would_have_stayed_anyway_is_counted_over_all_groups() -> None:
    first = {"a": torch.tensor([0.5, -3.0, 1.0, 2.0]), "b": torch.tensor([1.0, 2.0])}
    assert in_first_order(first, {"a": (1, 3), "b": (1,)}) == 1.0
    assert in_first_order(first, {"a": (0, 1, 2), "b": (0,)}) == 0.5
    assert in_first_order({}, {}) == 1.0


def test_a_budget_below_what_is_open_closes_the_smallest_scales() -> None:
    made, generator = stage(), trained(SPEC, seed=1, size=SIZE)
    with torch.no_grad():
        made.scales["up2"].copy_(torch.tensor([0.1, 4.0, 0.2, 3.0]))
    found = slimmed(generator, made, budget=0.9, seed=0, convention="true", source_sha256=None)
    assert (found.opened, found.fraction) == (0, 1.0)
    assert found.closed == sum(group.size - len(found.plan.kept[group.name]) for group in generator.table.groups)
    assert found.plan.kept["up2"] in ((1, 3), (1, 2, 3))


def test_aligned_widths_are_filled_up_with_the_channels_that_closed_last() -> None:
    made, generator = stage(), trained(SPEC, seed=1, size=SIZE)
    with torch.no_grad():
        made.scales["down1"].copy_(torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]))
        made.since["down1"].copy_(torch.tensor([1.0, 8.0, 7.0, 2.0, 3.0, 6.0, 4.0, 8.0]))
    found = slimmed(generator, made, budget=0.9, seed=0, convention="true", source_sha256=None, align=4)
    assert found.plan.align == 4
    assert found.plan.kept["down1"] == (1, 2, 5, 7)
    assert {width % 4 for _, width in found.network.spec.widths} == {0}
    assert found.network.get_submodule("model.5").get_parameter("weight").tolist() == [2.0, 1.0, 1.0, 1.0]
