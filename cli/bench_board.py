"""--lock-clocks, and what `bench` measures on a Jetson beside latency: power, energy and memory of each model alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mggc_edge.benchmarks.devices.base import Device
    from mggc_edge.benchmarks.report import BenchmarkReport
    from mggc_edge.benchmarks.workload import Workload
    from mggc_edge.cli.output import Output
    from mggc_edge.settings import Settings

LockClocks = Annotated[
    bool,
    typer.Option(
        "--lock-clocks",
        rich_help_panel="Device",
        help="Hold a Jetson's clocks at the highest of its power mode meanwhile, and put them back; needs root there.",
    ),
]


@contextmanager
def board_of(out: Output, device: Device, lock_clocks: bool) -> Iterator[dict[str, Any] | None]:
    """Yield what a Jetson is, None for any other machine; its clocks are locked meanwhile where that was asked for.

    Raises:
        DeviceError: models cannot be measured on this board, or its clocks cannot be locked.
    """
    from mggc_edge.benchmarks.board import board_facts, locked_clocks
    from mggc_edge.errors import DeviceError

    facts = None if device.facts.machine.jetson is None else board_facts(device)
    if facts is not None and not facts["models"]:
        name = facts["module"] or facts["model"]
        raise DeviceError(f"no models are measured on this {name} (L4T {facts['l4t']}{_power(facts)})", facts["remark"])
    if not lock_clocks:
        yield facts
        return
    with locked_clocks(device, out.remark):
        yield None if facts is None else {**facts, "locked_by_bench": True}


def build_engines(out: Output, models: Sequence[Workload], device: Device) -> None:
    """Build on the device what TensorRT runs there, where files of a bundle are measured, and say so before.

    Raises:
        ArtifactError: an engine cannot be built, or gives other pictures than its network.
    """
    from mggc_edge.benchmarks.bundles import prepare

    if any(model.of_bundle for model in models):
        prepare(models, device, out.remark)


def with_board(
    out: Output,
    settings: Settings,
    report: BenchmarkReport,
    models: Sequence[Workload],
    device: Device,
    facts: dict[str, Any] | None,
) -> BenchmarkReport:
    """Return a report with what the board is, and the power, energy and memory of each model alone.

    What was measured before is kept where that fails: it is then said.
    """
    from mggc_edge.benchmarks.energy import measure_alone, seconds_alone, with_power
    from mggc_edge.errors import MggcEdgeError

    if facts is None:
        return report
    report = replace(report, context={**report.context, "board": facts})
    seconds, idle = settings["bench.energy_seconds"], settings["bench.idle_seconds"]
    if seconds == 0:
        return report
    out.remark(
        f"measuring power and memory of each model alone, about {len(models) * seconds_alone(seconds, idle):.0f} s"
    )
    run = report.runs[0]
    try:
        found = measure_alone(
            models,
            device,
            threads=run.threads,
            seconds=seconds,
            idle_seconds=idle,
            seed=report.context["seed"],
            progress=out.remark,
        )
    except MggcEdgeError as error:
        out.remark(f"warning: power was not measured: {error}")
        return report
    return with_power(report, found)


def _power(facts: dict[str, Any]) -> str:
    """Return what the board takes now, in words."""
    watts: dict[str, float] = facts["power"]["watts"]
    total = facts["power"]["total"]
    known = [watts[rail] for rail in total["rails"] if rail in watts]
    return f", {sum(known):.2f} W by {total['text']}" if known else ""
