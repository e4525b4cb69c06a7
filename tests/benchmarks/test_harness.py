"""Measuring: which process runs when, how long, and what becomes of it."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mggc_edge.benchmarks.agent.surroundings import Moment
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.harness import measure, runs_per_pair, schedule
from mggc_edge.benchmarks.remarks import WARNINGS
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import MAX_MODELS, Workload
from mggc_edge.errors import ArtifactError, InputError
from mggc_edge.machine import this_machine
from tests.benchmarks.bench_helpers import Clock, Counts, FakeWorker, Told, convolutions, quiet

MS = 1_000_000
Latency = Callable[[int], int]


class Fakes:
    """Starts processes that answer at once; `log` holds what they were asked, in order."""

    told = Told()  # what the machine tells of itself

    def __init__(self, counts: dict[str, Counts] | None = None, **latencies: Latency) -> None:
        self.clock, self.log = Clock(), list[str]()
        self.latencies, self.counts = latencies, counts or {}
        self.started: list[FakeWorker] = []

    @property
    def device(self) -> LocalDevice:
        return LocalDevice(self.start, self.told)

    def start(self, model: Workload) -> FakeWorker:
        counts = self.counts.get(model.name, quiet)
        worker = FakeWorker(self.clock, self.latencies[model.name], self.log, model.name, counts)
        self.started.append(worker)
        return worker


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[Workload]]:
    def make(**macs: int | None) -> list[Workload]:
        models = []
        for name, count in macs.items():
            path = tmp_path / f"{name}.onnx"
            path.write_bytes(name.encode())
            models.append(Workload(name, path, macs_true=count))
        return models

    return make


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fakes, "told", Told())
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def measured(fakes: Fakes, models: list[Workload], **changes: Any) -> BenchmarkReport:
    arguments: dict[str, Any] = {"pairs": 8, "processes": 4, "max_seconds": 1000.0}
    return measure(models, device=fakes.device, clock=fakes.clock, **{**arguments, **changes})


def around(latency_ms: float, seed: int) -> Latency:
    """A latency with 1 % of noise."""
    rng = np.random.default_rng(seed)
    return lambda _: int(latency_ms * MS * math.exp(0.01 * rng.standard_normal()))


def test_a_faster_model_is_measured_as_faster_with_its_realisation(files: Any) -> None:
    fakes = Fakes(a=around(30, 0), b=around(10, 1))
    report = measured(fakes, files(a=800, b=200), pairs=20, processes=5)
    comparison = report.comparison("a", "b")
    assert comparison.ratio.ci99 is not None
    assert comparison.ratio.ci99[0] <= 3 <= comparison.ratio.ci99[1]
    assert comparison.verdict == "faster"
    assert comparison.realisation == pytest.approx(0.75, rel=0.02)
    assert report.warnings == ()


def test_every_process_is_fresh_and_ended_and_pairs_are_spread_evenly(files: Any) -> None:
    fakes = Fakes(a=lambda _: 300 * MS, b=lambda _: 300 * MS)
    report = measured(fakes, files(a=None, b=None), pairs=7, processes=3)
    assert [len(process.pairs) for process in report.runs[0].processes] == [3, 2, 2]
    assert Counter(fakes.log) == {
        f"{word} {name}": count
        for name in "ab"
        for word, count in (("open", 3), ("warm", 3), ("sample", 7), ("close", 3), ("end", 3))
    }
    assert len(fakes.started) == 6
    assert all(worker.ended for worker in fakes.started)


def test_fewer_pairs_than_processes_make_fewer_processes(files: Any) -> None:
    report = measured(Fakes(a=lambda _: 300 * MS), files(a=None), pairs=2, processes=10)
    assert [len(process.pairs) for process in report.runs[0].processes] == [1, 1]


def test_single_inferences_come_in_mirrored_twos_in_random_order() -> None:
    found = schedule([1, 1], 40, np.random.default_rng(0))
    assert all(first == second[::-1] for first, second in zip(found[::2], found[1::2], strict=True))
    assert Counter(map(tuple, found)) == {((0, 1), (1, 1)): 20, ((1, 1), (0, 1)): 20}
    firsts = [pair[0][0] for pair in found[::2]]
    assert 4 <= sum(firsts) <= 16
    assert [sorted(pair) for pair in schedule([1, 1, 1], 3, np.random.default_rng(1))] == [[(0, 1), (1, 1), (2, 1)]] * 3


@pytest.mark.parametrize("runs", [[10, 10], [3, 200], [1, 5, 9], [200, 1], [8, 7]])
def test_the_samples_of_a_pair_are_gathered_in_turns_that_are_spread_over_it(runs: list[int]) -> None:
    found = schedule(runs, 6, np.random.default_rng(2))
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert second == first[::-1]
    for pair in found:
        for index, count in enumerate(runs):
            parts = [part for number, part in pair if number == index]
            assert sum(parts) == count
            assert len(parts) == min(count, 8, max(runs))
            assert max(parts) - min(parts) <= 1
            # In the half of the pair there is half of the inferences.
            middle = sum(part for number, part in pair[: len(pair) // 2] if number == index)
            assert abs(middle - count / 2) <= max(parts)


def test_turns_alternate_and_a_model_alone_takes_none() -> None:
    (pair,) = schedule([16, 16], 1, np.random.default_rng(0))
    assert [part for _, part in pair] == [2] * 16
    order = [number for number, _ in pair]
    assert all(order[at : at + 2] == order[at + 2 : at + 4][::-1] for at in range(0, 16, 4))
    assert schedule([200], 2, np.random.default_rng(0)) == [[(0, 200)], [(0, 200)]]


def test_neighbors_that_come_and_go_within_a_sample_cost_less_in_turns(files: Any) -> None:
    """A machine that is slower by half for 70 ms at a time: samples of 50 ms in one piece would differ by that half."""
    fakes, random = Fakes(), np.random.default_rng(5)
    slow = random.random(100_000) < 0.5

    def bursty(_: int) -> int:
        return int(5 * MS * (1.5 if slow[int(fakes.clock.now / 0.07)] else 1))

    fakes.latencies = {"a": bursty, "b": bursty}
    report = measured(fakes, files(a=None, b=None), pairs=40, processes=10, warmup_seconds=0.1)
    ratio = report.comparison("a", "b").ratio
    assert ratio.ci99 is not None
    assert ratio.ci99[1] / ratio.ci99[0] < 1.2
    assert ratio.ci99[0] < 1 < ratio.ci99[1]


def test_the_seed_repeats_the_order(files: Any) -> None:
    def log(seed: int) -> list[str]:
        fakes = Fakes(a=lambda _: 300 * MS, b=lambda _: 300 * MS)
        measured(fakes, files(a=None, b=None), seed=seed)
        return fakes.log

    assert log(3) == log(3)
    assert log(3) != log(4)


def test_no_model_is_started_first_more_often_than_the_others(files: Any) -> None:
    for seed in range(3):
        fakes = Fakes(a=lambda _: 300 * MS, b=lambda _: 300 * MS, c=lambda _: 300 * MS)
        measured(fakes, files(a=None, b=None, c=None), pairs=10, processes=10, seed=seed)
        names = [worker.name for worker in fakes.started]
        blocks = [names[at : at + 3] for at in range(0, 30, 3)]
        assert all(after == before[::-1] for before, after in zip(blocks[::2], blocks[1::2], strict=True))
        for one, other in ("ab", "bc", "ac"):
            assert sum(block.index(one) < block.index(other) for block in blocks) == 5
        assert len({tuple(block) for block in blocks}) > 2


def test_a_machine_that_grows_slower_does_not_favour_the_model_that_is_named_first(files: Any) -> None:
    fakes = Fakes()

    def drifting(_: int) -> int:  # 2 % slower every second
        return int(20 * MS * math.exp(0.02 * fakes.clock.now))

    fakes.latencies = {"a": drifting, "b": drifting}
    comparison = measured(fakes, files(a=None, b=None), pairs=40, processes=10).comparison("a", "b")
    assert comparison.verdict == "same"
    assert comparison.ratio.value == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize(
    ("latency_ns", "runs"),
    [(0.0, 200), (1000.0, 200), (1e6, 50), (12e6, 5), (40e6, 3), (199e6, 3), (200e6, 1), (5e9, 1)],
)
def test_a_sample_lasts_50_ms_or_is_a_single_long_inference(latency_ns: float, runs: int) -> None:
    assert runs_per_pair(latency_ns) == runs


def test_every_raw_sample_is_kept_and_a_pair_is_their_median(files: Any) -> None:
    times = {"a": [10, 10, 10, 99, 20, 22, 40, 21, 23]}  # first, two of the warm-up, one untimed, five samples
    report = measured(Fakes(a=lambda run: times["a"][run] * MS), files(a=None), pairs=1, processes=1, max_seconds=1e4)
    run = report.runs[0]
    assert (run.runs_per_pair, run.samples_ns) == (5, tuple(value * MS for value in (20, 22, 40, 21, 23)))
    assert list(run.processes[0].latencies_ns) == [22 * MS]
    assert run.first_inference_ms == 10.0


@pytest.mark.parametrize(
    ("max_seconds", "pairs", "seconds"), [(31.0, [2, 2, 2, 2], 30.0), (26.0, [1, 1, 1, 2], 25.5), (17.0, [1, 1], 12.0)]
)
def test_where_time_is_short_processes_get_fewer_pairs_before_there_are_fewer_processes(
    files: Any, max_seconds: float, pairs: list[int], seconds: float
) -> None:
    fakes = Fakes(a=lambda _: 1000 * MS, b=lambda _: 500 * MS)
    # A block: opened in 1.5 s, warmed up in 3 s, and each pair 1.5 s.
    report = measured(fakes, files(a=None, b=None), max_seconds=max_seconds)
    for run in report.runs:
        assert [len(process.pairs) for process in run.processes] == pairs
    assert report.context["seconds"] == seconds
    assert report.warnings == (("few_samples",) if sum(pairs) == 8 else ("few_samples", "time_limit"))
    assert report.comparison("a", "b").ratio.value == pytest.approx(2.0)


def test_a_pair_that_outlasts_the_time_limit_is_waited_for(files: Any) -> None:
    fakes = Fakes(a=lambda _: 18_000 * MS, b=lambda _: 22_000 * MS)  # opened and warmed up in 120 s
    report = measured(fakes, files(a=None, b=None), max_seconds=121.0)
    assert [len(process.pairs) for process in report.runs[0].processes] == [1]
    assert report.warnings == ("few_samples", "time_limit")


def test_one_pair_is_measured_even_where_time_is_too_short_for_two(files: Any) -> None:
    report = measured(Fakes(a=lambda _: 1000 * MS, b=lambda _: 500 * MS), files(a=None, b=None), max_seconds=2.0)
    assert [len(process.pairs) for process in report.runs[0].processes] == [1]
    assert report.warnings == ("few_samples", "time_limit")
    assert report.comparison("a", "b").verdict == "inconclusive"


def test_progress_counts_pairs_and_names_the_process(files: Any) -> None:
    told: list[tuple[int, int, str]] = []
    measured(Fakes(a=lambda _: MS), files(a=None), pairs=3, processes=2, progress=lambda *news: told.append(news))
    assert told == [(1, 3, "process 1 of 2"), (2, 3, "process 1 of 2"), (3, 3, "process 2 of 2")]


def test_a_process_that_fails_ends_all_of_them(files: Any) -> None:
    def failing(run: int) -> int:
        if run > 5:
            raise ArtifactError("the process that measures 'b' ended by SIGSEGV")
        return 300 * MS

    fakes = Fakes(a=lambda _: 300 * MS, b=failing)
    with pytest.raises(ArtifactError, match="measures 'b' ended by SIGSEGV"):
        measured(fakes, files(a=None, b=None), pairs=40, processes=2)
    assert len(fakes.started) == 2
    assert all(worker.ended for worker in fakes.started)


def test_an_interruption_ends_all_processes(files: Any) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    fakes = Fakes(a=lambda _: 300 * MS, b=lambda _: 300 * MS)
    with pytest.raises(KeyboardInterrupt):
        measured(fakes, files(a=None, b=None), progress=interrupt)
    assert [worker.ended for worker in fakes.started] == [True, True]


def test_what_disturbs_is_warned_about(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([Moment(2.5, 1000, 0, (), None), Moment(2.5, 2000, 30, (), None)])
    monkeypatch.setattr(Fakes.told, "moment", lambda: next(moments))
    monkeypatch.setattr(Fakes.told, "others", lambda: 1)
    report = measured(Fakes(a=lambda _: 300 * MS), files(a=None), threads=3, pairs=40, processes=5)
    assert report.warnings == ("load", "steal", "threads")
    assert set(report.warnings) < set(WARNINGS)


@pytest.mark.parametrize(
    ("others", "threads", "codes"),
    [
        ([0, 1], 2, ()),  # half of the time one other wants to run: not above 0.5
        ([0, 1, 1], 2, ("load",)),
        ([1], 1, ()),  # two cores, and we need one
        ([2], 1, ("load",)),
        ([None], 2, ()),
    ],
)
def test_others_that_want_to_run_are_load_only_where_no_core_is_left_for_them(
    files: Any, monkeypatch: pytest.MonkeyPatch, others: list[int | None], threads: int, codes: tuple[str, ...]
) -> None:
    turn = itertools.cycle(others)
    monkeypatch.setattr(Fakes.told, "others", lambda: next(turn))
    report = measured(Fakes(a=lambda _: 300 * MS), files(a=None), threads=threads, pairs=36, processes=6)
    assert report.warnings == codes
    assert report.context["others_running"] == [value for value in others * 36 if value is not None][:36]


def test_the_load_of_the_minute_before_is_no_warning_as_a_job_has_just_trained(
    files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fakes.told, "moment", lambda: Moment(2.6, None, None, (), None))
    assert measured(Fakes(a=lambda _: 300 * MS), files(a=None), pairs=40, processes=5).warnings == ()


def test_a_loaded_machine_makes_a_clear_ratio_inconclusive(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fakes.told, "others", lambda: 1)
    report = measured(Fakes(a=lambda _: 300 * MS, b=lambda _: 30 * MS), files(a=None, b=None), pairs=20, processes=5)
    comparison = report.comparison("a", "b")
    assert comparison.ratio.verdict(0.05) == "faster"
    assert (comparison.verdict, comparison.disturbed) == ("inconclusive", ("load",))
    assert comparison.reason == WARNINGS["load"].text


@pytest.mark.parametrize(
    ("a_ms", "b_ms", "slice_ms", "verdicts"),
    [
        (4.0, 4.0, 4.0, {"same", "inconclusive"}),
        (4.0, 4.6, 4.0, {"slower"}),  # short ones are hardly ever stopped
        (300.0, 30.0, 4.0, {"faster"}),
        (300.0, 290.0, 4.0, {"same", "inconclusive"}),
        # Half of the inferences of b are stopped, and less than half of those of a: 3 % slower looks like more.
        (27.0, 27.8, 4.0, {"same", "inconclusive"}),
        (27.0, 27.8, 8.0, {"same", "inconclusive"}),
    ],
)
def test_what_a_host_steals_makes_no_wrong_verdict_and_hides_no_clear_one(
    files: Any, monkeypatch: pytest.MonkeyPatch, a_ms: float, b_ms: float, slice_ms: float, verdicts: set[str]
) -> None:
    """A host that takes 10 % of the time away, in slices that come at random; only the machine as a whole knows."""
    random = np.random.default_rng(8)

    def taking(ms: float) -> Callable[[int], int]:
        return lambda _: int(MS * (ms + slice_ms * random.poisson(0.1 / 0.9 * ms / slice_ms)))

    found = set()
    for seed in range(5):
        moments = iter([Moment(0, 1000, 0, (), None), Moment(0, 2000, 100, (), None)])
        monkeypatch.setattr(Fakes.told, "moment", functools.partial(next, moments))
        fakes = Fakes(a=taking(a_ms), b=taking(b_ms))
        report = measured(fakes, files(a=None, b=None), pairs=40, processes=10, seed=seed, max_seconds=1000)
        assert report.warnings == ("steal",)
        found.add(report.comparison("a", "b").verdict)
    assert found <= verdicts


def stopped(share: float) -> Counts:
    """What the kernel counts beside a process that takes this share of the time, in slices of 4 ms."""
    return lambda _, wall_ns: {
        "cpu_ns": int(wall_ns * (1 - share)),
        "involuntary_switches": int(wall_ns * share / (4 * MS)),
        "waited_ns": int(wall_ns * share),
    }


def stopped_in(*pairs: int) -> Counts:
    """What the kernel counts where another process takes half of these pairs of a block, each of a single inference."""
    return lambda pair, wall_ns: (stopped(0.5) if pair in pairs else quiet)(pair, wall_ns)


def test_a_bias_that_is_the_same_in_every_pair_gives_no_verdict_whatever_the_interval(files: Any) -> None:
    # The slow model is longer than a slice and stopped half of the time, the fast one ends before it is stopped.
    fakes = Fakes({"a": stopped(0.5)}, a=around(600, 0), b=around(20, 1))
    report = measured(fakes, files(a=1000, b=100), pairs=40, processes=10)
    comparison = report.comparison("a", "b")
    assert comparison.ratio.ci99 is not None
    assert comparison.ratio.ci99[1] / comparison.ratio.ci99[0] < 1.05
    assert comparison.ratio.verdict(0.05) == "faster"
    assert (comparison.verdict, comparison.disturbed, comparison.implausible) == ("inconclusive", ("preempted",), True)
    assert comparison.reason == WARNINGS["preempted"].text
    assert [run.warnings for run in report.runs] == [("preempted",), ()]
    assert comparison.left_out == 0
    assert comparison.pairs == 40


def test_a_neighbor_for_a_part_of_the_time_is_taken_out_of_the_estimate(files: Any) -> None:
    # Pairs 2 and 3 of the 4 of each process: a is stopped in them and takes twice as long.
    def latency(run: int) -> int:
        return (600 if run in (5, 6) else 300) * MS  # run 0 is the first, 1 and 2 warm up

    fakes = Fakes({"a": stopped_in(2, 3)}, a=latency, b=lambda _: 100 * MS)
    report = measured(fakes, files(a=None, b=None), pairs=80, processes=20)
    comparison = report.comparison("a", "b")
    assert comparison.ratio.value == pytest.approx(3.0)
    assert (comparison.verdict, comparison.pairs, comparison.left_out) == ("faster", 40, 40)
    assert report.warnings == ()
    for run, out in zip(report.runs, [(2, 3), ()], strict=True):  # the comparison leaves out both sides
        assert [process.left_out for process in run.processes] == [out] * 20
        assert len(run.samples_ns) == 80 * run.runs_per_pair
    assert report.runs[0].p50_ms == 300.0
    assert report.runs[0].p90_ms == 300.0
    entry = report.to_json()["runs"][0]["processes"][0]
    assert (entry["left_out"], entry["involuntary_switches"]) == ([2, 3], [0, 0, 75, 75])
    assert entry["waited_ns"] == [300_000, 300_000, 300 * MS, 300 * MS]
    assert entry["wall_ns"] == [300 * MS, 300 * MS, 600 * MS, 600 * MS]
    assert entry["cpu_ns"] == [300 * MS, 300 * MS, 300 * MS, 300 * MS]


def test_who_was_disturbed_beside_two_others_has_no_part_in_their_comparison(files: Any) -> None:
    # Of the 4 pairs of each process a is stopped in the first, b in the second, c in the last three.
    counts = {"a": stopped_in(0), "b": stopped_in(1), "c": stopped_in(1, 2, 3)}
    fakes = Fakes(counts, a=around(300, 0), b=around(200, 1), c=around(240, 2))
    report = measured(fakes, files(a=None, b=None, c=None), pairs=80, processes=20)
    assert [run.warnings for run in report.runs] == [(), (), ("preempted",)]
    assert [run.processes[0].left_out for run in report.runs] == [(0,), (1,), ()]
    b, c = report.comparisons
    assert (b.verdict, b.pairs, b.left_out, b.codes) == ("faster", 40, 40, ())
    assert b.ratio.value == pytest.approx(1.5, rel=0.02)
    assert (c.verdict, c.disturbed) == ("inconclusive", ("preempted",))


def test_where_two_models_have_too_few_pairs_in_common_there_is_no_verdict(files: Any) -> None:
    # Each keeps 3 pairs of 5, of which one is the same.
    fakes = Fakes({"a": stopped_in(0, 1), "b": stopped_in(2, 3)}, a=around(300, 0), b=around(200, 1))
    report = measured(fakes, files(a=None, b=None), pairs=100, processes=20)
    assert [run.warnings for run in report.runs] == [(), ()]
    comparison = report.comparisons[0]
    assert (comparison.verdict, comparison.disturbed) == ("inconclusive", ("preempted",))
    assert (comparison.pairs, comparison.left_out) == (100, 0)
    assert report.warnings == ("preempted",)


def test_processes_that_do_not_settle_are_warned_about(files: Any) -> None:
    class Restless(FakeWorker):
        def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
            return {**super().ask(request, timeout), "settled": False}

    fakes = Fakes()
    report = measure(
        files(a=None),
        pairs=40,
        processes=5,
        device=LocalDevice(lambda model: Restless(fakes.clock, lambda _: 300 * MS, fakes.log), Fakes.told),
        clock=fakes.clock,
    )
    assert report.warnings == ("unsettled",)


def test_without_arguments_the_settings_hold(files: Any) -> None:
    fakes = Fakes(a=lambda _: 300 * MS)
    report = measure(files(a=None), device=fakes.device, clock=fakes.clock)
    asked = {key: report.context[key] for key in ("pairs", "processes", "max_seconds", "margin", "seed", "threads")}
    assert asked == {"pairs": 40, "processes": 10, "max_seconds": 300.0, "margin": 0.05, "seed": 0, "threads": 2}
    assert [len(process.pairs) for process in report.runs[0].processes] == [4] * 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": 0}, "the number of pairs must be between 1 and 10,000, not 0"),
        ({"processes": 0}, "the number of processes must be between 1 and 1,000, not 0"),
        ({"threads": 0}, "the number of threads must be between 1 and 1,024, not 0"),
        ({"max_seconds": 0.0}, "the time limit must be above 0, not 0"),
        ({"margin": math.nan}, "the margin must be above 0, not nan"),
        ({"warmup_seconds": -1.0}, "the warm-up must be above 0, not -1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(files: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        measured(Fakes(), files(a=None), **changes)
    assert caught.value.message == message


def test_models_that_cannot_be_measured_together_are_refused(files: Any, tmp_path: Path) -> None:
    (a,) = files(a=None)
    with pytest.raises(InputError, match=rf"^0 models cannot be measured together; 1 to {MAX_MODELS} can"):
        measured(Fakes(), [])
    with pytest.raises(InputError, match=rf"^{MAX_MODELS + 1} models cannot"):
        measured(Fakes(), [a] * (MAX_MODELS + 1))
    with pytest.raises(InputError, match=r"^2 models are called 'a'"):
        measured(Fakes(), [a, a])
    with pytest.raises(ArtifactError, match="there is no file"):
        measured(Fakes(), [Workload("gone", tmp_path / "gone.onnx")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "a model to measure needs a name"),
        ({"runtime": "tflite"}, "'tflite' is no runtime that can be measured"),
        ({"precision": "fp64"}, "'fp64' is no precision that can be measured"),
        ({"precision": "bf16"}, "'a' cannot be measured in bf16 by onnxruntime"),
        ({"provider": "npu"}, "'npu' is no provider"),
        ({"provider": "cuda", "runtime": "openvino"}, "'a' cannot be measured on 'cuda' by openvino"),
        ({"macs_true": -1}, "'a' cannot have -1 MACs"),
        ({"image_size": (0, 8)}, "'a' cannot take pictures of 0x8"),
    ],
)
def test_a_workload_cannot_be_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Workload(**{"name": "a", "path": Path("a.onnx"), **changes})
    assert caught.value.message == message


@pytest.mark.skipif(this_machine().cores < 2, reason="this machine has one core")
def test_the_models_of_a_block_run_on_the_same_core_and_blocks_on_others(tmp_path: Path) -> None:
    models = [Workload(name, convolutions(tmp_path / f"{name}.onnx", 2)) for name in "ab"]
    report = measure(models, threads=1, pairs=4, processes=2, warmup_seconds=0.01, max_seconds=60)
    first, second = ([process.cores for process in run.processes] for run in report.runs)
    assert first == second
    assert None not in first
    assert len({*first}) == 2
    allowed = os.sched_getaffinity(0)
    (run,) = measure(models[:1], threads=len(allowed), pairs=1, processes=1, warmup_seconds=0.01).runs
    assert [process.cores for process in run.processes] == [tuple(sorted(allowed))]
    (run,) = measure(models[:1], threads=len(allowed) + 1, pairs=1, processes=1, warmup_seconds=0.01).runs
    assert [process.cores for process in run.processes] == [None]


def test_two_small_models_are_measured_for_real(tmp_path: Path) -> None:
    shape = (1, 3, 64, 64)
    heavy = Workload("heavy", convolutions(tmp_path / "heavy.onnx", 24, shape), macs_true=24)
    light = Workload("light", convolutions(tmp_path / "light.onnx", 2, shape), macs_true=2)
    report = measure([heavy, light], threads=1, pairs=6, processes=3, max_seconds=60.0, warmup_seconds=0.05)
    comparison = report.comparison("heavy", "light")
    assert comparison.ratio.value > 2
    assert comparison.ratio.processes == 3
    for run in report.runs:
        assert len(run.samples_ns) == 6 * run.runs_per_pair
        assert min(run.samples_ns) > 0
        assert run.rss_peak_bytes is not None
        assert run.rss_peak_bytes > 2**20
        assert run.provider == "CPUExecutionProvider"
        assert "few_samples" in run.warnings
    assert report.context["versions"]["onnxruntime"]


def test_a_model_of_open_size_is_measured_at_the_size_given(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "open.onnx", shape=("n", 3, "h", "w"))
    arguments: dict[str, Any] = {"threads": 1, "pairs": 1, "processes": 1, "warmup_seconds": 0.02}
    report = measure([Workload("open", path, image_size=(24, 8))], **arguments)
    assert report.runs[0].inputs[0]["shape"] == [1, 3, 24, 8]
    with pytest.raises(InputError) as caught:
        measure([Workload("open", path)], **arguments)
    assert caught.value.message == "'open' cannot be measured: it takes pictures of any size"
