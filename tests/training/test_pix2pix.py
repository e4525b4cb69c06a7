"""pix2pix's recipe equals a plain implementation of the paper, step by step, and goes on exactly where it stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.training.order import batch_indices
from mggc_edge.training.pix2pix import Pix2Pix, Pix2PixSettings
from mggc_edge.training.precision import Precision
from tests.models.reference_networks import reference_network
from tests.training.training_helpers import assert_equal, copied, fresh, pictures, run_steps

PLAIN_UNET = unet_spec(halvings=4, ngf=4, dropout=False)
DROPOUT = unet_spec(halvings=6, ngf=2)  # halving 5 is the first with dropout
JUDGE = patchgan_spec(in_channels=6, ndf=4, layers=2, norm="batch")
X, Y = pictures(4, seed=1), pictures(4, seed=2)
PLAIN = Pix2PixSettings(epochs=2, batch_size=2, flip=False, decay=0.0)
SEED = 12


def networks() -> dict[str, Network]:
    return {"G": fresh(PLAIN_UNET, seed=1), "D": fresh(JUDGE, seed=2)}


def stage(settings: Pix2PixSettings = PLAIN, precision: Precision = "fp32") -> Pix2Pix:
    return Pix2Pix(networks(), X, Y, settings, seed=SEED, precision=precision)


class PlainPix2Pix:
    """The published recipe for networks of plain torch modules: cross-entropy, L1 times 100."""

    def __init__(self) -> None:
        self.nets: dict[str, nn.Module] = {}
        for name, network in networks().items():
            self.nets[name] = reference_network(network.spec).float().train()
            if name == "G":  # dropout has no weights, and halving 4 has none anyway
                assert not any(isinstance(m, nn.Dropout) for m in self.nets[name].modules())
            self.nets[name].load_state_dict(network.state_dict())
        self.adams = {
            name: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for name, net in self.nets.items()
        }

    def step(self, x: Tensor, y: Tensor) -> dict[str, float]:
        g, d, bce = self.nets["G"], self.nets["D"], nn.BCEWithLogitsLoss()
        fake = g(x)
        says_real = d(torch.cat([x, y], dim=1))
        says_fake = d(torch.cat([x, fake.detach()], dim=1))
        loss_d = 0.5 * (bce(says_fake, torch.zeros_like(says_fake)) + bce(says_real, torch.ones_like(says_real)))
        self.adams["D"].zero_grad()
        loss_d.backward()
        self.adams["D"].step()
        says = d(torch.cat([x, fake], dim=1))
        gan, l1 = bce(says, torch.ones_like(says)), 100 * F.l1_loss(fake, y)
        self.adams["G"].zero_grad()
        (gan + l1).backward()
        self.adams["G"].step()
        parts = {"d": loss_d, "g": gan + l1, "gan": gan, "l1": l1}
        return {f"loss_{name}": value.item() for name, value in parts.items()}


def test_two_steps_equal_a_plain_implementation_of_the_paper() -> None:
    found, plain = stage(), PlainPix2Pix()
    assert found.steps == 4
    metrics = run_steps(found, SEED, 0, 2)
    for number in range(2):
        numbers = batch_indices(SEED, "train", number, 4, 2)
        wanted = plain.step(X.batch(numbers), Y.batch(numbers)) | {"learning_rate": 2e-4}
        assert metrics[number] == pytest.approx(wanted, rel=1e-5)
    for name, network in plain.nets.items():
        mine = found.networks[name].state_dict()
        for key, value in network.state_dict().items():
            torch.testing.assert_close(mine[key], value, rtol=0, atol=1e-6, msg=f"{name} {key}")


def test_inputs_and_truths_are_cropped_and_mirrored_alike() -> None:
    same = pictures(4, (20, 22), seed=3)
    found = Pix2Pix(networks(), same, same, dataclasses.replace(PLAIN, flip=True), seed=SEED, precision="fp32")
    batches = [found._batch(step) for step in range(4)]
    assert all(torch.equal(x, y) and tuple(x.shape) == (2, 3, 16, 16) for x, y in batches)
    assert len({x.numpy().tobytes() for x, _ in batches}) == 4


def gradients(nets: Mapping[str, Network]) -> set[str]:
    return {name for name, net in nets.items() if any(p.grad is not None for p in net.parameters())}


def test_each_loss_reaches_only_the_network_that_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    found = stage()
    seen: list[tuple[str, set[str]]] = []
    update = found._update

    def watched(name: str, loss: Tensor) -> None:
        for net in found.networks.values():
            net.zero_grad(set_to_none=True)
        update(name, loss)
        seen.append((name, gradients(found.networks)))

    monkeypatch.setattr(found, "_update", watched)
    run_steps(found, SEED, 0, 1)
    assert seen == [("D", {"D"}), ("G", {"G"})]
    assert all(p.requires_grad for net in found.networks.values() for p in net.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stage_goes_on_from_its_state_bit_for_bit_with_dropout_crops_and_mirrors(precision: Precision) -> None:
    size = (64, 64)
    sides = pictures(3, (66, 70), seed=1), pictures(3, (66, 70), seed=2)

    def new() -> Pix2Pix:
        nets = {"G": fresh(DROPOUT, seed=1, size=size), "D": fresh(JUDGE, seed=2, size=size)}
        assert any(layer.dropout for layer in nets["G"].table.layers)
        return Pix2Pix(nets, *sides, Pix2PixSettings(epochs=2), seed=SEED, precision=precision)

    whole = new()
    metrics = run_steps(whole, SEED, 0, 3)
    state = copied(whole.state())
    metrics += run_steps(whole, SEED, 3, 6)
    later = new()
    later.load_state(state)
    assert run_steps(later, SEED, 3, 6) == metrics[3:]
    assert_equal(later.state(), whole.state())
    assert any("running_mean" in name for name in state)
