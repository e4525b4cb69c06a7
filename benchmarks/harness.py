"""Measure models against each other: fresh processes, pairs that are near in time, random order.

A block is one fresh process per model. In it every model is opened and warmed up, in a random order and in the next
block in its mirror image. Then they take turns: one sample of each model makes a pair, and pairs come in mirrored twos
(A B, B A or B A, A B), so that a machine that grows slower or faster hits both alike. The samples of a pair are
gathered in several such turns, near in time to each other. All processes of a block run on the same cores, where there
are more than they need (`agent/cores.py`; `results/turns.md` says what that brings, and that turns alone are within its
noise). Many blocks with few pairs each: what is peculiar to a process must not decide. Pairs in which others disturbed
a model are left out of what is said of it, or all of its samples are called disturbed: see
`mggc_edge.benchmarks.disturbance`.

Where a measurement fails or is interrupted, the pairs that are complete make a report of their own.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from mggc_edge.artifacts import sha256_of
from mggc_edge.backends.openvino import check_bf16
from mggc_edge.benchmarks.agent.surroundings import Moment
from mggc_edge.benchmarks.board import since_now
from mggc_edge.benchmarks.bundles import prepare
from mggc_edge.benchmarks.devices.base import Device, DeviceFacts, Worker, clock_of, moment_of, others_of
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.disturbance import Noted, left_out
from mggc_edge.benchmarks.environment import context, stolen
from mggc_edge.benchmarks.findings import clock_warnings, sample_warnings
from mggc_edge.benchmarks.isolation import open_request
from mggc_edge.benchmarks.report import BenchmarkReport, ModelRun
from mggc_edge.benchmarks.samples import ProcessSamples
from mggc_edge.benchmarks.workload import MAX_THREADS, Workload, check_workloads
from mggc_edge.errors import DeviceError, InputError
from mggc_edge.settings import Settings

Progress = Callable[[int, int, str], None]
Keep = Callable[[BenchmarkReport], None]

MAX_PAIRS, MAX_PROCESSES = 10_000, 1000

WARM_RUNS = 10
WARM_MOST = 10  # times bench.warmup_seconds: a warm-up that has not settled by then ends
WARM_SHARE = 0.25  # of the time limit, for all warm-ups together
SAMPLE_NS = 50_000_000  # a sample of fast models lasts at least this long
LONG_NS = 200_000_000  # a single inference that lasts this long is a sample
LEAST_RUNS, MOST_RUNS = 3, 200  # inferences of a sample of fast models
MOST_TURNS = 8  # in which the samples of a pair are gathered
MOST_LONGER = 3.0  # than its warm-up says, a sample may take before its process is given up
GRACE_SECONDS = 10.0  # beyond the time limit, before a process that does not answer is given up

MOST_STOLEN = 0.02  # as much as `disturbance.MOST_LOST`
# Threads of others that want to run, on average over the pairs, beyond the cores that the measured threads leave: a
# quiet machine has 0.0 to 0.2, a single busy process 1.
MOST_OTHERS = 0.5


@dataclass
class _Gathered:
    """What the processes of one model have given so far."""

    model: Workload
    runs_per_pair: int = 0
    opened: dict[str, Any] = field(default_factory=dict)
    processes: list[ProcessSamples] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def measure(
    models: Sequence[Workload],
    *,
    threads: int | None = None,
    pairs: int | None = None,
    processes: int | None = None,
    max_seconds: float | None = None,
    margin: float | None = None,
    warmup_seconds: float | None = None,
    seed: int = 0,
    runs: Sequence[int] | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
    device: Device | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> BenchmarkReport:
    """Measure the latency of models on this machine or on another one, in pairs.

    Args:
        models: what to measure, with names of their own; the first is what the others are compared with.
        threads: threads inside an operator; None: one for every core of the device that may be used.
        pairs: pairs of samples in all; None: the setting bench.pairs.
        processes: fresh processes per model that the pairs are spread over; None: the setting bench.processes.
        max_seconds: where this time ends the measurement, it keeps the pairs that are complete; None: the setting.
        margin: the smallest relative difference that matters; None: the setting bench.margin.
        warmup_seconds: a warm-up lasts at least so long, less where `max_seconds` are few; None: the setting.
        seed: of the order, and of what is fed.
        runs: inferences of a sample of each model, as an earlier report has them; None: by the latency.
        progress: is told after every pair (pairs done, pairs in all, what is measured); it should be quick.
        keep: is given what is complete where an error or Ctrl-C ends the measurement, before that goes on.
        device: where, entered; None: on this machine.
        clock: seconds that pass; for tests.

    Raises:
        InputError: an argument makes no sense, a model's picture size is not known or not as given, or a provider, or
            bfloat16, is not there.
        ArtifactError: a model cannot be run, its process died, or `max_seconds` are too short for one pair.
        MissingDependencyError: an engine is not installed there.
        DeviceError: the device cannot be reached any more.
    """
    defaults = Settings()
    pairs = defaults["bench.pairs"] if pairs is None else pairs
    processes = defaults["bench.processes"] if processes is None else processes
    limit: float = defaults["bench.max_seconds"] if max_seconds is None else max_seconds
    margin = defaults["bench.margin"] if margin is None else margin
    warm: float = defaults["bench.warmup_seconds"] if warmup_seconds is None else warmup_seconds
    device = LocalDevice() if device is None else device
    machine = device.facts.machine
    threads = machine.cores if threads is None else threads
    _check(threads, pairs, processes, (limit, margin, warm))
    check_workloads(models)
    if any(model.precision == "bf16" for model in models):
        check_bf16(machine)
    blocks = [len(part) for part in np.array_split(np.arange(pairs), min(pairs, processes))]
    files = [(sha256_of(model.path), model.path.stat().st_size) for model in models]
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    places = prepare(models, device)
    before, began = moment_of(device.tell("moment")), clock()
    most = min(WARM_MOST * warm, WARM_SHARE * limit / (len(blocks) * len(models)))
    warmup = (min(warm, most / 2), most)
    plan = _Plan(models, threads, seed, warmup, began + limit, len(blocks), pairs, progress, device, places, clock)
    for gathered, count in zip(plan.gathered, runs or (), strict=runs is not None):
        gathered.runs_per_pair = count
    asked = {"pairs": pairs, "processes": processes, "max_seconds": limit, "margin": margin}

    def report(*, stopped: bool, complete: bool = True) -> BenchmarkReport:
        after, seconds = _moment_after(device, before, complete=complete), clock() - began
        codes = _machine_warnings(device.facts, threads, stolen(before, after), plan.others) + ["time_limit"] * stopped
        codes += clock_warnings(plan.clocks, (before.throttle_events, after.throttle_events))
        _leave_out(plan.gathered, threads)
        versions = {name: version for one in plan.gathered for name, version in one.opened["versions"].items()}
        facts = context(device.facts, device.address, before, after, versions)
        facts |= {"others_running": plan.others, "clock_khz": plan.clocks}
        facts |= {"created": created, "seconds": seconds, "threads": threads, "seed": seed, **asked}
        found = tuple(_run(*one, threads, codes) for one in zip(plan.gathered, files, strict=True))
        return BenchmarkReport(facts, found, margin, complete=complete)

    try:
        stopped = _measure_blocks(plan, blocks)
    except BaseException:
        if keep is not None and plan.gathered[0].processes:
            keep(report(stopped=False, complete=False))
        raise
    return report(stopped=stopped)


def _moment_after(device: Device, before: Moment, *, complete: bool) -> Moment:
    """Return the device as it is now; after an early end perhaps as it was, as it may be out of reach."""
    try:
        return moment_of(device.tell("moment"))
    except DeviceError:
        if complete:
            raise
        return before


def _run(gathered: _Gathered, file: tuple[str, int], threads: int, codes: Sequence[str]) -> ModelRun:
    return ModelRun(
        model=gathered.model,
        sha256=file[0],
        size_bytes=file[1],
        provider=gathered.opened["provider"],
        threads=threads,
        runs_per_pair=gathered.runs_per_pair,
        inputs=tuple(gathered.opened["inputs"]),
        device_bytes=gathered.opened.get("device_bytes"),
        processes=tuple(gathered.processes),
        warnings=tuple(sorted({*codes, *gathered.warnings, *sample_warnings(gathered.processes)})),
    )


class _Plan:
    """One measurement while it goes on."""

    def __init__(
        self,
        models: Sequence[Workload],
        threads: int,
        seed: int,
        warmup_seconds: tuple[float, float],
        deadline: float,
        blocks: int,
        pairs: int,
        progress: Progress | None,
        device: Device,
        places: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        self.gathered = [_Gathered(model) for model in models]
        self.threads, self.seed, self.deadline, self.clock = threads, seed, deadline, clock
        self.random = np.random.default_rng(seed)
        self.others: list[int] = []  # threads of others that wanted to run, after each pair
        self.clocks: list[int] = []  # of the fastest core in kHz, after each pair
        self._device, self._places, self._progress = device, places, progress
        self._done, self._pairs, self._blocks = 0, pairs, blocks
        self._starts: list[int] = []  # in which order the processes of the block are started
        least, most = (int(seconds * 1e9) for seconds in warmup_seconds)
        self._warm = {"do": "warm", "min_runs": WARM_RUNS, "min_ns": least, "max_ns": most}

    def block(self, number: int, pairs: int) -> tuple[float, float]:
        """Measure so many pairs in fresh processes; where time runs out, fewer.

        Returns:
            The seconds that it took until the first pair, and those of a pair.
        """
        count, began = len(self.gathered), self.clock()
        with contextlib.ExitStack() as stack:
            workers: dict[int, Worker] = {}
            opened: dict[int, dict[str, Any]] = {}
            warm: dict[int, dict[str, Any]] = {}
            closed: dict[int, dict[str, Any]] = {}
            samples: list[list[tuple[int, ...]]] = [[] for _ in range(count)]
            noted: list[list[Noted]] = [[] for _ in range(count)]
            throttled: list[str] = []
            stack.callback(self._gather, opened, warm, closed, samples, noted, throttled)  # whatever ends the block
            self._starts = self._starts[::-1] if number % 2 == 0 else self.random.permutation(count).tolist()
            for index in self._starts:
                model, place = self.gathered[index].model, self._places[index]
                workers[index] = self._device.start(model)
                stack.callback(workers[index].end)
                request = open_request(model, place, self.threads, self.seed, block=number)
                opened[index] = self._ask(workers[index], request)
                warm[index] = self._ask(workers[index], self._warm)
                if not self.gathered[index].opened:
                    self.gathered[index].opened = opened[index]
                if not self.gathered[index].runs_per_pair:
                    self.gathered[index].runs_per_pair = runs_per_pair(warm[index]["median_ns"])
            ready, lowered = self.clock(), since_now(self._device)
            # Of slow models what the warm-up took says how long a pair will take; no request is given less than that.
            takes = [one.runs_per_pair * warm[index]["median_ns"] / 1e9 for index, one in enumerate(self.gathered)]
            if number == 1:
                share = (self.deadline - began) / self._blocks - (ready - began)
                pairs = affordable(pairs, share, sum(takes))
            for turns in schedule([one.runs_per_pair for one in self.gathered], pairs, self.random):
                if samples[0] and self.clock() >= self.deadline:
                    break
                found: list[list[dict[str, Any]]] = [[] for _ in range(count)]
                for index, runs in turns:
                    # The other model has taken the caches: a fast one runs once before it is timed.
                    untimed = int(warm[index]["median_ns"] < SAMPLE_NS)
                    request = {"do": "sample", "runs": runs, "untimed": untimed}
                    found[index].append(self._ask(workers[index], request, MOST_LONGER * takes[index]))
                for index, answers in enumerate(found):
                    samples[index].append(tuple(value for answer in answers for value in answer["samples_ns"]))
                    noted[index].append(Noted.together([Noted.from_answer(answer["noted"]) for answer in answers]))
                self._done += 1
                told = self._device.tell("others")
                if (khz := clock_of(told)) is not None:
                    self.clocks.append(khz)
                if (others := others_of(told)) is not None:
                    self.others.append(others)
                if self._progress is not None:
                    self._progress(self._done, self._pairs, f"process {number} of {self._blocks}")
            per_pair = (self.clock() - ready) / len(samples[0])
            throttled += lowered()
            for index in range(count):
                closed[index] = self._ask(workers[index], {"do": "close"})
        return ready - began, per_pair

    def _gather(
        self,
        opened: dict[int, dict[str, Any]],
        warm: dict[int, dict[str, Any]],
        closed: dict[int, dict[str, Any]],
        samples: list[list[tuple[int, ...]]],
        noted: list[list[Noted]],
        throttled: list[str],
    ) -> None:
        """Keep what the processes of a block gave: the pairs that are complete; nothing where there is none."""
        complete = min(map(len, noted))
        for index, gathered in enumerate(self.gathered if complete else ()):
            gathered.processes.append(
                ProcessSamples(
                    cores=None if (cores := opened[index].get("cores")) is None else tuple(cores),
                    load_ns=opened[index]["load_ns"],
                    first_ns=opened[index]["first_ns"],
                    warmup_runs=warm[index]["runs"],
                    warmup_ns=warm[index]["ns"],
                    settled=warm[index]["settled"],
                    pairs=tuple(samples[index][:complete]),
                    rss_before_bytes=opened[index]["rss_before_bytes"],
                    rss_peak_bytes=closed.get(index, {}).get("rss_peak_bytes"),
                    noted=tuple(noted[index][:complete]),
                    throttled=tuple(throttled),
                )
            )

    def _ask(self, worker: Worker, request: dict[str, Any], least_s: float = 0.0) -> dict[str, Any]:
        """Return the answer to a request, for which there is the time that is left, and at least so many seconds."""
        return worker.ask(request, max(least_s, self.deadline - self.clock()) + GRACE_SECONDS)


def _measure_blocks(plan: _Plan, blocks: Sequence[int]) -> bool:
    """Measure block after block; return whether time ran out before all of their pairs were measured.

    Where time is short, blocks get fewer pairs before there are fewer blocks.
    """
    setup = per_pair = 0.0
    for number, pairs in enumerate(blocks, start=1):
        if number > 1:
            left = plan.deadline - plan.clock()
            share = left / (len(blocks) - number + 1) - setup
            pairs = affordable(pairs, share, per_pair)
            if setup + pairs * per_pair > left:
                return True
        took = plan.block(number, pairs)
        setup, per_pair = max(setup, took[0]), max(per_pair, took[1])
    return sum(len(process.pairs) for process in plan.gathered[0].processes) < sum(blocks)


def affordable(pairs: int, seconds: float, per_pair: float) -> int:
    """Return how many of these pairs fit into so many seconds, one at least; `per_pair`: what one takes."""
    return min(pairs, max(1, int(seconds / per_pair))) if per_pair > 0 else pairs


def schedule(runs: Sequence[int], pairs: int, random: np.random.Generator) -> list[list[tuple[int, int]]]:
    """Return, for every pair, what is run one after the other: (number of a model, so many inferences).

    A pair has up to `MOST_TURNS` turns, in which all models take part that have inferences left for it; the first turn
    has a random order, the second one its mirror image, and so on. Every other pair is the one before it, backwards.
    One model alone has nothing to take turns with.

    Args:
        runs: the inferences of a sample of each model.
        pairs: how many.
        random: of the orders.
    """
    turns = min(MOST_TURNS, max(runs)) if len(runs) > 1 else 1
    found: list[list[tuple[int, int]]] = []
    while len(found) < pairs:
        one: list[tuple[int, int]] = []
        order: list[int] = []
        for turn in range(turns):
            order = order[::-1] if turn % 2 else random.permutation(len(runs)).tolist()
            parts = [count * (turn + 1) // turns - count * turn // turns for count in runs]
            one += [(index, parts[index]) for index in order if parts[index]]
        found += [one, one[::-1]]
    return found[:pairs]


def runs_per_pair(median_ns: float) -> int:
    """Return how many inferences make a sample, for a latency in ns: together 50 ms, or a single long one."""
    if median_ns >= LONG_NS:
        return 1
    return min(MOST_RUNS, max(LEAST_RUNS, math.ceil(SAMPLE_NS / max(1.0, median_ns))))


def _check(threads: int, pairs: int, processes: int, amounts: tuple[float, float, float]) -> None:
    for name, value, most in (
        ("threads", threads, MAX_THREADS),
        ("pairs", pairs, MAX_PAIRS),
        ("processes", processes, MAX_PROCESSES),
    ):
        if not 1 <= value <= most:
            raise InputError(f"the number of {name} must be between 1 and {most:,}, not {value}")
    for name, amount in zip(("time limit", "margin", "warm-up"), amounts, strict=True):
        if not 0 < amount < math.inf:
            raise InputError(f"the {name} must be above 0, not {amount:g}")


def _machine_warnings(device: DeviceFacts, threads: int, share: float | None, others: Sequence[int]) -> list[str]:
    """Return what the machine as a whole says: it is counted in all of its cores, of which we may have a part."""
    cores = max(device.machine.cores, device.all_cores)
    crowded = sum(others) / len(others) > max(0, cores - threads) + MOST_OTHERS if others else False
    return (
        ["threads"] * (threads > device.machine.cores)
        + ["load"] * crowded
        + ["steal"] * (share is not None and share > MOST_STOLEN)
    )


def _leave_out(gathered: Sequence[_Gathered], threads: int) -> None:
    """Leave the pairs out in which a model was disturbed, and the blocks in which clocks were lowered.

    Where too few pairs of a model would remain, none is left out of it, and what disturbed them is warned of.
    """
    for one in gathered:
        disturbed = [[noted.disturbed(threads) for noted in process.noted] for process in one.processes]
        hot = [bool(process.throttled) for process in one.processes]
        out = left_out([[lowered or each for each in pairs] for lowered, pairs in zip(hot, disturbed, strict=True)])
        if out is not None:
            one.processes = [replace(each, left_out=numbers) for each, numbers in zip(one.processes, out, strict=True)]
        else:
            one.warnings += ["preempted"] * any(map(any, disturbed)) + ["throttled"] * any(hot)
