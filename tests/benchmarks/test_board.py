"""Blocks in which a board lowered its clocks, and clocks that are locked while it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.agent import clocks, heat
from mggc_edge.benchmarks.agent.surroundings import Moment, Surroundings
from mggc_edge.benchmarks.board import locked_clocks
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.cli.bench_pages import markdown
from mggc_edge.errors import DeviceError
from mggc_edge.machine import this_machine
from tests.benchmarks.agent.boards import INA, Tree, make
from tests.benchmarks.bench_helpers import Clock, FakeWorker


class Board(Surroundings):
    """A quiet board whose heat changes by `hotter(look number)` before it is looked at; a block has two looks."""

    def __init__(self, tree: Tree, hotter: Callable[[int], None]) -> None:
        super().__init__(this_machine, tree.root)
        self.answers["moment"] = lambda: asdict(Moment(0.0, None, None, (), None))
        self.answers["others"] = lambda: {"running": 0, "clock_khz": None}
        self._looks, self._hotter, self._look = 0, hotter, self.answers["heat"]
        self.answers["heat"] = self._heat_after

    def _heat_after(self) -> dict[str, Any]:
        self._hotter(self._looks)
        self._looks += 1
        return self._look()


def measured(tmp_path: Path, hotter: Callable[[Tree, int], None]) -> BenchmarkReport:
    """Two models, b twice as fast as a, in 5 processes with 4 pairs each."""
    tree, clock = make(tmp_path / "board", "orin-nano"), Clock()
    models = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.onnx").write_bytes(name.encode())
        models.append(Workload(name, tmp_path / f"{name}.onnx"))
    latency = {"a": 20_000_000, "b": 10_000_000}
    device = LocalDevice(
        lambda model: FakeWorker(clock, lambda run: latency[model.name] + run % 3, [], model.name),
        Board(tree, lambda look: hotter(tree, look)),
    )
    return measure(models, threads=1, pairs=20, processes=5, max_seconds=1000.0, device=device, clock=clock)


def test_a_board_that_stays_cool_has_every_pair(tmp_path: Path) -> None:
    report = measured(tmp_path, lambda tree, look: None)
    comparison = report.comparisons[0]
    assert (comparison.left_out, comparison.throttled, comparison.verdict) == (0, 0, "faster")
    assert report.context["jetson"] == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"


def test_a_block_in_which_clocks_were_lowered_is_void(tmp_path: Path) -> None:
    # The second look of the second block finds 3 more events than the first.
    report = measured(tmp_path, lambda tree, look: tree.write(f"{INA}/hwmon2/oc3_event_cnt", 27 + 3 * (look >= 3)))
    said = "the supply was protected from over-current or under-voltage (oc3, 3 times)"
    for run in report.runs:
        assert [process.throttled for process in run.processes] == [(), (said,), (), (), ()]
        assert [len(process.used) for process in run.processes] == [4, 0, 4, 4, 4]
        assert "throttled" not in run.warnings
    comparison = report.comparisons[0]
    assert (comparison.pairs, comparison.left_out, comparison.throttled, comparison.verdict) == (16, 4, 4, "faster")
    document = report.to_json()
    assert document["comparisons"][0]["pairs_throttled"] == 4
    assert document["runs"][0]["processes"][1]["throttled"] == [said]
    text = "\n".join(markdown(report))
    assert "In 4 of 20 pairs the board had lowered its clocks: they were left out." in text
    assert "Other processes" not in text


def test_a_board_that_throttles_most_of_the_time_gets_no_verdict(tmp_path: Path) -> None:
    report = measured(tmp_path, lambda tree, look: tree.cool("cpufreq-cpu0", int(look >= 3)))
    comparison = report.comparisons[0]
    assert (comparison.left_out, comparison.verdict) == (0, "inconclusive")
    assert comparison.disturbed == ("throttled",)
    assert all(run.warnings == ("throttled",) for run in report.runs)
    assert [process.throttled for process in report.runs[0].processes] == [(), *[("cpufreq-cpu0 is on",)] * 4]
    text = "\n".join(markdown(report))
    assert "take a lower power mode (nvpmodel -m), and measure again" in text


# Clocks.


def locked(tree: Tree) -> bool:
    return heat.locked(heat.look(tree.root))["cpu"] is True


def test_clocks_are_locked_while_it_is_measured_and_then_put_back(tmp_path: Path) -> None:
    tree, said = make(tmp_path, "agx-orin"), list[str]()
    before = clocks.limits(tmp_path)
    with LocalDevice(surroundings=Surroundings(this_machine, tmp_path)) as device:
        with locked_clocks(device, said.append):
            assert locked(tree)
            assert device.tell("lock_clocks") == {"locked": True, "remarks": []}  # asked again, they are
        assert clocks.limits(tmp_path) == before
    assert said == []
    assert len(tree.calls()) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_clocks_are_put_back_after_an_exception(tmp_path: Path, error: type[BaseException]) -> None:
    tree = make(tmp_path, "orin-nx")
    before = clocks.limits(tmp_path)

    def stopped() -> None:
        with (
            LocalDevice(surroundings=Surroundings(this_machine, tmp_path)) as device,
            locked_clocks(device, list[str]().append),
        ):
            assert locked(tree)
            raise error

    with pytest.raises(error):
        stopped()
    assert clocks.limits(tmp_path) == before


def test_a_device_that_is_left_puts_them_back_though_nobody_asks(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    before = clocks.limits(tmp_path)
    with LocalDevice(surroundings=Surroundings(this_machine, tmp_path)) as device:
        assert device.tell("lock_clocks")["locked"] is True
        assert locked(tree)
    assert clocks.limits(tmp_path) == before


def test_clocks_that_cannot_be_put_back_are_told_of(tmp_path: Path) -> None:
    tree, said = make(tmp_path, "orin-nano"), list[str]()
    with LocalDevice(surroundings=Surroundings(this_machine, tmp_path)) as device, locked_clocks(device, said.append):
        tree.write("fails", "--restore 1")
    (one,) = said
    assert one == (
        "warning: the clocks could not be put back (Error: Failed to --restore): sudo jetson_clocks --restore "
        f"{tmp_path}/run/mggc-edge/clocks.conf, or restart the board"
    )


def test_what_does_not_lock_is_an_error_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = LocalDevice(surroundings=Surroundings(this_machine, tmp_path))

    def refusal() -> DeviceError:
        with pytest.raises(DeviceError) as caught, locked_clocks(device, list[str]().append):
            pass
        return caught.value

    assert refusal().message == "--lock-clocks needs jetson_clocks, which is not on the device"
    assert refusal().hint == "leave --lock-clocks out: only a Jetson with NVIDIA's own Linux has it"
    make(tmp_path, "orin-nano").write("fails", "lock 1")
    assert refusal().message == "jetson_clocks fails: Error: Failed to lock"
    (tmp_path / "fails").unlink()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))  # without sudo
    assert refusal().message == "--lock-clocks needs root on the device, and sudo does not give it"
