"""A measurement in two rounds: where the first does not settle the question, everything is measured once more.

The second round has fresh processes, and what is said comes from both together. So no model fails for what happened in
ten processes, and none has to be measured for longer than its noise asks for. A round in which others disturbed a model
as a whole is left out of what is said of it where the other one was not: its samples stay in the report, unused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mggc_edge.benchmarks.findings import sample_warnings
from mggc_edge.benchmarks.remarks import disturbing
from mggc_edge.benchmarks.report import BenchmarkReport, ModelRun

FROM_SAMPLES = {"few_samples", "unsettled", "percentiles", "enqueue_bound", "suspended"}  # said anew of all together


class Round(Protocol):
    """One round of measuring: so many pairs, in fresh processes."""

    def __call__(
        self, number: int, pairs: int, runs: Sequence[int] | None, keep: Callable[[BenchmarkReport], None]
    ) -> BenchmarkReport:
        """Measure; `number` is 0 or 1, `runs` the inferences of a sample of each model, None where they are open."""


@dataclass(frozen=True)
class Rounds:
    """What one or two rounds gave.

    Attributes:
        each: the rounds as they were measured.
        report: all of them together.
    """

    each: tuple[BenchmarkReport, ...]
    report: BenchmarkReport


def measure_in_rounds(
    measure_round: Round,
    pairs: int,
    settled: Callable[[BenchmarkReport], bool],
    *,
    keep: Callable[[BenchmarkReport], None],
    tell: Callable[[], None],
) -> Rounds:
    """Measure half of the pairs, and the other half where these did not settle the question.

    Args:
        measure_round: measures.
        pairs: of both rounds together; with a single one there is no second round.
        settled: whether a report needs no second round.
        keep: is given what is complete where an error or Ctrl-C ends a round.
        tell: is called before the second round.

    Raises:
        MggcEdgeError: as the measurement does.
    """
    first = measure_round(0, (pairs + 1) // 2, None, keep)
    keep(replace(first, complete=False))  # a second round may end before it has a pair
    if pairs < 2 or settled(first):
        return Rounds((first,), first)
    tell()
    runs = [run.runs_per_pair for run in first.runs]
    second = measure_round(1, pairs // 2, runs, lambda part: keep(pooled((first, part))))
    return Rounds((first, second), pooled((first, second)))


def pooled(rounds: Sequence[BenchmarkReport]) -> BenchmarkReport:
    """Return the samples of several rounds of the same models as one report.

    A round in which a model has a warning that forbids a verdict is left out of what is said of it, if there is another
    one without.
    """
    runs = tuple(_together(of_one) for of_one in zip(*(each.runs for each in rounds), strict=True))
    contexts = [each.context for each in rounds]
    summed: dict[str, Any] = {
        key: sum(context.get(key, 0) for context in contexts) for key in ("seconds", "pairs", "processes")
    }
    listed: dict[str, Any] = {
        key: [entry for context in contexts for entry in context.get(key, ())]
        for key in ("others_running", "clock_khz")
    }
    context = {**contexts[0], **summed, **listed, "load_after": contexts[-1].get("load_after")}
    if "stolen" in context:
        context["stolen"] = _stolen(contexts)
    if "cpu" in context:
        last = {key: value for key, value in contexts[-1]["cpu"].items() if key.endswith("_after")}
        context["cpu"] = {**context["cpu"], **last}
    return replace(rounds[0], context=context, runs=runs, complete=all(each.complete for each in rounds))


def _stolen(contexts: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the fraction of all rounds' time that the host took; None where a round does not know."""
    total = stolen = 0.0
    for context in contexts:
        share, seconds = context.get("stolen"), context.get("seconds")
        if share is None or not seconds:
            return None
        total, stolen = total + seconds, stolen + share * seconds
    return stolen / total


def _together(runs: Sequence[ModelRun]) -> ModelRun:
    disturbed = [bool(disturbing(run.warnings)) for run in runs]
    void = [lost and not all(disturbed) for lost in disturbed]
    processes = [
        replace(process, round=number, void=lost)
        for number, (run, lost) in enumerate(zip(runs, void, strict=True))
        for process in run.processes
    ]
    codes = {code for run, lost in zip(runs, void, strict=True) if not lost for code in run.warnings}
    warnings = (codes - FROM_SAMPLES) | set(sample_warnings(processes))
    return replace(runs[0], processes=tuple(processes), warnings=tuple(sorted(warnings)))
