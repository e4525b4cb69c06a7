"""GitHub's annotations and summary: what is escaped, how many there are, and where they go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mggc_edge.benchmarks.formats.case import Case
from mggc_edge.benchmarks.formats.github import (
    MOST_BYTES,
    annotation_lines,
    append_summary,
    command,
    escape_data,
    escape_property,
    summary_file,
)
from mggc_edge.errors import OutputError


def test_texts_are_escaped_as_in_githubs_toolkit() -> None:
    text = "100 %\r\n::error::a,b:c"
    assert escape_data(text) == "100 %25%0D%0A::error::a,b:c"
    assert escape_property(text) == "100 %25%0D%0A%3A%3Aerror%3A%3Aa%2Cb%3Ac"


def unescaped(line: str) -> tuple[str, dict[str, str], str]:
    """Read a command as GitHub's runner does: its name, its properties, its data."""
    assert line.startswith("::")
    end = line.index("::", 2)
    name, _, rest = line[2:end].partition(" ")
    properties = dict(entry.split("=", 1) for entry in rest.split(",") if entry)
    for sign, escaped in ((":", "%3A"), (",", "%2C"), ("\r", "%0D"), ("\n", "%0A"), ("%", "%25")):
        properties = {key: value.replace(escaped, sign) for key, value in properties.items()}
    data = line[end + 2 :]
    for sign, escaped in (("\r", "%0D"), ("\n", "%0A"), ("%", "%25")):
        data = data.replace(escaped, sign)
    return name, properties, data


@pytest.mark.parametrize("name", ["a,b:c%", "::error::x", "line=1,file=secret", "50%25"])
def test_a_name_cannot_leave_its_place(name: str) -> None:
    kind, properties, data = unescaped(command("notice", name, f"{name} is fast"))
    assert (kind, properties, data) == ("notice", {"title": name}, f"{name} is fast")


def test_a_line_break_in_a_name_begins_no_new_command() -> None:
    line = command("error", "a\n::warning::b", "c\r\n::set-env name=X::d")
    assert "\n" not in line
    assert "\r" not in line
    assert unescaped(line)[0] == "error"


@pytest.mark.parametrize(
    ("outcome", "warn", "level"),
    [
        ("fail", False, "error"),
        ("fail", True, "error"),
        ("inconclusive", False, "error"),
        ("inconclusive", True, "warning"),
        ("pass", False, "notice"),
        ("measured", False, "notice"),
    ],
)
def test_the_level_follows_the_outcome(outcome: str, warn: bool, level: str) -> None:
    (line,) = annotation_lines([Case("head", outcome, "so it is.", "More.")], [], warn=warn)  # type: ignore[arg-type]
    assert unescaped(line) == (level, {"title": "latency of head"}, "so it is. More.")


def test_more_than_github_shows_are_counted() -> None:
    lines = annotation_lines([], [f"warning {number}" for number in range(12)], warn=False)
    assert len(lines) == 10
    assert unescaped(lines[-1])[2] == "and 3 more: see the job's summary"
    assert len(annotation_lines([], ["warning"] * 10, warn=False)) == 10


def test_the_summary_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    assert summary_file({}) is None
    assert summary_file({"GITHUB_STEP_SUMMARY": ""}) is None
    assert summary_file({"GITHUB_STEP_SUMMARY": str(path)}) == path
    append_summary(path, ["| a |", "é"])
    append_summary(path, ["b"])
    assert path.read_text(encoding="utf-8") == "| a |\né\n\nb\n\n"


def test_a_summary_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        summary_file({"GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "summary.md")})
    path = tmp_path / "summary.md"
    with path.open("wb") as file:
        os.truncate(file.fileno(), MOST_BYTES)
    with pytest.raises(OutputError, match="larger than GitHub takes"):
        append_summary(path, ["more"])
