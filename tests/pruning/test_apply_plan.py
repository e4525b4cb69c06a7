"""A plan is carried out on the network that it was made for, and on no other."""

from __future__ import annotations

import pytest
import torch

from mggc_edge.errors import PlanError
from mggc_edge.models.cost import macs
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.selection import slim_spec
from mggc_edge.models.slim import slim
from mggc_edge.pruning.apply import apply_plan
from mggc_edge.pruning.random import random_plan


def test_a_plan_leaves_the_slim_network_that_it_describes_and_the_original_survives() -> None:
    torch.manual_seed(0)
    network = Network(resnet_spec(blocks=2, ngf=4)).eval()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    plan = random_plan(network.table, 0.5, seed=1)
    slender = apply_plan(network, plan)
    assert slender.spec == slim_spec(network.spec, plan.kept)
    assert macs(slender.table) / macs(network.table) == plan.budget_met
    expected = slim(network, plan.kept).state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in slender.state_dict().items())
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_a_plan_for_another_network_is_not_carried_out() -> None:
    plan = random_plan(Network(resnet_spec(blocks=2, ngf=4)).table, 0.5)
    with pytest.raises(PlanError) as error:
        apply_plan(Network(resnet_spec(blocks=2, ngf=6)), plan)
    assert error.value.message == (
        "the plan was made for another network (resnet with widths 4/8/16/16/..., not resnet with 6/12/24/24/...)"
    )
    assert error.value.hint == "apply it to the checkpoint that it was made from"
