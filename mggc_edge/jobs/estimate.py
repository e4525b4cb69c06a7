"""How long a job will take, said before it begins: from the time of one picture through the original."""

from __future__ import annotations

import time

import torch

from mggc_edge.jobs.choose import Work, batch_size, prune_steps
from mggc_edge.jobs.networks import Originals
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.jobs.tune import finetune_steps
from mggc_edge.training.material import Material
from mggc_edge.training.precision import autocast

# Passes through the original, forward, that a step costs for each of its pictures. Fitted to measured steps of
# ResNet-9, ResNet-6 and U-Net-128; the discriminator's part is in them.
PRUNE_PASSES = 4.5
FINETUNE_PASSES = 2.5
FIXED_S = 60.0  # encoder, export, proof


def estimate(work: Work, originals: Originals, material: Material, request: CompressRequest, budget: float) -> str:
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
    if request.method == "mggc" and request.plan is None:
        size = batch_size(settings, "mggc.batch_size", generator)
        passes += count + prune_steps(settings, request, count, size) * size * PRUNE_PASSES
    return (
        f"about {duration(passes * once + FIXED_S)} on this machine with {work.job.threads} threads, "
        f"training in {work.precision}; it can be stopped and resumed at any time"
    )


def duration(seconds: float) -> str:
    """Return a duration for people: "40 s", "12 min", "1 h 35 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
