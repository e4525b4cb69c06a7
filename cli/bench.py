"""`mggc-edge bench`: the latency of models, the original against the compressed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mggc_edge.cli.bench_board import LockClocks, board_of, build_engines, with_board
from mggc_edge.cli.bench_device import DeviceChoice, DeviceFlag, RemoteDir, RemotePython
from mggc_edge.cli.options import (
    RUNS,
    Config,
    Json,
    OutputFile,
    Seed,
    Set,
    load_settings,
    parse_image_size,
    parse_names,
)
from mggc_edge.cli.output import SECONDS_BETWEEN_LINES, Output

if TYPE_CHECKING:
    from mggc_edge.benchmarks.harness import Progress
    from mggc_edge.benchmarks.profile_table import Profile
    from mggc_edge.cli.bench_models import Choice

Format = Literal["table", "json", "markdown"]


def bench(
    context: typer.Context,
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL ... | RUN]",
            help=".onnx, .ort or .engine files, of which the first is what the others are compared with; or one run "
            "folder: its original and its compressed generator [dim](default: runs/latest)[/].",
            show_default=False,
        ),
    ] = None,
    device: DeviceFlag = "auto",
    remote_dir: RemoteDir = None,
    remote_python: RemotePython = None,
    lock_clocks: LockClocks = False,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, max=1024, help="Threads [dim](default: all cores)[/]."),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            "--pairs",
            metavar="N",
            min=1,
            max=10_000,
            help="Pairs of samples, spread over bench.processes fresh processes [dim](default: 40)[/].",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option("--image-size", metavar="N|HxW", help="Picture size, for files that leave it open."),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How the result is printed.")] = "table",
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="LIST",
            help="Engines, of: onnxruntime, ort-mobile, openvino, tensorrt [dim](default: by the file's ending)[/].",
        ),
    ] = None,
    provider: Annotated[
        str,
        typer.Option("--provider", metavar="LIST", help="What ONNX Runtime runs on, of: cpu, cuda, tensorrt."),
    ] = "cpu",
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="LIST",
            help="Files of a run, of: fp32, fp16, int8; or bf16, in which OpenVINO runs fp32 files "
            "[dim](default: whatever a file is)[/].",
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Show where the time goes, against the peak of the machine, in runs of its own."
        ),
    ] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Write the result into the run, in the place of its own, and its report anew."),
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Measure latency, memory and MACs in fresh processes, and say what the samples allow to say."""
    from mggc_edge.benchmarks.extent import Extent
    from mggc_edge.benchmarks.harness import measure
    from mggc_edge.benchmarks.profiling import check_profiled
    from mggc_edge.cli.bench_models import workloads
    from mggc_edge.cli.bench_pages import markdown, pages
    from mggc_edge.cli.bench_profile import profile_markdown, profile_pages, profiles, with_profiles

    out: Output = context.obj
    settings = load_settings(config, set_).with_value("bench.pairs", pairs)
    size = parse_image_size(image_size)
    choice = _choice(runtime, provider, precision)
    where = DeviceChoice(device, remote_dir, remote_python)
    where.check()
    paths = models or [_latest()]
    measured = workloads(paths, size, choice)
    if profile:
        check_profiled(measured)
    run = _run_to_update(paths, len(measured)) if update else None
    with where.open(out, settings, measured) as on, board_of(out, on, lock_clocks) as board:
        build_engines(out, measured, on)
        with _progress(out) as progress:
            report = measure(
                measured,
                threads=threads,
                **Extent.of(settings).arguments(),
                seed=seed,
                progress=progress,
                device=on,
            )
        report = with_board(out, settings, report, measured, on, board)
        if run is not None:
            from mggc_edge.report.latency import renew_latency

            renew_latency(run, report.to_json())
        document = report.to_json()
        found: list[Profile] = []
        if profile:
            out.remark("looking where the time goes")
            most = settings["bench.max_seconds"]
            found = profiles(measured, threads=report.runs[0].threads, seed=seed, max_seconds=most, device=on)
            document = with_profiles(document, found)
    with out.document(document, as_json=as_json or format_ == "json", file=output) as taken:
        if taken:
            return
        if format_ == "markdown":
            for line in [*markdown(report), *profile_markdown(report, found)]:
                out.text(line)
        else:
            for block in [*pages(report, width=out.console().width), *profile_pages(report, found)]:
                out.result(block)


def _choice(runtime: str | None, provider: str, precision: str | None) -> Choice:
    """Return what the flags that choose engines say."""
    from mggc_edge.backends.onnxruntime import PROVIDERS
    from mggc_edge.benchmarks.workload import PRECISIONS, RUNTIMES
    from mggc_edge.cli.bench_models import Choice

    shorts = {name: short for short, name in PROVIDERS.items()}
    providers = ",".join(shorts.get(name.strip(), name) for name in provider.split(","))
    asked = (
        () if runtime is None else parse_names(runtime, RUNTIMES, "--runtime"),
        parse_names(providers, tuple(PROVIDERS), "--provider"),
        () if precision is None else parse_names(precision, PRECISIONS, "--precision"),
    )
    return Choice(*(tuple(dict.fromkeys(names)) for names in asked))


def _run_to_update(paths: list[Path], models: int) -> Path:
    """Return the finished run that is measured, which keeps the latency of one way to run it."""
    from mggc_edge.opening import what_is
    from mggc_edge.report.latency import check_renewable

    if what_is(paths[0]) != "run":
        raise typer.BadParameter(f"--update is for a run folder, and '{paths[0]}' is a file.")
    if models != 2:
        raise typer.BadParameter("--update takes one runtime, one provider and one precision.")
    check_renewable(paths[0])
    return paths[0]


def _latest() -> Path:
    from mggc_edge.errors import InputError

    latest = RUNS / "latest"
    if not latest.exists():
        raise InputError(f"there is no run '{latest}'", hint="name what to measure: mggc-edge bench MODEL.onnx")
    return latest


@contextmanager
def _progress(out: Output) -> Iterator[Progress | None]:
    """Yield what `measure` tells its progress to. Nothing runs beside the measurement: a bar moves only when told."""
    import sys

    if out.quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.progress import Progress as Bar

        with Bar(console=out.console(stderr=True), transient=True, auto_refresh=False) as bar:
            task = bar.add_task("measuring", total=None)

            def moved(done: int, total: int, text: str) -> None:
                bar.update(task, completed=done, total=total, description=f"measuring, {text}")
                bar.refresh()

            yield moved
    else:
        start = last = time.monotonic()

        def told(done: int, total: int, text: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES:
                last = now
                left = (now - start) / done * (total - done)
                out.remark(f"measuring, {text}: {done} of {total} pairs, about {left:.0f} s left")

        yield told
