"""The four experiments of the MGGC paper (AAAI 2024) as defaults of the flags of `compress` and of the settings.

Every value has its source: "paper" is MGGC's own; "GCC" is GCC's code (NeurIPS 2021), whose training the paper says it
follows; "CycleGAN" is what both inherit; "ours" is a choice where neither says anything, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from mggc_edge.errors import SettingError
from mggc_edge.settings import Value

PresetName = Literal["cityscapes", "edges2shoes", "horse2zebra", "summer2winter"]


@dataclass(frozen=True)
class Default:
    """What a flag or a setting is by default under a preset, and whose choice that is."""

    name: str
    value: Value
    source: str


@dataclass(frozen=True)
class Preset:
    """One experiment.

    Attributes:
        about: which task and which network it is for.
        flags: by the names of `compress`'s flags, with underscores; their values are texts, as typed.
        settings: by the names of the table of settings.
        layers: where features are distilled: what `mggc_edge.training.distill` chooses for this network by itself.
    """

    name: PresetName
    about: str
    flags: tuple[Default, ...]
    settings: tuple[Default, ...]
    layers: Default

    def flag_values(self) -> dict[str, str]:
        """Return the flags' values by name."""
        return {default.name: str(default.value) for default in self.flags}

    def request_values(self) -> dict[str, str | list[int]]:
        """Return the flags' values as a request has them in JSON: the picture size as two numbers."""
        found: dict[str, str | list[int]] = {**self.flag_values()}
        return {**found, "image_size": [int(side) for side in self.flag_values()["image_size"].split("x")]}

    def setting_values(self) -> dict[str, Value]:
        """Return the settings' values by name."""
        return {default.name: default.value for default in self.settings}


# The method itself: the same in all four. eq. 5 is one-sided and SwAV trains the encoder, where this package's own
# defaults are others.
_METHOD = (
    Default("encoder.objective", "swav", "paper"),
    Default("mggc.agent", "gru", "paper"),
    Default("mggc.feedback", True, "paper"),
    Default("mggc.k", 5, "paper, eq. 1"),
    Default("mggc.lambda_1", 3.0, "paper, eq. 2"),
    Default("mggc.lambda_2", 0.1, "paper, eq. 2"),
    Default("mggc.noise", "gumbel_paper", "paper, eq. 3"),
    Default("mggc.pairing", "center", "paper, eq. 2"),
    Default("mggc.prune_discriminator", True, "paper"),
    Default("mggc.regularizer", "one_sided", "paper, eq. 5"),
    Default("mggc.evenness", 0.0, "paper: by the agents' predictions"),
    Default("distill.enabled", True, "paper"),
    Default("finetune.gan_weight", 1.0, "GCC"),
    Default("finetune.learning_rate", 2e-4, "GCC"),
    Default("train.beta_1", 0.5, "GCC"),
)


def _flags(budget: str, direction: str, source: str) -> tuple[Default, ...]:
    return (
        Default("budget", budget, "paper, table 1"),
        Default("macs_convention", "paper", "paper: as its originals, 18.60G and 56.80G, are counted"),
        Default("image_size", "256x256", "paper"),
        Default("direction", direction, source),
    )


def _cyclegan(name: PresetName, about: str, budget: str, schedule: str) -> Preset:
    """Return a preset for a CycleGAN ResNet; `schedule` is the source of what GCC has for horse2zebra alone."""
    return Preset(
        name,
        about,
        _flags(budget, "AtoB", "paper"),
        (
            *_METHOD,
            Default("mggc.loss", "lsgan", "paper"),
            Default("mggc.epochs", 20.0, f"paper: a tenth of the original's, which are 200 ({schedule})"),
            Default("mggc.batch_size", 1, "ours: as in finetuning; the paper is silent"),
            Default("finetune.epochs", 200.0, f"{schedule}: 100 + 100"),
            Default("train.decay", 0.5, f"{schedule}: 100 + 100"),
            Default("finetune.batch_size", 1, schedule),
            Default("distill.form", "mse", schedule),
            Default("distill.content", 0.01, schedule),
            Default("distill.style", 10.0, schedule),
            Default("distill.pixels", 0.0, "GCC: has none"),
            Default("train.lambda_cycle", 10.0, "CycleGAN"),
            Default("train.lambda_identity", 0.5, "CycleGAN"),
            Default("train.pool", 50, "CycleGAN"),
            Default("data.view_scale", 286 / 256, "CycleGAN: 286, cropped to 256"),
            Default("train.flip", True, "CycleGAN"),
            Default("discriminator.ndf", 64, "GCC"),
        ),
        Default(
            "distillation layers", "G: model.9, 12, 15, 18 (ResNet-9); D: 2nd and 4th convolution's norm", schedule
        ),
    )


def _pix2pix(
    name: PresetName,
    about: str,
    budget: str,
    direction: str,
    *,
    epochs: tuple[int, int],
    batch_size: int,
    distilled: str,
) -> Preset:
    """Return a preset for a pix2pix U-Net; `epochs` at a constant rate and at a falling one."""
    total, plan = sum(epochs), f"GCC: {epochs[0]} + {epochs[1]}"
    return Preset(
        name,
        about,
        _flags(budget, direction, "GCC"),
        (
            *_METHOD,
            Default("mggc.loss", "hinge", "paper"),
            Default("mggc.epochs", total / 10, f"paper: a tenth of the original's, which are {total} (GCC)"),
            Default("mggc.batch_size", batch_size, "ours: as in finetuning; the paper is silent"),
            Default("finetune.epochs", float(total), plan),
            Default("train.decay", epochs[1] / total, plan),
            Default("finetune.batch_size", batch_size, "GCC"),
            Default("distill.form", "root", distilled),
            Default("distill.content", 50.0, distilled),
            Default("distill.style", 1e4, distilled),
            Default("distill.pixels", 0.0, "GCC: has none"),
            Default("train.lambda_l1", 100.0, "GCC"),
            Default("data.view_scale", 1.0, "GCC: 256, no crop"),
            Default("train.flip", False, "GCC"),
            Default("discriminator.ndf", 128, "GCC"),
        ),
        Default(
            "distillation layers",
            "G: norms of the 2nd and 4th halving, what the 4th and 2nd up convolution see; "
            "D: norms of the 2nd and 4th convolution",
            distilled,
        ),
    )


_REUSED = "ours: cityscapes', as GCC has no script for it"
PRESETS: Mapping[PresetName, Preset] = {
    preset.name: preset
    for preset in (
        _pix2pix(
            "cityscapes",
            "pix2pix U-Net-256, labels to photos; paired pictures",
            "3.05G",
            "BtoA",
            epochs=(100, 150),
            batch_size=1,
            distilled="GCC",
        ),
        _pix2pix(
            "edges2shoes",
            "pix2pix U-Net-256, edges to shoes; paired pictures",
            "2.94G",
            "AtoB",
            epochs=(10, 30),
            batch_size=4,
            distilled=_REUSED,
        ),
        _cyclegan("horse2zebra", "CycleGAN ResNet-9, horses to zebras; unpaired pictures", "2.50G", "GCC"),
        _cyclegan(
            "summer2winter",
            "CycleGAN ResNet-9, summer to winter; unpaired pictures",
            "2.97G",
            "ours: horse2zebra's, as GCC has no script for it",
        ),
    )
}


def preset_named(name: str) -> Preset:
    """Return a preset.

    Raises:
        SettingError: there is none of that name.
    """
    if name not in get_args(PresetName):
        raise SettingError(f"there is no preset '{name}'", hint=f"known: {', '.join(PRESETS)}")
    return PRESETS[name]  # type: ignore[index]
