"""How channels are chosen: one `Pruner` a method, by name. What comes before and after is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from mggc_edge.jobs.choose import Choice, Work, make_game
from mggc_edge.jobs.encoders import ChosenEncoder
from mggc_edge.jobs.request import CompressRequest, Method
from mggc_edge.jobs.slimming import ChosenPerceptual, Slimming
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.selection import slim_spec
from mggc_edge.models.weights import weights_sha256
from mggc_edge.pruning.magnitude import filter_norms, magnitude_plan
from mggc_edge.pruning.mggc.architecture import discriminator_plan, generator_plan
from mggc_edge.pruning.plan import PruningPlan
from mggc_edge.pruning.random import random_plan
from mggc_edge.pruning.uniform import uniform_plan
from mggc_edge.training.bank import PictureSet
from mggc_edge.training.material import Material
from mggc_edge.training.order import step_seed


@dataclass(frozen=True)
class Task:
    """What a method chooses channels of, and with.

    Attributes:
        generator: the original. discriminator: its own, or a fitted one; None where the job has none.
        outputs: the original's outputs for the training pictures, None where the method does not play.
        encoder: what says which outputs are alike, where the method plays.
        budget: fraction of the original's MACs.
        perceptual: the network by which a trained student is compared with the original; None: by pixels.
    """

    generator: Network
    discriminator: Network | None
    material: Material
    outputs: PictureSet | None
    encoder: ChosenEncoder
    request: CompressRequest
    budget: float
    perceptual: ChosenPerceptual | None = None


class Pruner(Protocol):
    """A method turns a task into a choice within [0.98, 1] of the budget, and touches no network that it is given.

    Aligned widths (`request.align`) may not allow that; then it is the nearest below.
    """

    @property
    def plays(self) -> bool:
        """Whether it needs the original's outputs, and neighborhoods of them; a discriminator is there for all."""
        ...

    @property
    def shared(self) -> bool:
        """Whether several processes choose together; else rank 0 does so alone."""
        ...

    def choose(self, work: Work, task: Task) -> Choice:
        """Return which channels stay, and the slim network itself where its weights are not slices of the original's.

        Raises:
            PlanError: the budget cannot be met.
            TrainingError: a loss is no longer a number.
        """
        ...


class Mggc:
    """The agents of MGGC, which choose the channels of both networks."""

    plays = shared = True

    def choose(self, work: Work, task: Task) -> Choice:
        """Return the plans that the game ends in; the discriminator's only where it has gates."""
        assert task.discriminator is not None
        assert task.outputs is not None
        generator, discriminator, request = task.generator, task.discriminator, task.request
        game = make_game(
            work, generator, discriminator, task.material, task.outputs, request, task.budget, task.encoder
        )
        work.tell(f"pruning to {task.budget:.4g} of the MACs: {game.steps} steps")
        work.run_together(game)
        logits, judge_logits = game.logits()
        seed, convention = work.job.seed, request.macs_convention
        plan = generator_plan(
            generator.table,
            logits,
            task.budget,
            seed=seed,
            convention=convention,
            source_sha256=weights_sha256(generator),
            evenness=_evenness(work.job.settings["mggc.evenness"], generator),
            norms=_norms(generator) if work.job.settings["mggc.filters"] == "largest" else None,
            align=request.align,
        )
        if not game.settings.prune_discriminator:
            return Choice(plan, None)
        judge_plan = discriminator_plan(
            discriminator.table,
            judge_logits,
            noise=game.settings.noise,
            seed=seed,
            convention=convention,
            source_sha256=weights_sha256(discriminator),
        )
        return Choice(plan, judge_plan)


@dataclass(frozen=True)
class FromWeights:
    """A choice from the generator's weights alone. The discriminator stays whole: the original's, or the fitted one."""

    plan: Callable[..., PruningPlan]
    plays = shared = False

    def choose(self, work: Work, task: Task) -> Choice:
        """Return the generator's plan."""
        plan = self.plan(
            task.generator,
            task.budget,
            seed=work.job.seed,
            convention=task.request.macs_convention,
            source_sha256=weights_sha256(task.generator),
            align=task.request.align,
        )
        return Choice(plan, None)


class Uniform(FromWeights):
    """Uniform width: with the original's weights (`uniform.weights=slices`), or with new ones (`scratch`)."""

    def choose(self, work: Work, task: Task) -> Choice:
        """Return the generator's plan, and from scratch the slim network as drawn from the job's seed."""
        choice = super().choose(work, task)
        if work.job.settings["uniform.weights"] == "slices":
            return choice
        spec = slim_spec(task.generator.spec, choice.generator.kept)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(work.job.seed, "uniform/weights", 0))
            network = Network(spec, layer_table(spec, task.generator.table.image_size))
        work.tell("the slim generator begins with new weights")
        return Choice(choice.generator, None, network.eval())


def _evenness(asked: float, network: Network) -> float:
    """Return what evenness is used: below 0, even widths in U-Nets, where they were better, else none."""
    return asked if asked >= 0 else float(network.spec.family == "unet")


def _norms(network: Network) -> dict[str, list[float]]:
    return {group.name: filter_norms(network, group.name, group.size) for group in network.table.groups}


def _random(network: Network, budget: float, **how: object) -> PruningPlan:
    return random_plan(network.table, budget, **how)  # type: ignore[arg-type]


METHODS: Mapping[Method, Pruner] = {
    "mggc": Mggc(),
    "gan-slimming": Slimming(),
    "magnitude": FromWeights(magnitude_plan),
    "uniform": Uniform(uniform_plan),
    "random": FromWeights(_random),
}
