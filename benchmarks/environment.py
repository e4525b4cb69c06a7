"""What surrounds a measurement: load, stolen time, clock governor; before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mggc_edge.artifacts import tool_versions
from mggc_edge.benchmarks.agent.surroundings import Moment
from mggc_edge.benchmarks.devices.base import DeviceFacts

METHOD = 2  # what latencies of before do not compare with raises it; 2: every thread has a core of its own


def stolen(before: Moment, after: Moment) -> float | None:
    """Return the fraction of the machine's time between two moments that its host gave to others, 0 to 1."""
    if None in (before.ticks, after.ticks, before.stolen_ticks, after.stolen_ticks):
        return None
    assert before.ticks is not None
    assert after.ticks is not None
    assert before.stolen_ticks is not None
    assert after.stolen_ticks is not None
    passed = after.ticks - before.ticks
    return (after.stolen_ticks - before.stolen_ticks) / passed if passed > 0 else None


def context(
    device: DeviceFacts, address: str | None, before: Moment, after: Moment, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Return the JSON object about machine and surroundings.

    Args:
        device: what was measured on.
        address: how it was reached; None for this machine.
        before, after: the moments that enclose the measurement.
        versions: of the libraries, as the measuring processes saw them.
    """
    machine = device.machine
    return {
        "method": METHOD,
        "device": machine.device,
        "address": address,
        "host": device.host,
        "os": device.os,
        "kernel": device.kernel,
        "cpu": {
            "model": machine.processor,
            "architecture": machine.architecture,
            "instruction_sets": list(machine.instruction_sets),
            "cores": machine.cores,
            "governors": list(before.governors),
            "frequency_khz_before": before.frequency_khz,
            "frequency_khz_after": after.frequency_khz,
            "temperature_c_before": before.temperature_c,
            "temperature_c_after": after.temperature_c,
        },
        "container": machine.container,
        "memory_bytes": machine.memory_bytes,
        "jetson": machine.jetson,
        "load_before": before.load,
        "load_after": after.load,
        "stolen": stolen(before, after),
        "versions": {**tool_versions(), "python": device.python, **versions},
    }
