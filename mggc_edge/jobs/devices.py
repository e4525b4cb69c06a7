"""On what a job trains: the processor or GPUs, in one process or in several, started here, by torchrun or by SLURM."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from mggc_edge.errors import InputError
from mggc_edge.models.network import Network

Compute = Literal["auto", "cpu", "cuda"]
Kind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Launched:
    """A process that something else started as one of several.

    Attributes:
        by: what started it.
        rank, size: which of how many.
        local_rank, on_this_machine: the same on its machine.
    """

    by: str
    rank: int
    size: int
    local_rank: int
    on_this_machine: int


@dataclass(frozen=True)
class Devices:
    """Where this process trains, and with how many others.

    Attributes:
        kind: "cpu" or "cuda".
        count: processes in all, each with a device.
        launched: what is known of them where they exist already; None: rank 0 starts the others.
        follower: the command that starts another process, which takes `kind`; see `mggc_edge.jobs.launch`.
    """

    kind: Kind = "cpu"
    count: int = 1
    launched: Launched | None = None
    follower: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Which of the processes this is."""
        return 0 if self.launched is None else self.launched.rank

    @property
    def on_this_machine(self) -> int:
        """How many of the processes are on this machine."""
        return self.count if self.launched is None else self.launched.on_this_machine

    @property
    def device(self) -> torch.device:
        """This process's device."""
        local_rank = 0 if self.launched is None else self.launched.local_rank
        return torch.device("cuda", local_rank) if self.kind == "cuda" else torch.device("cpu")

    def placed(self, network: Network) -> Network:
        """Return a network on the device: itself where it is there, else a copy."""
        return on(self.device, network)


def on(device: torch.device, network: Network) -> Network:
    """Return a network on a device: itself where it is there, else a copy."""
    if next(network.parameters()).device == device:
        return network
    return copy.deepcopy(network).to(device)


def choose_devices(compute: Compute = "auto", count: int | None = None, *, follower: tuple[str, ...] = ()) -> Devices:
    """Return what to train on.

    Args:
        compute: "auto" is "cuda" where torch sees a GPU, else "cpu".
        count: processes; None: as many as torchrun or SLURM started, else one.

    Raises:
        InputError: there is no such device here, or are fewer; or another number of processes was started.
    """
    launched = find_launched(os.environ)
    if launched is not None and count is not None and count != launched.size:
        raise InputError(
            f"--devices {count} was asked for, and {launched.by} started {launched.size} processes",
            hint=f"give --devices {launched.size}, or leave it out: the processes that exist are used",
        )
    size = launched.size if launched is not None else count or 1
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind: Kind = "cuda" if compute == "cuda" or (compute == "auto" and seen) else "cpu"
    chosen = Devices(kind, size, launched, follower)
    if kind == "cuda" and not seen:
        raise InputError(
            "--compute cuda was asked for, and torch sees no CUDA device here",
            hint="give --compute cpu, or install a torch with CUDA and its driver",
        )
    if kind == "cuda" and seen < chosen.on_this_machine:
        raise InputError(
            f"{chosen.on_this_machine} processes need a GPU each, and torch sees {seen} here",
            hint=f"give --devices {seen}, or --compute cpu",
        )
    return chosen


def find_launched(environment: Mapping[str, str]) -> Launched | None:
    """Return which of several processes the environment says that this is; None: it is alone.

    torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; srun sets SLURM_PROCID, SLURM_STEP_NUM_TASKS,
    SLURM_LOCALID and SLURM_STEP_NUM_NODES.

    Raises:
        InputError: they contradict each other.
    """
    if "WORLD_SIZE" in environment:
        size = _number(environment, "WORLD_SIZE", least=1)
        if size == 1:
            return None
        if "RANK" not in environment:
            raise InputError(
                f"WORLD_SIZE says that there are {size} processes, and RANK does not say which of them this is",
                hint="start them with torchrun, or unset WORLD_SIZE",
            )
        rank = _number(environment, "RANK", below=size)
        here = _number(environment, "LOCAL_WORLD_SIZE", least=1) if "LOCAL_WORLD_SIZE" in environment else size
        local = _number(environment, "LOCAL_RANK", below=here) if "LOCAL_RANK" in environment else rank % here
        found = Launched("torchrun", rank, size, local, here)
    elif "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        size = _number(environment, "SLURM_STEP_NUM_TASKS", least=1)
        if size == 1:
            return None
        nodes = _number(environment, "SLURM_STEP_NUM_NODES", least=1) if "SLURM_STEP_NUM_NODES" in environment else 1
        rank = _number(environment, "SLURM_PROCID", below=size)
        found = Launched("SLURM", rank, size, _number(environment, "SLURM_LOCALID", below=size), max(1, size // nodes))
    else:
        return None
    if found.size % found.on_this_machine:
        raise InputError(
            f"{found.by} started {found.size} processes, and not equally many on every machine",
            hint="start as many on each",
        )
    return found


def _number(environment: Mapping[str, str], name: str, *, least: int = 0, below: int = sys.maxsize) -> int:
    text = environment.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) < below:
        limit = "" if below == sys.maxsize else f" below {below}"
        raise InputError(f"the environment has {name}={text!r}, which must be a number of at least {least}{limit}")
    return int(text)
