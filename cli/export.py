"""`mggc-edge export`: from a checkpoint, or any ONNX file, to artifacts for a target that are proven equal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mggc_edge.cli.options import (
    ALIGN_HELP,
    RUNS,
    RUNTIMES,
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
    parse_align,
    parse_image_size,
    parse_names,
)
from mggc_edge.cli.output import Output
from mggc_edge.cli.precisions import (
    MIN_PSNR,
    CalibrationFolder,
    MinPrecisionPsnr,
    PrecisionList,
    precisions_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mggc_edge.compiler.precision.wanted import Precisions
    from mggc_edge.compiler.rewrite import Rewritten
    from mggc_edge.settings import Settings

Io = Literal["float", "uint8"]


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
    align: Annotated[
        str | None, typer.Option("--align", metavar="N|auto", help=f"With --plan: {ALIGN_HELP.format('the target')}")
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
        str,
        typer.Option(
            "--runtime",
            metavar="LIST",
            help="Runtimes, of: onnxruntime; ort-mobile, which adds .ort files; openvino, in which files are proven, "
            "and with --target of this machine tuned, too; tensorrt, a folder to build engines from on the device.",
        ),
    ] = "onnxruntime",
    target: TargetFlag = "portable",
    no_tune: Annotated[
        bool,
        typer.Option(
            "--no-tune",
            help="Take the target's list of passes as it is. Else, where the target is this machine, those stay that "
            "are measured to pay.",
        ),
    ] = False,
    image_size: ImageSize = None,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the number of pictures open.")] = False,
    io: Annotated[
        Io, typer.Option("--io", help="What goes in and comes out: floats [N, C, H, W], or RGB bytes [N, H, W, C].")
    ] = "float",
    opset: Annotated[int | None, typer.Option("--opset", metavar="N", help="ONNX operator version, 13 to 23.")] = None,
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
    from mggc_edge.cli.export_pages import export_document, export_page, rewritten_document, rewritten_page
    from mggc_edge.errors import InputError
    from mggc_edge.opening import what_is
    from mggc_edge.run_folder import run_network

    out: Output = context.obj
    if plan is not None and drop_zero_scales:
        raise typer.BadParameter("--plan and --drop-zero-scales both say which channels stay; give one of them.")
    if align is not None and plan is None:
        raise typer.BadParameter("--align rounds the widths of a plan; give one with --plan.")
    runtimes = parse_names(runtime, RUNTIMES, "--runtime")
    target = _target(target)
    multiple = parse_align(align, target)
    size = parse_image_size(image_size)
    settings = load_settings(config, set_).with_value("export.opset", opset)
    precisions = precisions_for(precision, calibration, min_precision_psnr, settings, seed, out.remark, target)
    folder = folder_for(out_folder, f"{file.stem}-export")
    check_output_folder(folder)
    kind = what_is(file)
    if kind == "run":
        file, run_size = run_network(file)
        kind, size = "network", size or run_size
    if kind == "artifact" and file.suffix.lower() == ".onnx":
        given = {
            "--plan": plan, "--dynamic-batch": dynamic_batch or None, "--direction": direction, "--bn": bn,
            "--norm-stats": None if norm_stats == "instance" else norm_stats,
            "--drop-zero-scales": drop_zero_scales or None,
        }  # fmt: skip
        for flag, value in given.items():
            if value is not None:
                raise InputError(f"{flag} is for checkpoints, and '{file}' is an ONNX file", hint="leave it out")
        rewritten = _rewrite(
            file, folder, target, settings, size, seed, io, runtimes, precisions, not no_tune, out.remark
        )
        _say(out, rewritten.remarks, latest=folder if out_folder is None else None)
        with out.document(rewritten_document(rewritten), as_json=as_json, file=output) as taken:
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
    from mggc_edge.pruning.align import shortfall
    from mggc_edge.pruning.plan import read_plan

    chosen = None if plan is None else read_plan(plan)
    if chosen is not None and align is not None:
        chosen = chosen.aligned(multiple)
        if (said := shortfall(chosen.budget_met, chosen.budget, multiple)) is not None:
            out.remark(f"note: {said}")
    max_bytes = settings["checkpoint.max_bytes"]
    if kind == "network":
        checkpoint = read_network_folder(file, max_bytes=max_bytes)
    else:
        checkpoint = read_checkpoint(file, direction=direction or "AtoB", norm_stats=norm_stats, max_bytes=max_bytes)
    if checkpoint.others and direction is None:
        out.remark(f"note: of {len(checkpoint.others) + 1} networks in the file, '{checkpoint.name}' is exported")
    require("torch", extra="cpu")
    from mggc_edge.compiler.export_settings import ExportSettings
    from mggc_edge.models.weights import load_weights
    from mggc_edge.pipeline import export_folder

    network = load_weights(checkpoint, size)
    chosen_settings = ExportSettings.from_settings(
        settings, image_size=size, dynamic_batch=dynamic_batch, bn=bn or "eval", target=target, io=io, tune=not no_tune
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
        runtimes=runtimes,
        precisions=precisions,
        tell=out.remark,
    )
    _say(out, result.remarks, latest=folder if out_folder is None else None)
    with out.document(export_document(result), as_json=as_json, file=output) as taken:
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
    io: Io,
    runtimes: tuple[str, ...],
    precisions: Precisions | None,
    tune: bool,
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
        io=io,
        opset=settings.given("export.opset"),
        runtimes=runtimes,
        precisions=precisions,
        tune=tune,
        tell=tell,
    )
