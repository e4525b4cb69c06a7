"""How long a job will take, said before it begins: from the time of one picture through the original, or of steps."""

from __future__ import annotations

import statistics
import time

import torch

from mggc_edge.errors import counted
from mggc_edge.jobs.choose import Work, batch_size, prune_steps
from mggc_edge.jobs.encoders import ChosenEncoder, encoder_seconds
from mggc_edge.jobs.methods import METHODS
from mggc_edge.jobs.networks import Originals
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.jobs.tune import finetune_steps
from mggc_edge.training.loop import Stage
from mggc_edge.training.material import Material
from mggc_edge.training.order import step_seed
from mggc_edge.training.precision import autocast

# Passes through the original, forward, that a step costs for each of its pictures, the discriminator's part in them:
# rough counts, of the order of what ResNet-9, ResNet-6 and U-Net-128 took. Only a line for people depends on them.
PRUNE_PASSES = 4.5
FINETUNE_PASSES = 2.5
FIXED_S = 60.0  # small encoder, export, proof
TRIED_STEPS, TRIED_S = 3, 4.0  # steps that are measured; no more of them once so many seconds have passed


def estimate(
    work: Work,
    originals: Originals,
    material: Material,
    request: CompressRequest,
    budget: float,
    encoder: ChosenEncoder,
) -> str:
    """Return a line that says about how long the job will take on this machine."""
    settings, generator = work.job.settings, originals.generator
    x = material.source.batch([0])
    seconds = []
    with torch.inference_mode(), autocast(work.precision):
        for _ in range(3):
            start = time.perf_counter()
            generator(x)
            seconds.append(time.perf_counter() - start)
    once, count = min(seconds), len(material.source)
    size = batch_size(settings, "finetune.batch_size", generator)
    passes = finetune_steps(settings, request, count, size) * size * (FINETUNE_PASSES + 6 * budget)
    other = FIXED_S
    if METHODS[request.method].plays and request.plan is None:
        if settings["mggc.k"]:
            other += encoder_seconds(settings, encoder, material, quick=request.quick)
        size = batch_size(settings, "mggc.batch_size", generator)
        passes += count + prune_steps(settings, request, count, size) * size * PRUNE_PASSES
    return sentence(passes * once + other, work.job.threads, work.precision)


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


def sentence(seconds: float, threads: int, precision: str) -> str:
    """Return the line that says how long a job will take."""
    return (
        f"about {duration(max(seconds, 1.0))} on this machine with {counted(threads, 'thread')}, "
        f"training in {precision}; it can be stopped and resumed at any time"
    )


def duration(seconds: float) -> str:
    """Return a duration for people: "40 s", "12 min", "1 h 35 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
