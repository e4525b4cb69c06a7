"""`mggc-edge bench`: the latency of models on this machine, the original against the compressed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mggc_edge.cli.options import (
    RUNS,
    Config,
    Json,
    OutputFile,
    Seed,
    Set,
    load_settings,
    parse_image_size,
)
from mggc_edge.cli.output import SECONDS_BETWEEN_LINES, Output

if TYPE_CHECKING:
    from mggc_edge.benchmarks.harness import Progress
    from mggc_edge.benchmarks.workload import Workload

Format = Literal["table", "json", "markdown"]
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
            help="Pairs of samples, spread over bench.processes fresh processes [dim](default: 40)[/].",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option("--image-size", metavar="N|HxW", help="Picture size, for files that leave it open."),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How the result is printed.")] = "table",
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
    from mggc_edge.benchmarks.harness import measure
    from mggc_edge.cli.bench_pages import markdown, pages

    out: Output = context.obj
    settings = load_settings(config, set_).with_value("bench.pairs", pairs)
    size = parse_image_size(image_size)
    _check_device(device)
    paths = models or [_latest()]
    workloads = _workloads(paths, size)
    run = _run_to_update(paths) if update else None
    with _progress(out) as progress:
        report = measure(
            workloads,
            threads=threads,
            pairs=settings["bench.pairs"],
            processes=settings["bench.processes"],
            max_seconds=settings["bench.max_seconds"],
            margin=settings["bench.margin"],
            warmup_seconds=settings["bench.warmup_seconds"],
            seed=seed,
            progress=progress,
        )
    if run is not None:
        from mggc_edge.report.latency import renew_latency

        renew_latency(run, report.to_json())
    with out.document(report.to_json(), as_json=as_json or format_ == "json", file=output) as taken:
        if taken:
            return
        if format_ == "markdown":
            for line in markdown(report):
                out.text(line)
        else:
            for block in pages(report, width=out.console().width):
                out.result(block)


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


def _run_to_update(paths: list[Path]) -> Path:
    """Return the finished run that is measured."""
    from mggc_edge.opening import what_is
    from mggc_edge.report.latency import check_renewable

    if what_is(paths[0]) != "run":
        raise typer.BadParameter(f"--update is for a run folder, and '{paths[0]}' is a file.")
    check_renewable(paths[0])
    return paths[0]


def _latest() -> Path:
    from mggc_edge.errors import InputError

    latest = RUNS / "latest"
    if not latest.exists():
        raise InputError(f"there is no run '{latest}'", hint="name what to measure: mggc-edge bench MODEL.onnx")
    return latest


def _workloads(paths: list[Path], size: tuple[int, int] | None) -> list[Workload]:
    """Return what to measure: the two models of a run, or the files."""
    from mggc_edge.errors import InputError
    from mggc_edge.opening import what_is

    kinds = [what_is(path) for path in paths]
    if kinds == ["run"]:
        return [_workload(name, path, size) for name, path in _run_models(paths[0])]
    for path, kind in zip(paths, kinds, strict=True):
        if kind == "run":
            raise InputError(f"'{path}' is a run, and is measured alone", hint="name its .onnx files")
        if kind != "artifact":
            raise InputError(
                f"'{path}' is a {kind}; .onnx and .ort files can be measured", hint="mggc-edge export makes one of it"
            )
    return [_workload(name, path, size) for name, path in zip(_names(paths), paths, strict=True)]


def _run_models(run: Path) -> list[tuple[str, Path]]:
    from mggc_edge.artifacts import (
        ORIGINAL_FILE,
        another_file,
        read_manifest,
        sha256_of,
    )
    from mggc_edge.errors import ArtifactError
    from mggc_edge.opening import run_artifact

    generator = run_artifact(run)
    name = generator.with_name(ORIGINAL_FILE).relative_to(run.resolve()).as_posix()  # of the same target
    entries = [entry for entry in read_manifest(run)["files"] if isinstance(entry, dict) and entry.get("path") == name]
    if not entries:
        raise ArtifactError(
            f"the run '{run}' has no original to compare with",
            hint=f"measure the generator alone: mggc-edge bench {run / generator.relative_to(run.resolve())}",
        )
    original = run / name
    if not original.is_file():
        raise ArtifactError(f"'{original}' is named in the manifest, but it is not there")
    if sha256_of(original) != entries[0].get("sha256"):
        raise another_file(original, "export again, or measure the files themselves if you trust them")
    return [("original", original), ("compressed", generator)]


def _names(paths: list[Path]) -> list[str]:
    """Return a name for every file: its own, with its folders where two are alike; the same file twice is numbered."""
    shorts = [path.name for path in paths]
    names = shorts if len(set(shorts)) == len({str(path) for path in paths}) else [str(path) for path in paths]
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered


def _workload(name: str, path: Path, size: tuple[int, int] | None) -> Workload:
    """Check a file before an engine sees it, and count its multiplications."""
    from mggc_edge.benchmarks.workload import Workload
    from mggc_edge.errors import InputError, MissingDependencyError

    macs_true = macs_paper = None
    precision = "fp32"
    # A board without onnx has only ONNX Runtime's own checks, and so has a file in its own format.
    if path.suffix.lower() == ".onnx":
        with suppress(MissingDependencyError):
            from mggc_edge.compiler.facts import check_onnx, onnx_facts
            from mggc_edge.compiler.sizes import check_picture_size

            check_onnx(path)
            facts = onnx_facts(path)
            macs_true, macs_paper, precision = facts.macs_true, facts.macs_paper, facts.precision
            picture = facts.inputs[0] if facts.inputs else None
            if size is None and picture is not None and len(picture.shape) == 4 and picture.picture_size is None:
                raise InputError(f"'{path}' takes pictures of any size", hint="give one with --image-size")
            if size is not None:
                check_picture_size(path, size)
    return Workload(name, path, precision=precision, macs_true=macs_true, macs_paper=macs_paper, image_size=size)


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
