"""The processes that train together: one, or several with a device each, which Lightning Fabric brings together.

Networks are not wrapped: a step runs a network several times and differentiates by some of the parameters only. What
must be equal is said where it is: gradients are averaged in one flat buffer, draws are broadcast from rank 0.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from mggc_edge.errors import InputError, TrainingError
from mggc_edge.lazy import require

# A process that ends is noticed by the ones that see it end; no clock can tell it from one that computes for long.
PATIENCE = timedelta(days=30)
POLL_S = 0.005  # between looks at a barrier, at which Ctrl-C is heard
CPU = torch.device("cpu")


class ConnectionLostError(TrainingError):
    """Another process of this job cannot be reached any more."""


class Processes:
    """One process that trains alone: nothing is exchanged, and no call costs anything.

    Attributes:
        rank: 0 to size - 1; rank 0 alone writes files and speaks.
        size: how many processes there are.
        device: where this one trains.
    """

    rank, size = 0, 1

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, of which every process has the same shapes in the same order, by their means."""

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients of parameters by their means over all processes."""

    def mean_numbers(self, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a step is logged with, every float at the top being its mean over all processes."""
        return metrics

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, of which every process has the same shapes in the same order, by those of rank 0."""

    def broadcast_text(self, text: str) -> str:
        """Return the text of rank 0."""
        return text

    def barrier(self) -> None:
        """Wait until every process is here."""


ALONE = Processes()


class GatheredProcesses(Processes):
    """Several processes, all of which make the same calls in the same order.

    Raises (every method that exchanges something):
        ConnectionLostError: another process has ended.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        super().__init__(device)
        self.rank, self.size = rank, size

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """See `Processes.mean`."""

        def average(flat: Tensor) -> None:
            torch.distributed.all_reduce(flat)
            flat /= self.size

        self._exchange(tensors, average)

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """See `Processes.mean_gradients`."""
        self.mean([parameter.grad for parameter in parameters if parameter.grad is not None])

    def mean_numbers(self, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Processes.mean_numbers`."""
        names = [name for name, value in metrics.items() if isinstance(value, float)]
        values = torch.tensor([metrics[name] for name in names], dtype=torch.float64, device=self.device)
        self.mean([values])
        return {**metrics, **dict(zip(names, values.tolist(), strict=True))}

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """See `Processes.broadcast`."""
        self._exchange(tensors, lambda flat: torch.distributed.broadcast(flat, src=0))

    def broadcast_text(self, text: str) -> str:
        """See `Processes.broadcast_text`."""
        data = text.encode("utf-8", "surrogateescape")
        length = torch.tensor([len(data)], device=self.device)
        self.broadcast([length])
        letters = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.first:
            letters.copy_(torch.tensor(list(data), dtype=torch.uint8))
        self.broadcast([letters])
        return bytes(letters.tolist()).decode("utf-8", "surrogateescape")

    def barrier(self) -> None:
        """See `Processes.barrier`; may take as long as rank 0 works alone."""
        with _connected():
            waiting = torch.distributed.barrier(async_op=True)
            while waiting is not None and not waiting.is_completed():
                time.sleep(POLL_S)
            if waiting is not None:
                waiting.wait()  # raises what went wrong

    def _exchange(self, tensors: Sequence[Tensor], exchange: Callable[[Tensor], object]) -> None:
        """Do something in place to all tensors of a type at once, in a flat buffer on this process's device."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            chosen = [tensor for tensor in tensors if tensor.dtype == dtype]
            if not any(tensor.numel() for tensor in chosen):
                continue
            flat = torch.cat([tensor.detach().reshape(-1).to(self.device) for tensor in chosen])
            with _connected():
                exchange(flat)
            for tensor, part in zip(chosen, torch.split(flat, [tensor.numel() for tensor in chosen]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo or NCCL: each has words of its own
        raise ConnectionLostError("another process of this job has ended") from error


def gather(device: torch.device, *, size: int, on_this_machine: int) -> GatheredProcesses:
    """Bring together the processes of a job: return when all of them are here.

    They find each other by what torchrun or SLURM left in the environment: see `mggc_edge.jobs.devices`.

    Args:
        device: "cpu", over gloo, or "cuda", over NCCL: each process has the GPU of its number on its machine.
        size: how many processes there are in all.
        on_this_machine: how many of them are on this machine; as many are on every other.

    Raises:
        MissingDependencyError: Lightning Fabric is not installed.
        InputError: SLURM started the processes in a way that Fabric does not take.
        ConnectionLostError: the others cannot be reached.
    """
    fabric = require("lightning_fabric", extra="devices")
    strategies = require("lightning_fabric.strategies", extra="devices")
    environments = require("lightning_fabric.plugins.environments", extra="devices")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces itself
    environment = environments.TorchElasticEnvironment
    if "RANK" not in os.environ:  # srun tells it by another name
        environment = functools.partial(environments.SLURMEnvironment, auto_requeue=False)
    try:
        found = environment()
    except RuntimeError as error:  # a job that SLURM started in a way that Fabric does not know
        raise InputError(str(error)) from error
    strategy = strategies.DDPStrategy(
        cluster_environment=found,
        process_group_backend="nccl" if device.type == "cuda" else "gloo",
        timeout=PATIENCE,
    )
    threads = torch.get_num_threads()
    with _connected():
        group = fabric.Fabric(
            accelerator=device.type, devices=on_this_machine, num_nodes=size // on_this_machine, strategy=strategy
        )
        group.launch()
    torch.set_num_threads(threads)  # Fabric divides the processor as it sees fit
    return GatheredProcesses(group.global_rank, group.world_size, group.device)


def part() -> None:
    """Leave the other processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
