"""Stages of training in a job's folder: their log, and a first state before their first step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mggc_edge.jobs.folder import LOG_FILE, Job
from mggc_edge.training.loop import Journal, Stage, Watch, run_stage
from mggc_edge.training.state import save_state


@contextlib.contextmanager
def journal_of(job: Job) -> Iterator[Journal]:
    """Yield the log of a job.

    Raises:
        OutputError: it cannot be written.
    """
    journal = Journal(job.folder / LOG_FILE)
    try:
        yield journal
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk is full for the buffered line as well, and was named before
            journal.close()
        raise
    journal.close()


def run_in(job: Job, stage: Stage, journal: Journal, watch: Watch = lambda _: None) -> None:
    """Run a stage of a job to its end, or go on with it.

    A state is saved before the first step: it knows where the log was, so that a process that was killed before the
    next one leaves no lines that would be written twice.

    Raises: as in `run_stage`.
    """
    path = job.work / f"{stage.name}.state"
    if not path.is_file():
        save_state(path, stage.state(), {"step": 0, "steps": stage.steps, "journal": journal.size})
    run_stage(stage, job.work, journal, seed=job.seed, watch=watch)
