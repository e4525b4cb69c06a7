"""What `bench --baseline` measures, in which rounds, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mggc_edge.benchmarks.comparison import Comparison
    from mggc_edge.benchmarks.earlier import Earlier, EarlierRun
    from mggc_edge.benchmarks.file_facts import FileFacts
    from mggc_edge.benchmarks.gate import Gate, ModelGate
    from mggc_edge.benchmarks.report import BenchmarkReport
    from mggc_edge.benchmarks.workload import Workload
    from mggc_edge.cli.bench_models import Choice, Size
    from mggc_edge.cli.bench_options import GateFlags

BASELINE = "baseline"  # what it is called in tables
COMPRESSED = ("compressed",)  # of a run, what a gate is about
SAY_AGAIN = "the first {} pairs do not settle it: measuring once more, in fresh processes"
Measure = Callable[..., "BenchmarkReport"]


@dataclass(frozen=True)
class GatePlan:
    """What is measured, and which model is compared with which.

    Attributes:
        flags: what was asked for.
        workloads: the baselines, then the models.
        compared: names (baseline, model).
        facts: about the files, by name of the model.
        earlier: a baseline of another day, which is not measured.
    """

    flags: GateFlags
    workloads: tuple[Workload, ...]
    compared: tuple[tuple[str, str], ...]
    facts: Mapping[str, FileFacts] = field(default_factory=dict)
    earlier: Earlier | None = None

    @property
    def baseline(self) -> dict[str, Any]:
        """Where the baseline came from, as JSON."""
        kind = "earlier document" if self.earlier is not None else "measured"
        return {"path": str(self.flags.baseline), "kind": kind, "weaker": self.earlier is not None}

    def judge(self, report: BenchmarkReport) -> tuple[ModelGate, ...]:
        """Return what a report says of every model."""
        from mggc_edge.benchmarks.gate import judge

        found = report.comparisons if self.earlier is None else self._with_earlier(self.earlier, report)
        return judge(found, self.flags.limits, self.facts, earlier=self.earlier is not None)

    def _with_earlier(self, earlier: Earlier, report: BenchmarkReport) -> tuple[Comparison, ...]:
        from mggc_edge.benchmarks.earlier import compare_with_earlier
        from mggc_edge.benchmarks.stats import level_for

        again = None if report.control is None else report.control[1]
        runs = [run for run in report.runs if run.model.name != again]
        level = level_for(len(runs))
        baselines = [earlier.run_for(run.model.name, run.model.runtime, run.model.precision) for run in runs]
        return tuple(
            compare_with_earlier(baseline, run, _label(baseline, len(runs)), report.margin, level)
            for baseline, run in zip(baselines, runs, strict=True)
        )


def plan_gate(
    flags: GateFlags,
    models: Sequence[Workload],
    size: Size | None,
    choice: Choice,
    *,
    threads: int | None = None,
    here: bool = True,
) -> GatePlan:
    """Return what is measured for a gate.

    Args:
        flags: what was asked for.
        models: what is compared with the baseline.
        size, choice: how the baseline is run, as the models are.
        threads: that the models run with; None: one for every core.
        here: whether it is measured on this machine.

    Raises:
        InputError: the baseline is nothing that models can be compared with, or not these.
    """
    from mggc_edge.benchmarks.file_facts import check_known
    from mggc_edge.cli.bench_models import workloads
    from mggc_edge.compiler.file_facts import file_facts
    from mggc_edge.errors import InputError

    facts = {model.name: file_facts(model.path) for model in models}
    if flags.baseline.suffix.lower() == ".json":
        if not here:
            raise InputError(
                f"'{flags.baseline}' holds numbers of another day, which are taken on this machine alone",
                hint="name the baseline's model file instead: it is measured beside the others, in the same job",
            )
        return _plan_with_earlier(flags, models, facts, threads)
    rows = workloads([flags.baseline], size, choice, COMPRESSED)
    used: dict[str, Workload] = {}
    compared = []
    for model in models:
        row = _row_for(model, rows, flags.baseline)
        name = BASELINE if len(rows) == 1 else f"{BASELINE}, {row.runtime} {row.provider} {row.precision}"
        used[name] = replace(row, name=name)
        compared.append((name, model.name))
    facts |= {name: file_facts(row.path) for name, row in used.items()}
    for a, b in compared:
        check_known((a, b), facts[a], facts[b], flags.limits.facts)
        _check_sizes(facts[a].picture_size, facts[b].picture_size, b)
    return GatePlan(flags, (*used.values(), *models), tuple(compared), facts)


def _plan_with_earlier(
    flags: GateFlags, models: Sequence[Workload], facts: dict[str, FileFacts], threads: int | None
) -> GatePlan:
    from mggc_edge.backends.onnxruntime import provider_name
    from mggc_edge.benchmarks.earlier import LIBRARIES, check_alike, check_same_machine, read_earlier
    from mggc_edge.benchmarks.file_facts import FileFacts, check_known
    from mggc_edge.machine import this_machine

    earlier = read_earlier(flags.baseline)
    runs = [earlier.run_for(model.name, model.runtime, model.precision) for model in models]
    for model, run in zip(models, runs, strict=True):
        label = _label(run, len(models))
        facts[label] = FileFacts(size_bytes=run.size_bytes)
        check_known((label, model.name), facts[label], facts[model.name], flags.limits.facts)
        _check_sizes(_sides(run.inputs), facts[model.name].picture_size, model.name)
    check_same_machine(earlier, [model.runtime for model in models])
    for model, run in zip(models, runs, strict=True):
        of_onnxruntime = LIBRARIES.get(model.runtime, model.runtime) == "onnxruntime"
        provider = provider_name(model.provider) if of_onnxruntime else None  # others name it when they have started
        check_alike(run, model.name, this_machine().cores if threads is None else threads, provider)
    return GatePlan(flags, tuple(models), (), facts, earlier)


def _label(run: EarlierRun, models: int) -> str:
    """Return what a baseline of another day is called: each of several models may have one of its own."""
    return BASELINE if models == 1 else f"{BASELINE}, {run.name}"


def _row_for(model: Workload, rows: Sequence[Workload], baseline: Path) -> Workload:
    """Return the row of the baseline that runs as a model does: in all, or by engine and provider, or the only one."""
    from mggc_edge.errors import InputError

    ways = [
        [row for row in rows if (row.runtime, row.provider, row.precision)
         == (model.runtime, model.provider, model.precision)],
        [row for row in rows if (row.runtime, row.provider) == (model.runtime, model.provider)],
        list(rows),
    ]  # fmt: skip
    found = next((way[0] for way in ways if len(way) == 1), None)
    if found is None:
        raise InputError(
            f"the baseline '{baseline}' is not run by {model.runtime} in {model.precision}, as '{model.name}' is",
            hint="choose one way to run them: --runtime, --provider, --precision",
        )
    return found


def _check_sizes(baseline: tuple[int, int] | None, model: tuple[int, int] | None, name: str) -> None:
    from mggc_edge.errors import InputError

    if baseline is not None and model is not None and baseline != model:
        raise InputError(
            f"the baseline takes pictures of {baseline[0]}x{baseline[1]} and '{name}' of {model[0]}x{model[1]}, so "
            "that their latencies cannot be compared",
            hint="export both at one size: --image-size",
        )


def _sides(inputs: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Return (height, width) of what a model was fed."""
    shape = inputs[0].get("shape", []) if inputs else []
    if len(shape) != 4:
        return None
    return (shape[1], shape[2]) if inputs[0].get("dtype") == "uint8" else (shape[2], shape[3])


def _check_fed(report: BenchmarkReport, compared: Sequence[tuple[str, str]]) -> None:
    """Raise where a baseline and a model were fed pictures of different sizes: of some files nothing says it before."""
    for a, b in compared:
        _check_sizes(_sides(report.run(a).inputs), _sides(report.run(b).inputs), b)


def with_control(models: Sequence[Workload]) -> tuple[tuple[Workload, ...], tuple[str, str]]:
    """Return the models and the first of them once more, and the names of these two."""
    again = replace(models[0], name=f"{models[0].name} (again)")
    return (*models, again), (models[0].name, again.name)


def measure_gate(
    plan: GatePlan,
    measure: Measure,
    pairs: int,
    *,
    control: tuple[str, str] | None,
    keep: Callable[[BenchmarkReport], None],
    tell: Callable[[str], None],
) -> tuple[BenchmarkReport, Gate]:
    """Measure in one round, or two, and judge.

    Args:
        plan: see `plan_gate`.
        measure: measures the plan's workloads: `measure(number, pairs=, runs=, keep=)`.
        pairs: at most, of both rounds together.
        control: names of the model that is measured twice.
        keep: is given what is complete where an error or Ctrl-C ends a round.
        tell: is told that there is a second round.
    """
    from mggc_edge.benchmarks.gate import Gate, gated, round_documents
    from mggc_edge.benchmarks.rounds import measure_in_rounds

    def measure_round(
        number: int, pairs: int, runs: Sequence[int] | None, keep: Callable[[BenchmarkReport], None]
    ) -> BenchmarkReport:
        report = named(measure(number, pairs=pairs, runs=runs, keep=lambda part: keep(named(part))))
        _check_fed(report, plan.compared)
        return report

    # What an error or Ctrl-C ends is not judged, and its document must not look like that of a gate that passed.
    unjudged = {"threshold": plan.flags.limits.regression, "verdict": None, "exit_code": None}

    def named(report: BenchmarkReport) -> BenchmarkReport:
        return replace(report, compared=plan.compared, control=control, gate=unjudged)

    def settled(report: BenchmarkReport) -> bool:
        return all(model.latency_verdict in (None, "pass") for model in plan.judge(report))

    if plan.flags.limits.regression is None:  # latency is shown and not judged: there is nothing to settle
        report = measure_round(0, pairs, None, keep)
        gate = Gate(plan.flags.limits, plan.judge(report), plan.flags.warn, (), plan.baseline, plan.facts)
        return gated(report, gate), gate
    rounds = measure_in_rounds(
        measure_round, pairs, settled, keep=keep, tell=lambda: tell(SAY_AGAIN.format((pairs + 1) // 2))
    )
    models = plan.judge(rounds.report)
    gate = Gate(
        plan.flags.limits,
        models,
        plan.flags.warn,
        round_documents(rounds, [plan.judge(each) for each in rounds.each], models),
        plan.baseline,
        plan.facts,
    )
    return gated(rounds.report, gate), gate
