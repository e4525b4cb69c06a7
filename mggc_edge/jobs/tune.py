"""The finetuning stage of a job: from the plans and the originals to the slim pair."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mggc_edge.jobs.choose import Choice, Work, batch_size, gan_loss
from mggc_edge.jobs.networks import Originals
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.models.convert import without_quantization
from mggc_edge.models.network import Network
from mggc_edge.pruning.apply import apply_plan
from mggc_edge.settings import Settings
from mggc_edge.training.distill import DistillSettings
from mggc_edge.training.finetune import Cast, Finetune, FinetuneSettings
from mggc_edge.training.material import Material
from mggc_edge.training.order import batch_indices, steps_of
from mggc_edge.training.precision import GRIDS_PRECISION, Precision
from mggc_edge.training.quantize import Grids, QuantizeSettings, calibrate, quantize, range_parameters
from mggc_edge.training.recalibrate import recalibrate

USUAL_RATE = 1e-3
USUAL_RATES = {"cartoongan": 2e-4}


@dataclass(frozen=True)
class Tuned:
    """The slim pair after finetuning, and how near to the original it was on held-out pictures before and after."""

    generator: Network
    discriminator: Network | None
    before: dict[str, float]
    after: dict[str, float]


def finetune_pair(
    work: Work, originals: Originals, material: Material, choice: Choice, request: CompressRequest
) -> Tuned:
    """Slim both networks, recalibrate their batch statistics, finetune them, and return the best on held-out pictures.

    What is returned is on the CPU. Of several processes, rank 0 alone looks at the held-out pictures.

    Raises:
        TrainingError: a loss is no longer a number.
        OutputError: a state cannot be written.
    """
    student = student_for(work, originals.generator, material, choice, request)
    stage = make_finetune(work, originals, material, choice, request, student)
    before: dict[str, float] = {}
    if work.processes.first:
        before = work.job.facts.get("before_finetuning") or stage.begin()
        work.job.remember("before_finetuning", before, "the slim network")
    work.tell(f"finetuning the slim generator: {stage.steps} steps")
    work.run_together(stage)
    judge = None if stage.judge is None else stage.judge.eval().cpu()
    return Tuned(stage.best(), judge, before, stage.best_look)


def student_for(
    work: Work, generator: Network, material: Material, choice: Choice, request: CompressRequest
) -> Network:
    """Return what finetuning begins with: the slim generator, on 8-bit grids of its own where it is trained on any.

    Grids of a method are those of the original: they fit a network with all its channels. Ranges that were learned
    there followed the network, and stay.
    """
    settings, seed = work.job.settings, work.job.seed
    learned: bool = settings["quantize.ranges"] == "learned"
    student = slim_generator(settings, generator, material, choice, seed)
    if request.quantize == "8" and student.spec.quantization == "none":
        work.tell("putting the slim generator on 8-bit grids")
        student = quantize_generator(settings, student, material, seed)
    elif choice.network is not None and student.spec.quantization != "none" and not learned:
        work.tell("fitting the 8-bit grids to the slim generator")
        student = quantize_generator(settings, without_quantization(student), material, seed)
    for scale in range_parameters(student):  # of a network that a method put on grids, and that may come from a file
        scale.requires_grad_(learned)
    return student


def slim_generator(settings: Settings, generator: Network, material: Material, choice: Choice, seed: int) -> Network:
    """Return the slim generator, in the method's own weights if it gave any, with batch statistics that fit them.

    Where no channel is cut, the original's own statistics do: a few batches would only estimate them worse.
    """
    student = apply_plan(generator, choice.generator) if choice.network is None else copy.deepcopy(choice.network)
    if choice.network is None and student.spec == generator.spec:
        return student
    size = batch_size(settings, "finetune.batch_size", generator)

    def batches() -> Iterator[Tensor]:
        for step in range(settings["finetune.recalibration_batches"]):
            yield material.source.batch(batch_indices(seed, "recalibrate", step, len(material.source), size))

    recalibrate(student, batches())
    return student


def quantize_generator(settings: Settings, network: Network, material: Material, seed: int) -> Network:
    """Return a generator with its batch norms folded, on the 8-bit grids that it is then trained on.

    Raises:
        TrainingError: what it computes of the pictures is not finite.
    """
    return quantize(
        network,
        lambda: pictures_for_grids(settings, material, seed),
        QuantizeSettings(
            per_channel=settings["quantize.weights"] == "channel",
            learned=settings["quantize.ranges"] == "learned",
            calibration=settings["quantize.calibration"],
        ),
    )


def precision_for(work: Work, network: Network) -> Precision:
    """Return in what a stage computes that trains a network: as the job does, but in float32 on 8-bit grids."""
    return work.precision if network.spec.quantization == "none" else GRIDS_PRECISION


def grids_for(work: Work, material: Material) -> Grids:
    """Return what finds the grids of activations that fit a network in floats on the device of a job."""
    job, device = work.job, work.processes.device
    return lambda network: calibrate(
        network,
        lambda: (x.to(device) for x in pictures_for_grids(job.settings, material, job.seed)),
        job.settings["quantize.calibration"],
    )


def pictures_for_grids(settings: Settings, material: Material, seed: int) -> Iterator[Tensor]:
    """Yield the training pictures that 8-bit grids are fitted to, each [1, C, H, W]."""
    count = min(settings["quantize.pictures"], len(material.source))
    for number in batch_indices(seed, "quantize", 0, len(material.source), count):
        yield material.source.batch([number])


def make_finetune(
    work: Work,
    originals: Originals,
    material: Material,
    choice: Choice,
    request: CompressRequest,
    student: Network,
) -> Finetune:
    """Return the stage, ready to run; `student` is trained in place where it is on the stage's device."""
    judge = originals.discriminator
    own_judge = judge
    if judge is not None and choice.discriminator is not None:
        own_judge = apply_plan(judge, choice.discriminator)
    elif choice.judge is not None:
        own_judge = choice.judge
    elif judge is not None:
        own_judge = Network.from_tensors(
            judge.spec, judge.table, {key: judge.state_dict()[key].clone() for key in judge.table.tensors}
        )
    partner = originals.partner if material.objective == "unpaired" else None
    generator = work.placed(originals.generator)
    own_judge, judge, partner = (
        None if network is None else work.placed(network) for network in (own_judge, judge, partner)
    )
    # A method that was on the grids already has nothing to begin with in floats.
    late = student.spec.quantization != "none" and (
        choice.network is None or choice.network.spec.quantization == "none"
    )
    cast = Cast(work.placed(student), own_judge, generator, judge, partner)
    return Finetune(
        cast,
        material,
        finetune_settings(work.job.settings, originals.generator, material, request),
        seed=work.job.seed,
        precision=precision_for(work, student),
        grids=grids_for(work, material) if late else None,
        processes=work.processes,
    )


def finetune_settings(
    settings: Settings, generator: Network, material: Material, request: CompressRequest
) -> FinetuneSettings:
    """Return how a slim pair of this job is finetuned: as `train` trains originals, with GCC's distillation."""
    paired = material.objective == "paired"
    size = batch_size(settings, "finetune.batch_size", generator)
    distill = distill_settings(settings, unet=generator.spec.family == "unet", paired=paired)
    return FinetuneSettings(
        distill=distill,
        epochs=finetune_epochs(settings, request, len(material.source), size),
        batch_size=size,
        learning_rate=learning_rate(settings, generator.spec.family),
        judge_rate=settings["finetune.discriminator_rate"],
        beta_1=settings["train.beta_1"],
        decay=settings["train.decay"],
        gan=gan_loss(settings, material),
        gan_weight=gan_weight(settings, distill),
        lambda_l1=settings["train.lambda_l1"],
        lambda_cycle=settings["train.lambda_cycle"],
        lambda_identity=settings["train.lambda_identity"],
        pool=settings["train.pool"],
        flip=settings["train.flip"],
        checks=settings["finetune.checks"],
        floats=settings["quantize.floats"] if request.quantize == "8" else 0.0,
    )


def finetune_epochs(settings: Settings, request: CompressRequest, count: int, size: int) -> float:
    """Return for how many epochs a slim pair is finetuned: as asked for, or as the settings say."""
    if request.finetune_epochs is not None:
        return request.finetune_epochs
    if request.quick:
        steps: int = settings["quick.finetune_steps"]
        return steps * size / count
    epochs: float = settings["finetune.epochs" if request.has_pictures else "built_in.finetune_epochs"]
    return epochs


def finetune_steps(settings: Settings, request: CompressRequest, count: int, size: int) -> int:
    """Return how many steps finetuning takes."""
    return steps_of(finetune_epochs(settings, request, count, size), count, size)


def learning_rate(settings: Settings, family: str) -> float:
    """Return the generator's rate: as set, or the one that suits this kind of network.

    CartoonGAN's filters are small: the rate of the others soon undoes what slicing has left of them.
    """
    rate: float = settings["finetune.learning_rate"]
    return rate if rate > 0 else USUAL_RATES.get(family, USUAL_RATE)


def gan_weight(settings: Settings, distill: DistillSettings) -> float:
    """Return the weight of the adversarial loss: as set, or 0 where the original teaches, and else 1.

    The discriminators of published originals tell a slim generator's pictures apart without effort, and what they teach
    then leads away from the original: distillation alone came nearer to it (`benchmarks/results/finetuning-*.md`).
    """
    weight: float = settings["finetune.gan_weight"]
    return weight if weight >= 0 else float(not distill.enabled)


def distill_settings(settings: Settings, *, unet: bool, paired: bool) -> DistillSettings:
    """Return the weights of distillation; a setting of -1 stands for the weight that suits this kind of network.

    They go with its networks, whose features differ in size: with a U-Net's weights, a ResNet's style term was 50 to 80
    times its L1 distance to the truth, which was hardly learnt any more. Where there is no truth, a ResNet learns from
    the original above all: there a hundred times GCC's weights came nearer to it
    (`benchmarks/results/finetuning-horse2zebra.md`). With `distill.enabled` off, every weight is 0.
    """
    usual: dict[str, Any] = {"content": 0.01, "style": 10.0} if paired else {"content": 1.0, "style": 1e3}
    if unet:
        usual = {"content": 50.0, "style": 1e4}
    usual["pixels"] = 0.0 if paired else 10.0
    asked = {name: settings[f"distill.{name}"] for name in usual}
    chosen = {name: usual[name] if value < 0 else value for name, value in asked.items()}
    if not settings["distill.enabled"]:
        chosen = dict.fromkeys(chosen, 0.0)
    form = settings["distill.form"]
    if form == "auto":
        form = "root" if unet else "mse"
    return DistillSettings(form=form, **chosen)
