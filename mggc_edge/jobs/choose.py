"""What the choice of channels needs in a job: a discriminator, neighborhoods, and the game that is played with them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mggc_edge.errors import InputError, SpecError, counted
from mggc_edge.jobs.devices import on
from mggc_edge.jobs.encoders import ChosenEncoder, find_neighbors
from mggc_edge.jobs.folder import Job
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.pruning.mggc.game import Game
from mggc_edge.pruning.mggc.settings import GameSettings
from mggc_edge.pruning.plan import PruningPlan
from mggc_edge.settings import Settings
from mggc_edge.training.bank import PictureSet
from mggc_edge.training.discriminator import DiscriminatorSettings, FitDiscriminator
from mggc_edge.training.loop import Journal, Stage, Watch, follow_stage, run_stage
from mggc_edge.training.losses import GanLoss
from mggc_edge.training.material import Material
from mggc_edge.training.order import step_seed, steps_of
from mggc_edge.training.precision import Precision
from mggc_edge.training.processes import ALONE, Processes


@dataclass(frozen=True)
class Choice:
    """What a method chose.

    Attributes:
        generator: the generator's plan.
        discriminator: the discriminator's; None where it stays whole or there is none.
        network: the slim generator, where its weights are not slices of the original's.
        judge: the discriminator that it played against, whole; None: the original's.
    """

    generator: PruningPlan
    discriminator: PruningPlan | None
    network: Network | None = None
    judge: Network | None = None


@dataclass(frozen=True)
class Work:
    """What every stage of a job needs: where to log, what to tell, how to compute, and with whom.

    Of several processes, those of a higher rank have no journal.
    """

    job: Job
    journal: Journal | None
    precision: Precision
    watch: Watch
    tell: Callable[[str], None]
    processes: Processes = ALONE

    def run(self, stage: Stage) -> None:
        """Run a stage to its end, or go on with it, in this process alone: that of rank 0."""
        self._run(stage, ALONE)

    def run_together(self, stage: Stage) -> None:
        """Run a stage to its end, or go on with it, in all processes; in the end all have what rank 0 has."""
        if self.processes.first:
            self._run(stage, self.processes)
        else:
            follow_stage(stage, self.job.work, seed=self.job.seed, processes=self.processes)

    def _run(self, stage: Stage, processes: Processes) -> None:
        job = self.job
        assert self.journal is not None
        run_stage(
            stage, job.work, self.journal,
            seed=job.seed, watch=self.watch, saved=job.save, tell=self.tell, processes=processes,
        )  # fmt: skip

    def placed(self, network: Network) -> Network:
        """Return a network on this process's device: itself where it is there, else a copy."""
        return on(self.processes.device, network)


def gan_loss(settings: Settings, material: Material, name: str = "mggc.loss") -> GanLoss:
    """Return the adversarial loss of a job: as set, or hinge for pairs and least squares otherwise."""
    chosen: GanLoss = settings[name]
    if settings[name] == "auto":
        return "hinge" if material.objective == "paired" else "lsgan"
    return chosen


def batch_size(settings: Settings, name: str, generator: Network) -> int:
    """Return the setting `name`, where 0 stands for 4 with batch norm and else 1."""
    size: int = settings[name]
    return size or (4 if generator.spec.norm == "batch" else 1)


def check_fitting(generator: Network) -> None:
    """Check that a discriminator can be fitted to a generator, at its picture size.

    Raises:
        InputError: its pictures are too small.
    """
    size, smallest = generator.table.image_size, _smallest_judged()
    if min(size) < smallest:
        raise InputError(
            f"a discriminator is fitted where none is given, to pictures of at least {smallest}x{smallest}, and these "
            f"have {size[0]}x{size[1]}",
            hint="give a larger --image-size, or a discriminator for such pictures with --discriminator FILE",
        )


def _smallest_judged() -> int:
    """Return the side of the smallest picture that a PatchGAN can judge, in pixels; its widths have no part in it."""
    for side in itertools.count(1):
        with contextlib.suppress(SpecError):
            layer_table(patchgan_spec(ndf=1), (side, side))
            return side
    raise AssertionError


def fit_discriminator(
    work: Work, generator: Network, material: Material, outputs: PictureSet, request: CompressRequest
) -> Network:
    """Return a discriminator that tells the original's outputs from the targets, see `FitDiscriminator`.

    It is on the CPU; of several processes, all have rank 0's.
    """
    settings = work.job.settings
    paired = material.objective == "paired"
    spec = generator.spec
    judge_spec = replace(
        patchgan_spec(
            in_channels=spec.out_channels + (spec.in_channels if paired else 0),
            ndf=settings["discriminator.ndf"],
            norm="batch" if spec.norm == "batch" else "instance",
        ),
        color_order=spec.color_order,
        low=spec.low,
        high=spec.high,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(work.job.seed, "discriminator/weights", 0))
        judge = Network(judge_spec, layer_table(judge_spec, generator.table.image_size))
    size_of_batch = batch_size(settings, "mggc.batch_size", generator)
    epochs = settings["discriminator.epochs"]
    if request.quick:
        epochs = settings["quick.discriminator_steps"] * size_of_batch / len(material.source)
    fit = DiscriminatorSettings(
        epochs=epochs,
        batch_size=size_of_batch,
        learning_rate=settings["discriminator.learning_rate"],
        gan=gan_loss(settings, material),
    )
    stage = FitDiscriminator(
        work.placed(judge),
        work.placed(generator),
        material.source,
        outputs,
        material.target,
        fit,
        paired=paired,
        seed=work.job.seed,
        precision=work.precision,
        processes=work.processes,
    )
    work.tell(f"fitting a discriminator to the original: {stage.steps} steps")
    work.run_together(stage)
    return stage.judge.eval().cpu()


def make_game(
    work: Work,
    generator: Network,
    discriminator: Network,
    material: Material,
    outputs: PictureSet,
    request: CompressRequest,
    budget: float,
    encoder: ChosenEncoder,
) -> Game:
    """Return the game of MGGC, ready to be played: first the encoder learns, and says which outputs are neighbors.

    Of several processes, rank 0 does so alone and tells the others.
    """
    settings = work.job.settings
    names = ("k", "lambda_1", "lambda_2", "temperature", "offset", "noise", "regularizer", "pairing", "agent")
    more = ("feedback", "prune_discriminator", "learning_rate", "weight_decay", "clip")
    chosen = GameSettings(
        loss=gan_loss(settings, material), **{name: settings[f"mggc.{name}"] for name in (*names, *more)}
    )
    size = batch_size(settings, "mggc.batch_size", generator)
    count = len(material.source)
    if chosen.k >= count:
        most = f"{counted(count, 'picture')} have at most {counted(count - 1, 'neighbor')} each, not {chosen.k}"
        if count == 1:
            most = f"1 picture has no neighbors; it is pruned with mggc.k=0, not {chosen.k}"
        work.tell(f"note: {most}")
        chosen = replace(chosen, k=count - 1)
    neighbors = torch.zeros(len(outputs), chosen.k, dtype=torch.long)
    if work.processes.first:
        neighbors = find_neighbors(work, encoder, material, outputs, chosen.k, quick=request.quick)
    work.processes.broadcast([neighbors])
    return Game(
        work.placed(generator),
        work.placed(discriminator),
        material.source,
        outputs,
        neighbors,
        budget=budget,
        convention=request.macs_convention,
        settings=chosen,
        seed=work.job.seed,
        steps=prune_steps(settings, request, count, size, work.processes.size),
        batch_size=size,
        precision=work.precision,
        processes=work.processes,
    )


def prune_steps(
    settings: Settings,
    request: CompressRequest,
    count: int,
    size: int,
    processes: int = 1,
    *,
    epochs: str = "mggc.epochs",
) -> int:
    """Return how many steps the stage `prune` takes: as asked for, or as the settings say; fewer in several processes.

    `epochs`: the setting of the method.
    """
    if request.prune_epochs is None and request.quick:
        steps: int = settings["quick.prune_steps"]
        return max(1, round(steps / processes))
    usual = settings[epochs if request.has_pictures else "built_in.prune_epochs"]
    return steps_of(request.prune_epochs or usual, count, size * processes)
