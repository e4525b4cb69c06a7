"""A measurement for people: tables, verdicts in words, warnings; for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mggc_edge.benchmarks.percentiles import percentile
from mggc_edge.cli.bench_power import energy, power_lines
from mggc_edge.cli.output import file_size, shown, si
from mggc_edge.errors import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.benchmarks.report import BenchmarkReport, Comparison, ModelRun
    from mggc_edge.cli.gate_pages import GatePage

WIDE = 110
COLUMNS = (
    "model", "run by", "p50", "95% interval", "p90", "p95", "p99", "pictures/s", "MACs", "realisation", "memory",
    "energy", "load", "first", "file", "samples",
)  # fmt: skip
WIDE_COLUMNS = (
    "model", "run by", "p50", "95% interval", "p90", "pictures/s", "MACs", "realisation", "memory", "energy",
)  # fmt: skip
NARROW_COLUMNS = ("model", "run by", "p50", "p90", "/s", "MACs", "realisation", "memory", "energy")
OFTEN_EMPTY = ("p95", "p99", "realisation", "energy")
LIBRARIES = {"ort-mobile": "onnxruntime"}  # runtime -> the library that it is, where that has another name
COLORS = {"faster": "green", "slower": "red", "same": "cyan", "inconclusive": "yellow"}


def pages(report: BenchmarkReport, *, width: int, gate: GatePage | None = None) -> list[RenderableType]:
    """Return the tables and lines of a measurement; below 110 columns some columns are left out.

    A gate says what there is to say of its models.
    """
    from rich import box
    from rich.padding import Padding
    from rich.table import Table

    wide = width >= WIDE
    header, *rows = _cells(report, WIDE_COLUMNS if wide else NARROW_COLUMNS)
    page = Table(box=box.SIMPLE, pad_edge=False)
    page.add_column(header[0], overflow="fold")
    for label in header[1:]:
        page.add_column(label, justify="right", no_wrap=True)
    for row in rows:
        page.add_row(*map(shown, row))
    blocks: list[RenderableType] = [shown(_where(report)), page]
    blocks += [] if gate is None else gate.blocks()
    for comparison in report.comparisons if gate is None else ():
        color = COLORS[comparison.verdict]
        blocks.append(f"[bold {color}]{comparison.verdict}[/]: {shown(sentence(comparison))}")
        blocks += [Padding(shown(line), (0, 0, 0, 2)) for line in comparison_details(comparison)]
    blocks += [shown(line) for line in power_lines(report)]
    blocks += [f"[yellow]warning[/]: {shown(line)}" for line in warning_lines(report)]
    return blocks


def markdown(report: BenchmarkReport, gate: GatePage | None = None) -> list[str]:
    """Return the lines of a measurement in Markdown, as GitHub takes it, with all columns."""
    header, *rows = _cells(report, COLUMNS)
    lines = [
        f"**{markdown_text(_where(report))}**",
        "",
        markdown_row(header),
        markdown_row(["---"] + ["---:"] * (len(header) - 1)),
    ]
    lines += [markdown_row(row) for row in rows]
    lines += [] if gate is None else gate.markdown()
    for comparison in report.comparisons if gate is None else ():
        text = " ".join([sentence(comparison), *comparison_details(comparison)])
        lines += [
            "",
            f"**{comparison.verdict}**: {markdown_text(text)}",
        ]
    for line in power_lines(report):
        lines += ["", markdown_text(line)]
    for line in warning_lines(report):
        lines += ["", f"> warning: {markdown_text(line)}"]
    return lines


def sentence(comparison: Comparison) -> str:
    """Return what the samples allow to say, in words."""
    a, b, value = comparison.a, comparison.b, comparison.ratio.value
    interval = comparison.ratio.interval
    if comparison.disturbed:  # the ratio and its interval are those of the disturbance
        return f"these samples cannot tell whether {b} is faster than {a}: {comparison.reason}."
    if interval is None:
        return f"a single process of each was measured, which cannot tell whether {b} is faster than {a}."
    between = f"{comparison.level}%: {_times(interval[0])} to {_times(interval[1])}"
    if comparison.verdict == "faster":
        return f"{b} is {_times(value)} times as fast as {a} ({between})."
    if comparison.verdict == "slower":
        return f"{b} takes {_times(1 / value)} times as long as {a} (speed {_times(value)}, {between})."
    if comparison.verdict == "same":
        return f"{b} is as fast as {a}, within {comparison.margin:.1%} (speed {_times(value)}, {between})."
    return f"these samples cannot tell whether {b} is faster than {a} (speed {_times(value)}, {between})."


def comparison_details(comparison: Comparison) -> list[str]:
    """Return further lines: MACs and realisation, the smallest difference that would show, what was left out."""
    lines = []
    unclear, disturbed = comparison.verdict == "inconclusive", bool(comparison.disturbed)
    macs, realisation = comparison.macs_ratio, comparison.realisation
    if macs is not None and realisation is not None:
        text = f"{_times(macs)} times fewer MACs" if macs > 1 else f"MACs ratio {_times(macs)}"
        lines.append(f"{text}; realisation {realisation:.0%}." if macs > 1 and not unclear else f"{text}.")
    effect = comparison.ratio.minimum_detectable_effect
    if effect is not None and not disturbed:
        pairs, processes = comparison.pairs, comparison.ratio.processes
        size = f"{effect:.1%}" if effect < 1 else f"a factor of {_times(1 + effect)}"
        lines.append(f"Smallest difference that {pairs} pairs in {processes} processes would show here: {size}.")
    of, count = comparison.pairs + comparison.left_out, comparison.left_out - comparison.throttled
    if comparison.throttled:
        lines.append(f"In {comparison.throttled} of {of} pairs the board had lowered its clocks: they were left out.")
    if count:
        lines.append(f"Other processes disturbed {count} of {of} pairs, which were left out.")
    if unclear and not disturbed:
        lines.append("More pairs (--pairs), or a quieter machine, can tell smaller differences.")
    return lines


def warning_lines(report: BenchmarkReport) -> list[str]:
    """Return every warning as a sentence, with its code and what to do."""
    from mggc_edge.benchmarks.remarks import WARNINGS

    lines = []
    for code in report.warnings:
        of = [run.model.name for run in report.runs if code in run.warnings]
        shared = (one for one in report.comparisons if code in one.codes and not {one.a, one.b} & {*of})
        of += [f"{one.b} beside {one.a}" for one in shared] if of else []
        whose = "" if len(of) in (0, len(report.runs)) else f"{', '.join(of)}: "
        lines.append(f"{whose}{WARNINGS[code].text} ({code}); {WARNINGS[code].advice}")
    return lines


def _where(report: BenchmarkReport) -> str:
    context, run = report.context, report.runs[0]
    cores, threads = context["cpu"]["cores"], run.threads
    shape: list[int] = run.inputs[0]["shape"] if run.inputs else []
    sides = (
        shape[1:3] if run.inputs and run.inputs[0]["dtype"] == "uint8" else shape[2:]
    )  # [N, H, W, C] or [N, C, H, W]
    size = f", {sides[0]}x{sides[1]}" if len(shape) == 4 else ""
    engines = {LIBRARIES.get(one.model.runtime, one.model.runtime): None for one in report.runs}
    named = ", ".join(f"{name} {context['versions'].get(name, '')}".rstrip() for name in engines)
    precision = "" if _differ(report) else f", {run.model.precision}"
    over = f" over {context['address']}" if context.get("address") else ""
    return (
        f"{context['device']}{over}, {context['cpu']['model']}, {threads} thread{'s' * (threads > 1)} on {cores} "
        f"core{'s' * (cores > 1)}, {named}{precision}{size}"
    )


def _way(run: ModelRun) -> str:
    """Return how a model was run: "openvino bf16"; the provider as well where it is not the processor."""
    provider = "" if run.model.provider == "cpu" else f" {run.model.provider}"
    return f"{run.model.runtime}{provider} {run.model.precision}"


def _differ(report: BenchmarkReport) -> bool:
    """Return whether models were run in more than one way, so that every row has to say its own."""
    return len({_way(run) for run in report.runs}) > 1


def _cells(report: BenchmarkReport, columns: Sequence[str]) -> list[list[str]]:
    """Return the header and a row per model; columns that nothing is known for are left out."""
    compared = {comparison.b: comparison for comparison in report.comparisons}
    rows = [_model_row(run, compared.get(run.model.name)) for run in report.runs]
    dropped = set() if _differ(report) else {"run by"}
    dropped |= {label for label in OFTEN_EMPTY if all(row[label] == "-" for row in rows)}
    if _differ(report) and columns is NARROW_COLUMNS:
        dropped |= {"/s", "realisation"}
    header = [label for label in columns if label not in dropped]
    return [header] + [[row[label] for label in header] for row in rows]


def _model_row(run: ModelRun, comparison: Comparison | None) -> dict[str, str]:
    interval, macs = run.ci95_ms, run.model.macs_true
    peak = run.rss_peak_bytes if run.pool_bytes is None else run.pool_bytes
    real = None if comparison is None or comparison.verdict == "inconclusive" else comparison.realisation
    high = {percent: percentile(run.used_ns, percent) for percent in (95, 99)}
    speed = _number(run.pictures_per_second)
    return {
        "model": run.model.name,
        "run by": _way(run),
        "p50": _ms(run.p50_ms),
        "95% interval": "-" if interval is None else f"{_number(interval[0])} to {_number(interval[1])}",
        "p90": _ms(run.p90_ms),
        **{f"p{percent}": "-" if one is None else _ms(one.value / 1e6) for percent, one in high.items()},
        "pictures/s": speed,
        "/s": speed,
        "MACs": "-" if macs is None else si(macs, digits=3),
        "realisation": "-" if real is None else f"{real:.0%}",
        "memory": "-" if peak is None else file_size(peak),
        "energy": energy(run),
        "load": _ms(run.load_ms),
        "first": _ms(run.first_inference_ms),
        "file": file_size(run.size_bytes),
        "samples": f"{len(run.samples_ns):,}",
    }


def _number(value: float) -> str:
    """Return a number with at least three significant digits and without an exponent."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}" if value >= 0.001 else f"{value:.6f}"


def _ms(value: float) -> str:
    return f"{_number(value)} ms"


def _times(value: float) -> str:
    """Return a ratio: two decimals below 10, three significant digits above."""
    if value >= 1e4 or value < 1e-3:
        return f"{value:.1e}"
    return f"{value:.2f}" if 0.1 <= value < 10 else f"{value:#.3g}" if value < 100 else f"{value:.0f}"


def markdown_row(cells: list[str]) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(markdown_text(cell) for cell in cells)} |"


def markdown_text(text: str) -> str:
    """Return text whose signs Markdown does not read as markup: a name out of a path may hold any."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in printable(text))
