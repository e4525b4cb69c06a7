"""`mggc-edge doctor`: which engines and libraries work here, and for each that does not, why and what to install."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from mggc_edge.cli.doctor_board import add_rows, board
from mggc_edge.cli.options import Json, OutputFile
from mggc_edge.cli.output import Output, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.backends.abilities import Ability
    from mggc_edge.backends.registry import LibraryState
    from mggc_edge.machine import Machine

COLORS = {"yes": "green", "slow": "cyan", "no": "yellow"}


def doctor(context: typer.Context, as_json: Json = False, output: OutputFile = None) -> None:
    """Show this machine, its engines and libraries, what each does with which precision, and why not."""
    from mggc_edge.backends.abilities import abilities
    from mggc_edge.backends.registry import ENGINES, LIBRARIES, library_states
    from mggc_edge.machine import this_machine

    out: Output = context.obj
    this = this_machine()
    machine = _machine(this)
    jetson = None if this.jetson is None else board()
    states = library_states(ENGINES)
    engines, libraries = ([_entry(state) for state in rows] for rows in (states, library_states(LIBRARIES)))
    found = abilities(this, states)
    document = {
        "schema": "mggc-edge/doctor/1",
        "machine": machine,
        "board": jetson,
        "engines": engines,
        "libraries": libraries,
        "abilities": [ability.to_json() for ability in found],
    }
    with out.document(document, as_json=as_json, file=output) as taken:
        if not taken:
            out.result(_machine_page(machine, jetson))
            out.result(_libraries_page([*engines, *libraries]))
            out.result(_abilities_page(found))


def _libraries_page(entries: list[dict[str, Any]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    page = Table(box=box.SIMPLE, pad_edge=False)
    page.add_column("engine or library", no_wrap=True)
    page.add_column("works", no_wrap=True)
    page.add_column("version", no_wrap=True)
    page.add_column("detail", overflow="fold")
    for entry in entries:
        detail = entry["detail"] if entry["hint"] is None else f"{entry['detail']}: {entry['hint']}"
        page.add_row(
            entry["name"],
            "[green]yes[/]" if entry["works"] else "[yellow]no[/]",
            shown(entry["version"] or "-"),
            shown(detail),
        )
    return page


def _abilities_page(found: tuple[Ability, ...]) -> RenderableType:
    """Return a row for every backend and device, a column for every precision, and below it each reason once."""
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table

    precisions = tuple(dict.fromkeys(ability.precision for ability in found))
    rows: dict[tuple[str, str], dict[str, Ability]] = {}
    reasons: dict[str, dict[str, list[str]]] = {}
    for ability in found:
        rows.setdefault((ability.backend, ability.device), {})[ability.precision] = ability
        if ability.reason is not None:
            text = ability.reason if ability.hint is None else f"{ability.reason}: {ability.hint}"
            where = reasons.setdefault(f"{ability.verdict}: {text}", {})
            where.setdefault(f"{ability.backend} {ability.device}", []).append(ability.precision)
    page = Table(box=box.SIMPLE, pad_edge=False)
    for label in ("backend", "device", *precisions):
        page.add_column(label, no_wrap=True)
    for (backend, device), cells in rows.items():
        page.add_row(backend, device, *(f"[{COLORS[cells[p].verdict]}]{cells[p].verdict}[/]" for p in precisions))
    lines = []
    for reason, where in reasons.items():
        named = [
            name if len(which) == len(precisions) else f"{name} {', '.join(which)}" for name, which in where.items()
        ]
        lines.append(Padding(shown(f"{'; '.join(named)}: {reason}"), (0, 0, 0, 2)))
    return Group(page, *lines)


def _machine(machine: Machine) -> dict[str, Any]:
    import platform

    from mggc_edge._version import __version__

    return {
        "mggc-edge": __version__,
        "python": platform.python_version(),
        "device": machine.device,
        "processor": machine.processor,
        "instruction_sets": list(machine.instruction_sets),
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "jetson": machine.jetson,
        "gpu_nodes": list(machine.gpu_nodes),
    }


def _machine_page(machine: dict[str, Any], jetson: dict[str, Any] | None) -> RenderableType:
    from rich.table import Table

    page = Table.grid(padding=(0, 2))
    page.add_column(style="bold", no_wrap=True)
    page.add_column(overflow="fold")
    page.add_row("mggc-edge", f"{machine['mggc-edge']}, Python {machine['python']}")
    page.add_row("device", f"{machine['device']}, {machine['cores']} cores" + _memory(machine["memory_bytes"]))
    page.add_row("processor", shown(", ".join([machine["processor"], *machine["instruction_sets"]])))
    page.add_row("nvidia", shown(", ".join(machine["gpu_nodes"]) or "no (its driver shows no device below /dev)"))
    page.add_row("jetson", shown(machine["jetson"] or "no (no Jetson device tree found)"))
    if jetson is not None:
        add_rows(page, jetson)
    return page


def _memory(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f", {size_bytes / 2**30:.0f} GiB of memory"


def _entry(state: LibraryState) -> dict[str, Any]:
    return {
        "name": state.library.name,
        "works": state.works,
        "version": state.version,
        "detail": state.detail,
        "hint": state.hint,
    }
