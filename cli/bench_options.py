"""The flags of the gate of `bench`, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from mggc_edge.benchmarks.gate import Limits

# Besides a table: one JSON document; what CI systems read. The names of the last two are those of the services.
Format = Literal["table", "json", "markdown", "junit", "github", "bencher", "benchmark-action"]
Inconclusive = Literal["fail", "warn"]
_GATE = "Gate"

FormatFlag = Annotated[
    Format,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="How the result is printed: table, json, markdown, junit, github (annotations and the job's summary), "
        "bencher, benchmark-action.",
    ),
]
ControlFlag = Annotated[
    bool,
    typer.Option("--control", help="Measure the first model twice, as a control: a model must not differ from itself."),
]
BaselineFlag = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        metavar="PATH",
        rich_help_panel=_GATE,
        help="What every model is compared with: a model file or a run, measured in the same job, pair by pair; or "
        "the JSON of an earlier bench on this machine, which is weaker.",
        show_default=False,
    ),
]
MaxRegression = Annotated[
    str | None,
    typer.Option(
        "--max-regression",
        metavar="PERCENT",
        rich_help_panel=_GATE,
        help="Fail (exit code 3) where a model takes longer than the baseline by more than this, such as 5%.",
    ),
]
InconclusiveFlag = Annotated[
    Inconclusive,
    typer.Option(
        "--inconclusive",
        rich_help_panel=_GATE,
        help="What it is where the samples cannot tell: fail ends in exit code 4, warn in 0.",
    ),
]
MaxMacs = Annotated[
    str | None,
    typer.Option(
        "--max-macs-increase",
        metavar="PERCENT",
        rich_help_panel=_GATE,
        help="Fail where more than this is added to the multiplications, such as 0%.",
    ),
]
MaxParameters = Annotated[
    str | None,
    typer.Option(
        "--max-parameters-increase", metavar="PERCENT", rich_help_panel=_GATE, help="The same of the parameters."
    ),
]
MaxSize = Annotated[
    str | None,
    typer.Option("--max-size-increase", metavar="PERCENT", rich_help_panel=_GATE, help="The same of the file's size."),
]
MaxReorders = Annotated[
    int | None,
    typer.Option(
        "--max-reorders-increase",
        metavar="N",
        min=0,
        rich_help_panel=_GATE,
        help="Fail where the engine changes the memory layout more often, by more than N.",
    ),
]
MaxQuantizers = Annotated[
    int | None,
    typer.Option(
        "--max-qdq-increase",
        metavar="N",
        min=0,
        rich_help_panel=_GATE,
        help="Fail where there are more QuantizeLinear and DequantizeLinear nodes, by more than N.",
    ),
]


@dataclass(frozen=True)
class GateFlags:
    """What the flags of the gate ask for.

    Attributes:
        baseline: what models are compared with.
        limits: what is judged, and by how much.
        warn: whether an inconclusive gate ends in the exit code 0.
    """

    baseline: Path
    limits: Limits
    warn: bool


def gate_flags(
    baseline: Path | None,
    max_regression: str | None,
    inconclusive: Inconclusive,
    percents: Mapping[str, tuple[str, str | None]],
    counts: Mapping[str, tuple[str, int | None]],
) -> GateFlags | None:
    """Return what the flags of the gate ask for; None where there is no baseline.

    Args:
        baseline, max_regression, inconclusive: as they were given.
        percents, counts: by fact its flag, and what was given.
    """
    from mggc_edge.benchmarks.gate import Limits

    asked = [("--max-regression", max_regression), *percents.values(), *counts.values()]
    given = [flag for flag, value in asked if value is not None]
    if baseline is None:
        if given:
            raise typer.BadParameter(f"{given[0]} needs a baseline: --baseline PATH.")
        if inconclusive == "warn":
            raise typer.BadParameter("--inconclusive needs a gate: --baseline PATH --max-regression PERCENT.")
        return None
    regression = None if max_regression is None else parse_percent(max_regression, "--max-regression")
    if regression is not None and not 0 < regression <= 1:
        raise typer.BadParameter(f"--max-regression takes more than 0% and at most 100%, not '{max_regression}'.")
    limits: dict[str, float] = {
        fact: parse_percent(value, flag) for fact, (flag, value) in percents.items() if value is not None
    }
    limits |= {fact: float(value) for fact, (_, value) in counts.items() if value is not None}
    return GateFlags(baseline, Limits(regression, limits), inconclusive == "warn")


def parse_percent(text: str, flag: str) -> float:
    """Return the fraction of "5%" or "0.05"; a whole number without its sign could mean either, and is refused."""
    match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,6})?)\s*%|(0(?:\.\d{1,8})?)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{flag} takes a percentage such as 5% (or 0.05), not '{text}'.")
    return float(match[1]) / 100 if match[1] else float(match[2])
