"""A measurement in the format that was asked for: `bench --format`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mggc_edge.benchmarks.formats.case import Case
    from mggc_edge.benchmarks.profile_table import Profile
    from mggc_edge.benchmarks.report import BenchmarkReport
    from mggc_edge.cli.bench_options import Format
    from mggc_edge.cli.gate_pages import GatePage
    from mggc_edge.cli.output import Output

OUTCOMES = {"pass": "pass", "fail": "fail", "inconclusive": "inconclusive", None: "measured"}


def show(
    out: Output,
    report: BenchmarkReport,
    form: Format,
    *,
    page: GatePage | None = None,
    profiles: Sequence[Profile] = (),
    summary: Path | None = None,
) -> None:
    """Print a measurement.

    Args:
        out: where it goes.
        report: what was measured.
        form: how; "json" is not printed here.
        page: of the gate.
        profiles: where the time goes, per model; for tables and Markdown.
        summary: where the summary of GitHub's job goes; None: it is printed.
    """
    from mggc_edge.cli.bench_pages import markdown, pages, warning_lines
    from mggc_edge.cli.bench_profile import profile_markdown, profile_pages

    if form == "table":
        for block in [
            *pages(report, width=out.console().width, gate=page),
            *profile_pages(report, profiles),
        ]:
            out.result(block)
        return
    warn = page is not None and page.gate.warn
    if form == "junit":
        from mggc_edge.benchmarks.formats.junit import junit

        out.raw(junit(cases(report, page), report.context, warn=warn))
    elif form == "bencher":
        from mggc_edge.benchmarks.formats.bencher import bencher

        out.raw(bencher(report))
    elif form == "benchmark-action":
        from mggc_edge.benchmarks.formats.benchmark_action import benchmark_action

        out.raw(benchmark_action(report))
    else:
        lines = [*markdown(report, page), *profile_markdown(report, profiles)]
        if form == "github":
            from mggc_edge.benchmarks.formats.github import annotation_lines, append_summary

            if summary is not None:
                append_summary(summary, lines)
                lines = []
            lines += annotation_lines(cases(report, page), warning_lines(report), warn=warn)
        for line in lines:
            out.text(line)


def cases(report: BenchmarkReport, page: GatePage | None) -> list[Case]:
    """Return what a report says, one case for every model that was compared, and for every fact with a limit.

    A report without comparisons has a case for every model.
    """
    from mggc_edge.benchmarks.file_facts import FACTS
    from mggc_edge.benchmarks.formats.case import Case
    from mggc_edge.cli.bench_pages import comparison_details, sentence
    from mggc_edge.cli.gate_pages import fact_cells, latency_sentence, model_details

    seconds = {run.model.name: sum(run.samples_ns) / 1e9 for run in report.runs}
    if page is None:
        found = [
            Case(one.b, "measured", sentence(one), " ".join(comparison_details(one)), seconds[one.b])
            for one in report.comparisons
        ]
        alone = [
            Case(run.model.name, "measured", f"it takes {run.p50_ms:.3f} ms (p50).", "", seconds[run.model.name])
            for run in report.runs
        ]
        return found or alone
    found = []
    for model in page.gate.models:
        b = model.comparison.b
        details = " ".join(model_details(model, page.gate))
        outcome = model.latency_verdict or "measured"
        found.append(Case(b, outcome, latency_sentence(model), details, seconds[b]))
        for row, cells in zip(model.facts, fact_cells(model), strict=True):
            if row.verdict is not None:
                text = f"{FACTS[row.name].label}: {cells[2]} against {cells[1]}, {cells[3]}; {cells[4]} is allowed."
                found.append(Case(f"{b}, {FACTS[row.name].label}", row.verdict, text))
    return found
