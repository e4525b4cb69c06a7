"""compress: from a checkpoint and a budget to a small generator with proof. The stages, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mggc_edge.artifacts import (
    BENCH_FILE,
    DISCRIMINATOR_PLAN_FILE,
    EXPORT_FOLDER,
    MANIFEST_FILE,
    ORIGINAL_FOLDER,
    PLAN_FILE,
    QUALITY_FILE,
    REPORT_FILE,
    SLIM_FOLDER,
    SPEC_FILE,
    WEIGHTS_FILE,
    sha256_of,
    write_json,
)
from mggc_edge.compiler.targets import TARGETS, this_target
from mggc_edge.errors import CheckFailedError, InputError, counted
from mggc_edge.jobs.changes import begin_anew
from mggc_edge.jobs.choose import Choice, Work, check_fitting, fit_discriminator
from mggc_edge.jobs.devices import Devices
from mggc_edge.jobs.distances import feature_networks
from mggc_edge.jobs.encoders import ChosenEncoder, check_encoder
from mggc_edge.jobs.estimate import estimate
from mggc_edge.jobs.exports import check_exports
from mggc_edge.jobs.folder import LOG_FILE, WORK_FOLDER, Job, alone_in
from mggc_edge.jobs.hooks import Hooks
from mggc_edge.jobs.launch import gathered
from mggc_edge.jobs.methods import METHODS, Task
from mggc_edge.jobs.networks import DISCRIMINATOR_FOLDER, Originals, load_originals, saved_network
from mggc_edge.jobs.outputs import original_outputs
from mggc_edge.jobs.pictures import read_material
from mggc_edge.jobs.proof import Yardsticks
from mggc_edge.jobs.prove import prove
from mggc_edge.jobs.request import CompressRequest, budget_fraction, parse_budget
from mggc_edge.jobs.segmenting import segmenter_for
from mggc_edge.jobs.slimming import ChosenPerceptual, check_slimming
from mggc_edge.jobs.tune import finetune_pair
from mggc_edge.jobs.written import check_written, is_lost, is_written, remember_written
from mggc_edge.models.cost import macs
from mggc_edge.models.layers import Size
from mggc_edge.models.network import Network
from mggc_edge.models.weights import save_network
from mggc_edge.pruning.align import check_aligned_budget, shortfall, unaligned
from mggc_edge.pruning.budget import kept_macs
from mggc_edge.pruning.plan import PruningPlan, read_plan
from mggc_edge.training.bank import PictureSet
from mggc_edge.training.loop import Journal, Progress
from mggc_edge.training.material import Material
from mggc_edge.training.precision import choose_precision
from mggc_edge.training.processes import Processes

LEAST_OF_BUDGET = 0.98  # what a method uses of it
CHOSEN_FOLDER = "chosen"  # in the folder of states: the slim network of a method that does not slice


def compress(
    job: Job, request: CompressRequest, hooks: Hooks | None = None, devices: Devices | None = None
) -> dict[str, Any]:
    """Do the whole job in its folder, or what is left of it; return the document of `compress --json`.

    `devices` train; None: this process, on the CPU. What is no training of networks is done by this process alone, and
    exports and measurements are made on the CPU.

    Every stage leaves files, and a stage whose files are there is not done again.

    Raises:
        InputError: what was given cannot be used; nothing that was finished is lost.
        TrainingError: a loss is no longer a number, or another process failed.
        CheckFailedError: an exported file does not equal its network.
        OutputError: the folder cannot be written.
    """
    hooks, devices = hooks or Hooks(), devices or Devices()
    torch.set_num_threads(job.threads)
    with alone_in(job.folder), Journal(job.folder / LOG_FILE) as journal:
        originals = _originals(job, request)
        generator = originals.generator
        budget, plan = _check_budget(request, generator)
        check_written(job)
        if originals.discriminator is None:
            check_fitting(generator)
        if request.plan is not None:
            job.remember("plan", sha256_of(Path(request.plan)), "the plan")
        networks = feature_networks(job.settings, request.feature_net, request.inception)
        check_exports(job.settings, request, generator)
        encoder = check_encoder(job.settings, request)
        perceptual = check_slimming(job.settings, request, generator, budget)
        if perceptual is not None and plan is None:
            job.remember("perceptual", perceptual.facts["sha256"], "the perceptual network")
        if METHODS[request.method].plays and plan is None and job.settings["mggc.k"]:
            job.remember("encoder", _encoder_facts(job, encoder), "the encoder")
        size = generator.table.image_size
        material = read_material(job.settings, request, generator.spec, size, job.seed, hooks, job.remember)
        job.remember("split", material.split_sha256, "the pictures")
        _check_pairs(originals, material, hooks)
        segmenter = segmenter_for(job.settings, request.segmenter, material, hooks.tell)
        yardsticks = Yardsticks(networks, segmenter, job.settings["quality.max_real"])
        precision = job.facts.get("precision") or choose_precision(
            job.settings["train.precision"], generator, devices.device
        )
        job.remember("precision", precision, "the precision")
        work = Work(job, journal, precision, hooks.watch, hooks.tell, Processes(devices.device))
        if not job.resumed:
            _tell_of_plan(plan, request, generator, budget, hooks)
        for stage in begin_anew(job):
            hooks.tell(f"note: a setting of '{stage}' is another one; it begins anew")
        hooks.tell(estimate(work, originals, material, request, budget, encoder, devices.count))
        hooks.begun()
        with gathered(devices, job.command, job.folder, hooks.lost) as processes:
            together = replace(work, processes=processes)
            originals, choice = _choose(together, originals, material, request, budget, plan, encoder, perceptual)
            slim = _finetune(together, originals, material, choice, request)
        assert slim is not None
        return prove(work, request, generator, slim, choice.generator, budget, material, yardsticks)


def follow(job: Job, request: CompressRequest, processes: Processes) -> None:
    """Take part in the stages of a job that rank 0 does; `job` writes nothing. Raises as `compress`."""
    hooks = Hooks()
    originals = _originals(job, request)
    generator = originals.generator
    budget, plan = _check_budget(request, generator)
    encoder = check_encoder(job.settings, request)
    perceptual = check_slimming(job.settings, request, generator, budget)
    material = read_material(job.settings, request, generator.spec, generator.table.image_size, job.seed, hooks)
    work = Work(job, None, job.facts["precision"], hooks.watch, hooks.tell, processes)
    originals, choice = _choose(work, originals, material, request, budget, plan, encoder, perceptual)
    _finetune(work, originals, material, choice, request)


def _encoder_facts(job: Job, encoder: ChosenEncoder) -> dict[str, Any]:
    """Return what the job keeps of its encoder; a file of the same bytes under another name is the same one."""
    known = job.facts.get("encoder", {})
    same = "sha256" in known and known["sha256"] == encoder.facts.get("sha256")
    return {**encoder.facts, "file": known["file"]} if same else encoder.facts


def check_floor(request: CompressRequest, document: Mapping[str, Any]) -> None:
    """Raise CheckFailedError if a finished job's pictures are further from the original's than `min_psnr` allows."""
    least, quality = request.min_psnr, document["quality"]
    psnr = quality["psnr_to_original"]
    if least is not None and quality["broken_pictures"]:
        raise CheckFailedError(f"{quality['broken_pictures']} of the compressed generator's pictures are not finite")
    if least is not None and not quality["identical"] and psnr < least:
        raise CheckFailedError(
            f"the compressed generator's pictures are at {psnr:.2f} dB to the original's; wanted were {least:g} dB",
            hint="everything else is finished and in the run folder; a larger budget or longer finetuning helps",
        )


def _originals(job: Job, request: CompressRequest) -> Originals:
    originals = load_originals(
        Path(request.model),
        None if request.discriminator is None else Path(request.discriminator),
        None if request.partner is None else Path(request.partner),
        direction=request.direction,
        norm_stats=request.norm_stats,
        bn=request.bn,
        image_size=request.image_size,
        max_bytes=job.settings["checkpoint.max_bytes"],
    )
    job.facts.setdefault("sources", originals.files)  # other bytes with the same weights are no other network
    job.remember("networks", originals.sha256, "a network")
    return originals


def _check_budget(request: CompressRequest, generator: Network) -> tuple[float, PruningPlan | None]:
    """Return the budget as a fraction, and the plan that was given; before anything long, can it be met at all?"""
    budget = budget_fraction(request.budget, macs(generator.table, request.macs_convention))
    if request.plan is not None:
        plan = read_plan(Path(request.plan))
        plan.check_fits(generator.spec)
        if request.align > 1:
            plan = plan.aligned(request.align)
        keeps = kept_macs(generator.table, plan.kept, request.macs_convention)
        fraction = keeps / macs(generator.table, request.macs_convention)
        if fraction > budget:
            raise InputError(
                f"the plan '{request.plan}' keeps {fraction:.4g} of the MACs, more than the budget {request.budget}",
                hint="give the budget that the plan was made for",
            )
        return budget, plan
    asked = request.budget.strip() if parse_budget(request.budget)[1] else None
    check_aligned_budget(generator.table, budget, request.align, request.macs_convention, asked=asked)
    return budget, None


def _tell_of_plan(
    plan: PruningPlan | None, request: CompressRequest, generator: Network, budget: float, hooks: Hooks
) -> None:
    """Say what of the flags a given plan takes the place of."""
    if plan is None:
        return
    usual = CompressRequest.method
    if request.method != usual and request.method != plan.criterion:
        hooks.tell(
            f"note: the channels are those of the plan ({plan.criterion}); --method {request.method} is not used"
        )
    keeps = kept_macs(generator.table, plan.kept, request.macs_convention)
    fraction = keeps / macs(generator.table, request.macs_convention)
    if fraction < LEAST_OF_BUDGET * budget:
        hooks.tell(f"note: the plan keeps {fraction:.4g} of the MACs, less than the budget {request.budget} allows")


def _check_pairs(originals: Originals, material: Material, hooks: Hooks) -> None:
    """Raise InputError where a discriminator of pairs meets pictures that are none; tell of the other way round."""
    judge, generator = originals.discriminator, originals.generator
    if judge is None:
        return
    if material.objective == "paired" and judge.spec.in_channels == generator.spec.out_channels:
        both = generator.spec.in_channels + generator.spec.out_channels
        hooks.tell("note: these pictures are pairs, and the discriminator judges outputs alone; one that was trained")
        hooks.tell(f"      on pairs takes {both} channels, the input and its output")
    if material.objective != "unpaired":
        return
    if judge.spec.in_channels != generator.spec.out_channels:
        raise InputError(
            "the discriminator judges an input and its output together, and these pictures have no pairs",
            hint="give paired pictures (--layout paired), or leave the discriminator out",
        )


def _choose(
    work: Work,
    originals: Originals,
    material: Material,
    request: CompressRequest,
    budget: float,
    given: PruningPlan | None,
    encoder: ChosenEncoder,
    perceptual: ChosenPerceptual | None,
) -> tuple[Originals, Choice]:
    """Choose the channels; return the originals, with a discriminator if one was fitted, and the choice.

    Of several processes, rank 0 writes what was chosen, and the others read it.
    """
    folder, generator, first = work.job.folder, originals.generator, work.processes.first
    size, job = generator.table.image_size, work.job
    place = f"{ORIGINAL_FOLDER}/{DISCRIMINATOR_FOLDER}"
    original = [f"{ORIGINAL_FOLDER}/{name}" for name in (SPEC_FILE, WEIGHTS_FILE)]
    fitted = saved_network(folder / place, size) if is_written(job, place) else None
    chosen, keep_original = _saved_choice(job, size), all(is_written(job, name) for name in original)
    work.processes.barrier()  # all have looked at the same files; from now on there may be more
    if first and not keep_original:
        save_network(generator, folder / ORIGINAL_FOLDER)
        remember_written(job, *original)
    judge = originals.discriminator or fitted
    if chosen is not None and judge is not None:
        if first and fitted is None:
            save_network(judge, folder / place)
            remember_written(job, place)
        return replace(originals, discriminator=judge), chosen
    _discard_after_choice(work.job)
    method = METHODS[request.method]
    searching = given is None and method.plays
    fitting = judge is None  # whatever the method: finetuning, and the choice of its best, are the same for all
    outputs = None
    if searching or fitting:
        outputs = _outputs(work, generator, material)
        if fitting:
            with work.job.stage("discriminator"):
                judge = fit_discriminator(work, generator, material, outputs, request)
    if first and judge is not None and fitted is None:
        save_network(judge, folder / place)
        remember_written(job, place)
    choice = None
    if first or (given is None and method.shared):
        with work.job.stage("prune"):
            if given is not None:
                choice = Choice(given, None)
            else:
                task = Task(generator, judge, material, outputs, encoder, request, budget, perceptual)
                choice = method.choose(work, task)
    if first and choice is not None:
        _save_choice(work.job, choice)
        made = choice.generator
        align = TARGETS[this_target()].align
        said = shortfall(made.budget_met, made.budget, made.align) if made.align > 1 else None
        if made.align == 1 and align is not None and given is None:
            said = unaligned(generator.table, made.kept, made.budget, align.multiple, request.macs_convention)
        if said is not None:
            work.tell(f"note: {said}")
    work.processes.barrier()
    if not first:
        choice = _read_choice(work.job, size)
    assert choice is not None
    return replace(originals, discriminator=judge), choice


def _outputs(work: Work, generator: Network, material: Material) -> PictureSet:
    """Return what the original makes of the training pictures: rank 0 runs it, and the others read that."""
    if not work.processes.first:
        work.processes.barrier()
    with work.job.stage("outputs"):
        work.tell(f"running the original on {counted(len(material.source), 'picture')}")
        outputs = original_outputs(
            work.placed(generator),
            material.source,
            generator.spec.output_format,
            work.job.work / "outputs",
            precision=work.precision,
            watch=lambda done, count: work.watch(Progress("outputs", done, count, {}, None)),
        )
    if work.processes.first:
        work.processes.barrier()
    return outputs


def _save_choice(job: Job, choice: Choice) -> None:
    if choice.network is not None:
        save_network(choice.network, job.work / CHOSEN_FOLDER)
    if choice.discriminator is not None:
        write_json(job.folder / DISCRIMINATOR_PLAN_FILE, choice.discriminator.to_json())
    write_json(job.folder / PLAN_FILE, choice.generator.to_json())
    remember_written(job, PLAN_FILE, DISCRIMINATOR_PLAN_FILE)


def _discard_after_choice(job: Job) -> None:
    """Remove what followed from a choice that is not there: the one that is made now may be another."""
    _discard_after_finetuning(job)
    job.discard(
        (SLIM_FOLDER, DISCRIMINATOR_PLAN_FILE, f"{WORK_FOLDER}/finetune.state", f"{WORK_FOLDER}/{CHOSEN_FOLDER}"),
        facts=("before_finetuning", "after_finetuning"),
        stages=("finetune",),
    )


def _discard_after_finetuning(job: Job) -> None:
    """Remove what was exported from, and measured with, a slim generator that is not there."""
    job.discard(
        (MANIFEST_FILE, REPORT_FILE, EXPORT_FOLDER, QUALITY_FILE, BENCH_FILE, "samples"),
        stages=("export", "quality", "bench"),
    )


def _saved_choice(job: Job, size: Size) -> Choice | None:
    """Return what was chosen before, None where that is not there, or not all of it."""
    if not is_written(job, PLAN_FILE) or is_lost(job, DISCRIMINATOR_PLAN_FILE):
        return None
    return _read_choice(job, size)


def _read_choice(job: Job, size: Size) -> Choice:
    other = job.folder / DISCRIMINATOR_PLAN_FILE
    return Choice(
        read_plan(job.folder / PLAN_FILE),
        read_plan(other) if other.is_file() else None,
        saved_network(job.work / CHOSEN_FOLDER, size),
    )


def _finetune(
    work: Work, originals: Originals, material: Material, choice: Choice, request: CompressRequest
) -> Network | None:
    """Return the slim generator, finetuned, from the folder if it is there; None in processes of a higher rank."""
    folder = work.job.folder / SLIM_FOLDER
    size = originals.generator.table.image_size
    found = saved_network(folder, size) if is_written(work.job, SLIM_FOLDER) else None
    work.processes.barrier()  # all have looked at the same files
    if found is not None:
        return found
    _discard_after_finetuning(work.job)
    if not (work.job.work / "finetune.state").is_file():
        work.job.discard((), facts=("before_finetuning", "after_finetuning"), stages=("finetune",))
    with work.job.stage("finetune"):
        tuned = finetune_pair(work, originals, material, choice, request)
    if not work.processes.first:
        return None
    work.job.remember("after_finetuning", tuned.after, "the slim network")
    if tuned.discriminator is not None:
        save_network(tuned.discriminator, folder / DISCRIMINATOR_FOLDER)
    save_network(tuned.generator, folder)
    remember_written(work.job, SLIM_FOLDER)
    return tuned.generator
