"""Hashes of what a job wrote and goes on from: when it goes on, that is what must be there."""

from __future__ import annotations

from mggc_edge.artifacts import DISCRIMINATOR_PLAN_FILE, ORIGINAL_FOLDER, PLAN_FILE, SLIM_FOLDER, sha256_of
from mggc_edge.errors import ArtifactError
from mggc_edge.jobs.folder import WRITTEN, Job, files_below

READ_AGAIN = (PLAN_FILE, DISCRIMINATOR_PLAN_FILE, ORIGINAL_FOLDER, SLIM_FOLDER)


def remember_written(job: Job, *names: str) -> None:
    """Keep the hashes of files, and of all files in folders, that have just been written; from now on they are there.

    What was written but not remembered, because the process was killed between, is written again.
    """
    found = {path.relative_to(job.folder).as_posix(): sha256_of(path) for path in files_below(job.folder, names)}
    job.facts[WRITTEN] = {**job.facts.get(WRITTEN, {}), **found}
    job.save()


def is_written(job: Job, name: str) -> bool:
    """Return whether a file, or every file that was written into a folder, is there."""
    known = [path for path in job.facts.get(WRITTEN, {}) if path == name or path.startswith(f"{name}/")]
    return bool(known) and all((job.folder / path).is_file() for path in known)


def is_lost(job: Job, name: str) -> bool:
    """Return whether a file was written and is not there any more."""
    return name in job.facts.get(WRITTEN, {}) and not (job.folder / name).is_file()


def check_written(job: Job) -> None:
    """Raise ArtifactError where a file that was written is there, and has other bytes."""
    known = job.facts.get(WRITTEN, {})
    for path in files_below(job.folder, READ_AGAIN):
        name = path.relative_to(job.folder).as_posix()
        if name in known and sha256_of(path) != known[name]:
            raise ArtifactError(
                f"'{path}' is not what this job wrote: its hash differs",
                hint="bring it back, or remove it; it will be made again, and what was made from it",
            )
