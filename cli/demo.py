"""`mggc-edge demo`: the whole job on built-in material, so that a user sees it work before trusting it with theirs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mggc_edge.cli.compress_page import page
from mggc_edge.cli.options import RUNS, Config, Json, OutputFile, Seed, Set, folder_for, load_settings
from mggc_edge.cli.output import Output
from mggc_edge.cli.progress import StageProgress

if TYPE_CHECKING:
    from rich.console import RenderableType

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
    """Train a small generator, compress it, and see its quality come back; nothing is needed but this package."""
    from mggc_edge.artifacts import check_output_folder, point_latest
    from mggc_edge.lazy import require

    out: Output = context.obj
    settings = load_settings(config, set_)
    folder = folder_for(out_folder, "demo")
    check_output_folder(folder)
    require("torch", extra="cpu")
    require("onnx", extra="onnx")
    from mggc_edge.demonstration import demonstrate
    from mggc_edge.jobs.hooks import Hooks

    started = time.perf_counter()
    with StageProgress(out) as progress:
        hooks = Hooks(tell=progress.tell, watch=progress.watch, track=progress.track)
        result = demonstrate(folder, settings, seed=seed, hooks=hooks)
    if out_folder is None and not point_latest(result.run, RUNS):
        out.remark(f"note: no link {RUNS}/latest could be made")
    with out.document({"schema": SCHEMA, **result.to_json()}, as_json=as_json, file=output) as taken:
        if not taken:
            out.result(page(result.document))
            out.text("")
            out.result(_truths(result))
            if result.regained is not None:
                out.text(f"Finetuning regained {result.regained:.0%} of the L1 distance that slimming lost.")
            out.text(f"Look at {result.sheet}")
            out.text(f"and at {result.run / 'report.html'}")
            out.text(f"It took {time.perf_counter() - started:.0f} s.")
    result.check()


def _truths(result: Demonstration) -> RenderableType:
    """Return the table of how far from the truth the pictures of every generator are."""
    from rich import box
    from rich.table import Table

    noun = "picture" if result.pictures == 1 else "pictures"
    table = Table(box=box.SIMPLE, title=f"{result.pictures} test {noun}", title_justify="left", pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("PSNR to the truth", justify="right", no_wrap=True)
    table.add_column("L1", justify="right", no_wrap=True)
    for label, distance in (
        ("input, as it is", result.inputs),
        ("original", result.original),
        ("slim, before finetuning", result.slimmed),
        ("slim, after finetuning", result.finetuned),
    ):
        psnr = "identical" if distance.psnr is None else f"{distance.psnr:.2f} dB"
        table.add_row(label, psnr, f"{distance.l1:.4f}")
    return table
