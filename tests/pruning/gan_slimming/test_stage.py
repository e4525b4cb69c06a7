"""The stage of GAN Slimming: what a step changes and what not, where it ends, and that it goes on bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mggc_edge.errors import PlanError, SettingError, TrainingError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.gan_slimming.result import slimmed
from mggc_edge.pruning.gan_slimming.scales import fold_scales
from mggc_edge.pruning.gan_slimming.settings import SlimmingSettings
from mggc_edge.pruning.gan_slimming.stage import GanSlimming
from mggc_edge.training.likeness import PixelLikeness
from mggc_edge.training.loop import Journal, run_stage
from mggc_edge.training.schedule import half_cosine
from tests.models.model_helpers import spec_id
from tests.training.training_helpers import assert_equal, copied, pictures, run_steps, trained

SIZE, STEPS, BUDGET = (32, 32), 10, 0.4
RESNET = resnet_spec(blocks=2, ngf=8)
SPECS = [RESNET, unet_spec(halvings=5, ngf=16, dropout=True), cartoongan_spec(blocks=2, ngf=8)]


def stage(spec: NetworkSpec = RESNET, *, channels: int = 3, steps: int = STEPS, **changes: Any) -> GanSlimming:
    generator = trained(spec, seed=1, size=SIZE)
    judge = trained(patchgan_spec(ndf=4, layers=2, in_channels=channels), seed=2, size=SIZE)
    settings = SlimmingSettings(**{"pool": 3, "beta": 1.0, **changes})
    likeness = PixelLikeness(spec.output_format)
    return GanSlimming(
        generator, judge, pictures(6, (36, 34), seed=3), likeness, settings, budget=BUDGET, seed=4, steps=steps,
        batch_size=2,
    )  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_a_run_ends_in_its_budget_and_the_slim_network_is_the_masked_one(spec: NetworkSpec) -> None:
    made = stage(spec)
    log = run_steps(made, 4, 0, STEPS)
    fractions = [float(str(line["macs_fraction"])) for line in log]
    assert fractions[0] == 1.0
    assert all(0.9 * BUDGET <= fraction <= BUDGET for fraction in fractions[7:])
    original = trained(spec, seed=1, size=SIZE)
    found = slimmed(original, made, budget=BUDGET, seed=4, convention="true", source_sha256=None)
    assert 0.98 * BUDGET <= found.plan.budget_met <= BUDGET
    assert (found.plan.criterion, found.plan.spec, found.fraction) == ("gan-slimming", original.spec, fractions[-1])
    assert (found.opened <= 1, found.closed) == (True, 0)
    x = pictures(2, SIZE, seed=5).batch([0, 1]).double()
    student, scales = (
        made.student.eval().double(),
        {name: scale.detach().double() for name, scale in made.scales.items()},
    )
    kept = {group.name: tuple(range(group.size)) for group in original.table.groups}
    kept |= {name: tuple(torch.nonzero(scale)[:, 0].tolist()) for name, scale in scales.items()}
    with torch.inference_mode():
        masked = student(x, scales)
        torch.testing.assert_close(slim(fold_scales(student, scales), kept)(x), masked, rtol=0, atol=1e-10)
        if found.opened == 0 and found.plan.kept == kept:
            torch.testing.assert_close(found.network(x.float()).double(), masked, rtol=0, atol=1e-4)
    assert found.network.spec.norm == ("batch" if spec.norm == "batch" else "instance_affine")
    assert not found.network.training


def test_the_originals_survive_and_weights_scales_and_the_discriminator_are_trained() -> None:
    generator, judge = trained(RESNET, seed=1, size=SIZE), trained(patchgan_spec(ndf=4, layers=2), seed=2, size=SIZE)
    before = copied(generator.state_dict()), copied(judge.state_dict())
    made = GanSlimming(
        generator, judge, pictures(6, SIZE, seed=3), PixelLikeness(RESNET.output_format),
        SlimmingSettings(sums=False), budget=BUDGET, seed=4, steps=4,
    )  # fmt: skip
    start = copied(made.student.state_dict())
    run_steps(made, 4, 0, 2)
    assert_equal(generator.state_dict(), before[0])
    assert_equal(judge.state_dict(), before[1])
    changed = {key for key, value in made.student.state_dict().items() if not torch.equal(value, start[key])}
    layers = made.student.table.layers
    kept = {f"{layer.norm}.{name}" for layer in layers if layer.output == "trunk" for name in ("weight", "bias")}
    kept |= {f"{layer.name}.bias" for layer in layers if layer.norm is not None}  # which the norm takes away
    assert set(start) - changed == kept  # plain norms stay plain
    assert not torch.equal(made.judge.state_dict()["model.0.weight"], before[1]["model.0.weight"])


def test_what_stays_has_its_size_again_when_the_budget_is_met() -> None:
    given, taken = stage(), stage(give_back=False)
    first = {name: scale.detach().clone() for name, scale in given.scales.items()}
    for made in (given, taken):
        run_steps(made, 4, 0, 8)  # 0.8 of 10
    sizes = []
    for made in (given, taken):
        scales = {name: scale.detach().abs() for name, scale in made.scales.items()}
        sizes.append(sum(float((scale[scale != 0] / first[name][scale != 0]).sum()) for name, scale in scales.items()))
    opened = sum(given.widths().values())
    assert given.widths() == taken.widths()
    assert sizes[0] >= opened - 1e-4 > 1.5 * sizes[1]


@pytest.mark.parametrize("old", [False, True])
def test_sizes_are_given_back_where_other_step_numbers_jump_over_the_step_for_it(*, old: bool) -> None:
    first, again = stage(), stage()
    run_steps(first, 4, 0, 7)
    state = copied(first.state())
    if old:  # a state of before has no marks: then the step's number says which are passed
        del state["passed"]
    again.load_state(state)
    sizes = [sum(float(scale.detach().abs().sum()) for scale in again.scales.values())]
    for number in (8, 9):  # the one that meets the budget is 7
        run_steps(again, 4, number, number + 1)
        sizes.append(sum(float(scale.detach().abs().sum()) for scale in again.scales.values()))
    assert (sizes[1] > 1.2 * sizes[0]) is not old
    assert sizes[2] == pytest.approx(sizes[1], rel=0.05)


def test_rates_fall_as_half_a_cosine_and_every_number_is_logged() -> None:
    log = run_steps(stage(), 4, 0, STEPS)
    for number, line in enumerate(log):
        assert line["learning_rate"] == pytest.approx(1e-4 * half_cosine(number, STEPS))
        assert line["scale_rate"] == pytest.approx(0.1 * half_cosine(number, STEPS))
        assert line["loss_g"] == pytest.approx(line["loss_gan"] + line["loss_distance"])  # type: ignore[operator]
        assert line["open_channels"] == sum(line["widths"].values())  # type: ignore[attr-defined]
    assert set(log[0]) == {
        "loss_g", "loss_gan", "loss_distance", "loss_d", "scales_l1", "rho", "macs_fraction", "budget", "open_channels",
        "widths", "learning_rate", "scale_rate", "gradient_norm_scales",
    }  # fmt: skip
    assert [half_cosine(0, 10), half_cosine(5, 10)] == pytest.approx([1.0, 0.5])


def test_a_discriminator_of_pairs_sees_the_input_and_no_pool() -> None:
    made = stage(channels=6)
    run_steps(made, 4, 0, 2)
    assert not any(name.startswith("pool") for name in made.state())
    assert any(name.startswith("pool") for name in _after_two(stage()).state())


def _after_two(made: GanSlimming) -> GanSlimming:
    run_steps(made, 4, 0, 2)
    return made


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_a_stage_that_was_stopped_goes_on_bit_for_bit(spec: NetworkSpec) -> None:
    whole = stage(spec)
    log = run_steps(whole, 4, 0, STEPS)
    first = stage(spec)
    run_steps(first, 4, 0, 6)
    again = stage(spec)
    again.load_state(copied(first.state()))
    assert run_steps(again, 4, 6, STEPS) == log[6:]
    assert_equal(again.state(), whole.state())


def test_a_state_of_other_networks_is_refused() -> None:
    other = stage(resnet_spec(blocks=2, ngf=4))
    run_steps(other, 4, 0, 1)
    with pytest.raises((RuntimeError, ValueError)):
        stage().load_state(other.state())
    made = _after_two(stage())
    state = copied(made.state())
    state["scale.stem"] = state["scale.stem"][:3]
    with pytest.raises(ValueError, match="the scales of 'stem' are of another shape"):
        made.load_state(state)
    state = copied(made.state())
    state["optimizer.scales.0.momentum_buffer"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"'optimizer\.scales' has moments of other shapes"):
        made.load_state(state)


def test_a_fixed_rho_is_taken_as_it_is_and_closes_what_it_closes() -> None:
    made = stage(rho=0.5)
    log = run_steps(made, 4, 0, STEPS)
    assert [line["rho"] for line in log] == pytest.approx([0.5] * STEPS)
    assert log[-1]["macs_fraction"] == 1.0  # 0.275 are taken in 10 steps, of scales of 1


def test_a_fixed_rho_that_closes_a_group_that_must_live_is_an_error() -> None:
    made = stage(rho=30.0)
    with pytest.raises(TrainingError) as found:
        run_steps(made, 4, 0, STEPS)
    assert str(found.value.message) == (
        "step 0 of stage 'prune': with gan_slimming.rho=30, no channel of group 'stem' would be left, and it must keep "
        "one"
    )
    assert found.value.setting == "gan_slimming.rho"
    assert found.value.hint is not None
    assert found.value.hint.startswith("lower --set gan_slimming.rho=, or leave it at 0")


def test_a_steered_rho_keeps_one_channel_of_a_group_that_must_live() -> None:
    made = stage()
    with torch.no_grad():
        made.scales["up2"].mul_(1e-3)
    run_steps(made, 4, 0, STEPS)
    assert made.widths()["up2"] >= 1


def test_a_loss_that_is_no_number_names_the_setting(tmp_path: Path) -> None:
    made = stage(beta=1e38)
    with Journal(tmp_path / "log.jsonl") as journal, pytest.raises(TrainingError) as found:
        run_stage(made, tmp_path, journal, seed=4)
    assert found.value.setting in ("gan_slimming.beta", "gan_slimming.learning_rate")
    made = stage(learning_rate=1e30, steps=3)
    with Journal(tmp_path / "other.jsonl") as journal, pytest.raises(TrainingError) as found:
        run_stage(made, tmp_path / "other", journal, seed=4)
    assert found.value.setting == "gan_slimming.learning_rate"


def test_a_whole_stage_is_logged_and_its_state_is_read_back(tmp_path: Path) -> None:
    made = stage(steps=4)
    with Journal(tmp_path / "log.jsonl") as journal:
        run_stage(made, tmp_path, journal, seed=4)
        again = stage(steps=4)
        assert run_stage(again, tmp_path, journal, seed=4)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [0, 1, 2, 3]
    assert_equal(again.state(), made.state())


def test_settings_without_any_loss_are_refused() -> None:
    with pytest.raises(SettingError, match="every part of the slimming loss has weight 0"):
        SlimmingSettings(beta=0, gan_weight=0)


def test_a_budget_that_cannot_be_met_is_refused_before_the_first_step() -> None:
    generator: Network = trained(RESNET, seed=1, size=SIZE)
    judge = trained(patchgan_spec(ndf=4, layers=2), seed=2, size=SIZE)
    with pytest.raises(PlanError, match="cannot be met by gan-slimming"):
        GanSlimming(
            generator, judge, pictures(6, SIZE), PixelLikeness(RESNET.output_format), SlimmingSettings(),
            budget=1e-4, seed=0, steps=1,
        )  # fmt: skip
