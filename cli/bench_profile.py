"""`bench --profile`: where the time goes, per model that was measured, as JSON and for people."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge.cli.output import shown, si

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.benchmarks.devices.base import Device
    from mggc_edge.benchmarks.profile_table import Peak, Profile
    from mggc_edge.benchmarks.report import BenchmarkReport
    from mggc_edge.benchmarks.workload import Workload

HEADER = ("class", "nodes", "MACs", "ms", "time", "of peak", "bound")
LEAST_GAP = 0.01  # of a run: smaller ones are not named


def profiles(
    models: Sequence[Workload], *, threads: int, seed: int, max_seconds: float, device: Device | None = None
) -> list[Profile]:
    """Return where the time of every model goes; the peaks are measured first, each once."""
    from mggc_edge.benchmarks.profiling import memory_bandwidth, profile

    bandwidth = memory_bandwidth(models[0], threads=threads, max_seconds=max_seconds, device=device)
    peaks: dict[tuple[str, str], Peak | None] = {}
    found = []
    for model in models:
        way = (model.runtime, model.precision)
        if way not in peaks:
            peaks[way] = _peak(model, threads, bandwidth, max_seconds, device)
        macs, peak = _macs(model), peaks[way]
        one = profile(model, threads=threads, macs=macs, peak=peak, seed=seed, max_seconds=max_seconds, device=device)
        found.append(one)
    return found


def with_profiles(document: dict[str, Any], found: Sequence[Profile]) -> dict[str, Any]:
    """Return the document of `bench --json` with a `profile` in every run."""
    runs = [{**run, "profile": one.to_json()} for run, one in zip(document["runs"], found, strict=True)]
    return {**document, "runs": runs}


def profile_pages(report: BenchmarkReport, found: Sequence[Profile]) -> list[RenderableType]:
    """Return a table per model and what stands between it and its bound, in at most 80 columns."""
    from rich import box
    from rich.padding import Padding
    from rich.table import Table

    blocks: list[RenderableType] = []
    for run, one in zip(report.runs, found, strict=bool(found)):
        page = Table(box=box.SIMPLE, pad_edge=False)
        page.add_column(HEADER[0], no_wrap=True)
        for label in HEADER[1:]:
            page.add_column(label, justify="right", no_wrap=True)
        for row in _cells(one):
            page.add_row(*row)
        blocks += [f"[bold]where the time goes[/]: {shown(one.model)}", page]
        blocks += [Padding(shown(line), (0, 0, 0, 2)) for line in _sentences(one, run.p50_ms)]
    return blocks


def profile_markdown(report: BenchmarkReport, found: Sequence[Profile]) -> list[str]:
    """Return the same in Markdown, as GitHub takes it."""
    from mggc_edge.cli.bench_pages import markdown_row, markdown_text

    lines = []
    for run, one in zip(report.runs, found, strict=bool(found)):
        lines += ["", f"**where the time goes: {markdown_text(one.model)}**", "", markdown_row(list(HEADER))]
        lines += [markdown_row(["---"] + ["---:"] * (len(HEADER) - 1))]
        lines += [markdown_row(row) for row in _cells(one)]
        lines += ["", markdown_text(" ".join(_sentences(one, run.p50_ms)))]
    return lines


def _cells(one: Profile) -> list[list[str]]:
    rows = one.classes
    return [
        [
            row.kind,
            str(row.nodes),
            _percent(row.macs_share),
            _ms(row.ms),
            _percent(row.time_share),
            _percent(row.peak_share),
            "-" if row.bound_ms is None else _ms(row.bound_ms),
        ]
        for row in rows
    ]


def _sentences(one: Profile, p50_ms: float) -> list[str]:
    lines = [f"{one.nodes_ms:.3f} ms in nodes, over {one.runs} runs; {p50_ms:.3f} ms when timed (p50)."]
    peak, bound = one.peak, one.bound_ms
    if peak is not None:
        lines.append(
            f"Measured peak: {si(peak.macs_per_second, digits=3)}MAC/s, {si(peak.bytes_per_second, digits=3)}B/s."
        )
    if bound is None:
        missing = "multiplications" if one.macs is None else "peak"
        lines.append(f"No bound: its {missing} cannot be known here.")
        return lines
    macs, size = sum(row.macs or 0 for row in one.classes), sum(row.size_bytes for row in one.classes)
    lines.append(
        f"Bound: {bound:.3f} ms for {si(macs, digits=3)} MACs and {si(size, digits=3)}B moved, {bound / p50_ms:.0%} of "
        "the time."
    )
    if any(row.peak_share is not None and row.peak_share > 1.05 for row in one.classes):
        lines.append(
            "A class above the peak: others ran while the peak was measured, or the engine multiplies less than is "
            "counted."
        )
    outside = p50_ms - one.nodes_ms
    gaps = [*one.between, *([("outside of nodes", outside)] if outside > 0 else [])]
    named = [f"{kind} {gap:.3f} ms" for kind, gap in gaps if gap >= LEAST_GAP * p50_ms]
    if named:
        lines.append(f"Between: {', '.join(named)}.")
    return lines


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:,.0f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _peak(model: Workload, threads: int, bandwidth: float, max_seconds: float, device: Device | None) -> Peak | None:
    """Return the peak of a model's engine in its precision; None where onnx is not there to write the models.

    On a processor fp16 is computed in float32.
    """
    from mggc_edge.benchmarks.profile_table import Peak
    from mggc_edge.benchmarks.profiling import peak_macs
    from mggc_edge.benchmarks.workload import Workload
    from mggc_edge.compiler.peak import write_peak_models
    from mggc_edge.errors import MissingDependencyError

    with tempfile.TemporaryDirectory(prefix="mggc-edge-") as folder, suppress(MissingDependencyError):
        written = write_peak_models(Path(folder), "int8" if model.precision == "int8" else "fp32")
        runtime = "openvino" if model.runtime == "openvino" else "onnxruntime"
        models = [
            (Workload(path.stem, path, runtime=runtime, precision=model.precision), macs) for path, macs in written
        ]
        return Peak(peak_macs(models, threads=threads, max_seconds=max_seconds, device=device), bandwidth)
    return None


def _macs(model: Workload) -> dict[str, tuple[str, int]] | None:
    """Return the MACs of the convolutions of a file, or, of one in ONNX Runtime's format, of the .onnx file beside it.

    None where there is none, it leaves them open, or onnx is not installed.
    """
    from mggc_edge.errors import MissingDependencyError

    path = model.path if model.path.suffix.lower() == ".onnx" else model.path.with_suffix(".onnx")
    if not path.is_file():
        return None
    with suppress(MissingDependencyError):
        from mggc_edge.compiler.facts import node_macs, read_onnx
        from mggc_edge.compiler.sizes import fix_size, picture_input

        read = read_onnx(path)
        picture = picture_input(read)
        sides = () if picture is None else picture.type.tensor_type.shape.dim[2:]
        if model.image_size is not None and len(sides) == 2:
            fix_size(read, model.image_size)
        return node_macs(read)
    return None
