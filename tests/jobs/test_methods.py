"""Every method behind `--method`: its name, its budget on every family, and that it only chooses channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest
import torch

from mggc_edge.artifacts import PLAN_FILE, write_json
from mggc_edge.cli import compress as command
from mggc_edge.errors import PlanError
from mggc_edge.jobs import request
from mggc_edge.jobs.choose import Choice, Work
from mggc_edge.jobs.compress import CHOSEN_FOLDER, _saved_choice
from mggc_edge.jobs.methods import METHODS, Task
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.jobs.tune import slim_generator
from mggc_edge.jobs.written import remember_written
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import save_network, weights_sha256
from mggc_edge.pruning.apply import apply_plan
from tests.jobs.conftest import MakeWork
from tests.models.model_helpers import spec_id
from tests.training.training_helpers import assert_equal, trained

SIZE = (32, 32)
SPECS = [
    resnet_spec(blocks=2, ngf=8),
    resnet_spec(blocks=2, ngf=8, norm="batch", separable=True),
    unet_spec(halvings=5, ngf=8, norm="batch", dropout=False),
]
OTHERS = [name for name in METHODS if not METHODS[name].shared]  # that look at the weights alone


def task(network: Network, budget: float = 0.4, convention: MacsConvention = "true") -> Task:
    """For the methods that look at the weights alone."""
    nothing: Any = None
    asked = CompressRequest("model.pth", str(budget), macs_convention=convention)
    return Task(network, None, nothing, None, nothing, asked, budget)


def test_the_command_line_the_request_and_the_registry_know_the_same_methods() -> None:
    assert get_args(command.Method) == get_args(request.Method) == tuple(METHODS)
    assert get_type_hints(CompressRequest)["method"] == request.Method


def test_only_mggc_plays_and_two_methods_train() -> None:
    assert [name for name in METHODS if METHODS[name].plays] == ["mggc"]
    assert [name for name in METHODS if METHODS[name].shared] == ["mggc", "gan-slimming"]
    assert OTHERS == ["magnitude", "uniform", "random"]


@pytest.mark.parametrize("budget", [0.12, 0.4, 0.9])
@pytest.mark.parametrize("convention", ["true", "paper"])
@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
@pytest.mark.parametrize("method", OTHERS)
def test_a_choice_costs_98_to_100_percent_of_its_budget(
    work: MakeWork, method: request.Method, spec: NetworkSpec, convention: MacsConvention, budget: float
) -> None:
    network = trained(spec, seed=1, size=SIZE)
    choice = METHODS[method].choose(work(seed=5), task(network, budget, convention))
    slim = apply_plan(network, choice.generator)
    kept = macs(layer_table(slim.spec, SIZE), convention) / macs(network.table, convention)
    assert kept == choice.generator.budget_met
    assert 0.98 * budget <= kept <= budget
    assert (choice.generator.criterion, choice.generator.seed, choice.generator.budget) == (method, 5, budget)
    assert choice.generator.source_sha256 == weights_sha256(network)
    assert (choice.discriminator, choice.network) == (None, None)


@pytest.mark.parametrize("method", OTHERS)
def test_a_choice_has_the_widths_that_the_request_rounds_to(work: MakeWork, method: request.Method) -> None:
    network = trained(SPECS[2], seed=1, size=SIZE)
    made = task(network, 0.5)
    choice = METHODS[method].choose(work(seed=5), replace(made, request=replace(made.request, align=4)))
    slim = apply_plan(network, choice.generator)
    assert choice.generator.align == 4
    assert {width % 4 for _, width in slim.spec.widths} == {0}
    assert 0.49 <= choice.generator.budget_met <= 0.5


@pytest.mark.parametrize("method", OTHERS)
def test_a_budget_that_no_slim_network_meets_is_refused(work: MakeWork, method: request.Method) -> None:
    network = trained(SPECS[0], seed=1, size=SIZE)
    with pytest.raises(PlanError, match=r"a budget of 0\.001 cannot be met: .* \(ask for at least"):
        METHODS[method].choose(work(), task(network, 0.001))


@pytest.mark.parametrize("method", OTHERS)
def test_the_original_survives_and_no_random_number_is_drawn_from_the_outside(
    work: MakeWork, method: request.Method
) -> None:
    network = trained(SPECS[1], seed=1, size=SIZE)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    METHODS[method].choose(work(uniform__weights="scratch"), task(network))
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    assert_equal(network.state_dict(), before)


# --- uniform width from scratch ---


def scratch(make: MakeWork, spec: NetworkSpec = SPECS[1], seed: int = 0) -> tuple[Work, Network, Choice]:
    network, at = trained(spec, seed=1, size=SIZE), make(seed, uniform__weights="scratch")
    return at, network, METHODS["uniform"].choose(at, task(network))


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_from_scratch_the_widths_are_the_same_and_the_weights_are_new(work: MakeWork, spec: NetworkSpec) -> None:
    _, network, choice = scratch(work, spec)
    sliced = METHODS["uniform"].choose(work(), task(network))
    assert choice.generator == sliced.generator
    assert choice.network is not None
    cut = apply_plan(network, choice.generator)
    assert choice.network.spec == cut.spec
    assert choice.network.table == cut.table  # of the same picture size
    assert not choice.network.training
    ours, its = choice.network.state_dict(), cut.state_dict()
    weights = [key for key in ours if key.endswith("weight") and ours[key].ndim == 4]
    assert weights
    for key in weights:
        assert not torch.equal(ours[key], its[key])
    values = torch.cat([ours[key].flatten() for key in weights])
    assert values.std().item() == pytest.approx(0.02, rel=0.1)  # as CycleGAN and pix2pix begin


def test_new_weights_follow_from_the_seed_of_the_job(work: MakeWork) -> None:
    first, second, other = (scratch(work, seed=seed)[2].network for seed in (0, 0, 1))
    assert first is not None
    assert second is not None
    assert other is not None
    assert_equal(first.state_dict(), second.state_dict())
    assert weights_sha256(first) != weights_sha256(other)


def test_finetuning_begins_with_the_new_weights_and_does_not_change_the_choice(work: MakeWork) -> None:
    at, network, choice = scratch(work, SPECS[0])  # without batch norm, whose statistics would be made anew
    nothing: Any = None
    student = slim_generator(at.job.settings, network, nothing, choice, 0)
    assert choice.network is not None
    assert_equal(student.state_dict(), choice.network.state_dict())
    with torch.no_grad():
        next(student.parameters()).zero_()
    assert next(choice.network.parameters()).abs().max().item() > 0


def test_a_resumed_job_reads_the_weights_that_a_method_gave(work: MakeWork) -> None:
    at, _, choice = scratch(work)
    assert choice.network is not None
    assert _saved_choice(at.job, SIZE) is None
    save_network(choice.network, at.job.work / CHOSEN_FOLDER)
    assert _saved_choice(at.job, SIZE) is None  # the plan is written last
    write_json(at.job.folder / PLAN_FILE, choice.generator.to_json())
    assert _saved_choice(at.job, SIZE) is None  # and its hash is kept after that
    remember_written(at.job, PLAN_FILE)
    again = _saved_choice(at.job, SIZE)
    assert again is not None
    assert (again.generator, again.discriminator) == (choice.generator, None)
    assert again.network is not None
    assert again.network.spec == choice.network.spec
    tensors = choice.network.table.tensors
    assert_equal({key: again.network.state_dict()[key] for key in tensors},
                 {key: choice.network.state_dict()[key] for key in tensors})  # fmt: skip
