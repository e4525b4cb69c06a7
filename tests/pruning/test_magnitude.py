"""Magnitude plans: the channels whose filters weigh least go first."""

from __future__ import annotations

import pytest
import torch

from mggc_edge.errors import PlanError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.magnitude import magnitude_plan
from tests.models.model_helpers import network_of, spec_id

SPECS = [
    resnet_spec(blocks=2, ngf=8),
    resnet_spec(blocks=2, ngf=8, separable=True),
    unet_spec(halvings=5, ngf=8),
    cartoongan_spec(blocks=2, ngf=8),
]


def weight(network: Network, name: str) -> torch.Tensor:
    return network.get_submodule(name).get_parameter("weight").detach()


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
@pytest.mark.parametrize("convention", ["true", "paper"])
def test_the_budget_is_met_from_below_and_scores_cover_every_channel(spec: object, convention: str) -> None:
    network = network_of(spec)  # type: ignore[arg-type]
    plan = magnitude_plan(network, 0.4, seed=7, convention=convention, source_sha256="a" * 64)  # type: ignore[arg-type]
    assert 0.98 * 0.4 <= plan.budget_met <= 0.4
    assert (plan.criterion, plan.seed, plan.convention, plan.source_sha256) == ("magnitude", 7, convention, "a" * 64)
    assert {group: len(scores) for group, scores in plan.scores.items()} == {
        group.name: group.size for group in network.table.groups
    }


def test_a_score_is_the_l1_norm_of_the_filter_that_writes_the_channel() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4))
    plan = magnitude_plan(network, 0.5)
    writers: dict[str, list[str]] = {}
    for layer in network.table.layers:
        writers.setdefault(layer.output, []).append(layer.name)
    (stem,) = writers["stem"] if "stem" in writers else [network.table.layers[0].name]
    group = network.table.layers[0].output
    filters = weight(network, stem)  # [out, in, kH, kW]
    assert plan.scores[group] == pytest.approx([float(filters[n].abs().sum()) for n in range(len(filters))])
    (up,) = [layer for layer in network.table.layers if layer.op == "conv_transpose"][-1:]
    filters = weight(network, up.name)  # [in, out, kH, kW]
    expected = [float(filters[:, n].abs().sum()) for n in range(filters.shape[1])]
    assert plan.scores[up.output] == pytest.approx(expected)


def test_a_group_that_several_convolutions_write_has_the_mean_of_their_norms() -> None:
    network = network_of(resnet_spec(blocks=2, ngf=4))
    names = [layer.name for layer in network.table.layers if layer.output == "trunk"]
    assert len(names) == 3  # the second halving, and both blocks
    norms = torch.stack([weight(network, name).abs().sum((1, 2, 3)) for name in names])
    assert magnitude_plan(network, 0.5).scores["trunk"] == pytest.approx(norms.mean(0).tolist())


def test_the_lightest_channels_of_a_group_go_first() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=8))
    plan = magnitude_plan(network, 0.5)
    cut = 0
    for group, kept in plan.kept.items():
        gone = sorted(set(range(len(plan.scores[group]))) - set(kept))
        cut += len(gone)
        if kept and gone:
            assert max(plan.scores[group][n] for n in gone) <= min(plan.scores[group][n] for n in kept)
    assert cut > 0


def test_a_budget_that_no_network_can_meet_is_refused() -> None:
    with pytest.raises(PlanError, match="the smallest network that can be left already keeps"):
        magnitude_plan(network_of(resnet_spec(blocks=1, ngf=4)), 1e-4)
