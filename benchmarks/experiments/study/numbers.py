"""The numbers of a study: every row's means with their intervals, paired differences, and what rows differ in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mggc_edge.benchmarks.experiments.study.intervals import Values, estimate
from mggc_edge.benchmarks.experiments.study.record import Record
from mggc_edge.benchmarks.experiments.study.table import Row, Study
from mggc_edge.errors import InputError
from mggc_edge.quality.bootstrap import Estimate

ORIGINAL = ""  # the row that every run has: no row of a study is named so
STEPS = "steps of "  # before the name of a stage, beside the names of settings


@dataclass(frozen=True)
class Measured:
    """A measure of test pictures; `better` is 1 where more is better, -1 where less is."""

    name: str
    title: str
    better: int
    show: Callable[[float], str]


MEASURES = (
    Measured("kid", "KID", -1, lambda value: f"{value:.4g}"),
    Measured("psnr_to_original", "PSNR to the original, dB", 1, lambda value: f"{value:.2f}"),
    Measured("ssim_to_original", "SSIM to the original", 1, lambda value: f"{value:.3f}"),
    Measured("psnr_to_truth", "PSNR to the truth, dB", 1, lambda value: f"{value:.2f}"),
    Measured("ssim_to_truth", "SSIM to the truth", 1, lambda value: f"{value:.3f}"),
    Measured("probability", "probability of the class", 1, lambda value: f"{value:.3g}"),
    Measured("neighbors", "neighbors that agree", 1, lambda value: f"{100 * value:.1f} %"),
)


@dataclass(frozen=True)
class Difference:
    """A row less another, picture by picture and seed by seed."""

    row: str
    against: str
    measure: Measured
    estimate: Estimate
    seeds: int

    @property
    def verdict(self) -> str:
        """Return "better" or "worse" where an interval leaves out zero, else "" (these samples cannot tell)."""
        if self.estimate.ci95 is None:
            return ""
        low, high = self.estimate.ci95
        sign = int(low > 0) - int(high < 0)
        return {1: "better", -1: "worse", 0: ""}[sign * self.measure.better]


class Numbers:
    """What the finished runs of a study say.

    Args:
        study: whose runs they are.
        records: the lines of its results.
    """

    def __init__(self, study: Study, records: Sequence[Record]) -> None:
        self.study = study
        order = {row.name: number for number, row in enumerate(study.rows)}
        self.records = sorted(records, key=lambda record: (order[record["row"]], record["seed"]))

    def of(self, row: Row) -> list[Record]:
        """Return the finished runs of a row, by seed."""
        return [record for record in self.records if record["row"] == row.name]

    def measures(self) -> tuple[Measured, ...]:
        """Return the measures that any run has."""
        return tuple(
            one for one in MEASURES if any(one.name in record["test"]["compressed"] for record in self.records)
        )

    def mean(self, row: Row, measure: Measured) -> Estimate | None:
        """Return a row's mean over its finished seeds and the test pictures; None where a value is missing."""
        values = [_values(record, "compressed", measure.name) for record in self.of(row)]
        return _estimate(values)

    def seed_means(self, row: Row, measure: Measured) -> list[float]:
        """Return the mean of every seed, those without a value left out."""
        values = (_values(record, "compressed", measure.name) for record in self.of(row))
        return [float(one.mean()) for one in values if one is not None]

    def original(self, measure: Measured) -> Estimate | None:
        """Return the mean of the original's outputs, which are the same in every run."""
        return _estimate([_values(record, "original", measure.name) for record in self.records[:1]])

    def differences(self) -> list[Difference]:
        """Return the paired differences that the study asks for, over the seeds that both rows have.

        Raises:
            InputError: two runs of the same seed were tested on different pictures.
        """
        found = []
        for row, other in self.study.pairs():
            by_seed = {record["seed"]: record for record in self.of(other)}
            both = [(record, by_seed[record["seed"]]) for record in self.of(row) if record["seed"] in by_seed]
            for measure in self.measures():
                pairs = [
                    (_values(a, "compressed", measure.name), _values(b, "compressed", measure.name)) for a, b in both
                ]
                found += self._difference(row.name, other.name, measure, pairs, both)
        return found

    def against_original(self) -> list[Difference]:
        """Return every row less the original, where the original has a value of its own."""
        found = []
        for row in self.study.rows:
            both = [(record, record) for record in self.of(row)]
            for measure in self.measures():
                pairs = [
                    (_values(a, "compressed", measure.name), _values(a, "original", measure.name)) for a, _ in both
                ]
                found += self._difference(row.name, ORIGINAL, measure, pairs, both)
        return found

    def _difference(
        self,
        row: str,
        against: str,
        measure: Measured,
        pairs: Sequence[tuple[Values | None, Values | None]],
        both: Sequence[tuple[Record, Record]],
    ) -> list[Difference]:
        for a, b in both:
            if a["test"]["names_sha256"] != b["test"]["names_sha256"]:
                raise InputError(
                    f"{row} and {against or 'the original'} were tested on different pictures with the seed {a['seed']}"
                )
        result = _estimate([None if a is None or b is None else a - b for a, b in pairs])
        return [] if result is None else [Difference(row, against, measure, result, len(pairs))]

    def facts(self, row: Row) -> dict[str, Any]:
        """Return the settings and the number of steps of a row's runs; where its seeds differ, all values."""
        found: dict[str, list[Any]] = {}
        for record in self.of(row):
            steps = {f"{STEPS}{name}": value for name, value in record["steps"].items()}
            for name, value in {**record["settings"], **steps}.items():
                values = found.setdefault(name, [])
                if value not in values:
                    values.append(value)
        found.pop("seed", None)
        return {name: values[0] if len(values) == 1 else values for name, values in found.items()}

    def differing(self) -> dict[str, dict[str, Any]]:
        """Return, by name, the settings and steps that are not the same in all rows: row -> value, None for none.

        A setting that the runs of a row do not have is younger than they are, and no difference by that alone, unless
        the study sets it in some row.
        """
        facts = {row.name: self.facts(row) for row in self.study.rows if self.of(row)}
        names = sorted({name for one in facts.values() for name in one})
        found = {name: {row: one.get(name) for row, one in facts.items()} for name in names}
        given = {flag.partition("=")[0] for row in self.study.rows for flag in row.flags}
        return {name: by_row for name, by_row in found.items() if _differ(name, list(by_row.values()), name in given)}


def _differ(name: str, values: Sequence[Any], given: bool) -> bool:
    known = values if given or name.startswith(STEPS) else [value for value in values if value is not None]
    return any(value != known[0] for value in known)


def _values(record: Record, side: str, name: str) -> Values | None:
    """Return the values of the test pictures, [n]; None where there are none or one is missing."""
    values = record["test"][side].get(name)
    if not values or None in values:
        return None
    return np.array(values, np.float64)


def _estimate(values: Sequence[Values | None]) -> Estimate | None:
    rows = [one for one in values if one is not None]
    if not rows or len(rows) < len(values):
        return None
    if len({len(one) for one in rows}) > 1:
        raise InputError("the runs of a row were tested on different numbers of pictures")
    return estimate(np.stack(rows))
