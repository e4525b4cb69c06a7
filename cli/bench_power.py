"""Energy and power of a board's models for people: the cell of a table, and the lines below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mggc_edge.benchmarks.report import BenchmarkReport, ModelRun


def energy(run: ModelRun) -> str:
    """Return the energy of a picture, "-" where it is not known."""
    value = None if run.power is None else run.power["energy_mj_per_picture"]
    return "-" if value is None else joules(value)


def power_lines(report: BenchmarkReport) -> list[str]:
    """Return what the energies and memories in the table are, what the idle board takes, and what is to be said."""
    measured = [(run.model.name, run.power) for run in report.runs if run.power is not None]
    lines = []
    if any(run.pool_bytes is not None for run in report.runs):
        lines.append("memory: what a model takes of the pool that processor and GPU share.")
    if any(power["energy_mj_per_picture"] is not None for _, power in measured):
        lines.append(f"energy: of a picture, what the idle board takes included; {measured[0][1]['total']['text']}.")
    for name, power in measured:
        if power["mean_w"] is not None:
            above = power["above_idle_mj_per_picture"]
            without = "" if above is None else f", {joules(above)} a picture without it"
            idle = "-" if power["idle_w"] is None else watts(power["idle_w"])
            lines.append(f"{name}: {watts(power['mean_w'])}; the idle board takes {idle}{without}.")
        else:
            rails = ", ".join(f"{rail} {watts(said['mean_w'])}" for rail, said in power["rails"].items())
            lines.append(f"{name}: {rails}; {power['total']['text']}.")
        if power["throttled"]:
            lines.append(f"{name}: clocks were lowered while its power was measured: {'; '.join(power['throttled'])}.")
        lines += [f"{name}: {remark}." for remark in power["remarks"]]
    return lines


def joules(millijoules: float) -> str:
    """Return an energy with three significant digits or more: 12.3 mJ, 1.23 J."""
    large = abs(millijoules) >= 999.5
    value = millijoules / 1e3 if large else millijoules
    return f"{value:{',.0f' if abs(value) >= 99.95 else '#.3g'}} {'J' if large else 'mJ'}"


def watts(value: float) -> str:
    """Return a power in W; that of a rail that is off can be slightly below 0."""
    return f"{value:.2f} W"
