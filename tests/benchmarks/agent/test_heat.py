"""Temperatures of six boards, and what shows that they throttle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mggc_edge.benchmarks.agent import heat
from tests.benchmarks.agent.boards import CPU, INA, Tree, every_board, make

JUNCTIONS = {
    "nano": 41.5, "xavier-nx": 35.5, "orin-nano": 51.093, "orin-nx": 51.093, "agx-orin": 51.093, "thor": 55.1,
}  # fmt: skip


@every_board
def test_the_hottest_place_of_the_chip_is_found(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    zones = heat.temperatures(tmp_path)
    assert heat.junction(zones) == JUNCTIONS[name]


def test_zones_of_units_that_are_off_are_left_out(tmp_path: Path) -> None:
    make(tmp_path / "a", "orin-nano")
    zones = heat.temperatures(tmp_path / "a")
    assert "cv0-thermal" not in zones
    assert zones["cpu-thermal"] == 51.093
    make(tmp_path / "b", "xavier-nx")  # which says -256
    assert "GPU-therm" not in heat.temperatures(tmp_path / "b")
    assert (heat.temperatures(tmp_path), heat.junction({})) == ({}, None)


@every_board
def test_a_board_at_rest_does_not_throttle(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    look = heat.look(tmp_path)
    assert heat.throttled(look, heat.look(tmp_path)) == []
    assert look["cooling"], "there are cooling devices"
    assert "pwm-fan" not in look["cooling"]
    assert "hot-surface-alert" not in look["cooling"]
    assert heat.locked(look) == {"cpu": False, "gpu": False}
    assert json.loads(json.dumps(look)) == look


def _lower_cpu(tree: Tree) -> None:
    tree.write(f"{CPU}/policy0/scaling_max_freq", 1_190_400)


CASES: dict[str, tuple[str, Callable[[Tree], None], str]] = {
    "a cap of the processor": ("orin-nano", lambda tree: tree.cool("cpufreq-cpu0", 3), "cpufreq-cpu0 is on"),
    "a cap of the GPU": ("agx-orin", lambda tree: tree.cool("devfreq-17000000.gpu", 1), "devfreq-17000000.gpu is on"),
    "Thor's GPU": ("thor", lambda tree: tree.cool("devfreq-gpu-gpc-0", 18), "devfreq-gpu-gpc-0 is on"),
    "an alert": ("xavier-nx", lambda tree: tree.cool("gpu-throttle-alert", 1), "gpu-throttle-alert is on"),
    "the old Nano": ("nano", lambda tree: tree.cool("gpu-balanced", 1), "gpu-balanced is on"),
    "a trip that is over": (
        "orin-nx",
        lambda tree: tree.write("sys/devices/platform/cpu-throttle-alert/thermal_trip_event", 2),
        "cpu grew too hot (2 times)",
    ),
    "over-current": (
        "orin-nano",
        lambda tree: tree.write(f"{INA}/hwmon2/oc3_event_cnt", 30),
        "the supply was protected from over-current or under-voltage (oc3, 3 times)",
    ),
    "a lower limit": ("orin-nx", _lower_cpu, "the highest clock of policy0 fell from 1984 to 1190 MHz"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_throttling_shows(tmp_path: Path, case: str) -> None:
    name, change, said = CASES[case]
    tree = make(tmp_path, name)
    before = heat.look(tmp_path)
    change(tree)
    assert heat.throttled(before, heat.look(tmp_path)) == [said]


def test_a_cap_that_was_on_when_a_block_began_voids_it(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    tree.cool("cpufreq-cpu4", 2)
    before = heat.look(tmp_path)
    tree.cool("cpufreq-cpu4", 0)
    assert heat.throttled(before, heat.look(tmp_path)) == ["cpufreq-cpu4 was on"]


def test_a_protection_that_lowers_nothing_is_not_counted(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    tree.write(f"{INA}/hwmon2/oc3_throt_en", 0)
    before = heat.look(tmp_path)
    tree.write(f"{INA}/hwmon2/oc3_event_cnt", 90)
    assert heat.throttled(before, heat.look(tmp_path)) == []


def test_a_locked_clock_that_runs_lower_has_been_lowered(tmp_path: Path) -> None:
    tree = make(tmp_path, "thor")
    for file in ("scaling_min_freq", "scaling_cur_freq"):
        tree.write(f"{CPU}/policy0/{file}", 2_601_000)
    look = heat.look(tmp_path)
    assert heat.locked(look) == {"cpu": True, "gpu": False}
    assert heat.throttled(look, look) == []
    tree.write(f"{CPU}/policy0/cpuinfo_cur_freq", 2_590_000)  # within 1 %
    assert heat.throttled(look, heat.look(tmp_path)) == []
    # What was asked for is 2601 MHz all the same: root alone reads what it really is.
    tree.write(f"{CPU}/policy0/cpuinfo_cur_freq", 649_000)
    assert heat.throttled(look, heat.look(tmp_path)) == ["policy0 is locked to 2601 MHz and runs at 649"]


def test_a_clock_that_is_free_may_fall(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    tree.write(f"{CPU}/policy0/scaling_cur_freq", 1_728_000)
    before = heat.look(tmp_path)
    tree.write(f"{CPU}/policy0/scaling_cur_freq", 729_600)
    assert heat.throttled(before, heat.look(tmp_path)) == []


def test_what_is_no_jetson_shows_nothing(tmp_path: Path) -> None:
    look = heat.look(tmp_path)
    assert set(map(len, look.values())) == {0}
    assert heat.throttled(look, look) == []
    assert heat.locked(look) == {"cpu": None, "gpu": None}
