"""`mggc-edge verify`: parity of any two of checkpoint, saved network, run, .onnx and .ort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mggc_edge.cli.options import (
    Bn,
    Config,
    Direction,
    DirectionFlag,
    ImageSize,
    Json,
    Layout,
    LayoutFlag,
    NormStats,
    NormStatsFlag,
    OutputFile,
    Seed,
    Set,
    input_half,
    load_settings,
    parse_image_size,
)
from mggc_edge.cli.output import Output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.quality.parity import ParityReport

SCHEMA = "mggc-edge/verify/1"


def verify(
    context: typer.Context,
    reference: Annotated[Path, typer.Argument(help="What is held to be right: checkpoint, run, .onnx or .ort.")],
    candidate: Annotated[Path, typer.Argument(help="What is held against it: checkpoint, run, .onnx or .ort.")],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Pictures to compare on [dim](default: built-in ones)[/]."),
    ] = None,
    layout: LayoutFlag = Layout.plain,
    direction: DirectionFlag = None,
    min_psnr: Annotated[
        float | None,
        typer.Option("--min-psnr", metavar="DB", help="Pass from this PSNR on, whatever the largest difference."),
    ] = None,
    atol: Annotated[
        float | None,
        typer.Option("--atol", metavar="X", min=0, help="Largest difference of outputs in [-1, 1] that passes."),
    ] = None,
    image_size: ImageSize = None,
    bn: Bn = None,
    norm_stats: NormStatsFlag = NormStats.instance,
    seed: Seed = 0,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Run the same pictures through two artifacts and compare what comes out; exit code 3 if they differ."""
    from mggc_edge.cli.feeding import built_in_pictures, folder_pictures
    from mggc_edge.opening import open_pair
    from mggc_edge.quality.parity import check_parity

    out: Output = context.obj
    settings = load_settings(config, set_).with_value("verify.atol", atol)
    with open_pair(
        reference,
        candidate,
        image_size=parse_image_size(image_size),
        bn=None if bn is None else bn.value,
        direction=(direction or Direction.AtoB).value,
        norm_stats=norm_stats.value,
        max_bytes=settings["checkpoint.max_bytes"],
    ) as (a, b, geometry):
        assert geometry.image_size is not None
        if geometry.bn == "batch" and bn is None:
            out.remark("note: batch norm is taken per picture, as the exported file has it")
        if images is None:
            pictures = built_in_pictures(settings["verify.pictures"], geometry.image_size, geometry.input_format, seed)
        else:
            found = folder_pictures(
                out,
                images,
                geometry.image_size,
                geometry.input_format,
                input_half(layout, direction),
                settings["pictures.max_unreadable"],
                what="comparing",
            )
            pictures = (array for _, array in found)
        limit = None if min_psnr is not None and atol is None else settings["verify.atol"]
        report = check_parity(a, b, pictures, atol=limit, min_psnr=min_psnr)
    document = {"schema": SCHEMA, "reference": str(reference), "candidate": str(candidate), **report.to_json()}
    if not out.document(document, as_json=as_json, file=output):
        out.result(_page(report))
    report.check(f"'{candidate}' does not equal '{reference}'")


def _page(report: ParityReport) -> RenderableType:
    from rich.table import Table

    page = Table.grid(padding=(0, 2))
    page.add_column(style="bold", no_wrap=True)
    page.add_column()
    page.add_row("verdict", "[green]passed[/]" if report.passed else "[red]failed[/]")
    page.add_row("pictures", str(report.images))
    page.add_row(
        "max |difference|", f"{report.max_abs:.3e}" + (f" (at most {report.atol:g})" if report.atol is not None else "")
    )
    page.add_row("mean |difference|", f"{report.mean_abs:.3e}")
    least = "" if report.min_psnr is None else f" (at least {report.min_psnr:g} dB)"
    page.add_row("PSNR", "identical" if report.psnr is None else f"{report.psnr:.2f} dB{least}")
    page.add_row("SSIM", "pictures too small" if report.ssim is None else f"{report.ssim:.6f}")
    return page
