"""The gate: is a model slower than its baseline by more than is allowed, and are the facts about its file in bounds?

A model fails where it is slower (the interval leaves out 1) and its estimate is beyond the limit; it passes where the
whole interval is within the limit; everything else is inconclusive. So one that is as fast as its baseline fails in at
most half a per cent of the cases, however noisy the machine is, and one that is slower than allowed passes in at most
half a per cent a round. None fails on one of two rounds, where others disturbed the other one. In between lies what no
samples decide: slower by just the limit, half of the estimates are beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mggc_edge.benchmarks.comparison import Comparison, listed
from mggc_edge.benchmarks.file_facts import FactRow, FileFacts, fact_rows
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.rounds import Rounds
from mggc_edge.errors import InputError

GateVerdict = Literal["pass", "fail", "inconclusive"]
EXIT_CODES: Mapping[GateVerdict, int] = {"pass": 0, "fail": 3, "inconclusive": 4}
ONE_ROUND = "others disturbed one of the two rounds, and the other one alone fails no model"
ORDER: Sequence[GateVerdict] = ("fail", "inconclusive", "pass")  # the first one that occurs is that of the whole


@dataclass(frozen=True)
class Limits:
    """What a model may do worse than its baseline.

    Attributes:
        regression: the fraction by which its latency may be larger, above 0; None: latency is not judged.
        facts: by fact (see `mggc_edge.benchmarks.file_facts.FACTS`): the fraction, or the count, by which it may be
            larger, 0 or more.
    """

    regression: float | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.regression is not None and not 0 < self.regression <= 1:
            raise InputError(f"a regression is allowed between 0 and 100 %, not {self.regression:.1%}")


@dataclass(frozen=True)
class ModelGate:
    """A model against its baseline.

    Attributes:
        comparison: a is the baseline, b the model.
        limit: the regression that is allowed; None: latency is not judged.
        facts: those that are known of both.
        earlier: whether the baseline's samples are of another day.
    """

    comparison: Comparison
    limit: float | None
    facts: tuple[FactRow, ...] = ()
    earlier: bool = False

    @property
    def slowdown(self) -> float:
        """By which fraction the model takes longer: 0.1 is 10 %; below 0 it is faster."""
        return 1 / self.comparison.ratio.value - 1

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of `slowdown`."""
        ends = self.comparison.ratio.interval
        return None if ends is None else (1 / ends[1] - 1, 1 / ends[0] - 1)

    @property
    def latency_verdict(self) -> GateVerdict | None:
        """What the samples allow to say; None where latency is not judged."""
        if self.limit is None:
            return None
        if self.comparison.disturbed or self.interval is None:
            return "inconclusive"
        if self._beyond:
            return "fail" if all(self.comparison.rounds) else "inconclusive"
        return "pass" if self.interval[1] <= self.limit else "inconclusive"

    @property
    def _beyond(self) -> bool:
        """Whether it is slower, and its estimate is beyond the limit."""
        if self.limit is None or self.interval is None:
            return False
        return self.interval[0] > 0 and self.slowdown > self.limit

    @property
    def reason(self) -> str | None:
        """Why the latency verdict is "inconclusive", as far as a sentence says it; None where it is not."""
        if self.latency_verdict != "inconclusive":
            return None
        return self.comparison.reason or (ONE_ROUND if self._beyond else None)

    @property
    def verdict(self) -> GateVerdict | None:
        """That of latency and facts together; None where nothing is judged."""
        found = [self.latency_verdict, *(row.verdict for row in self.facts)]
        return next((verdict for verdict in ORDER if verdict in found), None)

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `gate.models`."""
        return {
            "baseline": self.comparison.a,
            "model": self.comparison.b,
            "verdict": self.verdict,
            "latency": {
                "verdict": self.latency_verdict,
                "slowdown": self.slowdown,
                "interval": listed(self.interval),
                "level": self.comparison.ratio.level,
                "reason": self.reason,
                "minimum_detectable_effect": self.comparison.ratio.minimum_detectable_effect,
                "pairs": self.comparison.pairs,
                "processes": self.comparison.ratio.processes,
                "rounds_used": list(self.comparison.rounds),
            },
            "facts": [row.to_json() for row in self.facts],
        }


@dataclass(frozen=True)
class Gate:
    """All models against their baselines.

    Attributes:
        limits: what was allowed.
        models: at least one.
        warn: whether an inconclusive verdict ends in the exit code 0.
        rounds: the verdicts on latency that each round alone gives, by model.
        baseline: where it came from.
        files: the facts about the files, by name of the model.
    """

    limits: Limits
    models: tuple[ModelGate, ...]
    warn: bool = False
    rounds: tuple[Mapping[str, Any], ...] = ()
    baseline: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileFacts] = field(default_factory=dict)

    @property
    def verdict(self) -> GateVerdict | None:
        """The worst one of the models; None where nothing is judged."""
        found = {model.verdict for model in self.models}
        return next((verdict for verdict in ORDER if verdict in found), None)

    @property
    def exit_code(self) -> int:
        """0 passed, or nothing is judged; 3 failed; 4 inconclusive, 0 with `warn`."""
        verdict = self.verdict
        return 0 if verdict is None or (verdict == "inconclusive" and self.warn) else EXIT_CODES[verdict]

    def to_json(self) -> dict[str, Any]:
        """Return the object `gate` of the document."""
        return {
            "threshold": self.limits.regression,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "inconclusive": "warn" if self.warn else "fail",
            "limits": dict(self.limits.facts),
            "baseline": dict(self.baseline),
            "models": [model.to_json() for model in self.models],
            "rounds": [dict(one) for one in self.rounds],
            "files": [{"model": name, **facts.to_json()} for name, facts in self.files.items()],
        }


def judge(
    comparisons: Sequence[Comparison],
    limits: Limits,
    facts: Mapping[str, FileFacts],
    *,
    earlier: bool = False,
) -> tuple[ModelGate, ...]:
    """Return what comparisons with baselines, and the facts about the files, say against the limits.

    Args:
        comparisons: a is the baseline.
        limits: what is allowed.
        facts: by name of a model.
        earlier: see `ModelGate`.
    """
    return tuple(
        ModelGate(
            comparison,
            limits.regression,
            fact_rows(facts.get(comparison.a, FileFacts()), facts.get(comparison.b, FileFacts()), limits.facts),
            earlier,
        )
        for comparison in comparisons
    )


def round_documents(
    rounds: Rounds, alone: Sequence[Sequence[ModelGate]], together: Sequence[ModelGate]
) -> tuple[dict[str, Any], ...]:
    """Return what is said of each round alone, as JSON, and whether what is said of all together uses it everywhere."""
    return tuple(
        {
            "pairs": sum(len(process.pairs) for process in each.runs[0].processes),
            "processes": len(each.runs[0].processes),
            "seconds": each.context.get("seconds"),
            "used": all(model.comparison.rounds[number] for model in together),
            "disturbed": sorted({code for model in models for code in model.comparison.disturbed}),
            "verdicts": {model.comparison.b: model.latency_verdict for model in models},
        }
        for number, (each, models) in enumerate(zip(rounds.each, alone, strict=True))
    )


def gated(report: BenchmarkReport, gate: Gate) -> BenchmarkReport:
    """Return the report with what the gate says in it."""
    return replace(report, gate=gate.to_json())
