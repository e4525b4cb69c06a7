"""One server of job processes for all tests of jobs, and small networks and pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mggc_edge.jobs.choose import Work
from mggc_edge.jobs.folder import start_job
from mggc_edge.settings import Settings
from mggc_edge.training.loop import Journal
from tests.jobs.job_processes import JobServer, write_networks, write_pairs, write_unpaired

MakeWork = Callable[..., Work]


@contextlib.contextmanager
def making(place: Path) -> Iterator[MakeWork]:
    """Make what the stages of a job need, in this process; a setting a.b is given as a__b."""
    with contextlib.ExitStack() as journals:

        def make(seed: int = 0, **settings: object) -> Work:
            values = {name.replace("__", "."): value for name, value in settings.items()}
            folder = place / f"job{len(list(place.iterdir()))}"
            job = start_job(folder, "compress", {}, Settings(values), seed=seed, threads=1)
            journal = journals.enter_context(Journal(folder / "logs/metrics.jsonl"))
            return Work(job, journal, "fp32", lambda _: None, lambda _: None)

        yield make


@pytest.fixture
def work(tmp_path: Path) -> Iterator[MakeWork]:
    with making(tmp_path) as make:
        yield make


@pytest.fixture(scope="session")
def jobs() -> Iterator[JobServer]:
    with JobServer() as server:
        yield server


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks as in `write_networks`, pairs/ and unpaired/."""
    folder = write_networks(tmp_path_factory.mktemp("given"))
    write_pairs(folder / "pairs")
    write_unpaired(folder / "unpaired")
    return folder
