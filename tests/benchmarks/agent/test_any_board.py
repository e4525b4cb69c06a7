"""What holds on every board: on six that are made of files, and on this machine where it is a Jetson.

`make test-jetson` runs this file on a board. It needs pytest alone; clocks are locked and put back where it is root.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.agent import clocks, heat, jetson, power
from mggc_edge.benchmarks.agent.board import BoardSession
from tests.benchmarks.agent.boards import KINDS, make

THIS = "this machine"


@pytest.fixture(scope="module", params=[*KINDS, THIS])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of a board lie."""
    if request.param != THIS:
        return make(tmp_path_factory.mktemp(request.param), request.param).root
    if jetson.board() is None:
        pytest.skip("this machine is no Jetson")
    return Path("/")


@pytest.fixture
def told(root: Path) -> dict[str, Any]:
    return BoardSession(root).answers["board"]()


def test_a_board_knows_what_it_is(told: dict[str, Any]) -> None:
    board = told["board"]
    assert board["soc"] in jetson.SOCS
    assert board["compute"] == jetson.SOCS[board["soc"]]
    assert board["model"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", board["l4t"])
    assert board["jetpack"][0] in "4567"
    assert board["models"] == (board["soc"] not in ("tegra210", "tegra186") and board["jetpack"][0] != "4")


def test_memory_is_one_pool(told: dict[str, Any]) -> None:
    memory = told["memory"]
    assert 2**30 < memory["available_bytes"] < memory["total_bytes"] < 2**40


def test_rails_have_plausible_power_and_a_total(told: dict[str, Any]) -> None:
    rails = told["power"]["watts"]
    if not rails:
        pytest.skip("this board has no monitor that can be read")
    assert all(-2 < watts < 250 for watts in rails.values())
    total = told["power"]["total"]
    assert total["kind"] in ("input", "sum")
    # What is fed through the input is not more than the input, but for what the monitor cannot resolve.
    parts = [watts for name, watts in rails.items() if name not in total["rails"]]
    assert sum(rails[name] for name in total["rails"]) > max([0.0, *parts]) - 0.2


def test_power_is_sampled_ten_times_a_second_or_faster(root: Path) -> None:
    source = power.source(root)
    if source is None:
        pytest.skip("this board has no monitor that can be read")
    start = time.perf_counter_ns()
    with power.Sampler(source, 20.0) as sampler:
        time.sleep(0.6)
    found = power.window(sampler.samples, start, time.perf_counter_ns())
    assert found.samples / found.seconds >= 10
    assert found.gap_seconds < 0.2
    assert set(found.mean_mw) == set(source.rails)
    assert found.total_mw is not None


def test_temperatures_are_those_of_a_chip_that_runs(root: Path) -> None:
    zones = heat.temperatures(root)
    hottest = heat.junction(zones)
    assert hottest is not None
    assert 5 < hottest < 115
    assert all(-40 <= value <= 150 for value in zones.values())


def test_what_shows_throttling_can_be_read(root: Path) -> None:
    look = heat.look(root)
    assert look["cooling"]
    assert look["cpu_most_khz"]
    assert all(clock > 10_000 for clock in look["cpu_khz"].values())
    assert all(isinstance(reason, str) for reason in heat.throttled(look, heat.look(root)))


def test_the_power_mode_is_known(root: Path) -> None:
    mode = clocks.power_mode(root)
    assert mode is not None
    assert mode["name"] or mode["id"] is not None


def test_clocks_are_locked_and_put_back(root: Path) -> None:
    if root == Path("/") and os.geteuid() != 0:
        pytest.skip("clocks are locked by root alone")
    before = clocks.limits(root)
    lock = clocks.Lock(root)
    lock.take()
    try:
        assert heat.locked(heat.look(root))["cpu"] is True
    finally:
        assert lock.give_back() == []
    lowest = {name: value for name, value in clocks.limits(root).items() if not name.endswith("max_freq")}
    assert lowest == {name: value for name, value in before.items() if name in lowest}
