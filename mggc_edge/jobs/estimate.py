"""How long a job will take, said before it begins: from the time of one picture through the original, or of steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mggc_edge import artifacts
from mggc_edge.artifacts import BENCH_FILE, QUALITY_FILE, RECORD_FILE
from mggc_edge.compiler.targets import AUTO, this_target
from mggc_edge.compiler.tune import TuneSettings, can_tune, engines_for
from mggc_edge.errors import ArtifactError, counted
from mggc_edge.jobs.choose import Work, batch_size, prune_steps
from mggc_edge.jobs.encoders import ChosenEncoder, encoder_seconds, encoder_steps
from mggc_edge.jobs.exports import targets_of
from mggc_edge.jobs.methods import METHODS
from mggc_edge.jobs.networks import Originals
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.jobs.slimming import BATCH, METHOD, on_grids, slimming_steps
from mggc_edge.jobs.tune import finetune_steps
from mggc_edge.pruning.mggc.encoder import SmallEncoder
from mggc_edge.settings import Settings
from mggc_edge.training.loop import Stage
from mggc_edge.training.material import Material
from mggc_edge.training.order import step_seed
from mggc_edge.training.precision import autocast
from mggc_edge.training.state import read_facts

# Passes through the original, forward, that a step costs for each of its pictures, the discriminator's part in them:
# rough counts, of the order of what ResNet-9, ResNet-6 and U-Net-128 took. Only a line for people depends on them.
PRUNE_PASSES = 4.5
SLIM_PASSES = 6.0  # also on 8-bit grids: there a step took 1.1 of the time
CALIBRATE_PASSES = 3.0  # for each picture on which ranges of activations are found
FINETUNE_PASSES = 2.5
FIT_PASSES = 0.5
FITTED = Path(artifacts.ORIGINAL_FOLDER, "discriminator", artifacts.WEIGHTS_FILE)
EXPORT_S, TARGET_S = 8.0, 2.0  # exporting both generators and proving them equal; doing so for a further target
PROCESS_S, TUNE_WARM_S = 0.7, 0.5  # starting one process that measures; its warm-up where passes are chosen
TUNED = 4  # graphs among which passes are chosen: the target's list, and about three passes left out of it
TRIED_STEPS, TRIED_S = 3, 4.0  # steps that are measured; no more of them once so many seconds have passed


def estimate(
    work: Work,
    originals: Originals,
    material: Material,
    request: CompressRequest,
    budget: float,
    encoder: ChosenEncoder,
    processes: int = 1,
) -> str:
    """Return a line that says about how long the job, or what is left of it, will take on this machine."""
    seconds = expected_seconds(work, originals, material, request, budget, encoder, processes)
    return sentence(seconds, work.job.threads, work.precision, more=work.job.resumed)


def expected_seconds(
    work: Work,
    originals: Originals,
    material: Material,
    request: CompressRequest,
    budget: float,
    encoder: ChosenEncoder,
    processes: int = 1,
) -> float:
    """Return about how many seconds are left of a job, by what its folder holds; `processes`: that will train it."""
    folder, generator = work.job.folder, originals.generator
    device = work.processes.device
    x, placed = material.source.batch([0]).to(device), work.placed(generator)
    with torch.inference_mode(), autocast(work.precision, device):
        once = min(_timed(lambda: placed(x).cpu()) for _ in range(3))  # which waits for a GPU
    seconds = _proving(work, len(material.test), request, budget, once)
    if not (folder / artifacts.SLIM_FOLDER / artifacts.WEIGHTS_FILE).is_file():
        size, count = batch_size(work.job.settings, "finetune.batch_size", generator), len(material.source)
        pictures = finetune_steps(work.job.settings, request, count, size * processes) * size
        seconds += _left(work, "finetune") * pictures * (FINETUNE_PASSES + 6 * budget) * once
    if not (folder / artifacts.PLAN_FILE).is_file():
        seconds += _choosing(work, originals, material, request, encoder, once, processes)
    return seconds


def _choosing(
    work: Work,
    originals: Originals,
    material: Material,
    request: CompressRequest,
    encoder: ChosenEncoder,
    once: float,
    processes: int,
) -> float:
    """Return the seconds until the channels are chosen; `once`: one picture through the original."""
    settings, generator, count = work.job.settings, originals.generator, len(material.source)
    plays = METHODS[request.method].plays and request.plan is None
    fits = originals.discriminator is None and not (work.job.folder / FITTED).is_file()
    size = batch_size(settings, "mggc.batch_size", generator)
    passes, seconds = (float(count) if plays or fits else 0.0), 0.0
    if fits:
        seen = settings["discriminator.epochs"] * count
        if request.quick:
            seen = settings["quick.discriminator_steps"] * size
        passes += _left(work, "discriminator") * seen / processes * FIT_PASSES
    if plays:
        passes += _left(work, "prune") * prune_steps(settings, request, count, size, processes) * size * PRUNE_PASSES
        if settings["mggc.k"]:
            small = encoder.weights is None and encoder.onnx is None
            learn = _small_encoder_seconds if small else encoder_seconds
            seconds += _left(work, "encoder") * learn(settings, encoder, material, quick=request.quick)
    if request.method == METHOD and request.plan is None:
        pictures = slimming_steps(settings, request, generator, count, processes) * batch_size(
            settings, BATCH, generator
        )
        passes += _left(work, "prune") * pictures * SLIM_PASSES
        if on_grids(settings, request):
            passes += min(settings["quantize.pictures"], count) * CALIBRATE_PASSES
    return passes * once + seconds


def _small_encoder_seconds(settings: Settings, chosen: ChosenEncoder, material: Material, *, quick: bool) -> float:
    """Return about how many seconds the small encoder takes, from the time of one batch."""
    pictures = material.source if material.target is None else material.target
    count = min(settings["encoder.batch_size"], len(pictures))
    x = pictures.batch(range(count))
    with torch.random.fork_rng(devices=[]):
        encoder = SmallEncoder(pictures.format.channels, low=pictures.format.low, high=pictures.format.high).eval()
    with torch.inference_mode():
        once = min(_timed(lambda: encoder(x)) for _ in range(2))
    return 3 * 2 * once * encoder_steps(settings, chosen, len(pictures), quick=quick)  # two views, forward and backward


def _proving(work: Work, tests: int, request: CompressRequest, budget: float, once: float) -> float:
    """Return the seconds from the slim generator to the end."""
    folder, settings = work.job.folder, work.job.settings
    seconds = 0.0 if (folder / RECORD_FILE).is_file() else _exporting(settings, request, budget, once)
    if not (folder / QUALITY_FILE).is_file():
        seconds += tests * (1 + budget) * once
    if not (folder / BENCH_FILE).is_file():
        pairs = settings["quick.bench_pairs"] if request.quick else settings["bench.pairs"]
        seconds += 2 * settings["bench.processes"] * (PROCESS_S + settings["bench.warmup_seconds"])
        seconds += min(pairs * (1 + budget) * once, settings["bench.max_seconds"])
    return seconds


def _exporting(settings: Settings, request: CompressRequest, budget: float, once: float) -> float:
    """Return the seconds of exporting for all targets, with the choice of passes where it is measured."""
    targets = targets_of(settings, request.runtimes)
    seconds = EXPORT_S + TARGET_S * (len(targets) - 1)
    here = this_target()
    if request.quick or not settings["export.tune"] or here not in targets or not can_tune(AUTO, here):
        return seconds
    tune = TuneSettings.from_settings(settings)
    for latency in (once, budget * once):
        process = tune.processes * (PROCESS_S + TUNE_WARM_S)
        seconds += min(TUNED * (process + tune.pairs * latency), tune.max_seconds) * len(engines_for(targets[here]))
    return seconds


def _left(work: Work, stage: str) -> float:
    """Return the fraction of a stage's steps that its state leaves to do."""
    return steps_left(work.job.work / f"{stage}.state")


def steps_left(state: Path) -> float:
    """Return the fraction of a stage's steps that are left by its state; 1 where there is none that can be read."""
    try:
        facts = read_facts(state)
    except ArtifactError:  # none yet, or damaged: then the stage says so when it comes to it
        return 1.0
    done, steps = facts.get("step"), facts.get("steps")
    return 1 - done / steps if type(done) is int and type(steps) is int and 0 <= done <= steps and steps else 1.0


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def seconds_of(stage: Stage, seed: int) -> float:
    """Return about how many seconds a stage takes, from its first steps, which it does: it is of no use afterwards."""
    seconds: list[float] = []
    with torch.random.fork_rng(devices=[]):
        while len(seconds) < min(TRIED_STEPS, stage.steps) and sum(seconds) < TRIED_S:
            torch.manual_seed(step_seed(seed, stage.name, len(seconds)))
            start = time.perf_counter()
            stage.step(len(seconds))
            seconds.append(time.perf_counter() - start)
    return statistics.median_low(seconds) * stage.steps  # the first one also prepares


def sentence(seconds: float, threads: int, precision: str, *, more: bool = False) -> str:
    """Return the line that says how long a job, or with `more` what is left of it, will take."""
    return (
        f"about {duration(max(seconds, 1.0))}{' more' if more else ''} on this machine with "
        f"{counted(threads, 'thread')}, training in {precision}; it can be stopped and resumed at any time"
    )


def duration(seconds: float) -> str:
    """Return a duration for people: "40 s", "12 min", "1 h 35 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
