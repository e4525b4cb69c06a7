"""`mggc-edge doctor`: which engines and libraries work here, and for each that does not, why and what to install."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from mggc_edge.cli.options import Json, OutputFile
from mggc_edge.cli.output import Output, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.backends.registry import LibraryState


def doctor(context: typer.Context, as_json: Json = False, output: OutputFile = None) -> None:
    """Show this machine, which engines and libraries work here, and for each that does not, why and what to install."""
    from mggc_edge.backends.registry import ENGINES, LIBRARIES, library_states

    out: Output = context.obj
    machine = _machine()
    engines, libraries = ([_entry(state) for state in library_states(rows)] for rows in (ENGINES, LIBRARIES))
    document = {"schema": "mggc-edge/doctor/1", "machine": machine, "engines": engines, "libraries": libraries}
    with out.document(document, as_json=as_json, file=output) as taken:
        if not taken:
            out.result(_machine_page(machine))
            out.result(_libraries_page([*engines, *libraries]))


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


def _machine() -> dict[str, Any]:
    import platform

    from mggc_edge._version import __version__
    from mggc_edge.machine import this_machine

    machine = this_machine()
    return {
        "mggc-edge": __version__,
        "python": platform.python_version(),
        "device": machine.device,
        "processor": machine.processor,
        "instruction_sets": list(machine.instruction_sets),
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "jetson": machine.jetson,
    }


def _machine_page(machine: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    page = Table.grid(padding=(0, 2))
    page.add_column(style="bold", no_wrap=True)
    page.add_column(overflow="fold")
    page.add_row("mggc-edge", f"{machine['mggc-edge']}, Python {machine['python']}")
    page.add_row("device", f"{machine['device']}, {machine['cores']} cores" + _memory(machine["memory_bytes"]))
    page.add_row("processor", shown(", ".join([machine["processor"], *machine["instruction_sets"]])))
    page.add_row("jetson", shown(machine["jetson"] or "no (no Jetson device tree found)"))
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
