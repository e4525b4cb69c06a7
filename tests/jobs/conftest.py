"""One server of job processes for all tests of jobs, and small networks and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.job_processes import JobServer, write_networks, write_pairs, write_unpaired


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
