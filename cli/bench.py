"""`mggc-edge bench`: the latency of models on this machine, the original against the compressed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from mggc_edge.errors import counted

if TYPE_CHECKING:
    from mggc_edge.benchmarks.harness import Keep, Progress
    from mggc_edge.benchmarks.profile_table import Profile
    from mggc_edge.benchmarks.report import BenchmarkReport
    from mggc_edge.benchmarks.workload import Workload
    from mggc_edge.cli.bench_gate import GatePlan
    from mggc_edge.cli.bench_models import Choice
    from mggc_edge.cli.bench_options import Format
    from mggc_edge.settings import Settings

DEVICES = ("x86", "arm64", "jetson", "auto")
REMOTE = "ssh://"


def bench(
    context: typer.Context,
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL ... | RUN]",
            help=".onnx or .ort files, of which the first is what the others are compared with; or one run folder: "
            "its original and its compressed generator [dim](default: runs/latest)[/].",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="x86|arm64|jetson|auto", help="What this machine has to be.")
    ] = "auto",
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
            help="Engines, of: onnxruntime, ort-mobile, openvino [dim](default: by the file's ending)[/].",
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
            "--profile", help="Show where the time goes, against the peak of this machine, in runs of its own."
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
    _check_device(device)
    paths = models or [_latest()]
    summary = summary_file() if format_ == "github" else None
    measured = workloads(paths, size, choice, SIDES if flags is None else COMPRESSED)
    run = _run_to_update(paths, len(measured), gated=flags is not None, control=control) if update else None
    plan = None if flags is None else plan_gate(flags, measured, size, choice)
    rows, again = (measured if plan is None else plan.workloads), None
    _say_int8(out, rows)
    if profile:
        check_profiled(rows)
    if control:
        rows, again = with_control(rows)
    with _progress(out) as progress, _kept(out, format_, output, as_json=as_json) as keep:
        measure = _measure(rows, threads, settings, seed, progress, plan)
        if plan is None:
            report, page = replace(measure(0, pairs=settings["bench.pairs"], keep=keep), control=again), None
        else:
            report, gate = measure_gate(
                plan, measure, settings["bench.pairs"], control=again, keep=keep, tell=out.remark
            )
            page = GatePage(gate, plan)
    document = report.to_json()
    if run is not None:
        from mggc_edge.report.latency import renew_latency

        renew_latency(run, document)
    found: list[Profile] = []
    if profile:
        out.remark("looking where the time goes")
        most = settings["bench.max_seconds"]
        found = profiles(rows, threads=report.runs[0].threads, seed=seed, max_seconds=most)
        document = with_profiles(document, found)
    with out.document(document, as_json=as_json or format_ == "json", file=output) as taken:
        if not taken:
            show(out, report, format_, page=page, profiles=found, summary=summary)
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
) -> Callable[..., BenchmarkReport]:
    """Return what measures all rows: the number of the round, and pairs, runs and keep as `harness.measure` has them.

    What a gate allows is the smallest difference that matters, and its two rounds share the time.
    """
    from mggc_edge.benchmarks.harness import measure

    allowed = None if plan is None else plan.flags.limits.regression
    margin: float = settings["bench.margin"] if allowed is None else allowed

    def round_(number: int, **words: Any) -> BenchmarkReport:
        return measure(
            rows,
            threads=threads,
            processes=settings["bench.processes"],
            max_seconds=settings["bench.max_seconds"] / (1 if allowed is None else 2),
            margin=margin,
            warmup_seconds=settings["bench.warmup_seconds"],
            seed=seed + number,
            progress=progress,
            **words,
        )

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


def _say_int8(out: Output, models: Sequence[Workload]) -> None:
    """Say once that 8-bit models are not what this processor is fast at, where that is so."""
    from mggc_edge.backends.abilities import no_int8
    from mggc_edge.machine import INT8_SETS, this_machine

    on_cpu = any((model.precision, model.provider) == ("int8", "cpu") for model in models)
    if on_cpu and not this_machine().has_any(INT8_SETS):
        out.remark(f"note: {no_int8()}, so that int8 gains little here")


def _check_device(device: str) -> None:
    """Check that this machine is the one that was asked for."""
    from mggc_edge.errors import InputError
    from mggc_edge.machine import this_machine

    if device.startswith(REMOTE):
        raise InputError(
            "this version measures only the machine that it runs on",
            hint=f"run mggc-edge bench there, without {REMOTE}",
        )
    if device not in DEVICES:
        raise typer.BadParameter(f"--device takes {', '.join(DEVICES)}, not '{device}'.")
    machine = this_machine()
    if device in ("auto", machine.device) or (device == "arm64" and machine.device == "jetson"):
        return
    if device == "jetson":
        raise InputError(
            f"this machine is no Jetson but {machine.processor} ({machine.device}); --device ssh://user@host, which "
            "measures a Jetson from here, comes with a later version",
            hint="run mggc-edge bench on the Jetson",
        )
    raise InputError(f"this machine is {machine.device}, not {device}", hint="leave out --device")


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
