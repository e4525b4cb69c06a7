"""How GAN Slimming is carried out."""

from __future__ import annotations

from dataclasses import dataclass

from mggc_edge.errors import SettingError
from mggc_edge.training.losses import GanLoss


@dataclass(frozen=True)
class SlimmingSettings:
    """The weights and rates of the method; `docs/gan-slimming.md` says where they differ from the paper's, and why.

    Attributes:
        loss: the adversarial loss.
        gan_weight: its weight for the generator.
        beta: weight of the distance to the original's output.
        rho: weight of the L1 norm of the scales; 0: steered so that the budget is met.
        closing: fraction of the steps after which a steered rho has closed what the budget does not keep.
        learning_rate: of the weights of both networks, at the start.
        weight_decay: of both, coupled: an L2 term in the gradient.
        scale_rate, momentum: of the scales' SGD; the rate at the start.
        clip: largest norm of the gradient of all scales together.
        pool: generated pictures that the discriminator's pool keeps; none where it judges pairs.
        flip: mirror every other picture.
        sums: residual sums have scales too; the paper keeps them whole.
        even: the scales of every group begin evenly spaced around 1, in the order of the norms' weights, which the
            paper begins with.
        give_back: where rho is steered, channels that are open when the budget is met get back the size that they began
            with. A proximal step takes as much from those that stay as from those that go; hundreds of epochs make up
            for that, and tens do not.
        learned_ranges: of a generator on 8-bit grids, train the ranges of activations too.

    Raises:
        SettingError: the generator would learn from nothing.
    """

    loss: GanLoss = "lsgan"
    gan_weight: float = 1.0
    beta: float = 20.0
    rho: float = 0.0
    closing: float = 0.8
    learning_rate: float = 1e-4
    weight_decay: float = 1e-3
    scale_rate: float = 0.1
    momentum: float = 0.5
    clip: float = 1.0
    beta_1: float = 0.5
    pool: int = 50
    flip: bool = True
    sums: bool = True
    even: bool = True
    give_back: bool = True
    learned_ranges: bool = False

    def __post_init__(self) -> None:
        if self.gan_weight <= 0 and self.beta <= 0:
            raise SettingError(
                "every part of the slimming loss has weight 0",
                hint="give gan_slimming.beta or gan_slimming.gan_weight a weight",
            )
