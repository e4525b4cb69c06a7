"""Finetuning trains the slim pair and nothing else, keeps the best on held-out pictures, and goes on exactly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mggc_edge.models.convert import with_quantization
from mggc_edge.models.layers import INPUT_GRID
from mggc_edge.models.network import Network, Tap
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.unet import unet_spec
from mggc_edge.training.distill import DistillSettings
from mggc_edge.training.finetune import Cast, Finetune, FinetuneSettings
from mggc_edge.training.loop import _WEIGHTS
from mggc_edge.training.losses import GanLoss
from mggc_edge.training.material import Material
from mggc_edge.training.order import batch_indices
from mggc_edge.training.precision import Precision
from mggc_edge.training.quantize import calibrate, range_parameters
from tests.models.model_helpers import some_kept
from tests.models.reference_networks import reference_network
from tests.training.training_helpers import assert_equal, copied, pictures, run_steps, trained

RESNET = resnet_spec(blocks=3, ngf=4, norm="instance_affine")
UNET = unet_spec(halvings=4, ngf=4, dropout=False)
NO_DISTILLATION = DistillSettings(content=0, style=0, pixels=0, form="mse")
DISTILLATION = DistillSettings(content=1.0, style=10.0, pixels=10.0, form="mse")
SETTINGS = FinetuneSettings(DISTILLATION, epochs=2, learning_rate=1e-3, pool=2, checks=4)
SEED = 14
X, Y, TRUTH = pictures(4, (18, 20), seed=1), pictures(3, (18, 20), seed=2), pictures(4, (18, 20), seed=3)
SMALL_X, SMALL_Y, SMALL_TRUTH = pictures(4, seed=1), pictures(3, seed=2), pictures(4, seed=3)
HELD_OUT, HELD_OUT_TRUTH = pictures(11, seed=4), pictures(11, seed=5)


def material(objective: str, *, crops: bool = True) -> Material:
    source, target = (X, {"paired": TRUTH, "unpaired": Y}.get(objective))
    if not crops:
        source, target = (SMALL_X, {"paired": SMALL_TRUTH, "unpaired": SMALL_Y}.get(objective))
    truth = HELD_OUT_TRUTH if objective == "paired" else None
    return Material(
        objective="paired" if objective == "paired" else "unpaired" if objective == "unpaired" else "distill",
        source=source,
        target=target,
        source_views=source,
        target_views=target,
        held_out=HELD_OUT,
        held_out_truth=truth,
        test=HELD_OUT,
        test_truth=None,
        test_target=None,
        where="held out",
        split_sha256="",
    )


def cast(objective: str, *, judged: bool = True, partner: bool = True) -> Cast:
    """Paired: a U-Net with a judge of pairs. Otherwise a ResNet, and where it is unpaired, its partner."""
    spec = UNET if objective == "paired" else RESNET
    teacher = trained(spec, seed=1)
    student = slim(teacher, some_kept(spec, 3, remove_blocks=False))
    channels = 6 if objective == "paired" else 3
    judge_spec = patchgan_spec(in_channels=channels, ndf=4, layers=2, norm="batch")
    judge, own = (trained(judge_spec, seed=2) for _ in range(2))
    other = trained(RESNET, seed=7) if partner and objective == "unpaired" else None
    return Cast(student, own if judged else None, teacher, judge if judged else None, other)


def stage(
    objective: str,
    settings: FinetuneSettings = SETTINGS,
    *,
    who: Cast | None = None,
    crops: bool = True,
    precision: Precision = "fp32",
) -> Finetune:
    return Finetune(who or cast(objective), material(objective, crops=crops), settings, seed=SEED, precision=precision)


OBJECTIVES = ["paired", "unpaired", "distill"]


# --- the objective --------------------------------------------------------------------------------------------------


class Plain:
    """The original objective for plain torch networks, the generator first; `partner` goes the other way, frozen.

    Where there is neither truth nor partner the adversarial loss is alone, and `y` is the original's output.
    """

    def __init__(self, who: Cast, objective: str) -> None:
        assert who.judge is not None
        self.objective = objective
        self.g, self.d = (self.plain(net) for net in (who.student, who.judge))
        self.partner = None if who.partner is None else self.plain(who.partner).eval().requires_grad_(False)
        self.adams = [torch.optim.Adam(n.parameters(), lr=1e-3, betas=(0.5, 0.999)) for n in (self.g, self.d)]

    @staticmethod
    def plain(network: Network) -> nn.Module:
        made = reference_network(network.spec).float().train()
        made.load_state_dict(network.state_dict())
        return made

    def step(self, x: Tensor, y: Tensor) -> dict[str, float]:
        mse, paired = nn.MSELoss(), self.objective == "paired"
        fake = self.g(x)
        says = self.d(torch.cat([x, fake], 1) if paired else fake)
        parts = {"gan": mse(says, torch.ones_like(says))}
        if paired:
            parts["l1"] = 100 * F.l1_loss(fake, y)
        if self.partner is not None:
            there, back = F.l1_loss(self.partner(fake), x), F.l1_loss(self.g(self.partner(y)), y)
            parts["cycle"] = 10 * (there + back)
            parts["identity"] = 5 * F.l1_loss(self.g(y), y)
        loss = torch.stack(list(parts.values())).sum()
        self.adams[0].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.adams[0].step()
        real, made = (torch.cat([x, z], 1) if paired else z for z in (y, fake.detach()))
        says_real, says_fake = self.d(real), self.d(made)
        loss_d = (mse(says_real, torch.ones_like(says_real)) + mse(says_fake, torch.zeros_like(says_fake))) / 2
        self.adams[1].zero_grad()
        loss_d.backward()
        self.adams[1].step()
        named = {"g": loss, **parts, "d": loss_d}
        return {f"loss_{name}": value.item() for name, value in named.items()}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_without_distillation_two_steps_equal_a_plain_implementation(objective: str) -> None:
    who = cast(objective)
    whole = dataclasses.replace(who, student=trained(who.teacher.spec, seed=9))
    settings = dataclasses.replace(SETTINGS, distill=NO_DISTILLATION, batch_size=2, flip=False, decay=0.0, pool=0)
    plain = Plain(whole, objective)
    found = stage(objective, settings, who=whole, crops=False)
    metrics = run_steps(found, SEED, 0, 2)
    data = material(objective, crops=False)
    for number in range(2):
        chosen = batch_indices(SEED, "finetune", number, 4, 2)
        others = chosen if objective == "paired" else batch_indices(SEED, "finetune/targets", number, 3, 2)
        x = data.source.batch(chosen)
        with torch.no_grad():
            y = whole.teacher(x) if data.target is None else data.target.batch(others)
        wanted = plain.step(x, y) | {"learning_rate": 1e-3}
        metrics[number].pop("held_out", None)
        assert metrics[number] == pytest.approx(wanted, rel=1e-4)
    assert found.judge is not None
    for mine, theirs in ((found.student, plain.g), (found.judge, plain.d)):
        moot = {f"{layer.name}.bias" for layer in mine.table.layers if layer.norm is not None}
        for key, value in theirs.state_dict().items():
            if key not in moot:  # a norm takes the bias before it away: its gradient is rounding
                torch.testing.assert_close(mine.state_dict()[key], value, rtol=0, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        ("paired", {"gan", "l1", "d"}),
        ("unpaired", {"gan", "cycle", "identity", "d"}),
        ("distill", {"gan", "d"}),
    ],
)
def test_each_objective_has_its_parts(objective: str, parts: set[str]) -> None:
    (metrics,) = run_steps(stage(objective), SEED, 0, 1)
    distilled = {"distill_content", "distill_style", "distill_pixels", "g"}
    assert {name.removeprefix("loss_") for name in metrics if name.startswith("loss_")} == parts | distilled
    assert {f"loss_{name}" for name in (parts | distilled) - {"g", "d"}} <= set(_WEIGHTS["finetune"])
    total = sum(float(str(metrics[f"loss_{name}"])) for name in (parts | distilled) - {"g", "d"})
    assert metrics["loss_g"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "weights", "gone"),
    [
        ("paired", {"gan_weight": 0.0}, {"gan", "d"}),
        ("unpaired", {"gan_weight": 0.0}, {"gan", "d"}),
        ("distill", {"gan_weight": 0.0}, {"gan", "d"}),
        ("distill", {"distill": NO_DISTILLATION}, {"distill_content", "distill_style", "distill_pixels"}),
        ("unpaired", {"lambda_cycle": 0.0}, {"cycle", "identity"}),
        ("unpaired", {"lambda_identity": 0.0}, {"identity"}),
        ("unpaired", {"distill": NO_DISTILLATION}, {"distill_content", "distill_style", "distill_pixels"}),
    ],
)
def test_a_weight_of_0_leaves_its_part_out(objective: str, weights: dict[str, float], gone: set[str]) -> None:
    settings = dataclasses.replace(SETTINGS, **weights)  # type: ignore[arg-type]
    whole, less = (run_steps(stage(objective, s), SEED, 0, 1)[0] for s in (SETTINGS, settings))
    assert set(whole) - set(less) == {f"loss_{name}" for name in gone}


def test_without_a_partner_there_are_no_cycles_and_without_a_judge_no_adversary() -> None:
    (alone,) = run_steps(stage("unpaired", who=cast("unpaired", partner=False)), SEED, 0, 1)
    assert {"loss_cycle", "loss_identity"}.isdisjoint(alone)
    found = stage("unpaired", who=cast("unpaired", judged=False))
    (unjudged,) = run_steps(found, SEED, 0, 1)
    assert {"loss_gan", "loss_d"}.isdisjoint(unjudged)
    assert found.judge is None


@pytest.mark.parametrize("gan", ["hinge", "vanilla", "lsgan"])
def test_every_adversarial_loss_can_be_used(gan: GanLoss) -> None:
    (metrics,) = run_steps(stage("paired", dataclasses.replace(SETTINGS, gan=gan)), SEED, 0, 1)
    assert all(math.isfinite(float(str(metrics[name]))) for name in ("loss_gan", "loss_d"))


# --- who is trained -------------------------------------------------------------------------------------------------


def frozen(who: Cast) -> dict[str, Network]:
    nets = {"teacher": who.teacher, "teacher_judge": who.teacher_judge, "partner": who.partner}
    return {name: net for name, net in nets.items() if net is not None}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_original_its_judge_and_the_partner_stay_as_they_are(objective: str) -> None:
    who = cast(objective)
    before = {name: copied(net.state_dict()) for name, net in frozen(who).items()}
    assert set(before) == {"teacher", "teacher_judge"} | ({"partner"} if objective == "unpaired" else set())
    found = stage(objective, who=who)
    student = copied(found.student.state_dict())
    own_judge = copied(who.judge.state_dict()) if who.judge is not None else {}
    run_steps(found, SEED, 0, 3)
    for name, net in frozen(who).items():
        assert_equal(net.state_dict(), before[name])
        assert not net.training
        assert all(p.grad is None and not p.requires_grad for p in net.parameters())
    changed = [name for name, value in found.student.state_dict().items() if not torch.equal(value, student[name])]
    assert {name for name, _ in found.student.named_parameters()} <= set(changed)
    assert who.judge is not None
    assert any(not torch.equal(v, own_judge[name]) for name, v in who.judge.state_dict().items())


def test_the_student_gets_no_gradient_from_the_judges_loss() -> None:
    found = stage("unpaired")
    seen: list[tuple[str, bool, bool]] = []
    update = found._update
    assert found.judge is not None
    judge = found.judge

    def watched(name: str, loss: Tensor) -> None:
        for net in (found.student, judge):
            net.zero_grad(set_to_none=True)
        update(name, loss)
        g, d = ([p for p in net.parameters() if p.grad is not None] for net in (found.student, judge))
        seen.append((name, bool(g), bool(d)))

    found._update = watched  # type: ignore[method-assign]
    run_steps(found, SEED, 0, 2)
    assert seen == [("G", True, False), ("D", False, True)] * 2


def test_the_maps_of_distillation_follow_from_the_seed_and_draw_nothing_from_the_outside() -> None:
    who = cast("unpaired")
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    first = stage("unpaired", who=who)
    assert torch.equal(torch.rand(3), wanted)
    second = stage("unpaired")
    assert_equal(first._distiller.state_dict(), second._distiller.state_dict())
    other = Finetune(cast("unpaired"), material("unpaired"), SETTINGS, seed=SEED + 1, precision="fp32")
    assert not torch.equal(other._distiller.maps[0].weight, first._distiller.maps[0].weight)  # type: ignore[arg-type]


# --- the best -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("judged", [True, False])
def test_the_held_out_distance_is_over_all_pictures_in_what_the_judge_sees(judged: bool) -> None:
    who = cast("paired", judged=judged)
    found = stage("paired", who=who)
    look = found.look()
    with torch.no_grad():
        x, truth = HELD_OUT.batch(range(11)), HELD_OUT_TRUTH.batch(range(11))
        y, wanted = who.student.eval()(x), who.teacher(x)
        error = F.mse_loss(y, wanted).item()
        distance = error
        if who.teacher_judge is not None:
            sums = 0.0
            norms: list[Tap] = [("model.2", "norm"), ("model.5", "norm")]
            for part in (slice(0, 8), slice(8, 11)):  # relative to the mean square of each batch
                joined = [torch.cat([x[part], z[part]], 1) for z in (y, wanted)]
                pair = [who.teacher_judge.features(seen, norms)[1] for seen in joined]
                near = [((a - b) ** 2).mean() / (b**2).mean() for a, b in zip(*pair, strict=True)]
                sums += (sum(near) / 2).item() * (part.stop - part.start) / 11
            distance = sums
    assert look["distance"] == pytest.approx(distance, rel=1e-4)
    assert look["psnr"] == pytest.approx(10 * math.log10(4 / error), rel=1e-5)
    assert look["l1_truth"] == pytest.approx(F.l1_loss(y, truth).item(), rel=1e-5)


def test_looking_changes_nothing_and_a_distance_of_0_has_a_number() -> None:
    found = stage("unpaired")
    before = copied(found.state())
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    look = found.look()
    assert torch.equal(torch.rand(3), wanted)
    assert found.student.training
    assert set(look) == {"distance", "psnr"}
    assert_equal(found.state(), before)
    who = cast("unpaired")
    same = dataclasses.replace(who, student=trained(RESNET, seed=1))
    assert stage("unpaired", who=same).look() == {"distance": 0.0, "psnr": 100.0}


def test_held_out_pictures_are_looked_at_as_often_as_asked_and_at_the_end() -> None:
    found = stage("unpaired", dataclasses.replace(SETTINGS, epochs=2.5, checks=3))
    metrics = run_steps(found, SEED, 0, found.steps)
    assert found.steps == 10
    assert [number for number, each in enumerate(metrics) if "held_out" in each] == [2, 5, 8, 9]
    often = stage("unpaired", dataclasses.replace(SETTINGS, epochs=0.5, checks=20))
    assert ["held_out" in each for each in run_steps(often, SEED, 0, 2)] == [True, True]


def test_the_best_is_the_one_that_was_nearest_not_the_last() -> None:
    found = stage("unpaired", dataclasses.replace(SETTINGS, learning_rate=2e-2, checks=8))
    weights, looks = [], []
    for number in range(found.steps):
        (metrics,) = run_steps(found, SEED, number, number + 1)
        held_out = metrics["held_out"]
        assert isinstance(held_out, Mapping)
        looks.append(held_out)
        weights.append(copied(found.student.state_dict()))
    distances = [look["distance"] for look in looks]
    nearest = distances.index(min(distances))
    assert found.best_look == looks[nearest]
    best = found.best()
    assert not best.training
    assert_equal(best.state_dict(), weights[nearest])
    assert best.spec == found.student.spec
    assert len(set(distances)) == len(distances)


def test_the_best_is_not_changed_by_later_steps() -> None:
    found = stage("unpaired", dataclasses.replace(SETTINGS, checks=8))
    run_steps(found, SEED, 0, 1)
    best = copied(found.best().state_dict())
    found.best_look = {"distance": -1.0, "psnr": 0.0}  # nothing is nearer
    run_steps(found, SEED, 1, 4)
    assert_equal(found.best().state_dict(), best)


# --- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_stage_goes_on_from_its_state_bit_for_bit(objective: str) -> None:
    whole = stage(objective)
    start = copied(whole.state())
    metrics = run_steps(whole, SEED, 0, 4)
    state = copied(whole.state())
    metrics += run_steps(whole, SEED, 4, 8)
    assert ("pool.kept" in state) == (objective != "paired")
    assert "D.model.0.weight" in state
    for first, tensors in ((4, state), (0, start)):
        later = stage(objective)
        later.load_state(tensors)
        assert run_steps(later, SEED, first, 8) == metrics[first:]
        assert_equal(later.state(), whole.state())
        assert_equal(later.best().state_dict(), whole.best().state_dict())
        assert later.best_look == whole.best_look


def test_a_stage_goes_on_bit_for_bit_with_dropout_and_bf16() -> None:
    spec = resnet_spec(blocks=2, ngf=4, dropout=True)

    def new() -> Finetune:
        teacher = trained(spec, seed=1)
        student = slim(teacher, some_kept(spec, 3, remove_blocks=False))
        judge_spec = patchgan_spec(ndf=4, layers=2)
        who = Cast(student, trained(judge_spec, seed=2), teacher, trained(judge_spec, seed=2), trained(spec, seed=5))
        return stage("unpaired", who=who, precision="bf16")

    whole = new()
    run_steps(whole, SEED, 0, 3)
    state = copied(whole.state())
    metrics = run_steps(whole, SEED, 3, 6)
    later = new()
    later.load_state(state)
    assert run_steps(later, SEED, 3, 6) == metrics
    assert_equal(later.state(), whole.state())
    assert all(value.dtype == torch.float32 for name, value in state.items() if name.endswith("weight"))


# --- in floats at first, then on grids ------------------------------------------------------------------------------


def grids_of(network: Network) -> Mapping[str, tuple[float, int]]:
    return calibrate(network, lambda: (SMALL_X.batch([number]) for number in range(4)), "mse")


def on_grids(student: Network, floats: float, *, learned: bool = False) -> Finetune:
    """Return a stage of 8 steps, the first part of which, `floats`, is in floats."""
    quantized = with_quantization(student, grids_of(student))
    for scale in range_parameters(quantized):
        scale.requires_grad_(learned)
    who = dataclasses.replace(cast("distill"), student=quantized)
    settings = dataclasses.replace(SETTINGS, floats=floats)
    return Finetune(who, material("distill"), settings, seed=SEED, precision="fp32", grids=grids_of)


@pytest.mark.parametrize("learned", [False, True])
def test_a_student_is_trained_in_floats_at_first_and_then_put_on_the_grids_that_fit_it(learned: bool) -> None:
    plain = stage("distill")
    found = on_grids(plain.student, 0.5, learned=learned)
    assert found.begin() == plain.begin()
    assert run_steps(found, SEED, 0, 4) == run_steps(plain, SEED, 0, 4)
    fitted = on_grids(plain.student, 0.0, learned=learned)
    after = plain.student.state_dict()
    assert_equal({key: found.student.state_dict()[key] for key in after}, after)
    first = fitted.begin()
    run_steps(found, SEED, 4, 5)
    assert found.best_look == first
    assert_equal(found.best().state_dict(), fitted.best().state_dict())
    run_steps(found, SEED, 5, 8)
    pairs = zip(range_parameters(found.student), range_parameters(fitted.student), strict=True)
    assert {torch.equal(*pair) for pair in pairs} == {not learned}
    assert found.best().spec.quantization == "int8"


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("first", [3, 4, 5])
def test_a_stage_that_changes_to_grids_goes_on_from_its_state_bit_for_bit(first: int, learned: bool) -> None:
    whole, later = (on_grids(cast("distill").student, 0.5, learned=learned) for _ in range(2))
    run_steps(whole, SEED, 0, first)
    state = copied(whole.state())
    metrics = run_steps(whole, SEED, first, 8)
    later.load_state(state)
    assert run_steps(later, SEED, first, 8) == metrics
    assert_equal(later.state(), whole.state())
    assert_equal(later.best().state_dict(), whole.best().state_dict())


def test_a_stage_that_goes_on_behind_the_change_to_grids_makes_up_for_it() -> None:
    # As of 8 processes, whose step is 8 of one: saved just before the change, and gone on with after it.
    whole, later = (on_grids(cast("distill").student, 0.5) for _ in range(2))
    run_steps(whole, SEED, 0, 4)
    later.load_state(copied(whole.state()))
    run_steps(later, SEED, 6, 7)
    fitted = on_grids(whole.student, 0.0)
    fitted.student.load_state_dict(with_quantization(whole._plain, grids_of(whole._plain)).state_dict())
    assert later.best_look == fitted.look()


def test_the_last_step_is_on_grids_however_long_a_student_is_in_floats() -> None:
    found = on_grids(cast("distill").student, 0.99)
    names = [f"{layer.name}.{INPUT_GRID[0]}" for layer in found.student.table.layers if layer.quantized_input]
    before = copied({name: found.student.get_parameter(name) for name in names})
    run_steps(found, SEED, 0, 7)
    assert_equal({name: found.student.get_parameter(name) for name in names}, before)
    run_steps(found, SEED, 7, 8)
    assert not all(torch.equal(found.student.get_parameter(name), before[name]) for name in names)


def test_finetuning_brings_a_slim_generator_nearer_to_the_original() -> None:
    found = stage("distill", dataclasses.replace(SETTINGS, epochs=15, checks=4, gan_weight=0.0))
    before = found.look()
    run_steps(found, SEED, 0, found.steps)
    assert found.best_look["distance"] < 0.8 * before["distance"]
    assert found.best_look["psnr"] > before["psnr"] + 1
