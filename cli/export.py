"""`mggc-edge export`: from a checkpoint, or any ONNX file, to artifacts for a target that are proven equal."""

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
    TargetFlag,
    folder_for,
    load_settings,
    parse_image_size,
    parse_names,
)
from mggc_edge.cli.output import Output, file_size, si
from mggc_edge.cli.precisions import (
    MIN_PSNR,
    CalibrationFolder,
    MinPrecisionPsnr,
    PrecisionList,
    precisions_for,
    variant_documents,
    variant_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from mggc_edge.compiler.finishing import Exported
    from mggc_edge.compiler.precision.wanted import Precisions
    from mggc_edge.compiler.rewrite import Rewritten
    from mggc_edge.pipeline import Export
    from mggc_edge.settings import Settings

SCHEMA = "mggc-edge/export/1"
RUNTIMES = ("onnxruntime",)


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A checkpoint, a saved network, a run folder, or any .onnx file.")],
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
    precision: PrecisionList = "fp32",
    calibration: CalibrationFolder = None,
    min_precision_psnr: MinPrecisionPsnr = MIN_PSNR,
    runtime: Annotated[
        str, typer.Option("--runtime", metavar="LIST", help="Runtimes, of: onnxruntime.")
    ] = "onnxruntime",
    target: TargetFlag = "portable",
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
    """Export a generator to ONNX and prove it equal to torch, after slimming it where --plan says how.

    An ONNX file, of any producer, is rewritten for the target and proven equal to what it was.
    """
    from mggc_edge.artifacts import check_output_folder
    from mggc_edge.errors import InputError
    from mggc_edge.opening import run_network, what_is

    out: Output = context.obj
    if plan is not None and drop_zero_scales:
        raise typer.BadParameter("--plan and --drop-zero-scales both say which channels stay; give one of them.")
    parse_names(runtime, RUNTIMES, "--runtime")
    target = _target(target)
    size = parse_image_size(image_size)
    settings = load_settings(config, set_).with_value("export.opset", opset)
    precisions = precisions_for(precision, calibration, min_precision_psnr, settings, seed, out.remark)
    folder = folder_for(out_folder, f"{file.stem}-export")
    check_output_folder(folder)
    kind = what_is(file)
    if kind == "run":
        file, run_size = run_network(file)
        kind, size = "network", size or run_size
    if kind == "artifact" and file.suffix.lower() == ".onnx":
        given = {
            "--plan": plan, "--dynamic-batch": dynamic_batch or None, "--opset": opset, "--direction": direction,
            "--bn": bn, "--norm-stats": None if norm_stats == "instance" else norm_stats,
            "--drop-zero-scales": drop_zero_scales or None,
        }  # fmt: skip
        for flag, value in given.items():
            if value is not None:
                raise InputError(f"{flag} is for checkpoints, and '{file}' is an ONNX file", hint="leave it out")
        rewritten = _rewrite(file, folder, target, settings, size, seed, precisions, out.remark)
        _say(out, rewritten.generator.remarks, latest=folder if out_folder is None else None)
        with out.document(rewritten_document(rewritten, target), as_json=as_json, file=output) as taken:
            if not taken:
                out.result(rewritten_page(rewritten))
        return
    if kind not in ("checkpoint", "network"):
        raise InputError(
            f"'{file}' holds no weights that can be exported",
            hint="export a checkpoint, a saved network, a run folder or an .onnx file",
        )

    from mggc_edge.artifacts import WEIGHTS_FILE, sha256_of
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
        settings, image_size=size, dynamic_batch=dynamic_batch, bn=bn or "eval", target=target
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
        precisions=precisions,
        tell=out.remark,
    )
    _say(out, result.remarks, latest=folder if out_folder is None else None)
    with out.document(export_document(result, target), as_json=as_json, file=output) as taken:
        if not taken:
            out.result(export_page(result))


def _target(name: str) -> str:
    from mggc_edge.compiler.targets import AUTO, TARGETS, this_target

    if name not in (*TARGETS, AUTO):
        raise typer.BadParameter(f"--target takes {', '.join((*TARGETS, AUTO))}, not '{name}'.")
    return this_target() if name == AUTO else name


def _say(out: Output, remarks: tuple[str, ...], *, latest: Path | None) -> None:
    from mggc_edge.artifacts import point_latest

    if latest is not None and not point_latest(latest, RUNS):
        out.remark(f"note: no link {RUNS}/latest could be made")
    for remark in remarks:
        out.remark(f"note: {remark}")


def _rewrite(
    file: Path,
    folder: Path,
    target: str,
    settings: Settings,
    size: tuple[int, int] | None,
    seed: int,
    precisions: Precisions | None,
    tell: Callable[[str], None],
) -> Rewritten:
    from mggc_edge.compiler.rewrite import rewrite_folder

    return rewrite_folder(
        file,
        folder,
        target=target,
        settings=settings,
        image_size=size,
        command="export",
        effective=settings.to_json(),
        seed=seed,
        precisions=precisions,
        tell=tell,
    )


def rewritten_document(result: Rewritten, target: str) -> dict[str, Any]:
    """Return the JSON document of an ONNX file that was rewritten; MACs are those of the file as it was.

    `original` is the file that was given; size and parameters of the new one stand with the artifact.
    """
    facts = result.before
    return {
        "schema": SCHEMA,
        "out": str(result.folder),
        "source": str(result.source),
        "family": None,
        "image_size": list(result.image_size),
        "original": {
            "parameters": facts.parameters,
            "macs_true": facts.macs_true,
            "macs_paper": facts.macs_paper,
            "size_bytes": result.source_bytes,
        },
        "compressed": None,
        "artifacts": [
            {**_artifact(result.generator, target), "parameters": result.after.parameters},
            *variant_documents(result.generator, target),
        ],
        "remarks": list(result.generator.remarks),
    }


def export_document(result: Export, target: str) -> dict[str, Any]:
    """Return the JSON document of an export."""
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
        "artifacts": [entry for one in files for entry in (_artifact(one, target), *variant_documents(one, target))],
        "remarks": list(result.remarks),
    }


def _artifact(exported: Exported, target: str) -> dict[str, Any]:
    return {
        "path": str(exported.artifact.path),
        "target": target,
        "runtime": "onnxruntime",
        "precision": exported.artifact.precision,
        "sha256": exported.artifact.sha256,
        "size_bytes": exported.artifact.size_bytes,
        "accepted": True,
        "reason": None,
        "parity": exported.parity.to_json(),
        "macs_executed": exported.macs_executed,
        "passes": [report.to_json() for report in exported.passes],
    }


def export_page(result: Export) -> RenderableType:
    """Return the table of an export, and below it what the graph passes did."""
    from mggc_edge.pipeline import costs

    rows: list[tuple[Exported, int, int | None]] = []
    for exported, table in ((result.original, result.original_table), (result.generator, result.table)):
        if exported is not None:
            cost = costs(table, exported)
            rows.append((exported, cost["parameters"], cost["macs_true"]))
    return _page(result.folder, result.table.image_size, rows, " to torch")


def rewritten_page(result: Rewritten) -> RenderableType:
    """Return the same table of an ONNX file that was rewritten."""
    row = (result.generator, result.after.parameters, result.before.macs_true)
    return _page(result.folder, result.image_size, [row], "\nto the file before")


def _page(
    folder: Path, size: tuple[int, int], rows: list[tuple[Exported, int, int | None]], reference: str
) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    page = Table(
        box=box.SIMPLE,
        title=f"{escape(str(folder))} at {size[0]}x{size[1]}",
        title_justify="left",
        pad_edge=False,
    )
    page.add_column("file", no_wrap=True)
    for label in ("size", "parameters", "MACs", f"max |diff|{reference}"):
        page.add_column(label, justify="right", no_wrap=True)
    for exported, parameters, macs in rows:
        page.add_row(
            exported.artifact.path.name,
            file_size(exported.artifact.size_bytes),
            f"{parameters:,}",
            "-" if macs is None else si(macs),
            f"{exported.parity.max_abs:.1e}",
        )
    lines: list[RenderableType] = [Text(line) for exported, _, macs in rows for line in _pass_lines(exported, macs)]
    lines += [line for exported, _, _ in rows for line in variant_lines(exported)]
    return Group(page, *lines) if lines else page


def _pass_lines(exported: Exported, macs: int | None) -> list[str]:
    """Return a line for every pass that had a site, and one on what is executed now, where that is not what it was.

    Of a graph that nothing was rewritten in there is nothing to say; the JSON document has the reasons all the same.
    """
    if not any(report.applied for report in exported.passes):
        return []
    lines = []
    for report in exported.passes:
        parts = [f"applied {report.applied}"] * bool(report.applied)
        parts += [f"not at {count}: {reason}" for reason, count in report.reasons.items()]
        if parts:
            lines.append(f"  {report.name}: {'; '.join(parts)}")
    if lines and exported.macs_executed not in (None, macs):
        lines.append(f"  executes {si(exported.macs_executed or 0)} MACs")
    return [f"passes over {exported.artifact.path.name}:", *lines] if lines else []
