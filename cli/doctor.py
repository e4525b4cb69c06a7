"""`mggc-edge doctor`: which engines and libraries work here, and for each that does not, why and what to install."""

from __future__ import annotations

from typing import Any

import typer

from mggc_edge.cli.options import Json, OutputFile
from mggc_edge.cli.output import Output

# Libraries beside the engines: name on the package index, module, the extra that installs it, what needs it.
LIBRARIES = (
    ("onnx", "onnx", "onnx", "export, inspect of ONNX files"),
    ("onnxscript", "onnxscript", "onnx", "export"),
    ("onnxsim", "onnxsim", "onnx", "export (optional: export.simplify)"),
    ("safetensors", "safetensors", "torch", "safetensors checkpoints, saved networks"),
)


def doctor(context: typer.Context, as_json: Json = False, output: OutputFile = None) -> None:
    """Show which engines and libraries work on this machine; for each that does not, why and what to install."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from mggc_edge.backends.registry import engine_states

    out: Output = context.obj
    machine = _machine()
    engines = [
        {
            "name": state.engine.name,
            "works": state.works,
            "version": state.version,
            "detail": state.detail,
            "hint": state.hint,
        }
        for state in engine_states()
    ]
    libraries = [_library(*entry) for entry in LIBRARIES]
    document = {"schema": "mggc-edge/doctor/1", "machine": machine, "engines": engines, "libraries": libraries}
    if out.document(document, as_json=as_json, file=output):
        return
    out.result("  ".join(f"[bold]{key}[/] {escape(str(value))}" for key, value in machine.items()))
    page = Table(box=box.SIMPLE, pad_edge=False)
    page.add_column("engine or library", no_wrap=True)
    page.add_column("works", no_wrap=True)
    page.add_column("version", no_wrap=True)
    page.add_column("detail", overflow="fold")
    for entry in (*engines, *libraries):
        detail = entry["detail"] if entry["hint"] is None else f"{entry['detail']}: {entry['hint']}"
        page.add_row(
            entry["name"],
            "[green]yes[/]" if entry["works"] else "[yellow]no[/]",
            entry["version"] or "-",
            escape(detail),
        )
    out.result(page)


def _machine() -> dict[str, Any]:
    import os
    import platform

    from mggc_edge._version import __version__

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "mggc-edge": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores,
    }


def _library(name: str, module: str, extra: str, needed_by: str) -> dict[str, Any]:
    from importlib import metadata

    from mggc_edge.errors import MissingDependencyError
    from mggc_edge.lazy import require

    try:
        require(module, extra=extra)
    except MissingDependencyError as error:
        return {"name": name, "works": False, "version": None, "detail": f"needed by {needed_by}", "hint": error.hint}
    return {"name": name, "works": True, "version": metadata.version(name), "detail": needed_by, "hint": None}
