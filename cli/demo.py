"""`mggc-edge demo`: the pipeline on built-in material, so that a user sees it work before trusting it with theirs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mggc_edge.cli.export import export_document, export_page
from mggc_edge.cli.options import RUNS, Config, Json, OutputFile, Seed, Set, default_folder, load_settings
from mggc_edge.cli.output import Output, si

if TYPE_CHECKING:
    from mggc_edge.demonstration import Demonstration

SCHEMA = "mggc-edge/demo/1"


def demo(
    context: typer.Context,
    out_folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="New folder [dim](default: runs/demo-<time>)[/].")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Inspect, slim, export and verify a small built-in generator; nothing is needed but this package."""
    from mggc_edge.artifacts import check_output_folder, point_latest
    from mggc_edge.lazy import require

    out: Output = context.obj
    settings = load_settings(config, set_)
    folder = out_folder or default_folder("demo")
    check_output_folder(folder)
    require("torch", extra="cpu")
    require("onnx", extra="onnx")
    from mggc_edge.demonstration import demonstrate

    started = time.perf_counter()
    result = demonstrate(folder, settings, seed=seed, tell=out.remark)
    if out_folder is None and not point_latest(result.export.folder, RUNS):
        out.remark(f"note: no link {RUNS}/latest could be made")
    if not out.document(_document(result), as_json=as_json, file=output):
        out.result(export_page(result.export))
        for line in _lines(result, time.perf_counter() - started):
            out.text(line)


def _document(result: Demonstration) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "checkpoint": str(result.checkpoint),
        "plan": {
            "budget": result.plan.budget,
            "budget_met": result.plan.budget_met,
            "criterion": result.plan.criterion,
        },
        "masked_difference": result.masked_difference,
        "contact_sheet": str(result.sheet),
        "export": export_document(result.export),
    }


def _lines(result: Demonstration, seconds: float) -> list[str]:
    from mggc_edge.models.cost import macs

    before, after = macs(result.export.original_table), macs(result.export.table)
    folder = result.checkpoint.parent
    return [
        f"The plan keeps {after / before:.1%} of {si(before)} MACs.",
        f"Slim network and original with its other channels masked differ by up to {result.masked_difference:.1e}.",
        "The weights are random, so this shows that slimming and export are exact, not that pictures are good.",
        f"Look at {result.sheet}, and try:",
        f"  mggc-edge inspect {result.checkpoint}",
        f"  mggc-edge inspect {folder / 'plan.json'}",
        f"  mggc-edge verify {folder / 'run' / 'slim'} {folder / 'run'}",
        f"It took {seconds:.0f} s.",
    ]
