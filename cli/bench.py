"""`mggc-edge bench`: the latency of models, the original against the compressed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mggc_edge.cli.bench_board import LockClocks, board_of, build_engines, with_board
from mggc_edge.cli.bench_device import DeviceChoice, DeviceFlag, RemoteDir, RemotePython
from mggc_edge.cli.bench_options import (
    BaselineFlag,
    ControlFlag,
    FormatFlag,
    InconclusiveFlag,
    MaxMacs,
    MaxParameters,
    MaxQuantizers,
    MaxRegression,
    MaxReorders,
    MaxSize,
    gate_flags,
)
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
from mggc_edge.errors import MggcEdgeError, counted

if TYPE_CHECKING:
    from mggc_edge.benchmarks.devices.base import Device
    from mggc_edge.benchmarks.harness import Keep, Progress
    from mggc_edge.benchmarks.profile_table import Profile
    from mggc_edge.benchmarks.report import BenchmarkReport
    from mggc_edge.benchmarks.workload import Workload
    from mggc_edge.cli.bench_gate import GatePlan
    from mggc_edge.cli.bench_models import Choice
    from mggc_edge.cli.bench_options import Format
    from mggc_edge.settings import Settings


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
            help="Pairs of samples, spread over bench.processes fresh processes; of a gate, half of them in each of "
            "two rounds [dim](default: 40)[/].",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option("--image-size", metavar="N|HxW", help="Picture size, for files that leave it open."),
    ] = None,
    format_: FormatFlag = "table",
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
    control: ControlFlag = False,
    baseline: BaselineFlag = None,
    max_regression: MaxRegression = None,
    inconclusive: InconclusiveFlag = "fail",
    max_macs_increase: MaxMacs = None,
    max_parameters_increase: MaxParameters = None,
    max_size_increase: MaxSize = None,
    max_reorders_increase: MaxReorders = None,
    max_qdq_increase: MaxQuantizers = None,
    seed: Seed = 0,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> int:
    """Measure latency, memory and MACs in fresh processes, and say what the samples allow to say."""
    from mggc_edge.benchmarks.formats.github import summary_file
    from mggc_edge.benchmarks.profiling import check_profiled
    from mggc_edge.cli.bench_formats import show
    from mggc_edge.cli.bench_gate import COMPRESSED, measure_gate, plan_gate, with_control
    from mggc_edge.cli.bench_models import SIDES, workloads
    from mggc_edge.cli.bench_profile import profiles, with_profiles
    from mggc_edge.cli.gate_pages import GatePage

    out: Output = context.obj
    settings = load_settings(config, set_).with_value("bench.pairs", pairs)
    percents = {
        "macs_executed": ("--max-macs-increase", max_macs_increase),
        "parameters": ("--max-parameters-increase", max_parameters_increase),
        "size_bytes": ("--max-size-increase", max_size_increase),
    }
    counts = {
        "reorders": ("--max-reorders-increase", max_reorders_increase),
        "quantizers": ("--max-qdq-increase", max_qdq_increase),
    }
    flags = gate_flags(baseline, max_regression, inconclusive, percents, counts)
    size = parse_image_size(image_size)
    choice = _choice(runtime, provider, precision)
    where = DeviceChoice(device, remote_dir, remote_python)
    where.check()
    paths = models or [_latest()]
    summary = summary_file() if format_ == "github" else None
    measured = workloads(paths, size, choice, SIDES if flags is None else COMPRESSED)
    run = _run_to_update(paths, len(measured), gated=flags is not None, control=control) if update else None
    plan = None
    if flags is not None:
        plan = plan_gate(flags, measured, size, choice, threads=threads, here=where.is_here)
    rows, again = (measured if plan is None else plan.workloads), None
    if profile:
        check_profiled(rows)
    if control:
        rows, again = with_control(rows)
    found: list[Profile] = []
    unprofiled: MggcEdgeError | None = None
    with (
        where.open(out, settings, rows) as on,
        board_of(out, on, lock_clocks) as board,
        _kept(out, format_, output, as_json=as_json) as keep,
    ):
        build_engines(out, rows, on)
        with _progress(out) as progress:
            measure = _measure(rows, threads, settings, seed, progress, plan, on)
            if plan is None:
                report, page = replace(measure(0, keep=keep), control=again), None
            else:
                report, gate = measure_gate(
                    plan, measure, settings["bench.pairs"], control=again, keep=keep, tell=out.remark
                )
                page = GatePage(gate, plan)
        keep(report)  # whatever ends what follows
        report = with_board(out, settings, report, rows, on, board)
        if run is not None:
            from mggc_edge.report.latency import renew_latency

            renew_latency(run, report.to_json())
        document = report.to_json()
        if profile:
            out.remark("looking where the time goes")
            most = settings["bench.max_seconds"]
            try:
                found = profiles(rows, threads=report.runs[0].threads, seed=seed, max_seconds=most, device=on)
                document = with_profiles(document, found)
            except MggcEdgeError as error:
                unprofiled = error  # what was measured, and a gate's verdict, is shown first
    with out.document(document, as_json=as_json or format_ == "json", file=output) as taken:
        if not taken:
            show(out, report, format_, page=page, profiles=found, summary=summary)
    if unprofiled is not None:
        if page is None or not page.gate.exit_code:
            raise unprofiled
        out.remark(f"warning: nothing is known of where the time goes: {unprofiled}")
    if page is None:
        return 0
    if page.gate.verdict == "inconclusive" and page.gate.warn:
        out.remark("warning: the gate is inconclusive, which --inconclusive warn lets pass")
    return page.gate.exit_code


def _measure(
    rows: Sequence[Workload],
    threads: int | None,
    settings: Settings,
    seed: int,
    progress: Progress | None,
    plan: GatePlan | None,
    device: Device,
) -> Callable[..., BenchmarkReport]:
    """Return what measures all rows: the number of the round, and pairs, runs and keep as `harness.measure` has them.

    What a gate allows is the smallest difference that matters, and its two rounds share the time.
    """
    from mggc_edge.benchmarks.extent import Extent
    from mggc_edge.benchmarks.harness import measure

    extent = Extent.of(settings)
    if plan is not None and (allowed := plan.flags.limits.regression) is not None:
        extent = replace(extent, margin=allowed, max_seconds=extent.max_seconds / 2)

    def round_(number: int, **words: Any) -> BenchmarkReport:
        asked: dict[str, Any] = {**extent.arguments(), **words}
        return measure(rows, threads=threads, seed=seed + number, progress=progress, device=device, **asked)

    return round_


@contextmanager
def _kept(out: Output, form: Format, file: Path | None, *, as_json: bool) -> Iterator[Keep]:
    """Yield what takes the samples of a measurement that an error or Ctrl-C ends; they are written and shown then."""
    parts: list[BenchmarkReport] = []
    try:
        yield parts.append
    except BaseException:
        if parts:
            from mggc_edge.cli.bench_formats import show

            pairs = sum(len(process.pairs) for process in parts[-1].runs[0].processes)
            with out.document(parts[-1].to_json(), as_json=as_json or form == "json", file=file) as taken:
                if not taken:
                    show(out, parts[-1], form if form == "markdown" else "table")
            where = "" if file is None else f", and kept in '{file}'"
            out.remark(
                f"the measurement ended early, after {counted(pairs, 'complete pair')}: what they say is shown{where}"
            )
        raise


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


def _run_to_update(paths: list[Path], models: int, *, gated: bool, control: bool) -> Path:
    """Return the finished run that is measured, which keeps the latency of one way to run it."""
    if gated or control:
        raise typer.BadParameter(f"--update takes no {'--baseline' if gated else '--control'}.")
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
        start = last = before = time.monotonic()

        def told(done: int, total: int, text: str) -> None:
            nonlocal start, last, before
            now = time.monotonic()
            if done == 1:  # of a second round, too
                start = before
            before = now
            if now - last >= SECONDS_BETWEEN_LINES:
                last = now
                left = (now - start) / done * (total - done)
                out.remark(f"measuring, {text}: {done} of {total} pairs, about {left:.0f} s left")

        yield told
