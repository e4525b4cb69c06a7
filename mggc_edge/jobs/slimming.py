"""The method `gan-slimming` in a job: what L_dist is measured by, the stage with its settings, and what it ends in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge.artifacts import sha256_of
from mggc_edge.compiler.convolutions import is_from_caffe, read_convolutions
from mggc_edge.errors import counted
from mggc_edge.jobs.choose import Choice, Work, batch_size, gan_loss, prune_steps
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.jobs.tune import grids_for, precision_for, quantize_generator
from mggc_edge.models.network import Network
from mggc_edge.models.weights import weights_sha256
from mggc_edge.pruning.gan_slimming.result import Slimmed, slimmed
from mggc_edge.pruning.gan_slimming.settings import SlimmingSettings
from mggc_edge.pruning.gan_slimming.stage import GanSlimming
from mggc_edge.pruning.gan_slimming.steering import Steering
from mggc_edge.settings import Settings
from mggc_edge.training.likeness import PerceptualLikeness, PixelLikeness
from mggc_edge.training.material import Material
from mggc_edge.training.perceptual import PerceptualNetwork, from_convolutions, read_perceptual

if TYPE_CHECKING:
    from mggc_edge.jobs.methods import Task

METHOD = "gan-slimming"
EPOCHS = "gan_slimming.epochs"
BATCH = "gan_slimming.batch_size"
_OF_SETTINGS = (
    "gan_weight", "beta", "rho", "closing", "learning_rate", "weight_decay", "scale_rate", "momentum",
    "clip", "pool", "flip", "sums", "even", "give_back",
)  # fmt: skip


@dataclass(frozen=True)
class ChosenPerceptual:
    """A perceptual network whose file was checked.

    Attributes:
        preprocessing: what it takes of a picture, a name in PREPROCESSINGS.
        facts: its name, that of its preprocessing, and the name and the hash of its file.
    """

    network: PerceptualNetwork
    preprocessing: str
    facts: dict[str, Any]


def check_slimming(
    settings: Settings, request: CompressRequest, generator: Network, budget: float
) -> ChosenPerceptual | None:
    """Return the network that L_dist is measured by, None without one; what is wrong is found before anything long.

    Raises:
        CheckpointError: the file holds neither VGG16 nor SqueezeNet-1.1, or cannot be read.
        ArtifactError: the ONNX file cannot be read.
        SettingError: every loss has weight 0.
        PlanError: the method cannot meet the budget.
    """
    if request.method == METHOD and request.plan is None:
        SlimmingSettings(**_chosen(settings))
        Steering(
            generator.table, budget, request.macs_convention, rates=[1.0], closing=1, sums=settings["gan_slimming.sums"]
        )
    if request.perceptual is None:
        return None
    path, preprocessing = Path(request.perceptual), settings["gan_slimming.preprocessing"]
    if is_onnx := path.suffix.lower() == ".onnx":
        network = from_convolutions(path, read_convolutions(path))
    else:
        network = read_perceptual(path, max_bytes=settings["checkpoint.max_bytes"])
    if preprocessing == "auto":
        preprocessing = "caffe" if is_onnx and is_from_caffe(path) else "imagenet"
    facts = {"name": network.name, "preprocessing": preprocessing, "file": path.name, "sha256": sha256_of(path)}
    return ChosenPerceptual(network, preprocessing, facts)


class Slimming:
    """GAN Slimming: the weights are trained while the channels close, so the slim network is no slice."""

    plays, shared = False, True

    def choose(self, work: Work, task: Task) -> Choice:
        """Return the generator's plan and the slim network; the discriminator stays whole."""
        assert task.discriminator is not None
        request, material, generator, job = task.request, task.material, task.generator, work.job
        likeness = _likeness(work, generator, task.perceptual)
        start = None
        if on_grids(job.settings, request):
            work.tell("putting the generator on 8-bit grids")
            start = work.placed(quantize_generator(job.settings, generator, material, job.seed))
        stage = GanSlimming(
            work.placed(generator),
            work.placed(task.discriminator),
            material.source_views,
            likeness,
            slimming_settings(job.settings, material),
            start=start,
            grids=grids_for(work, material),
            budget=task.budget,
            convention=request.macs_convention,
            seed=job.seed,
            steps=slimming_steps(job.settings, request, generator, len(material.source), work.processes.size),
            batch_size=batch_size(job.settings, BATCH, generator),
            precision=precision_for(work, generator if start is None else start),
            processes=work.processes,
        )
        named = "pixels, their gradients and MS-SSIM" if task.perceptual is None else f"features of {likeness.name}"
        work.tell(f"slimming to {task.budget:.4g} of the MACs, by {named}: {counted(stage.steps, 'step')}")
        work.run_together(stage)
        found = slimmed(
            generator,
            stage,
            budget=task.budget,
            seed=job.seed,
            convention=request.macs_convention,
            source_sha256=weights_sha256(generator),
            align=request.align,
        )
        channels = sum(len(scale) for scale in stage.scales.values())
        if found.opened or found.closed:
            work.tell(
                f"note: the scales had left {found.fraction:.4g} of the MACs; to meet the budget, {found.opened} of "
                f"{channels} channels were opened and {found.closed} closed"
            )
        if work.processes.first:
            job.facts["slimming"] = _facts(task.perceptual, found, channels, quantized=start is not None)
            job.save()
        return Choice(found.plan, None, found.network, stage.judge)


def _facts(perceptual: ChosenPerceptual | None, found: Slimmed, channels: int, *, quantized: bool) -> dict[str, Any]:
    """Return what the manifest says of a finished stage."""
    return {
        "quantized": quantized,
        "distance": {"name": "pixels"} if perceptual is None else perceptual.facts,
        "fraction_open": found.fraction,
        "channels": channels,
        "repair_opened": found.opened,
        "repair_closed": found.closed,
        "in_first_order": found.in_first_order,
    }


def _likeness(work: Work, generator: Network, chosen: ChosenPerceptual | None) -> PixelLikeness | PerceptualLikeness:
    form, settings = generator.spec.output_format, work.job.settings
    if chosen is None:
        return PixelLikeness(form)
    return PerceptualLikeness(
        chosen.network.to(work.processes.device),
        form,
        preprocessing=chosen.preprocessing,
        style=settings["gan_slimming.style"],
    )


def on_grids(settings: Settings, request: CompressRequest) -> bool:
    """Return whether the stage trains on the 8-bit grids that finetuning goes on with, as in the paper."""
    joint: bool = settings["gan_slimming.quantize"]
    return joint and request.quantize == "8" and request.method == METHOD


def slimming_settings(settings: Settings, material: Material) -> SlimmingSettings:
    """Return how the stage of a job trains."""
    return SlimmingSettings(
        loss=gan_loss(settings, material, "gan_slimming.loss"),
        learned_ranges=settings["quantize.ranges"] == "learned",
        **_chosen(settings),
    )


def _chosen(settings: Settings) -> dict[str, Any]:
    return {name: settings[f"gan_slimming.{name}"] for name in _OF_SETTINGS}


def slimming_steps(
    settings: Settings, request: CompressRequest, generator: Network, count: int, processes: int = 1
) -> int:
    """Return how many steps the stage takes."""
    size = batch_size(settings, BATCH, generator)
    return prune_steps(settings, request, count, size, processes, epochs=EPOCHS)
