"""A process of a higher rank: it trains what rank 0 trains, writes nothing and says nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from mggc_edge.jobs import compress, train
from mggc_edge.jobs.devices import Devices
from mggc_edge.jobs.folder import Job, resume_job
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.training.processes import gather, part


@dataclass
class FollowedJob(Job):
    """A job that another process works on: its folder is read, and nothing is written to it."""

    def save(self) -> None:
        """Leave job.json to rank 0."""

    def remember(self, name: str, value: Any, what: str) -> None:  # noqa: ARG002  as every job
        """Keep a fact for this process; rank 0 checks it."""
        self.facts.setdefault(name, value)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:  # noqa: ARG002
        """Leave the seconds to rank 0."""
        yield

    def discard(self, names: Sequence[str], facts: Sequence[str] = (), stages: Sequence[str] = ()) -> None:
        """Leave files to rank 0."""


def follow_job(devices: Devices, ready: Callable[[], None] = lambda: None) -> None:
    """Meet rank 0, and do this process's part of its job.

    Args:
        ready: called when everything is loaded that is needed to meet it.

    Raises:
        ConnectionLostError: rank 0 or another process has ended.
        MggcEdgeError: what was given cannot be used here: a file that only rank 0 sees, or too small a device.
    """
    ready()
    processes = gather(devices.device, size=devices.count, on_this_machine=devices.on_this_machine)
    command, _, folder = processes.broadcast_text("").partition("\n")
    known = resume_job(Path(folder), command)
    job = FollowedJob(**{f.name: getattr(known, f.name) for f in fields(known) if f.init})
    torch.set_num_threads(job.threads)
    if command == "train":
        train.follow(job, train.TrainRequest.from_json(job.request), processes)
    else:
        compress.follow(job, CompressRequest.from_json(job.request), processes)
    processes.barrier()
    part()
