"""What the settings of finetuning stand for where they leave the choice to the kind of network and of pictures."""

from __future__ import annotations

import pytest

from mggc_edge.jobs.tune import distill_settings, gan_weight, learning_rate
from mggc_edge.settings import Settings
from mggc_edge.training.distill import DistillSettings


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
