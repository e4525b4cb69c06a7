"""What a measurement gave: every raw sample, what surrounded it, and what the samples allow to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from mggc_edge.benchmarks.comparison import Comparison, listed
from mggc_edge.benchmarks.findings import few_in_common
from mggc_edge.benchmarks.percentiles import LEAST, percentile
from mggc_edge.benchmarks.remarks import disturbing, remark_json
from mggc_edge.benchmarks.samples import MS, ProcessSamples, paired
from mggc_edge.benchmarks.stats import (
    Interval,
    compare,
    level_for,
    median_absolute_deviation,
    typical_interval,
)
from mggc_edge.benchmarks.workload import Workload, pictures_of
from mggc_edge.errors import InputError

__all__ = ["BenchmarkReport", "Comparison", "ModelRun"]

SCHEMA = "mggc-edge/bench/1"
# A model against itself: a difference of more than this that the interval leaves no doubt about is the harness's.
MOST_OF_CONTROL = 0.01
NO_GATE: Mapping[str, Any] = {"threshold": None, "verdict": None, "exit_code": 0}


@dataclass(frozen=True)
class ModelRun:
    """One model as it was measured, in one or more processes.

    Attributes:
        model, sha256, size_bytes: what was run, and its file.
        provider: the engine's own name of what ran it.
        threads: threads inside an operator.
        runs_per_pair: inferences whose median is the latency of a pair.
        inputs: name, type and shape of what was fed.
        processes: what each process measured; at least one, each with at least one pair, and at least one that is used.
        warnings: keys of `mggc_edge.benchmarks.remarks.WARNINGS`.
        device_bytes: memory of the device that running takes beside weights, inputs and outputs, as the engine says.
        power, pool_bytes: of a run of its own, see `mggc_edge.benchmarks.energy`.
    """

    model: Workload
    sha256: str
    size_bytes: int
    provider: str
    threads: int
    runs_per_pair: int
    inputs: tuple[Mapping[str, Any], ...]
    processes: tuple[ProcessSamples, ...]
    warnings: tuple[str, ...]
    device_bytes: int | None = None
    power: Mapping[str, Any] | None = None
    pool_bytes: int | None = None

    def __post_init__(self) -> None:
        if not self.processes or not all(process.pairs for process in self.processes):
            raise InputError(f"'{self.model.name}' was not measured: a process has no samples")
        if not any(process.used for process in self.processes):
            raise InputError(f"'{self.model.name}' was not measured: every pair was left out")

    @property
    def samples_ns(self) -> tuple[int, ...]:
        """Every timed inference, in the order of processes and pairs, those of pairs that were left out as well."""
        return tuple(sample for process in self.processes for pair in process.pairs for sample in pair)

    @property
    def used_ns(self) -> tuple[int, ...]:
        """The timed inferences that estimates use."""
        return tuple(sample for process in self.processes for pair in process.used for sample in pair)

    @property
    def p50_ms(self) -> float:
        """The median of the samples that are used."""
        return median(self.used_ns) / MS

    @property
    def p90_ms(self) -> float:
        """The latency that 90 % of the samples that are used do not exceed."""
        return float(np.quantile(self.used_ns, 0.9)) / MS

    @property
    def pictures_per_second(self) -> float:
        """How many pictures are made in a second at the median latency, one inference after the other."""
        return float(1000 * pictures_of(self.inputs) / self.p50_ms) if self.p50_ms > 0 else 0.0

    @property
    def ci95_ms(self) -> Interval | None:
        """The 95 % interval of a process's typical latency; None for a single process."""
        return typical_interval([median(process.latencies_ns) / MS for process in self.processes if process.used])

    @property
    def load_ms(self) -> float:
        """The time to open the model, the median of the processes."""
        return median(process.load_ns for process in self.processes) / MS

    @property
    def first_inference_ms(self) -> float:
        """The time of the first inference, the median of the processes."""
        return median(process.first_ns for process in self.processes) / MS

    @property
    def rss_peak_bytes(self) -> int | None:
        """The most memory that a process had; None where the system does not say."""
        peaks = [process.rss_peak_bytes for process in self.processes if process.rss_peak_bytes is not None]
        return max(peaks, default=None)

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `runs`."""
        used = self.used_ns
        return {
            "model": self.model.name,
            "runtime": self.model.runtime,
            "provider": self.provider,
            "precision": self.model.precision,
            "threads": self.threads,
            "inputs": [dict(entry) for entry in self.inputs],
            "warmup": {
                "runs": sum(process.warmup_runs for process in self.processes),
                "seconds": sum(process.warmup_ns for process in self.processes) / 1e9,
                "settled": all(process.settled for process in self.processes),
            },
            "runs_per_pair": self.runs_per_pair,
            "samples_ns": list(self.samples_ns),
            "latency_ms": {
                "p50": self.p50_ms,
                "p90": self.p90_ms,
                "mean": float(np.mean(used)) / MS,
                "mad": median_absolute_deviation(used) / MS,
                "ci95": listed(self.ci95_ms),
                **_percentiles(used),
            },
            "pictures_per_second": self.pictures_per_second,
            "load_ms": self.load_ms,
            "first_inference_ms": self.first_inference_ms,
            "memory": {
                "rss_peak_bytes": self.rss_peak_bytes,
                "pool_bytes": self.pool_bytes,
                "device_bytes": self.device_bytes,
            },
            "power": None if self.power is None else dict(self.power),
            "macs_true": self.model.macs_true,
            "macs_paper": self.model.macs_paper,
            "warnings": list(self.warnings),
            "processes": [process.to_json() for process in self.processes],
        }


@dataclass(frozen=True)
class BenchmarkReport:
    """Models that were measured together.

    Attributes:
        context: machine, surroundings, versions and how it was measured; JSON values.
        runs: one per model, in the order given; pair j of process i belongs to the same moment in all of them.
        margin: the smallest relative difference that matters, above 0.
        compared: names (a, b) of what is compared; None: every model with the first.
        control: names of a model and of the same model once more; None where there is no such control.
        complete: False where it was interrupted, or failed, after these samples.
        gate: the JSON object about a gate.
    """

    context: Mapping[str, Any]
    runs: tuple[ModelRun, ...]
    margin: float
    compared: tuple[tuple[str, str], ...] | None = None
    control: tuple[str, str] | None = None
    complete: bool = True
    gate: Mapping[str, Any] = field(default_factory=lambda: NO_GATE)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Every warning of a run or a comparison once, keys of `WARNINGS`."""
        codes = {code for run in self.runs for code in run.warnings}
        return tuple(sorted(codes.union(*(comparison.warnings for comparison in self.comparisons))))

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """What is compared, by intervals at the level for all of them together."""
        first, *others = (run.model.name for run in self.runs)
        again = None if self.control is None else self.control[1]
        names = tuple((first, other) for other in others if other != again) if self.compared is None else self.compared
        return tuple(self.comparison(a, b, level_for(len(names))) for a, b in names)

    @property
    def controlled(self) -> Comparison | None:
        """The model that was measured twice, with itself; None where there is no such control."""
        return None if self.control is None else self._compared(*self.control, level_for(1), ())

    def run(self, name: str) -> ModelRun:
        """Return the run of the model with that name.

        Raises:
            InputError: there is none.
        """
        for run in self.runs:
            if run.model.name == name:
                return run
        raise InputError(f"no model '{name}' was measured", hint=", ".join(run.model.name for run in self.runs))

    def comparison(self, a: str, b: str, level: float = level_for(1)) -> Comparison:
        """Compare two of the models, by name.

        Args:
            a, b: names; the ratio says how many times as fast b is.
            level: of the interval that the verdict goes by.

        Raises:
            InputError: one of them was not measured.
        """
        control = self.controlled
        interval = None if control is None else control.ratio.interval
        biased = interval is not None and (interval[0] > 1 + MOST_OF_CONTROL or interval[1] < 1 / (1 + MOST_OF_CONTROL))
        if control is not None and control.disturbed:
            return self._compared(a, b, level, ("no_control",))
        return self._compared(a, b, level, ("control",) if biased else ())

    def _compared(self, a: str, b: str, level: float, codes: tuple[str, ...]) -> Comparison:
        first, second = self.run(a), self.run(b)
        codes = (*codes, *first.warnings, *second.warnings)
        pairs = paired(first.processes, second.processes, whole=bool(disturbing(codes)))
        codes = tuple(sorted({*codes, *pairs.codes, *few_in_common(pairs, first.processes, second.processes)}))
        ratio = compare(pairs.medians, self.margin, level)
        if "steal" in codes:
            # A host stops long inferences more often than short ones. That leaves the ratio of means as it is; that of
            # medians moves where half of the inferences of one side are stopped, and less than half of the other's.
            ratio = ratio.covering(compare(pairs.means, self.margin, level))
        macs_a, macs_b = first.model.macs_true, second.model.macs_true
        return Comparison(
            a,
            b,
            ratio,
            self.margin,
            macs_a / macs_b if macs_a and macs_b else None,
            pairs.count,
            pairs.left_out,
            pairs.throttled,
            codes,
            alike=(first.model.runtime, first.model.precision) == (second.model.runtime, second.model.precision),
            rounds=pairs.rounds,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document of `bench --json`."""
        return {
            "schema": SCHEMA,
            "complete": self.complete,
            "context": dict(self.context),
            "models": [
                {
                    "name": run.model.name,
                    "path": str(run.model.path),
                    "sha256": run.sha256,
                    "size_bytes": run.size_bytes,
                    "macs_true": run.model.macs_true,
                    "macs_paper": run.model.macs_paper,
                }
                for run in self.runs
            ],
            "runs": [run.to_json() for run in self.runs],
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "warnings": [remark_json(code) for code in self.warnings],
            "control": None if (control := self.controlled) is None else control.to_json(),
            "gate": dict(self.gate),
        }


def _percentiles(used_ns: Sequence[float]) -> dict[str, Any]:
    """Return the percentiles above the median that the samples carry, and the intervals of all, in ms."""
    found: dict[str, Any] = {}
    for percent in LEAST:
        one = percentile(used_ns, percent)
        if percent > 90:
            found[f"p{percent}"] = None if one is None else one.value / MS
        ends = None if one is None or one.ci95 is None else [end / MS for end in one.ci95]
        found[f"p{percent}_ci95"] = ends
    return found
