"""`mggc-edge export`: from a checkpoint to artifacts that are proven equal, slimmed by a plan on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mggc_edge.cli.options import (
    RUNS,
    Bn,
    Config,
    DirectionFlag,
    ImageSize,
    Json,
    NormStatsFlag,
    OutputFile,
    Seed,
    Set,
    folder_for,
    load_settings,
    parse_image_size,
    parse_names,
)
from mggc_edge.cli.output import Output, file_size, si

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.pipeline import Export

SCHEMA = "mggc-edge/export/1"
PRECISIONS = ("fp32",)
RUNTIMES = ("onnxruntime",)


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A checkpoint, a folder with a saved network, or a run folder.")],
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="New folder for the artifacts [dim](default: runs/<name>-export-<time>)[/]."
        ),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Slim the generator by this plan first.")
    ] = None,
    drop_zero_scales: Annotated[
        bool,
        typer.Option(
            "--drop-zero-scales",
            help="Take out the channels whose norm has the scale 0 first, as GAN Slimming leaves them.",
        ),
    ] = False,
    precision: Annotated[str, typer.Option("--precision", metavar="LIST", help="Precisions, of: fp32.")] = "fp32",
    runtime: Annotated[
        str, typer.Option("--runtime", metavar="LIST", help="Runtimes, of: onnxruntime.")
    ] = "onnxruntime",
    image_size: ImageSize = None,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the number of pictures open.")] = False,
    opset: Annotated[int | None, typer.Option("--opset", metavar="N", help="ONNX operator version, 18 to 23.")] = None,
    direction: DirectionFlag = None,
    bn: Bn = None,
    norm_stats: NormStatsFlag = "instance",
    seed: Seed = 0,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Export a generator to ONNX and prove it equal to torch, after slimming it where --plan says how."""
    from mggc_edge.artifacts import check_output_folder
    from mggc_edge.errors import InputError
    from mggc_edge.opening import run_network, what_is

    out: Output = context.obj
    if plan is not None and drop_zero_scales:
        raise typer.BadParameter("--plan and --drop-zero-scales both say which channels stay; give one of them.")
    parse_names(precision, PRECISIONS, "--precision")
    parse_names(runtime, RUNTIMES, "--runtime")
    size = parse_image_size(image_size)
    settings = load_settings(config, set_).with_value("export.opset", opset)
    folder = folder_for(out_folder, f"{file.stem}-export")
    check_output_folder(folder)
    kind = what_is(file)
    if kind == "run":
        file, run_size = run_network(file)
        kind, size = "network", size or run_size
    if kind not in ("checkpoint", "network"):
        raise InputError(f"'{file}' holds no weights", hint="export a checkpoint, a saved network or a run folder")

    from mggc_edge.artifacts import WEIGHTS_FILE, point_latest, sha256_of
    from mggc_edge.lazy import require
    from mggc_edge.models.checkpoint import read_checkpoint, read_network_folder
    from mggc_edge.pruning.plan import read_plan

    chosen = None if plan is None else read_plan(plan)
    max_bytes = settings["checkpoint.max_bytes"]
    if kind == "network":
        checkpoint = read_network_folder(file, max_bytes=max_bytes)
    else:
        checkpoint = read_checkpoint(file, direction=direction or "AtoB", norm_stats=norm_stats, max_bytes=max_bytes)
    if checkpoint.others and direction is None:
        out.remark(f"note: of {len(checkpoint.others) + 1} networks in the file, '{checkpoint.name}' is exported")
    require("torch", extra="cpu")
    from mggc_edge.compiler.to_onnx import ExportSettings
    from mggc_edge.models.weights import load_weights
    from mggc_edge.pipeline import export_folder

    network = load_weights(checkpoint, size)
    chosen_settings = ExportSettings.from_settings(
        settings, image_size=size, dynamic_batch=dynamic_batch, bn=bn or "eval"
    )
    result = export_folder(
        network,
        folder,
        settings=chosen_settings,
        plan=chosen,
        source_sha256=sha256_of(file / WEIGHTS_FILE if kind == "network" else file),
        command="export",
        effective=settings.to_json(),
        origin={"direction": direction or "AtoB", "norm_stats": norm_stats},
        seed=seed,
        drop_scales=drop_zero_scales,
        tell=out.remark,
    )
    if out_folder is None and not point_latest(folder, RUNS):
        out.remark(f"note: no link {RUNS}/latest could be made")
    for remark in result.remarks:
        out.remark(f"note: {remark}")
    with out.document(export_document(result), as_json=as_json, file=output) as taken:
        if not taken:
            out.result(export_page(result))


def export_document(result: Export) -> dict[str, Any]:
    """Return the JSON document of an export."""
    from mggc_edge.artifacts import PORTABLE
    from mggc_edge.models.families import family_of
    from mggc_edge.pipeline import costs

    files = [result.generator] + ([result.original] if result.original is not None else [])
    original = result.original or result.generator
    return {
        "schema": SCHEMA,
        "out": str(result.folder),
        "family": family_of(result.table.spec).title(result.table.spec),
        "image_size": list(result.table.image_size),
        "original": costs(result.original_table, original),
        "compressed": costs(result.table, result.generator) if result.original is not None else None,
        "artifacts": [
            {
                "path": str(exported.artifact.path),
                "target": PORTABLE,
                "runtime": "onnxruntime",
                "precision": exported.artifact.precision,
                "sha256": exported.artifact.sha256,
                "size_bytes": exported.artifact.size_bytes,
                "accepted": True,
                "reason": None,
                "parity": exported.parity.to_json(),
            }
            for exported in files
        ],
        "remarks": list(result.remarks),
    }


def export_page(result: Export) -> RenderableType:
    """Return the table of an export."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from mggc_edge.pipeline import costs

    height, width = result.table.image_size
    page = Table(
        box=box.SIMPLE, title=f"{escape(str(result.folder))} at {height}x{width}", title_justify="left", pad_edge=False
    )
    page.add_column("file", no_wrap=True)
    for label in ("size", "parameters", "MACs", "max |diff| to torch"):
        page.add_column(label, justify="right", no_wrap=True)
    rows = [(result.original, result.original_table), (result.generator, result.table)]
    for exported, table in rows:
        if exported is not None:
            cost = costs(table, exported)
            page.add_row(
                exported.artifact.path.name,
                file_size(cost["size_bytes"]),
                f"{cost['parameters']:,}",
                si(cost["macs_true"]),
                f"{exported.parity.max_abs:.1e}",
            )
    return page
