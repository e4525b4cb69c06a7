"""CycleGAN's recipe equals a plain implementation of the paper, step by step, and goes on exactly where it stopped."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.training.bank import PictureSet
from mggc_edge.training.cyclegan import CycleGan, CycleGanSettings
from mggc_edge.training.order import batch_indices
from mggc_edge.training.precision import Precision
from tests.models.reference_networks import reference_network
from tests.training.training_helpers import SIZE, assert_equal, copied, fresh, pictures, run_steps

GENERATOR = resnet_spec(blocks=1, ngf=4, norm="instance_affine")
DROPOUT = resnet_spec(blocks=1, ngf=2, dropout=True)
JUDGE = patchgan_spec(ndf=4, layers=2)
A, B = pictures(3, seed=1), pictures(5, seed=2)
PLAIN = CycleGanSettings(epochs=1, batch_size=2, flip=False, decay=0.0)
SEED = 11


def networks(generator: NetworkSpec = GENERATOR) -> dict[str, Network]:
    specs = {"G_A": generator, "G_B": generator, "D_A": JUDGE, "D_B": JUDGE}
    return {name: fresh(spec, seed=number) for number, (name, spec) in enumerate(specs.items())}


def stage(
    settings: CycleGanSettings = PLAIN,
    *,
    generator: NetworkSpec = GENERATOR,
    a: PictureSet = A,
    b: PictureSet = B,
    precision: Precision = "fp32",
) -> CycleGan:
    return CycleGan(networks(generator), a, b, settings, seed=SEED, precision=precision)


class PlainCycleGan:
    """The published recipe for networks of plain torch modules: least squares, cycle 10, identity 5, no pool."""

    def __init__(self, lambda_identity: float, rate: float) -> None:
        self.nets: dict[str, nn.Module] = {}
        for name, network in networks().items():
            self.nets[name] = reference_network(network.spec).float().train()
            self.nets[name].load_state_dict(network.state_dict())
        self.identity = lambda_identity
        self.adam_g = self.adam("G_A", "G_B", rate=rate)
        self.adam_d = self.adam("D_A", "D_B", rate=rate)

    def adam(self, *names: str, rate: float) -> torch.optim.Adam:
        chained = itertools.chain(*(self.nets[name].parameters() for name in names))
        return torch.optim.Adam(chained, lr=rate, betas=(0.5, 0.999))

    def step(self, real_a: Tensor, real_b: Tensor) -> dict[str, float]:
        g_a, g_b, d_a, d_b = (self.nets[name] for name in ("G_A", "G_B", "D_A", "D_B"))
        mse = nn.MSELoss()
        fake_b, fake_a = g_a(real_a), g_b(real_b)
        identity = 10 * self.identity * (F.l1_loss(g_a(real_b), real_b) + F.l1_loss(g_b(real_a), real_a))
        says_b, says_a = d_a(fake_b), d_b(fake_a)
        gan = mse(says_b, torch.ones_like(says_b)) + mse(says_a, torch.ones_like(says_a))
        cycle = 10 * (F.l1_loss(g_b(fake_b), real_a) + F.l1_loss(g_a(fake_a), real_b))
        self.adam_g.zero_grad()
        (gan + cycle + identity).backward()
        self.adam_g.step()
        self.adam_d.zero_grad()
        losses = {}
        for name, judge, real, fake in (("d_a", d_a, real_b, fake_b), ("d_b", d_b, real_a, fake_a)):
            says_real, says_fake = judge(real), judge(fake.detach())
            loss = 0.5 * (mse(says_real, torch.ones_like(says_real)) + mse(says_fake, torch.zeros_like(says_fake)))
            loss.backward()
            losses[f"loss_{name}"] = loss.item()
        self.adam_d.step()
        parts = {"g": gan + cycle + identity, "gan": gan, "cycle": cycle, "identity": identity}
        return losses | {f"loss_{name}": value.item() for name, value in parts.items()}


@pytest.mark.parametrize("lambda_identity", [0.5, 0.0])
def test_two_steps_equal_a_plain_implementation_of_the_paper(lambda_identity: float) -> None:
    found = stage(dataclasses.replace(PLAIN, lambda_identity=lambda_identity, pool=0))
    plain = PlainCycleGan(lambda_identity, PLAIN.learning_rate)
    metrics = run_steps(found, SEED, 0, 2)
    for number in range(2):
        real_a = A.batch(batch_indices(SEED, "train/A", number, len(A), 2))
        real_b = B.batch(batch_indices(SEED, "train/B", number, len(B), 2))
        wanted = plain.step(real_a, real_b) | {"learning_rate": 2e-4}
        assert metrics[number] == pytest.approx(wanted, abs=1e-5)
    for name, network in plain.nets.items():
        mine = found.networks[name].state_dict()
        # A norm takes the bias before it away: its gradient is rounding, which Adam makes as large as any other.
        moot = {f"{layer.name}.bias" for layer in found.networks[name].table.layers if layer.norm is not None}
        for key, value in network.state_dict().items():
            if key in moot:
                continue
            torch.testing.assert_close(mine[key], value, rtol=0, atol=1e-6, msg=f"{name} {key}")


def test_a_step_moves_every_network_by_about_the_rate() -> None:
    found = stage()
    run_steps(found, SEED, 0, 1)
    for name, network in networks().items():
        trained = dict(found.networks[name].named_parameters())
        head = max(trained, key=lambda key: int(key.split(".")[1]) if key.endswith("weight") else -1)
        moved = (trained[head] - dict(network.named_parameters())[head]).abs().max().item()
        assert moved == pytest.approx(2e-4, rel=0.01)  # Adam's first step is the rate's sign


def test_an_epoch_sees_the_larger_set_and_the_rate_falls_over_the_last_half() -> None:
    found = stage(dataclasses.replace(PLAIN, epochs=2, batch_size=1, decay=0.5))
    assert found.steps == 10
    rates = [metrics["learning_rate"] for metrics in run_steps(found, SEED, 0, 10)]
    assert rates == pytest.approx([2e-4] * 6 + [1.6e-4, 1.2e-4, 0.8e-4, 0.4e-4])


def counting(network: Network) -> Iterator[int]:
    """Yield, now and later, how often a network has run."""
    runs = [0]
    network.register_forward_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    while True:
        yield runs[0]


@pytest.mark.parametrize(("lambda_identity", "runs"), [(0.5, 3), (0.0, 2)])
def test_identity_at_0_costs_no_forward_pass(lambda_identity: float, runs: int) -> None:
    found = stage(dataclasses.replace(PLAIN, lambda_identity=lambda_identity))
    counts = {name: counting(network) for name, network in found.networks.items()}
    assert {name: next(count) for name, count in counts.items()} == dict.fromkeys(counts, 0)
    (metrics,) = run_steps(found, SEED, 0, 1)
    assert {name: next(count) for name, count in counts.items()} == {"G_A": runs, "G_B": runs, "D_A": 3, "D_B": 3}
    assert (metrics["loss_identity"] == 0) == (lambda_identity == 0)


def test_between_sides_of_different_channels_there_is_no_identity() -> None:
    grey = pictures(5, channels=1, seed=2)
    to_grey, to_rgb = resnet_spec(blocks=1, ngf=2, out_channels=1), resnet_spec(blocks=1, ngf=2, in_channels=1)
    judge_grey = patchgan_spec(ndf=2, layers=2, in_channels=1)
    specs = {"G_A": to_grey, "G_B": to_rgb, "D_A": judge_grey, "D_B": JUDGE}
    nets = {name: fresh(spec, seed=0) for name, spec in specs.items()}
    found = CycleGan(nets, A, grey, PLAIN, seed=SEED, precision="fp32")
    (metrics,) = run_steps(found, SEED, 0, 1)
    assert metrics["loss_identity"] == 0


def gradients(nets: Mapping[str, Network]) -> set[str]:
    return {name for name, net in nets.items() if any(p.grad is not None for p in net.parameters())}


def test_each_loss_reaches_only_the_networks_that_it_trains() -> None:
    found = stage()
    real = A.batch([0, 1]), B.batch([0, 1])
    fakes, _ = found._update_generators(*real)
    assert gradients(found.networks) == {"G_A", "G_B"}
    assert all(p.requires_grad for net in found.networks.values() for p in net.parameters())
    assert not any(fake.requires_grad for fake in fakes.values())
    before = copied(found.networks["G_A"].state_dict() | found.networks["G_B"].state_dict())
    for net in found.networks.values():
        net.zero_grad(set_to_none=True)
    found._update_discriminators(0, {"D_A": real[1], "D_B": real[0]}, fakes)
    assert gradients(found.networks) == {"D_A", "D_B"}
    assert_equal(found.networks["G_A"].state_dict() | found.networks["G_B"].state_dict(), before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stage_goes_on_from_its_state_bit_for_bit_with_dropout_pool_crops_and_mirrors(precision: Precision) -> None:
    settings = CycleGanSettings(epochs=2, pool=2)
    larger = {"a": pictures(3, (18, 20), seed=1), "b": pictures(3, (18, 20), seed=2)}
    whole = stage(settings, generator=DROPOUT, precision=precision, **larger)
    metrics = run_steps(whole, SEED, 0, 3)
    state = copied(whole.state())
    assert tuple(state["pool.D_A.kept"].shape) == (2, 3, *SIZE)
    metrics += run_steps(whole, SEED, 3, 6)
    later = stage(settings, generator=DROPOUT, precision=precision, **larger)
    later.load_state(state)
    assert run_steps(later, SEED, 3, 6) == metrics[3:]
    assert_equal(later.state(), whole.state())
    assert all(isinstance(value, float) and math.isfinite(value) for each in metrics for value in each.values())
    assert all(value.dtype == torch.float32 for name, value in whole.state().items() if "weight" in name)


def test_the_pool_shows_the_discriminators_earlier_pictures() -> None:
    settings = dataclasses.replace(PLAIN, epochs=4, pool=1)
    with_pool, without = stage(settings), stage(dataclasses.replace(settings, pool=0))
    first = [run_steps(each, SEED, 0, 1) for each in (with_pool, without)]
    assert first[0][0]["loss_g"] == first[1][0]["loss_g"]
    rest = [run_steps(each, SEED, 1, 6) for each in (with_pool, without)]
    assert [m["loss_d_a"] for m in rest[0]] != [m["loss_d_a"] for m in rest[1]]
