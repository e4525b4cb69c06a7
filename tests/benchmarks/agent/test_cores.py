"""Which cores the processes of a block are kept on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mggc_edge.benchmarks.agent.cores import CORES, choose_cores

Core = tuple[str, dict[str, int]]


def machine(root: Path, *cores: Core) -> set[int]:
    """A machine whose cores have these siblings and speeds."""
    for number, (siblings, speeds) in enumerate(cores):
        for name, text in {"topology/thread_siblings_list": siblings, **speeds}.items():
            path = root / CORES / f"cpu{number}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
    return set(range(len(cores)))


def test_blocks_take_the_cores_in_turn_and_none_is_chosen_where_all_are_needed(tmp_path: Path) -> None:
    allowed = machine(tmp_path, ("0", {}), ("1", {}), ("2", {}))
    assert [choose_cores(allowed, 1, block, tmp_path) for block in range(4)] == [[0], [1], [2], [0]]
    assert [choose_cores(allowed, 2, block, tmp_path) for block in range(4)] == [[0, 1], [0, 2], [1, 2], [0, 1]]
    assert choose_cores(allowed, 3, 0, tmp_path) is None
    assert choose_cores(allowed, 9, 0, tmp_path) is None
    assert choose_cores({1, 2}, 1, 0, tmp_path) == [1]


def test_a_machine_that_says_nothing_of_its_cores_has_equal_ones(tmp_path: Path) -> None:
    assert choose_cores({4, 6}, 1, 1, tmp_path) == [6]


def test_logical_cores_of_one_physical_core_are_not_taken_together(tmp_path: Path) -> None:
    allowed = machine(tmp_path, ("0,2", {}), ("1,3", {}), ("0,2", {}), ("1,3", {}))
    assert {tuple(choose_cores(allowed, 1, block, tmp_path) or ()) for block in range(4)} == {(0,), (1,)}
    assert choose_cores(allowed, 2, 0, tmp_path) is None  # there are two: the system keeps them apart by itself


@pytest.mark.parametrize("speed", ["cpu_capacity", "cpufreq/cpuinfo_max_freq"])
def test_the_fast_cores_of_a_board_are_taken_as_far_as_they_go(tmp_path: Path, speed: str) -> None:
    slow, fast = {speed: 500}, {speed: 1024}
    allowed = machine(tmp_path, ("0", slow), ("1", slow), ("2", fast), ("3", fast))
    assert {tuple(choose_cores(allowed, 1, block, tmp_path) or ()) for block in range(8)} == {(2,), (3,)}
    assert choose_cores(allowed, 2, 5, tmp_path) == [2, 3]
    assert [choose_cores(allowed, 3, block, tmp_path) for block in range(3)] == [[0, 2, 3], [1, 2, 3], [0, 2, 3]]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine has one core")
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
