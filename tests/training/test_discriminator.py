"""A discriminator is fitted by its own loss alone, and goes on exactly where it stopped."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.training.discriminator import DiscriminatorSettings, FitDiscriminator
from mggc_edge.training.order import batch_indices
from tests.models.reference_networks import reference_network
from tests.training.training_helpers import assert_equal, copied, fresh, pictures, run_steps, trained

GENERATOR = trained(resnet_spec(blocks=2, ngf=4, norm="batch"), seed=3).requires_grad_(False)
X, MADE, Y = pictures(4, seed=1), pictures(4, seed=2), pictures(3, seed=3)
PAIRED_Y = pictures(4, seed=4)
SETTINGS = DiscriminatorSettings(epochs=2, batch_size=2)
SEED = 13


def judge(*, conditional: bool = False) -> Network:
    return fresh(patchgan_spec(in_channels=6 if conditional else 3, ndf=4, layers=2, norm="batch"), seed=5)


def stage(kind: str, settings: DiscriminatorSettings = SETTINGS) -> FitDiscriminator:
    targets = {"paired": PAIRED_Y, "unpaired": Y, "none": None}[kind]
    paired = kind == "paired"
    return FitDiscriminator(
        judge(conditional=paired),
        GENERATOR,
        X,
        MADE,
        targets,
        settings,
        paired=paired,
        seed=SEED,
        precision="fp32",
    )


@pytest.mark.parametrize("kind", ["paired", "unpaired"])
def test_two_steps_equal_a_plain_implementation(kind: str) -> None:
    found = stage(kind)
    assert found.steps == 4
    plain = reference_network(found.judge.spec).float().train()
    plain.load_state_dict(judge(conditional=kind == "paired").state_dict())
    adam, mse = torch.optim.Adam(plain.parameters(), lr=2e-4, betas=(0.5, 0.999)), nn.MSELoss()
    metrics = run_steps(found, SEED, 0, 2)
    for number in range(2):
        chosen = batch_indices(SEED, "discriminator", number, 4, 2)
        real, fake = MADE.batch(chosen), MADE.batch(chosen)
        if kind == "paired":
            real, fake = (torch.cat([X.batch(chosen), side.batch(chosen)], 1) for side in (PAIRED_Y, MADE))
        else:
            real = Y.batch(batch_indices(SEED, "discriminator/targets", number, 3, 2))
        says_real, says_fake = plain(real), plain(fake)
        loss = (mse(says_real, torch.ones_like(says_real)) + mse(says_fake, torch.zeros_like(says_fake))) / 2
        adam.zero_grad()
        loss.backward()
        adam.step()
        wanted = {"loss_d": loss.item(), "says_real": says_real.mean().item(), "says_fake": says_fake.mean().item()}
        assert metrics[number] == pytest.approx(wanted | {"learning_rate": 2e-4}, abs=1e-6)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(found.judge.state_dict()[key], value, rtol=0, atol=1e-6)


def test_without_targets_real_are_the_outputs_and_generated_those_with_channels_closed() -> None:
    found = stage("none")
    before = copied(GENERATOR.state_dict())
    seen: list[Tensor] = []
    found.judge.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    run_steps(found, SEED, 0, 2)
    first, second = (batch_indices(SEED, "discriminator", number, 4, 2) for number in range(2))
    assert torch.equal(seen[0], MADE.batch(first))
    assert torch.equal(seen[2], MADE.batch(second))
    for crippled, chosen in ((seen[1], first), (seen[3], second)):
        whole = GENERATOR(X.batch(chosen), None, "batch")
        assert not crippled.requires_grad
        assert (crippled - whole).abs().max().item() > 0.1
    assert_equal(GENERATOR.state_dict(), before)
    assert all(parameter.grad is None for parameter in GENERATOR.parameters())


def test_closed_channels_are_a_random_share_and_never_all_of_a_group() -> None:
    found = stage("none")
    seen: list[dict[str, Tensor]] = []
    handle = GENERATOR.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[1]))
    for number in range(60):
        found._crippled(number, X.batch([0]))
    handle.remove()
    assert all(set(masks) == {group.name for group in GENERATOR.table.groups} for masks in seen)
    shares = torch.tensor([[mask.mean().item() for mask in masks.values()] for masks in seen])
    assert shares.min().item() > 0
    assert shares.max().item() == 1
    assert 0.5 < shares.mean().item() < 0.65  # half of them, and the one that always stays


@pytest.mark.parametrize("kind", ["paired", "unpaired", "none"])
def test_a_stage_goes_on_from_its_state_bit_for_bit(kind: str) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=3, batch_size=1, gan="hinge")
    whole = stage(kind, settings)
    run_steps(whole, SEED, 0, 3)
    state = copied(whole.state())
    metrics = run_steps(whole, SEED, 3, 6)
    later = stage(kind, settings)
    later.load_state(state)
    assert run_steps(later, SEED, 3, 6) == metrics
    assert_equal(later.state(), whole.state())


def test_a_fitted_discriminator_tells_real_from_generated() -> None:
    found = stage("paired", dataclasses.replace(SETTINGS, epochs=12, batch_size=4, learning_rate=2e-3))
    metrics = run_steps(found, SEED, 0, found.steps)
    assert float(str(metrics[-1]["loss_d"])) < 0.2 < float(str(metrics[0]["loss_d"]))
