"""What `doctor` sees of a Jetson: module, JetPack, power mode, clocks, rails, heat, and what cannot be done on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mggc_edge.cli.output import shown

if TYPE_CHECKING:
    from rich.table import Table

NVML = "not asked: on a Jetson it starts, and then most of what it is asked is 'not supported'"


def board() -> dict[str, Any] | None:
    """Return what this Jetson is, as JSON; None on any other machine."""
    from mggc_edge.benchmarks.board import board_facts
    from mggc_edge.benchmarks.devices.local import LocalDevice

    return board_facts(LocalDevice())


def add_rows(page: Table, facts: dict[str, Any]) -> None:
    """Add what is known of the board to the rows about the machine."""
    versions = [
        f"JetPack {facts['jetpack'] or 'unknown'}",
        f"L4T {facts['l4t'] or 'unknown'}",
        f"{facts['soc'] or 'unknown chip'}, compute capability {facts['compute'] or 'unknown'}",
    ]
    page.add_row("module", shown(", ".join([facts["module"] or "unknown", *versions])))
    page.add_row("power mode", shown(_mode(facts)))
    page.add_row("power", shown(_power(facts["power"])))
    page.add_row("heat", shown(_heat(facts)))
    total, free = facts["memory"].get("total_bytes"), facts["memory"].get("available_bytes")
    if total and free:
        page.add_row("memory", f"{total / 2**30:.1f} GiB, shared by processor and GPU; {free / 2**30:.1f} available")
    page.add_row("nvml", NVML)
    if facts["left_locked"]:
        way_out = f"sudo jetson_clocks --restore {facts['left_locked']}"
        page.add_row("clocks", shown(f"left locked by a measurement that was killed: {way_out}"))
    if facts["remark"]:
        page.add_row("note", shown(facts["remark"]))


def _mode(facts: dict[str, Any]) -> str:
    mode = facts["power_mode"]
    named = (
        "unknown" if mode is None else " ".join(str(part) for part in (mode["name"], mode["id"]) if part is not None)
    )
    states = {True: "locked", False: "free", None: "unknown"}
    cpu, gpu = (states[facts["locked"].get(part)] for part in ("cpu", "gpu"))
    return f"{named}; clocks of processor {cpu}, of GPU {gpu}"


def _power(power: dict[str, Any]) -> str:
    if not power["rails"]:
        return "no rail can be read: this board has no monitor of them, or its kernel does not show it"
    rails = ", ".join(f"{name} {watts:.2f} W" for name, watts in power["watts"].items()) or ", ".join(power["rails"])
    through = "" if power["source"] == "sysfs" else f" ({power['source']})"
    return f"{rails}{through}; total: {power['total']['text']}"


def _heat(facts: dict[str, Any]) -> str:
    from mggc_edge.benchmarks.agent.heat import junction, throttled

    hottest = junction(facts["temperatures"])
    told = "unknown" if hottest is None else f"{hottest:.1f} degrees at the hottest place"
    lowered = throttled(facts["clocks"], facts["clocks"])
    since = [f"{name} {count} times" for name, count in facts["clocks"].get("protection", {}).items() if count]
    told += f"; clocks are lowered now: {'; '.join(lowered)}" if lowered else ""
    return told + (f"; protection of the supply since the start: {', '.join(since)}" if since else "")
