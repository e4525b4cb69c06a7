"""Facts about a model's file, which carry no noise, beside those of its baseline; who can read files hands them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from mggc_edge.errors import InputError


@dataclass(frozen=True)
class FileFacts:
    """What a file is; None where it is not known.

    Attributes:
        macs_executed: multiply-accumulate operations of its convolutions for one picture, as they are executed.
        parameters: elements of its weights.
        size_bytes: of the file.
        reorders: changes of memory layout in the graph as the engine rewrites it on this machine.
        quantizers: QuantizeLinear and DequantizeLinear nodes.
        operators: how often each operator occurs.
        picture_size: (height, width) of what goes in, where the file fixes it.
    """

    macs_executed: int | None = None
    parameters: int | None = None
    size_bytes: int | None = None
    reorders: int | None = None
    quantizers: int | None = None
    operators: Mapping[str, int] | None = None
    picture_size: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the keys of the attributes."""
        operators = None if self.operators is None else dict(self.operators)
        return {**{name: getattr(self, name) for name in FACTS}, "operators": operators}


@dataclass(frozen=True)
class Fact:
    """A fact that a limit can be put on: what it is called, and whether the limit is a fraction of the baseline's."""

    label: str
    relative: bool


FACTS: Mapping[str, Fact] = {
    "macs_executed": Fact("MACs executed", relative=True),
    "parameters": Fact("parameters", relative=True),
    "size_bytes": Fact("file size", relative=True),
    "reorders": Fact("layout reorders", relative=False),
    "quantizers": Fact("Q/DQ nodes", relative=False),
}


@dataclass(frozen=True)
class FactRow:
    """One fact of a baseline and of a model; None where it is not known.

    Attributes:
        name: a key of `FACTS`.
        limit: by how much it may be larger; None: it is not judged.
    """

    name: str
    baseline: int | None
    model: int | None
    limit: float | None

    @property
    def change(self) -> float | None:
        """By how much it is larger: a fraction, or a count; None where that cannot be said."""
        if self.baseline is None or self.model is None:
            return None
        grown = self.model - self.baseline
        if not FACTS[self.name].relative:
            return grown
        return grown / self.baseline if self.baseline else None

    @property
    def verdict(self) -> Literal["pass", "fail"] | None:
        """Whether it is within its limit; None where it has none."""
        if self.limit is None or self.baseline is None or self.model is None:
            return None
        # As it was written: in floats 100 * (1 + 0.15) is below 115.
        limit = Fraction(self.limit).limit_denominator(10**8)
        most = self.baseline * (1 + limit) if FACTS[self.name].relative else self.baseline + limit
        return "pass" if self.model <= most else "fail"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "fact": self.name,
            "baseline": self.baseline,
            "model": self.model,
            "change": self.change,
            "limit": self.limit,
            "verdict": self.verdict,
        }


def fact_rows(baseline: FileFacts, model: FileFacts, limits: Mapping[str, float]) -> tuple[FactRow, ...]:
    """Return the facts that are known of both files, or that have a limit."""
    rows = [FactRow(name, getattr(baseline, name), getattr(model, name), limits.get(name)) for name in FACTS]
    return tuple(row for row in rows if row.limit is not None or None not in (row.baseline, row.model))


def check_known(names: tuple[str, str], baseline: FileFacts, model: FileFacts, limits: Mapping[str, float]) -> None:
    """Raise InputError where a fact has a limit and is not known of both files, before anything is measured."""
    for row in fact_rows(baseline, model, limits):
        if row.limit is not None and (row.baseline is None or row.model is None):
            of = names[0] if row.baseline is None else names[1]
            raise InputError(
                f"{FACTS[row.name].label} of '{of}' are not known, so that they can have no limit",
                hint="limits on facts are for .onnx files, with the onnx library installed",
            )


def operator_changes(baseline: FileFacts, model: FileFacts) -> tuple[tuple[str, int], ...]:
    """Return which operators occur more or less often in the model, by name: how many more; empty: not known."""
    if baseline.operators is None or model.operators is None:
        return ()
    names = sorted({*baseline.operators, *model.operators})
    changes = ((name, model.operators.get(name, 0) - baseline.operators.get(name, 0)) for name in names)
    return tuple((name, change) for name, change in changes if change)
