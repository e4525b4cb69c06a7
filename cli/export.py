"""`mggc-edge export`: from a checkpoint to artifacts that are proven equal, slimmed by a plan on the way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mggc_edge.cli.options import (
    RUNS,
    BatchNorm,
    Bn,
    Config,
    Direction,
    DirectionFlag,
    ImageSize,
    Json,
    NormStats,
    NormStatsFlag,
    OutputFile,
    Seed,
    Set,
    load_settings,
    parse_image_size,
    parse_names,
)
from mggc_edge.cli.output import Output, file_size, si

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.pipeline import Export
    from mggc_edge.settings import Settings

SCHEMA = "mggc-edge/export/1"
PRECISIONS = ("fp32",)
RUNTIMES = ("onnxruntime",)


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A checkpoint, or a folder with a saved network.")],
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="New folder for the artifacts [dim](default: runs/<name>-export-<time>)[/]."
        ),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Slim the generator by this plan first.")
    ] = None,
    precision: Annotated[str, typer.Option("--precision", metavar="LIST", help="Precisions, of: fp32.")] = "fp32",
    runtime: Annotated[
        str, typer.Option("--runtime", metavar="LIST", help="Runtimes, of: onnxruntime.")
    ] = "onnxruntime",
    image_size: ImageSize = None,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the number of pictures open.")] = False,
    opset: Annotated[int | None, typer.Option("--opset", metavar="N", help="ONNX operator version, 18 to 23.")] = None,
    direction: DirectionFlag = None,
    bn: Bn = None,
    norm_stats: NormStatsFlag = NormStats.instance,
    seed: Seed = 0,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Export a generator to ONNX and prove it equal to torch, after slimming it by a plan if one is given."""
    from mggc_edge.artifacts import check_output_folder
    from mggc_edge.errors import InputError
    from mggc_edge.opening import what_is

    out: Output = context.obj
    parse_names(precision, PRECISIONS, "--precision")
    parse_names(runtime, RUNTIMES, "--runtime")
    size = parse_image_size(image_size)
    settings = load_settings(config, set_).with_value("export.opset", opset)
    folder = out_folder or RUNS / f"{file.stem}-export-{time.strftime('%Y%m%d-%H%M%S')}"
    check_output_folder(folder)
    kind = what_is(file)
    if kind not in ("checkpoint", "network"):
        raise InputError(f"'{file}' is no checkpoint and no saved network", hint="export starts from weights")

    from mggc_edge.artifacts import WEIGHTS_FILE, point_latest, sha256_of
    from mggc_edge.lazy import require
    from mggc_edge.pruning.plan import read_plan

    chosen = None if plan is None else read_plan(plan)
    require("torch", extra="cpu")
    from mggc_edge.compiler.to_onnx import ExportSettings
    from mggc_edge.models.weights import load_network
    from mggc_edge.pipeline import export_folder

    network = load_network(
        file,
        direction=(direction or Direction.AtoB).value,
        norm_stats=norm_stats.value,
        image_size=size,
        max_bytes=settings["checkpoint.max_bytes"],
    )
    export_settings = ExportSettings(
        image_size=size,
        opset=settings["export.opset"],
        dynamic_batch=dynamic_batch,
        bn=(bn or BatchNorm.eval).value,
        simplify=settings["export.simplify"],
        atol=settings["export.atol"],
        pictures=settings["export.parity_pictures"],
    )
    result = export_folder(
        network,
        folder,
        settings=export_settings,
        plan=chosen,
        source_sha256=sha256_of(file / WEIGHTS_FILE if kind == "network" else file),
        command="export",
        effective=effective_settings(settings, export_settings.image_size, seed=seed, bn=export_settings.bn),
        seed=seed,
        tell=out.remark,
    )
    if out_folder is None:
        point_latest(folder, RUNS)
    for remark in result.remarks:
        out.remark(f"note: {remark}")
    if not out.document(export_document(result), as_json=as_json, file=output):
        out.result(export_page(result))


def effective_settings(settings: Settings, image_size: tuple[int, int] | None, **flags: Any) -> dict[str, Any]:
    """Return what goes into a manifest: every setting, and the flags that are none."""
    return {**settings.to_json(), "image_size": None if image_size is None else list(image_size), **flags}


def export_document(result: Export) -> dict[str, Any]:
    """Return the JSON document of an export."""
    from mggc_edge.models.families import family_of
    from mggc_edge.pipeline import PORTABLE, costs

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
