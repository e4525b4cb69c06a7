"""Power, energy and memory of a model alone, on boards whose clock is moved by hand, and once for real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks import energy
from mggc_edge.benchmarks.agent.child import MAX_LINE_BYTES
from mggc_edge.benchmarks.agent.surroundings import Surroundings
from mggc_edge.benchmarks.board import board_facts, power_of
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.workload import Workload, pictures_of
from mggc_edge.errors import DeviceError
from mggc_edge.machine import this_machine
from tests.benchmarks.agent.boards import COOLING, INA, make
from tests.benchmarks.bench_helpers import Clock, FakeWorker, convolutions

Watts = dict[str, float]
IDLE: Watts = {"VDD_IN": 5.0, "VDD_CPU_GPU_CV": 0.5, "VDD_SOC": 1.5}
BUSY: Watts = {"VDD_IN": 15.0, "VDD_CPU_GPU_CV": 8.0, "VDD_SOC": 2.5}


class Board(Surroundings):
    """A board with a clock moved by hand: it takes `idle`, and `busy` from the moment a model is opened until it ends.

    Attributes:
        lag: seconds for which its monitor still says what was before.
        hz: samples a second.
    """

    def __init__(self, root: Path, kind: str = "orin-nano", idle: Watts = IDLE, busy: Watts = BUSY) -> None:
        super().__init__(this_machine, root)
        self.tree = make(root, kind)
        self.clock, self.log, self.hz, self.lag = Clock(), list[str](), 20.0, 0.0
        self._idle, self._busy, self._changes = idle, busy, [(0.0, idle)]
        self._since: float | None = None
        self.answers["power_start"] = self._start_power
        self.answers["power_stop"] = self._stop_power

    def sleep(self, seconds: float) -> None:
        self.log.append(f"sleep {seconds:g}")
        self.clock.now += seconds

    def start(self, model: Workload) -> FakeWorker:
        board = self

        class Runner(FakeWorker):
            def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
                if request["do"] == "open":
                    board._changes.append((board.clock.now, board._busy))
                    board.tree.write("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable:   3000 kB\n")
                return super().ask(request, timeout)

            def end(self) -> None:
                board._changes.append((board.clock.now, board._idle))
                super().end()

        return Runner(self.clock, lambda _: 25_000_000, self.log, model.name)

    def measured(self, **changes: Any) -> energy.Alone:
        self.tree.write("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable:   7000 kB\n")
        path = self.tree.root / "a.onnx"
        path.write_bytes(b"a")
        arguments: dict[str, Any] = {"threads": 1, "seconds": 10.0, "idle_seconds": 5.0, **changes}
        device = LocalDevice(self.start, self)
        (found,) = energy.measure_alone([Workload("a", path)], device, sleep=self.sleep, clock=self.clock, **arguments)
        return found

    def _start_power(self) -> dict[str, Any]:
        self._since = self.clock.now
        return {"rails": list(self._idle)}

    def _stop_power(self) -> dict[str, Any]:
        if self._since is None:
            return {"rails": [], "samples": []}
        count = int((self.clock.now - self._since) * self.hz + 1e-6) + 1
        moments = [self._since + index / self.hz for index in range(count)]
        return {"rails": list(self._idle), "samples": [[round(at * 1e9), *self._at(at)] for at in moments]}

    def _at(self, moment: float) -> list[float]:
        watts = next(state for since, state in reversed(self._changes) if since <= max(0.0, moment - self.lag))
        return [1000 * value for value in watts.values()]


def test_energy_is_power_times_the_time_of_a_picture_with_the_idle_board_apart(tmp_path: Path) -> None:
    found = Board(tmp_path).measured()
    power = found.power
    assert power is not None
    # 15 W for 25 ms a picture; 5 W of that the idle board takes too.
    assert power["energy_mj_per_picture"] == pytest.approx(375.0)
    assert power["above_idle_mj_per_picture"] == pytest.approx(250.0)
    assert (power["mean_w"], power["idle_w"]) == (pytest.approx(15.0), pytest.approx(5.0))
    assert power["total"] == {
        "kind": "input", "rails": ["VDD_IN"], "text": "VDD_IN: input of the module, through which all of it is fed",
    }  # fmt: skip
    # The parts are there, and in no sum.
    assert power["rails"]["VDD_CPU_GPU_CV"] == {
        "mean_w": pytest.approx(8.0), "idle_w": pytest.approx(0.5), "energy_mj_per_picture": pytest.approx(200.0),
        "in_total": False,
    }  # fmt: skip
    assert (power["pictures"], power["seconds"], power["idle_seconds"]) == (400, 10.0, 5.0)
    assert power["hz"] == pytest.approx(20.0, rel=0.02)
    assert power["remarks"] == []
    assert len(power["trace"]["busy"]["ns"]) == len(power["trace"]["busy"]["mw"]["VDD_IN"]) == 201


def test_memory_is_what_the_model_takes_of_the_pool(tmp_path: Path) -> None:
    assert Board(tmp_path).measured().pool_bytes == 4000 * 1024


def test_agx_orin_has_a_sum_of_rails_that_is_called_one(tmp_path: Path) -> None:
    idle = {"VDD_GPU_SOC": 3.0, "VDD_CPU_CV": 1.0, "VIN_SYS_5V0": 5.0, "VDDQ_VDD2_1V8AO": 0.4}
    busy = {"VDD_GPU_SOC": 23.0, "VDD_CPU_CV": 2.0, "VIN_SYS_5V0": 7.0, "VDDQ_VDD2_1V8AO": 1.1}
    power = Board(tmp_path, "agx-orin", idle, busy).measured().power
    assert power is not None
    assert power["total"]["kind"] == "sum"
    assert power["mean_w"] == pytest.approx(32.0)  # without the memory, which VIN_SYS_5V0 feeds
    assert power["rails"]["VDDQ_VDD2_1V8AO"]["in_total"] is False


def test_rails_of_which_nothing_is_known_have_no_total(tmp_path: Path) -> None:
    power = Board(tmp_path, idle={"VDD_A": 1.0}, busy={"VDD_A": 2.0}).measured().power
    assert power is not None
    assert (power["total"]["kind"], power["mean_w"], power["energy_mj_per_picture"]) == (None, None, None)
    assert power["rails"]["VDD_A"]["energy_mj_per_picture"] == pytest.approx(50.0)


def test_above_idle_is_not_known_where_other_rails_were_read_at_rest(tmp_path: Path) -> None:
    rails, sums = (
        {"VIN": 20_000.0, "VDD_GPU": 12_000.0},
        {"VDD_GPU": 5_000.0, "VDD_CPU_SOC_MSS": 4_000.0, "VIN_SYS_5V0": 2_000.0},
    )
    idle, busy = ([(index * 10**8, dict(values)) for index in range(201)] for values in (sums, rails))
    found = energy.power_json([], idle, busy, (0, 20 * 10**9), 100)
    assert found is not None
    assert (found["mean_w"], found["above_idle_mj_per_picture"]) == (pytest.approx(20.0), None)
    assert found["remarks"] == ["other rails could be read while nothing ran, so that what is above idle is not known"]


def test_what_a_monitor_still_says_of_before_does_not_count(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.lag = 0.45  # beyond the 75 ms of opening and warm-up; the monitor says that it averages over 0.43 s
    power = board.measured().power
    assert power is not None
    assert power["mean_w"] == pytest.approx(15.0)


def test_what_a_monitor_still_says_of_the_model_before_is_not_idle(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.lag = 0.35
    (tmp_path / "a.onnx").write_bytes(b"a")
    models = [Workload(name, tmp_path / "a.onnx") for name in "ab"]
    found = energy.measure_alone(
        models, LocalDevice(board.start, board), threads=1, seconds=10.0, idle_seconds=5.0, sleep=board.sleep,
        clock=board.clock,
    )  # fmt: skip
    assert [one.power["idle_w"] for one in found if one.power is not None] == pytest.approx([5.0, 5.0])


def test_a_device_that_is_left_alone_for_long_is_asked_something_now_and_then(tmp_path: Path) -> None:
    board = Board(tmp_path)
    heat = board.answers["heat"]

    def asked() -> dict[str, Any]:
        board.log.append("heat")
        return heat()

    board.answers["heat"] = asked
    power = board.measured(idle_seconds=75.0).power
    waited = [word for word in board.log if word == "heat" or word.startswith("sleep")]
    assert waited[2:7] == ["sleep 30", "heat", "sleep 30", "heat", "sleep 15"]  # after a look at first, and one at heat
    assert power is not None
    assert power["idle_seconds"] == pytest.approx(75.0)


@pytest.mark.parametrize(
    ("inputs", "pictures"), [([], 1), ([[4, 3, 8, 8]], 4), ([[3, 8, 8]], 1), ([[2, 8, 8, 3], [5, 1, 1, 1]], 2)]
)
def test_a_picture_without_a_batch_is_one_picture(inputs: list[list[int]], pictures: int) -> None:
    assert pictures_of([{"shape": shape} for shape in inputs]) == pictures


def test_the_longest_samples_of_power_fit_into_a_line() -> None:
    sample = [10**15, *[3856.3200000000002] * 7]
    assert len(json.dumps({"samples": [sample] * (20 * 600)})) < MAX_LINE_BYTES


def test_few_samples_are_said_to_be_few_and_slow_ones_to_be_slow(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hz = 4.0
    power = board.measured(seconds=5.0).power
    assert power is not None
    assert power["remarks"] == [
        "19 samples of power are few: raise bench.energy_seconds",
        "the rails could not be read for 0.25 s at a time",
    ]


def test_a_board_whose_rails_cannot_be_read_has_no_power(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.answers["power_start"] = lambda: {"rails": []}
    found = board.measured()
    assert (found.power, found.pool_bytes) == (None, 4000 * 1024)


def test_a_board_that_is_still_hot_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    board = Board(tmp_path)
    temperatures = iter([50_000, 90_000, 70_000, 52_000])
    heat = board.answers["heat"]

    def hotter() -> dict[str, Any]:
        board.tree.write(f"{COOLING}/thermal_zone8/temp", next(temperatures, 52_000))
        return heat()

    board.answers["heat"] = hotter
    board.measured()
    assert board.log[:3] == ["sleep 1", "sleep 1", "sleep 5"]
    board.log.clear()
    temperatures = iter([50_000, *[99_000] * 1000])
    board.measured()
    assert board.log[:60] == ["sleep 1"] * 60
    assert board.log[60] == "sleep 5"


def test_clocks_that_were_lowered_meanwhile_are_named(tmp_path: Path) -> None:
    board = Board(tmp_path)
    heat, asked = board.answers["heat"], list[int]()

    def protected() -> dict[str, Any]:
        asked.append(len(asked))
        board.tree.write(f"{INA}/hwmon2/oc3_event_cnt", 27 + 5 * (len(asked) > 4))
        return heat()

    board.answers["heat"] = protected
    found = board.measured()
    said = "the supply was protected from over-current or under-voltage (oc3, 5 times)"
    assert found.throttled == (said,)
    assert found.power is not None
    assert found.power["throttled"] == [said]


def test_another_machine_has_no_power_and_nothing_is_run_for_it(tmp_path: Path) -> None:
    device = LocalDevice(surroundings=Surroundings(this_machine, tmp_path))
    found = energy.measure_alone([Workload("a", tmp_path / "a")], device, threads=1, seconds=1, idle_seconds=1)
    assert found == [energy.Alone()]


NONSENSE: dict[str, Callable[[Board], None]] = {
    "board": lambda board: board.answers.update(board=lambda: {"board": {}, "power": None}),
    "heat": lambda board: board.answers.update(heat=lambda: {"look": 1}),
    "power_stop": lambda board: board.answers.update(power_stop=lambda: {"rails": ["a"], "samples": [[1, 2, 3]]}),
    "order": lambda board: board.answers.update(power_stop=lambda: {"rails": ["a"], "samples": [[2, 2], [1, 2]]}),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_what_makes_no_sense_is_an_error_of_the_device(tmp_path: Path, what: str) -> None:
    board = Board(tmp_path)
    NONSENSE[what](board)
    with pytest.raises(DeviceError, match=r"what the device tells of its .* makes no sense"):
        board.measured()


def test_it_works_with_real_processes_and_files(tmp_path: Path) -> None:
    tree = make(tmp_path / "board", "orin-nx")
    models = [Workload("a", convolutions(tmp_path / "a.onnx"))]
    with LocalDevice(surroundings=Surroundings(this_machine, tree.root)) as device:
        facts = board_facts(device)
        assert facts is not None
        assert (facts["module"], facts["power_mode"]) == ("Jetson Orin NX 16GB", {"name": "MAXN_SUPER", "id": 2})
        assert power_of(device) == []
        report = measure(models, threads=1, pairs=2, processes=2, warmup_seconds=0.01, device=device)
        found = energy.measure_alone(models, device, threads=1, seconds=0.6, idle_seconds=0.2)
    document = energy.with_power(report, found).to_json()
    (run,) = document["runs"]
    latency_s = run["power"]["seconds"] / run["power"]["pictures"]
    assert run["power"]["mean_w"] == pytest.approx(7.43552)  # what the files of the board say, all the time
    assert run["power"]["energy_mj_per_picture"] == pytest.approx(7435.52 * latency_s)
    assert run["power"]["above_idle_mj_per_picture"] == pytest.approx(0.0, abs=1e-9)
    assert run["power"]["rails"].keys() == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}
    assert run["power"]["hz"] >= 10
    assert run["memory"]["pool_bytes"] == 0  # the files say the same before and after
    assert run["memory"]["rss_peak_bytes"] > 2**20
