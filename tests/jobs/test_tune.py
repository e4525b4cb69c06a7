"""What the settings of finetuning stand for where they leave the choice to the kind of network and of pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mggc_edge.jobs.choose import Choice, Work
from mggc_edge.jobs.networks import Originals
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.jobs.tune import (
    distill_settings,
    gan_weight,
    learning_rate,
    make_finetune,
    quantize_generator,
    student_for,
)
from mggc_edge.models.convert import without_quantization
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.pruning.random import random_plan
from mggc_edge.settings import Settings
from mggc_edge.training.distill import DistillSettings
from mggc_edge.training.material import Material
from mggc_edge.training.quantize import range_parameters
from tests.jobs.conftest import MakeWork
from tests.training.training_helpers import pictures, trained


def test_the_adversarial_loss_takes_part_where_the_original_does_not_teach() -> None:
    teaching = distill_settings(Settings(), unet=False, paired=False)
    silent = distill_settings(Settings({"distill.enabled": False}), unet=False, paired=False)
    assert (gan_weight(Settings(), teaching), gan_weight(Settings(), silent)) == (0.0, 1.0)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_weight_of_the_adversarial_loss_that_is_set_holds(weight: float) -> None:
    settings = Settings({"finetune.gan_weight": weight})
    for enabled in (True, False):
        distill = distill_settings(Settings({"distill.enabled": enabled}), unet=True, paired=True)
        assert gan_weight(settings, distill) == weight


@pytest.mark.parametrize(
    ("unet", "paired", "expected"),
    [
        (True, True, DistillSettings(content=50.0, style=1e4, pixels=0.0, form="root")),
        (True, False, DistillSettings(content=50.0, style=1e4, pixels=10.0, form="root")),
        (False, True, DistillSettings(content=0.01, style=10.0, pixels=0.0, form="mse")),
        (False, False, DistillSettings(content=1.0, style=1e3, pixels=10.0, form="mse")),
    ],
)
def test_the_weights_of_distillation_suit_the_network_and_the_pictures(
    unet: bool, paired: bool, expected: DistillSettings
) -> None:
    assert distill_settings(Settings(), unet=unet, paired=paired) == expected


def test_weights_of_distillation_that_are_set_hold() -> None:
    settings = Settings({"distill.content": 2.0, "distill.style": 0.0, "distill.pixels": 3.0, "distill.form": "root"})
    found = distill_settings(settings, unet=False, paired=True)
    assert found == DistillSettings(content=2.0, style=0.0, pixels=3.0, form="root")
    nothing = distill_settings(Settings({"distill.enabled": False}), unet=True, paired=True)
    assert not nothing.enabled


def test_the_rate_suits_the_family_until_it_is_given() -> None:
    assert [learning_rate(Settings(), family) for family in ("unet", "resnet", "cartoongan")] == [1e-3, 1e-3, 2e-4]
    assert learning_rate(Settings({"finetune.learning_rate": 5e-4}), "cartoongan") == 5e-4


# --- 8-bit grids ----------------------------------------------------------------------------------------------------

GENERATOR = trained(resnet_spec(blocks=2, ngf=4), seed=1)
JUDGE = trained(patchgan_spec(ndf=4, layers=1), seed=2)
X = pictures(6, seed=1)
MATERIAL = Material("distill", X, None, X, None, X, None, X, None, None, "held out", "")
JOINT = CompressRequest("model.pth", "0.5", source="there", method="gan-slimming", quantize="8", finetune_epochs=1)


def of_a_stage(work: Work) -> Choice:
    """What GAN Slimming on grids gives, but for its training: a slice that lies on the grids of the whole network."""
    whole = quantize_generator(work.job.settings, GENERATOR, MATERIAL, 0)
    plan = random_plan(GENERATOR.table, 0.3, seed=3)
    return Choice(plan, None, slim(whole, plan.kept), JUDGE)


def ranges(network: Network) -> list[float]:
    return [scale.item() for scale in range_parameters(network)]


def test_grids_of_the_whole_network_are_fitted_to_the_slim_one(work: MakeWork) -> None:
    here = work(quantize__pictures=4)
    choice = of_a_stage(here)
    assert choice.network is not None
    student = student_for(here, GENERATOR, MATERIAL, choice, JOINT)
    anew = quantize_generator(here.job.settings, without_quantization(choice.network), MATERIAL, 0)
    assert ranges(student) == ranges(anew) != ranges(choice.network)
    for name, value in without_quantization(choice.network).state_dict().items():
        assert torch.equal(student.state_dict()[name], value)
    assert not any(scale.requires_grad for scale in range_parameters(student))


def test_ranges_that_were_learned_stay(work: MakeWork) -> None:
    here = work(quantize__pictures=4, quantize__ranges="learned")
    choice = of_a_stage(here)
    assert choice.network is not None
    student = student_for(here, GENERATOR, MATERIAL, choice, JOINT)
    assert ranges(student) == ranges(choice.network)
    assert all(scale.requires_grad for scale in range_parameters(student))


def test_what_lies_on_grids_is_finetuned_in_float32_against_the_discriminator_of_its_stage(work: MakeWork) -> None:
    here = replace(work(quantize__pictures=4, finetune__gan_weight=1), precision="bf16")
    choice = of_a_stage(here)
    originals = Originals(GENERATOR, trained(JUDGE.spec, seed=9), None, {})
    student = student_for(here, GENERATOR, MATERIAL, choice, JOINT)
    stage = make_finetune(here, originals, MATERIAL, choice, JOINT, student)
    assert (stage._precision, stage.judge) == ("fp32", JUDGE)
    floats = make_finetune(here, originals, MATERIAL, choice, JOINT, without_quantization(student))
    assert floats._precision == "bf16"
