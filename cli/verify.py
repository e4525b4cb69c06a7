"""`mggc-edge verify`: parity of any two of checkpoint, saved network, run, .onnx and .ort."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mggc_edge.cli.options import (
    Bn,
    Config,
    DirectionOrHalf,
    ImageSize,
    Json,
    LayoutFlag,
    OtherSideNormStats,
    OutputFile,
    Seed,
    Set,
    input_half,
    load_settings,
    parse_image_size,
    parse_names,
)
from mggc_edge.cli.output import Output
from mggc_edge.cli.precisions import MIN_PSNR

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.quality.parity import ParityReport
    from mggc_edge.tensors import FloatArray

SCHEMA = "mggc-edge/verify/1"
ONE_LEVEL = 1.0  # of 255: what passes where pictures of bytes are compared
CALIBRATED = "mggc_edge.calibration"  # in the metadata of fp16 and int8 files that were made from a float one


def verify(
    context: typer.Context,
    reference: Annotated[Path, typer.Argument(help="The reference: checkpoint, run, .onnx or .ort.")],
    candidate: Annotated[Path, typer.Argument(help="What is compared with it: checkpoint, run, .onnx or .ort.")],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Pictures to compare on [dim](default: built-in ones)[/]."),
    ] = None,
    layout: LayoutFlag = "plain",
    direction: DirectionOrHalf = None,
    min_psnr: Annotated[
        float | None,
        typer.Option(
            "--min-psnr",
            metavar="DB",
            help="Pass if the PSNR is at least this; the largest difference is then checked only if --atol is given.",
        ),
    ] = None,
    atol: Annotated[
        float | None,
        typer.Option("--atol", metavar="X", min=0, help="Largest difference of outputs in [-1, 1] that passes."),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="NAME[,NAME]",
            help="Engine of the artifacts, or of reference and candidate: onnxruntime, ort-mobile, openvino, pytorch "
            "[dim](default: by what each is)[/].",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="NAME[,NAME]",
            help="What OpenVINO computes float32 files in, or reference and candidate: fp32, bf16.",
        ),
    ] = "fp32",
    image_size: ImageSize = None,
    bn: Bn = None,
    norm_stats: OtherSideNormStats = None,
    seed: Seed = 0,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Run the same pictures through two artifacts and compare what comes out; exit code 3 if they differ."""
    from mggc_edge.artifacts import BYTES_IO
    from mggc_edge.cli.feeding import built_in_pictures, folder_pictures, read_pictures
    from mggc_edge.errors import ArtifactError
    from mggc_edge.opening import geometry, open_pair
    from mggc_edge.pictures import find_pictures
    from mggc_edge.quality.parity import check_parity

    out: Output = context.obj
    for flag, value in (("--min-psnr", min_psnr), ("--atol", atol)):
        if value is not None and not math.isfinite(value):
            raise typer.BadParameter(f"{flag} takes a finite number, not {value}.")
    settings = load_settings(config, set_).with_value("verify.atol", atol)
    runtimes, precisions = _engines((reference, candidate), runtime, precision)
    with open_pair(
        reference,
        candidate,
        image_size=parse_image_size(image_size),
        bn=bn,
        direction=direction,
        norm_stats=norm_stats,
        max_bytes=settings["checkpoint.max_bytes"],
        runtimes=runtimes,
        precisions=precisions,
    ) as (a, b, shared):
        assert shared.image_size is not None
        if bn is not None and bn not in (geometry(a).bn, geometry(b).bn):
            raise ArtifactError(
                f"'{reference}' and '{candidate}' were exported with batch norm taken as {shared.bn}; "
                f"--bn {bn} is for checkpoints",
                hint="leave out --bn, or compare with the checkpoint",
            )
        if shared.bn == "batch" and bn is None:
            out.remark("note: batch norm is taken per picture, as the exported file has it")
        names: list[str] = []
        if images is None:
            built_in = built_in_pictures(settings["verify.pictures"], shared.image_size, shared.input_format, seed)
            pictures: Iterator[FloatArray] = built_in
        else:
            stream = folder_pictures(
                out,
                find_pictures(images),
                shared.image_size,
                shared.input_format,
                input_half(layout, direction),
                settings["pictures.max_unreadable"],
            )
            pictures = _with_contrast(out, read_pictures(out, stream, what="comparing"), names)
        if min_psnr is None and atol is None and any(CALIBRATED in runner.metadata for runner in (a, b)):
            min_psnr = MIN_PSNR
            out.remark("note: fp16 and int8 files made from a float one are compared by PSNR, as when they were made")
        elif min_psnr is None and atol is None and "int8" in (geometry(a).precision, geometry(b).precision):
            min_psnr = settings["quantize.min_psnr"]
            out.remark(
                "note: 8-bit networks are compared by PSNR: where a sum is rounded otherwise, levels differ by one"
            )
        if shared.io == BYTES_IO:
            out.remark(
                "note: pictures of bytes are compared: differences are in levels of 255, and so is --atol (default: 1)"
            )
        usual = ONE_LEVEL if shared.io == BYTES_IO and atol is None else settings["verify.atol"]
        limit = None if min_psnr is not None and atol is None else usual
        values = shared.output_format.high - shared.output_format.low
        report = check_parity(a, b, pictures, atol=limit, min_psnr=min_psnr, data_range=values)
        engines = [a.engine, b.engine]
    if names and not report.passed:
        out.remark(f"note: the largest difference is at '{names[report.worst]}'; where a picture has little contrast,")
        out.remark("      instance norms make large differences of small ones")
    document = {
        "schema": SCHEMA,
        "reference": str(reference),
        "candidate": str(candidate),
        "runtimes": engines,
        "precisions": list(precisions),
        **report.to_json(),
    }
    with out.document(document, as_json=as_json, file=output) as taken:
        if not taken:
            out.result(_page(report))
    report.check(f"'{candidate}' does not equal '{reference}'")


def _engines(
    paths: tuple[Path, Path], runtime: str | None, precision: str
) -> tuple[tuple[str | None, str | None], tuple[str, str]]:
    """Return engine and precision of each side: a single name is for all sides that are no checkpoints."""
    from mggc_edge.backends.openvino import EXECUTION
    from mggc_edge.backends.registry import RUNTIMES
    from mggc_edge.opening import PYTORCH, what_is

    names = () if runtime is None else parse_names(runtime, (*RUNTIMES, PYTORCH), "--runtime")
    kinds = parse_names(precision, tuple(EXECUTION), "--precision")
    for flag, values in (("--runtime", names), ("--precision", kinds)):
        if len(values) > 2:
            raise typer.BadParameter(f"{flag} takes one name, or two: of the reference and of the candidate.")
    runs = [what_is(path) in ("artifact", "run") for path in paths]
    engines = names if len(names) == 2 else tuple(names[0] if names and one else None for one in runs)
    floats = kinds if len(kinds) == 2 else tuple(kinds[0] if one else "fp32" for one in runs)
    return (engines[0], engines[1]), (floats[0], floats[1])


def _with_contrast(out: Output, pictures: Iterator[tuple[Path, FloatArray]], names: list[str]) -> Iterator[FloatArray]:
    """Yield the pictures that are not of a single colour, and keep their names.

    Of a single colour an instance norm leaves nothing but its rounding, which it multiplies by up to 1/sqrt(epsilon),
    316 at the usual 1e-5, at every layer: two engines that are both right then give different noise.
    """
    flat = 0
    for path, array in pictures:
        if (array.max(axis=(2, 3)) == array.min(axis=(2, 3))).all():
            flat += 1
            continue
        names.append(str(path))
        yield array
    if flat:
        out.remark(f"note: {flat} pictures of a single colour were left out; nothing can be compared on them")


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
