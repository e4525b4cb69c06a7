"""--compute and --devices: on what a job trains."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from mggc_edge.jobs.devices import Devices

EXIT_INTERRUPTED = 130
ComputeName = Literal["auto", "cpu", "cuda"]  # of `jobs.devices`, which --help must not load
COMPUTE_HELP = "Train on the CPU or on GPUs; auto: on GPUs where there are any."
DEVICES_HELP = (
    "Train in N processes, a CPU's or with a GPU each [dim](default: 1, or what torchrun or srun started)[/]."
)
Compute = Annotated[ComputeName, typer.Option("--compute", help=COMPUTE_HELP)]
DeviceCount = Annotated[int | None, typer.Option("--devices", metavar="N", min=1, max=4096, help=DEVICES_HELP)]


def devices_for(compute: ComputeName, count: int | None) -> Devices:
    """Return what to train on. A process of a higher rank does its part of the job here, and ends.

    Raises:
        InputError: there are no such devices, or another number of processes was started.
    """
    from mggc_edge.jobs.devices import choose_devices

    devices = choose_devices(compute, count, follower=(sys.executable, "-m", "mggc_edge.cli.follow"))
    if devices.rank:
        from mggc_edge.jobs.follow import follow_job

        try:
            follow_job(devices)
        except KeyboardInterrupt:  # rank 0 says so
            raise typer.Exit(EXIT_INTERRUPTED) from None
        raise typer.Exit
    return devices
