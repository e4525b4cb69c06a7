"""Settings that a stopped `compress` may go on with other values of: those that no finished stage of it has read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from mggc_edge.artifacts import (
    BENCH_FILE,
    DISCRIMINATOR_PLAN_FILE,
    ORIGINAL_FOLDER,
    PLAN_FILE,
    RECORD_FILE,
    SLIM_FOLDER,
    SPEC_FILE,
)
from mggc_edge.jobs.folder import WORK_FOLDER, Job
from mggc_edge.jobs.networks import DISCRIMINATOR_FOLDER
from mggc_edge.settings import Settings


@dataclass(frozen=True)
class Reader:
    """A stage that may begin anew.

    Attributes:
        settings: names of all settings that it reads and that may change, or what they begin with and `*`.
        finished: files of which one is there once the stage is finished.
    """

    settings: tuple[str, ...]
    finished: tuple[str, ...]

    def reads(self, name: str) -> bool:
        """Return whether it reads a setting."""
        return any(fnmatchcase(name, pattern) for pattern in self.settings)


_GRIDS = ("quantize.calibration", "quantize.pictures", "quantize.ranges", "quantize.weights")

# In the order of the stages. A setting that stands nowhere here is read where a job begins, by a stage that always
# runs, or by what cannot be told from files: it stays. So does mggc.k, by which the encoder learns or does not.
READERS: Mapping[str, Reader] = {
    "discriminator": Reader(
        ("discriminator.*", "quick.discriminator_steps", "mggc.batch_size", "mggc.loss"),
        (f"{ORIGINAL_FOLDER}/{DISCRIMINATOR_FOLDER}/{SPEC_FILE}",),
    ),
    "prune": Reader(
        (
            "mggc.agent", "mggc.batch_size", "mggc.clip", "mggc.epochs", "mggc.evenness", "mggc.feedback",
            "mggc.filters", "mggc.lambda_1", "mggc.lambda_2", "mggc.learning_rate", "mggc.loss", "mggc.noise",
            "mggc.offset", "mggc.pairing", "mggc.prune_discriminator", "mggc.regularizer", "mggc.temperature",
            "mggc.weight_decay", "built_in.prune_epochs", "quick.prune_steps", "uniform.weights", "gan_slimming.*",
        ),
        (PLAN_FILE, DISCRIMINATOR_PLAN_FILE),
    ),
    "finetune": Reader(
        (
            "finetune.*", "distill.*", *_GRIDS, "quantize.floats", "built_in.finetune_epochs", "quick.finetune_steps",
            "mggc.loss", "train.beta_1", "train.decay", "train.flip", "train.lambda_cycle", "train.lambda_identity",
            "train.lambda_l1", "train.pool",
        ),
        (f"{SLIM_FOLDER}/{SPEC_FILE}",),
    ),
    "export": Reader(
        (
            "export.*", "compress.targets", "calibration.*", "precision.*", "quantize.activations",
            "quantize.keep_float", "quantize.last_layer", "quantize.min_psnr", "quantize.sensitivity",
            "quantize.weight_bits",
        ),
        (RECORD_FILE,),
    ),
    "bench": Reader(("bench.*", "quick.bench_pairs"), (BENCH_FILE,)),
}  # fmt: skip


def _readers(job: Job) -> Mapping[str, Reader]:
    """Return what the stages of this job read: GAN Slimming in 8 bit reads the settings of the grids as well."""
    if job.request.get("method") != "gan-slimming" or job.request.get("quantize") != "8":
        return READERS
    prune = READERS["prune"]
    return {**READERS, "prune": replace(prune, settings=(*prune.settings, *_GRIDS))}


def may_be_set(job: Job, name: str) -> bool:
    """Return whether a job may go on with another value of a setting: stages read it, and none of them is finished."""
    readers = [reader for reader in _readers(job).values() if reader.reads(name)]
    marks = [job.folder / mark for reader in readers for mark in reader.finished]
    return job.command == "compress" and bool(readers) and not any(mark.exists() for mark in marks)


def set_anew(job: Job, changed: Mapping[str, object]) -> None:
    """Let a job that is about to go on do so with other values of settings, which `may_be_set` allows."""
    job.settings = Settings({**job.settings.to_json(), **changed})
    job.changed = tuple(changed)


def begin_anew(job: Job) -> Sequence[str]:
    """Remove what stages began with other values of settings, keep the new ones, and return the names of those stages.

    A stage without a state begins anew: its log lines, and all that followed from it, go when it does.
    """
    readers = [stage for stage, reader in _readers(job).items() if any(map(reader.reads, job.changed))]
    states = {stage: f"{WORK_FOLDER}/{stage}.state" for stage in readers}
    begun = [stage for stage, state in states.items() if (job.folder / state).is_file()]
    if job.changed:
        job.discard([states[stage] for stage in begun], stages=begun)
        job.save()  # after that: a process that is killed between goes on with the old values, and without the states
    return begun
