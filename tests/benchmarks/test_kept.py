"""What becomes of the samples of a measurement that an error or Ctrl-C ends, and of what a second round asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.agent.surroundings import Moment
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError
from tests.benchmarks.bench_helpers import Clock, FakeWorker, Told

MS = 1_000_000


@pytest.fixture
def models(tmp_path: Path) -> list[Workload]:
    for name in "ab":
        (tmp_path / f"{name}.onnx").write_bytes(name.encode())
    return [Workload(name, tmp_path / f"{name}.onnx") for name in "ab"]


class Failing(FakeWorker):
    """Fails when it is asked to do something for the n-th time, over all processes."""

    def __init__(self, *words: Any, fails: tuple[str, int], error: BaseException, asked: list[str]) -> None:
        super().__init__(*words)
        self._fails, self._error, self._asked = fails, error, asked

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        self._asked.append(request["do"])
        if (request["do"], self._asked.count(request["do"])) == self._fails:
            raise self._error
        return super().ask(request, timeout)


def stopped(models: list[Workload], fails: tuple[str, int], error: BaseException) -> list[BenchmarkReport]:
    """Measure 8 pairs in 4 processes until something fails; return what was kept."""
    kept: list[BenchmarkReport] = []
    clock, asked = Clock(), list[str]()
    workers: list[Failing] = []

    def start(model: Workload) -> Failing:
        worker = Failing(clock, lambda _: 300 * MS, [], model.name, fails=fails, error=error, asked=asked)
        workers.append(worker)
        return worker

    with pytest.raises(type(error)):
        measure(models, pairs=8, processes=4, device=LocalDevice(start, Told()), clock=clock, keep=kept.append)
    assert all(worker.ended for worker in workers)
    return kept


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ArtifactError("the process ended")])
def test_pairs_that_are_complete_are_kept(models: list[Workload], error: BaseException) -> None:
    # The sixth sample is the second of the third pair: block one is whole, block two has one pair and a half.
    (part,) = stopped(models, ("sample", 8), error)
    assert not part.complete
    assert [[len(process.pairs) for process in run.processes] for run in part.runs] == [[2, 1], [2, 1]]
    assert [process.rss_peak_bytes for process in part.runs[0].processes] == [5000, None]
    document = part.to_json()
    assert (document["complete"], document["comparisons"][0]["pairs"]) == (False, 3)
    assert len(document["runs"][0]["samples_ns"]) == 3


@pytest.mark.parametrize("fails", [("open", 1), ("warm", 2), ("sample", 1), ("sample", 2)])
def test_without_a_complete_pair_there_is_nothing_to_keep(models: list[Workload], fails: tuple[str, int]) -> None:
    assert stopped(models, fails, KeyboardInterrupt()) == []


def test_a_process_that_does_not_close_costs_no_sample(models: list[Workload]) -> None:
    (part,) = stopped(models, ("close", 1), ArtifactError("no answer"))
    assert [len(process.pairs) for process in part.runs[0].processes] == [2]


def test_samples_are_as_long_as_those_of_the_round_before(models: list[Workload]) -> None:
    clock = Clock()

    def start(model: Workload) -> FakeWorker:
        return FakeWorker(clock, lambda _: 10 * MS, [], model.name)

    words: dict[str, Any] = {"pairs": 2, "processes": 1, "device": LocalDevice(start, Told()), "clock": clock}
    assert [run.runs_per_pair for run in measure(models, **words).runs] == [5, 5]
    assert [run.runs_per_pair for run in measure(models, runs=[7, 9], **words).runs] == [7, 9]
    with pytest.raises(ValueError, match="zip"):
        measure(models, runs=[7], **words)


def test_clocks_between_pairs_and_heat_are_warned_about(models: list[Workload]) -> None:
    clocks, events, told = iter([3_000_000, 2_000_000] * 20), iter([3, 4]), Told()
    told.clock_khz = lambda: next(clocks)
    told.moment = lambda: Moment(0.0, None, None, (), None, next(events))
    machine = told.answers["machine"]
    told.answers["machine"] = lambda: {**machine(), "host": "this one"}
    clock = Clock()
    report = measure(
        models[:1], pairs=40, processes=10, clock=clock,
        device=LocalDevice(lambda model: FakeWorker(clock, lambda _: 300 * MS, [], model.name), told),
    )  # fmt: skip
    assert report.warnings == ("frequency", "heat")
    assert report.context["clock_khz"] == [3_000_000, 2_000_000] * 20
    assert report.context["host"] == "this one"


def test_pairs_in_which_the_machine_slept_are_left_out(models: list[Workload]) -> None:
    clock = Clock()

    def asleep(sample: int, wall_ns: int) -> dict[str, int | None]:
        slept = 60 * 10**9 if sample == 1 else 90  # two readings of clocks lie some ns apart
        return {"cpu_ns": wall_ns, "involuntary_switches": 0, "waited_ns": 0, "suspended_ns": slept}

    report = measure(
        models, pairs=40, processes=10, clock=clock,
        device=LocalDevice(lambda model: FakeWorker(clock, lambda _: 300 * MS, [], model.name, asleep), Told()),
    )  # fmt: skip
    assert [process.left_out for process in report.runs[1].processes] == [(1,)] * 10
    assert (report.comparisons[0].pairs, report.comparisons[0].verdict) == (30, "same")
    assert "suspended" in report.warnings
