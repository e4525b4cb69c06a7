"""A gate for people: a sentence for every model, what it was measured in, and the facts about the files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mggc_edge.benchmarks.file_facts import FACTS, operator_changes
from mggc_edge.cli.output import file_size, shown, si

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from mggc_edge.benchmarks.comparison import Comparison
    from mggc_edge.benchmarks.file_facts import FileFacts
    from mggc_edge.benchmarks.gate import Gate, ModelGate
    from mggc_edge.cli.bench_gate import GatePlan

COLORS = {"pass": "green", "fail": "red", "inconclusive": "yellow", None: "cyan"}
WORDS = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive", None: "not judged"}
WHICH = ("first", "last")  # of two rounds
HEADER = ("fact", "baseline", "model", "change", "allowed")
EARLIER = (
    "The baseline's numbers are of another measurement, on this machine and with these versions: what changed since is "
    "in the ratio, and no interval shows it. Name the baseline's model file for a gate to rely on."
)


@dataclass(frozen=True)
class GatePage:
    """A gate, with the facts about the files behind it."""

    gate: Gate
    plan: GatePlan

    def blocks(self) -> list[RenderableType]:
        """Return the lines and tables for a terminal."""
        return gate_blocks(self.gate, self.plan)

    def markdown(self) -> list[str]:
        """Return the lines in Markdown."""
        return gate_markdown(self.gate, self.plan)


def gate_blocks(gate: Gate, plan: GatePlan) -> list[RenderableType]:
    """Return the lines and tables of a gate."""
    from rich import box
    from rich.padding import Padding
    from rich.table import Table

    blocks: list[RenderableType] = []
    for model in gate.models:
        color = COLORS[model.verdict]
        blocks.append(f"[bold {color}]{WORDS[model.verdict]}[/]: {shown(model_sentence(model))}")
        blocks += [Padding(shown(line), (0, 0, 0, 2)) for line in model_details(model, gate)]
        rows = fact_cells(model)
        if rows:
            table = Table(box=box.SIMPLE, pad_edge=False)
            table.add_column(HEADER[0], no_wrap=True)
            for label in HEADER[1:]:
                table.add_column(label, justify="right", no_wrap=True)
            for row, cells in zip(model.facts, rows, strict=True):
                table.add_row(*map(shown, cells), style="red" if row.verdict == "fail" else None)
            blocks.append(table)
        blocks += [Padding(shown(line), (0, 0, 0, 2)) for line in fact_lines(model, plan)]
    return blocks


def gate_markdown(gate: Gate, plan: GatePlan) -> list[str]:
    """Return the same in Markdown, as GitHub takes it."""
    from mggc_edge.cli.bench_pages import markdown_row, markdown_text

    lines: list[str] = []
    for model in gate.models:
        text = " ".join([model_sentence(model), *model_details(model, gate)])
        lines += ["", f"**{WORDS[model.verdict]}**: {markdown_text(text)}"]
        rows = fact_cells(model)
        if rows:
            lines += ["", markdown_row(list(HEADER)), markdown_row(["---"] + ["---:"] * (len(HEADER) - 1))]
            lines += [markdown_row(cells) for cells in rows]
        said = fact_lines(model, plan)
        if said:
            lines += ["", markdown_text(" ".join(said))]
    return lines


def model_sentence(model: ModelGate) -> str:
    """Return what is said of one model, in words."""
    over = [FACTS[row.name].label for row in model.facts if row.verdict == "fail"]
    return latency_sentence(model) + (f" {_listed(over)} grew by more than is allowed." if over else "")


def latency_sentence(model: ModelGate) -> str:
    """Return what is said of its latency alone."""
    a, b, limit = model.comparison.a, model.comparison.b, model.limit
    if model.comparison.disturbed:
        return f"these samples cannot tell whether {b} is slower than {a}: {model.comparison.reason}."
    if model.interval is None:
        return f"a single process of each was measured, which cannot tell whether {b} is slower than {a}."
    low, high = model.interval
    took = (
        f"{b} takes {1 + model.slowdown:.3f} times as long as {a} ({model.comparison.level}%: {1 + low:.3f} to "
        f"{1 + high:.3f})"
    )
    if limit is None:
        return f"{took}."
    if model.latency_verdict == "inconclusive":
        return f"these samples cannot tell whether {b} is slower by more than {limit:.1%}: {took}."
    return f"{took}; {1 + limit:.3f} times as long is allowed."


def model_details(model: ModelGate, gate: Gate) -> list[str]:
    """Return further lines: in which rounds, and which difference would have been seen."""
    lines = []
    comparison = model.comparison
    effect = comparison.ratio.minimum_detectable_effect
    if effect is not None and not comparison.disturbed:
        size = f"{effect:.1%}" if effect < 1 else f"a factor of {1 + effect:.3g}"
        lines.append(
            f"Smallest difference that {comparison.pairs} pairs in {comparison.ratio.processes} processes would show "
            f"here: {size}."
        )
    if len(gate.rounds) == 2:
        lines.append(_twice(gate.rounds, comparison))
    of, disturbed = comparison.pairs + comparison.left_out, comparison.left_out - comparison.throttled
    if comparison.throttled:
        lines.append(f"Of {of} pairs {comparison.throttled} were left out, in which the board had lowered its clocks.")
    if disturbed:
        lines.append(f"Of {of} pairs {disturbed} were left out, because others disturbed them.")
    if model.latency_verdict == "inconclusive" and not comparison.disturbed:
        lines.append("More pairs (--pairs), or a quieter machine, can tell smaller differences.")
    if model.earlier:
        lines.append(EARLIER)
    return lines


def fact_cells(model: ModelGate) -> list[list[str]]:
    """Return the cells of the table of facts."""
    return [
        [
            FACTS[row.name].label,
            _fact(row.name, row.baseline),
            _fact(row.name, row.model),
            _change(row.name, row.change),
            "-" if row.limit is None else _change(row.name, row.limit),
        ]
        for row in model.facts
    ]


def fact_lines(model: ModelGate, plan: GatePlan) -> list[str]:
    """Return which operators there are more or less of."""
    a, b = (plan.facts.get(name) for name in (model.comparison.a, model.comparison.b))
    if a is None or b is None or a.operators is None or b.operators is None:
        return []
    changes = operator_changes(a, b)
    if not changes:
        return [f"Operators: the same {_count(a)}."]
    return [f"Operators: {', '.join(f'{name} {change:+d}' for name, change in changes)}."]


def _count(facts: FileFacts) -> str:
    total = sum((facts.operators or {}).values())
    return f"{total} in both" if total != 1 else "one in both"


def _twice(rounds: Sequence[Mapping[str, Any]], comparison: Comparison) -> str:
    """Return what a second round changed for a model, or which of the two is left out."""
    for which, one, used in zip(WHICH, rounds, comparison.rounds, strict=True):
        if not used:
            lost = f"the {which} {one['pairs']} pairs are left out, because others disturbed them"
            return f"Measured twice: {lost}; the rest alone fails no model."
    alone = _alone(rounds[0]["verdicts"].get(comparison.b))
    return f"Measured twice: the first {rounds[0]['pairs']} pairs alone {alone}; all together decide."


def _alone(verdict: str | None) -> str:
    return {"pass": "pass", "fail": "fail"}.get(verdict or "", "cannot tell")


def _listed(words: list[str]) -> str:
    text = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return text[0].upper() + text[1:]


def _fact(name: str, value: int | None) -> str:
    if value is None:
        return "-"
    if name == "size_bytes":
        return file_size(value)
    return si(value) if value >= 10_000 else f"{value:,}"


def _change(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.2%}" if FACTS[name].relative else f"{value:+.0f}"
