"""Which cores the processes of a block are kept on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from mggc_edge.benchmarks.agent.cores import CORES, choose_cores, running_times, spread
from mggc_edge.benchmarks.isolation import open_request, start_worker
from mggc_edge.benchmarks.workload import Workload
from tests.benchmarks.bench_helpers import convolutions

Core = tuple[str, dict[str, int]]


def machine(root: Path, *cores: Core) -> set[int]:
    """A machine whose cores have these siblings and speeds."""
    for number, (siblings, speeds) in enumerate(cores):
        for name, text in {"topology/thread_siblings_list": siblings, **speeds}.items():
            path = root / CORES / f"cpu{number}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
    return set(range(len(cores)))


def test_blocks_take_the_cores_in_turn_and_none_is_chosen_where_they_are_too_few(tmp_path: Path) -> None:
    allowed = machine(tmp_path, ("0", {}), ("1", {}), ("2", {}))
    assert [choose_cores(allowed, 1, block, tmp_path) for block in range(4)] == [[0], [1], [2], [0]]
    assert [choose_cores(allowed, 2, block, tmp_path) for block in range(4)] == [[0, 1], [0, 2], [1, 2], [0, 1]]
    assert [choose_cores(allowed, 3, block, tmp_path) for block in range(2)] == [[0, 1, 2]] * 2
    assert choose_cores(allowed, 9, 0, tmp_path) is None
    assert choose_cores({1, 2}, 1, 0, tmp_path) == [1]


def test_a_machine_that_says_nothing_of_its_cores_has_equal_ones(tmp_path: Path) -> None:
    assert choose_cores({4, 6}, 1, 1, tmp_path) == [6]


def test_logical_cores_of_one_physical_core_are_not_taken_together(tmp_path: Path) -> None:
    allowed = machine(tmp_path, ("0,2", {}), ("1,3", {}), ("0,2", {}), ("1,3", {}))
    assert {tuple(choose_cores(allowed, 1, block, tmp_path) or ()) for block in range(4)} == {(0,), (1,)}
    assert choose_cores(allowed, 2, 0, tmp_path) == [0, 1]
    assert choose_cores(allowed, 3, 0, tmp_path) is None
    assert choose_cores(allowed, 4, 0, tmp_path) == [0, 1, 2, 3]


@pytest.mark.parametrize("speed", ["cpu_capacity", "cpufreq/cpuinfo_max_freq"])
def test_the_fast_cores_of_a_board_are_taken_as_far_as_they_go(tmp_path: Path, speed: str) -> None:
    slow, fast = {speed: 500}, {speed: 1024}
    allowed = machine(tmp_path, ("0", slow), ("1", slow), ("2", fast), ("3", fast))
    assert {tuple(choose_cores(allowed, 1, block, tmp_path) or ()) for block in range(8)} == {(2,), (3,)}
    assert choose_cores(allowed, 2, 5, tmp_path) == [2, 3]
    assert [choose_cores(allowed, 3, block, tmp_path) for block in range(3)] == [[2, 3, 0], [2, 3, 1], [2, 3, 0]]
    assert choose_cores(allowed, 4, 0, tmp_path) == [2, 3, 0, 1]  # the first is for what runs on one thread


several = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine has one core")


@several
def test_a_process_stays_on_the_cores_that_it_took() -> None:
    program = """
import json, os, sys
from mggc_edge.benchmarks.agent.cores import take_cores
before = sorted(os.sched_getaffinity(0))
print(json.dumps([before, take_cores(1, int(sys.argv[1])), sorted(os.sched_getaffinity(0))]))
"""
    found = []
    for block in "01":
        command = [sys.executable, "-c", program, block]
        before, taken, after = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert taken == after
        assert set(taken) < set(before)
        found += taken
    assert len(set(found)) == 2


def tied(monkeypatch: pytest.MonkeyPatch, cores: list[int], ran: dict[int, int]) -> dict[int, set[int]]:
    """What `spread` ties the threads to, 0 for the one that calls, whose time is given under that number as well."""
    found: dict[int, set[int]] = {}
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, chosen: found.update({thread: chosen}))
    own = threading.get_native_id()
    spread(cores, {thread or own: ns for thread, ns in ran.items()})
    return found


def test_the_threads_that_compute_get_a_core_each(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tied(monkeypatch, [1, 4, 5], {11: 70, 12: 0, 0: 90, 13: 80, 14: 3})
    assert found == {0: {1}, 13: {4}, 11: {5}, 14: {4, 5}, 12: {4, 5}}


def test_a_thread_that_is_not_known_to_have_run_shares_the_cores_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tied(monkeypatch, [0, 1, 2], {0: 90, 7: 0}) == {0: {0}, 7: {1, 2}}


@pytest.mark.parametrize(
    ("cores", "ran"),
    [([3], {0: 90, 7: 80}), ([0, 1], {0: 90}), ([0, 1], {7: 95})],
    ids=["one core", "no helper", "nothing is known"],
)
def test_threads_are_left_alone_where_they_would_be_in_the_way(
    monkeypatch: pytest.MonkeyPatch, cores: list[int], ran: dict[int, int]
) -> None:
    assert tied(monkeypatch, cores, ran) == {}


def test_helpers_that_are_waited_for_may_use_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tied(monkeypatch, [0, 1], {0: 20, 7: 95}) == {0: {0, 1}, 7: {0, 1}}


def test_a_thread_that_has_ended_leaves_the_others_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[int, set[int]] = {}

    def tie(thread: int, chosen: set[int]) -> None:
        if thread == 8:
            raise ProcessLookupError
        found[thread] = chosen

    monkeypatch.setattr(os, "sched_setaffinity", tie)
    spread([0, 1, 2], {threading.get_native_id(): 90, 8: 80, 7: 70})
    assert found == {0: {0}, 7: {2}}


def test_a_system_that_does_not_let_a_thread_choose_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    spread([0, 1], {threading.get_native_id(): 90, 7: 80})


def test_how_long_this_thread_and_others_ran_is_known() -> None:
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    before = running_times()
    end = time.thread_time_ns() + 20_000_000
    while time.thread_time_ns() < end:
        pass
    after = running_times()
    ended.set()
    other.join()
    own = threading.get_native_id()
    assert after[own] - before[own] >= 20_000_000
    assert after[other.native_id or 0] - before[other.native_id or 0] < 20_000_000


@several
@pytest.mark.slow  # beside other busy processes a thread that wants to compute may look like one that waits
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_threads_of_an_engine_compute_on_cores_of_their_own(tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    model = Workload("a", convolutions(tmp_path / "a.onnx", 16, (1, 3, 128, 128)), runtime=runtime)
    seen: dict[int, Counter[frozenset[int]]] = {}
    ran: Counter[int] = Counter()
    worker = start_worker(model)
    try:
        opened = worker.ask(open_request(model, str(model.path), 2, 0, block=0), 60)
        worker.ask({"do": "warm", "min_runs": 4, "min_ns": 100_000_000, "max_ns": 1_000_000_000}, 60)
        tasks = Path(f"/proc/{worker._child.process.pid}/task")  # type: ignore[attr-defined]
        steady = threading.Thread(target=worker.ask, args=({"do": "steady", "ns": 600_000_000}, 60))
        steady.start()
        while steady.is_alive():
            for task in tasks.iterdir():
                if (task / "stat").read_text().rpartition(")")[2].split()[0] == "R":
                    ran[int(task.name)] += 1
                    seen.setdefault(int(task.name), Counter())[frozenset(os.sched_getaffinity(int(task.name)))] += 1
            time.sleep(0.002)
        steady.join()
    finally:
        worker.end()
    busiest = [thread for thread, _ in ran.most_common(2)]
    usual = [seen[thread].most_common(1)[0][0] for thread in busiest]
    assert sorted(map(sorted, usual)) == [[core] for core in sorted(opened["cores"])]
