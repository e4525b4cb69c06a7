"""GitHub: annotations as commands of its workflows, and the summary of a job.

In a command's text %, CR and LF are escaped, in its properties colon and comma as well, as in GitHub's own toolkit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from mggc_edge.artifacts import writing
from mggc_edge.benchmarks.formats.case import Case
from mggc_edge.errors import OutputError, printable

SUMMARY = "GITHUB_STEP_SUMMARY"
MOST_SHOWN = 10  # annotations of a level that GitHub shows of one step
MOST_BYTES = 2**20  # of the summary of one step

Level = Literal["error", "warning", "notice"]


def annotation_lines(cases: Sequence[Case], warnings: Sequence[str], *, warn: bool) -> list[str]:
    """Return the lines that make annotations: one for every case, and one for every warning.

    Args:
        cases: what was judged or measured.
        warnings: sentences.
        warn: whether what is inconclusive is let pass.
    """
    told: list[tuple[Level, str, str]] = [
        (_level(case, warn=warn), f"latency of {case.name}", f"{case.message} {case.details}".strip()) for case in cases
    ]
    told += [("warning", "measurement", text) for text in warnings]
    lines: list[str] = []
    for level in ("error", "warning", "notice"):
        of_level = [(title, text) for kind, title, text in told if kind == level]
        shown = of_level if len(of_level) <= MOST_SHOWN else of_level[: MOST_SHOWN - 1]
        lines += [command(level, title, text) for title, text in shown]
        if len(shown) < len(of_level):
            lines.append(command(level, "measurement", f"and {len(of_level) - len(shown)} more: see the job's summary"))
    return lines


def command(level: str, title: str, text: str) -> str:
    """Return one command that makes an annotation."""
    return f"::{level} title={escape_property(printable(title))}::{escape_data(printable(text))}"


def escape_data(text: str) -> str:
    """Return text as the data of a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Return text as a property of a command."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def summary_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return where the job's summary goes; None outside of GitHub's jobs.

    Raises:
        OutputError: it cannot be written.
    """
    given = environment.get(SUMMARY)
    if not given:
        return None
    path = Path(given)
    with writing(path), path.open("ab"):
        pass
    return path


def append_summary(path: Path, lines: Sequence[str]) -> None:
    """Append Markdown to the job's summary.

    Raises:
        OutputError: it cannot be written, or is larger than GitHub takes.
    """
    data = "".join(f"{line}\n" for line in [*lines, ""]).encode("utf-8", "backslashreplace")
    with writing(path):
        if path.stat().st_size + len(data) > MOST_BYTES:
            raise OutputError(f"'{path}' would be larger than GitHub takes as the summary of a step")
        with path.open("ab") as file:
            file.write(data)


def _level(case: Case, *, warn: bool) -> Level:
    if case.outcome == "fail" or (case.outcome == "inconclusive" and not warn):
        return "error"
    return "warning" if case.outcome == "inconclusive" else "notice"
