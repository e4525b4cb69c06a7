"""Rails of six boards and what they mean, samples in time, and energy."""

from __future__ import annotations

import threading
import time
from itertools import islice
from pathlib import Path

import pytest

from mggc_edge.benchmarks.agent import power
from tests.benchmarks.agent.boards import INA, every_board, make

SECOND = 1_000_000_000
RAILS = {  # in W
    "nano": {"POM_5V_IN": 3.478, "POM_5V_GPU": 0.840, "POM_5V_CPU": 0.643},
    "xavier-nx": {"VDD_IN": 3.85632, "VDD_CPU_GPU_CV": 1.324992, "VDD_SOC": 0.9872},
    "orin-nano": {"VDD_IN": 7.43552, "VDD_CPU_GPU_CV": 1.647872, "VDD_SOC": 1.728256},
    "orin-nx": {"VDD_IN": 7.43552, "VDD_CPU_GPU_CV": 1.647872, "VDD_SOC": 1.728256},
    "agx-orin": {"VDD_GPU_SOC": 3.1744, "VDD_CPU_CV": 1.19136, "VIN_SYS_5V0": 4.86864, "VDDQ_VDD2_1V8AO": 0.39744},
    "thor": {"VDD_GPU": -0.39728, "VDD_CPU_SOC_MSS": 5.9568, "VIN_SYS_5V0": 6.5, "VIN": 20.986},
}
TOTALS = {  # in W: never the sum of an input and its parts
    "nano": ("input", 3.478), "xavier-nx": ("input", 3.85632), "orin-nano": ("input", 7.43552),
    "orin-nx": ("input", 7.43552), "agx-orin": ("sum", 3.1744 + 1.19136 + 4.86864), "thor": ("input", 20.986),
}  # fmt: skip


@every_board
def test_rails_and_their_power_are_read(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    read = {rail.name: rail.read() for rail in power.rails(tmp_path)}
    assert read == pytest.approx({rail: 1000 * watts for rail, watts in RAILS[name].items()})


@every_board
def test_the_total_is_the_input_or_else_a_sum_that_is_called_one(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    read = {rail.name: rail.read() or 0.0 for rail in power.rails(tmp_path)}
    meaning = power.meaning(list(read))
    kind, total = TOTALS[name]
    assert meaning.kind == kind
    assert sum(read[rail] for rail in meaning.rails) == pytest.approx(1000 * total)
    assert ("sum of the rails" in meaning.text) == (kind == "sum")


def test_thor_on_a_carrier_without_a_monitor_has_a_sum_and_unknown_rails_none() -> None:
    assert power.meaning(["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"]).kind == "sum"
    assert power.meaning(["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"]).rails[-1] == "SYS5V"
    assert power.meaning(["VDD_A", "VDD_B"]) == power.Meaning(None, (), power.NO_TOTAL)
    assert power.meaning([]).kind is None


def test_what_the_monitor_averages_over_is_known(tmp_path: Path) -> None:
    make(tmp_path, "orin-nano")
    assert power.rails(tmp_path)[0].to_json() == {
        "name": "VDD_IN", "chip": "ina3221", "interval_ms": 430, "averaged": 512,
    }  # fmt: skip


def test_a_channel_that_is_off_or_cannot_be_read_is_no_rail(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    tree.write(f"{INA}/hwmon1/in2_enable", 0)
    (tmp_path / INA / "hwmon1/curr3_input").write_text("")
    assert [rail.name for rail in power.rails(tmp_path)] == ["VDD_IN"]
    assert power.rails(tmp_path / "nowhere") == []


class FakeClock:
    """A clock in ns that moves when a thread waits on it, as `threading.Event` does."""

    def __init__(self) -> None:
        self.now = 0
        self.waits: list[float] = []

    def __call__(self) -> int:
        return self.now

    def is_set(self) -> bool:
        return False

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += int(seconds * SECOND)
        return False


def test_samples_keep_their_rate_and_make_up_for_nothing(tmp_path: Path) -> None:
    make(tmp_path, "orin-nano")
    clock = FakeClock()
    source = power.Sysfs(power.rails(tmp_path), clock)
    samples = source.samples(20.0, clock)  # type: ignore[arg-type]
    moments = [moment for moment, _ in islice(samples, 4)]
    assert moments == [0, SECOND // 20, SECOND // 10, 3 * SECOND // 20]
    clock.now += 10 * SECOND  # a bus that hung
    late = [moment for moment, _ in islice(samples, 3)]
    assert late[1] - late[0] == late[2] - late[1] == SECOND // 20


def test_a_sampler_takes_samples_in_a_thread_until_it_is_left(tmp_path: Path) -> None:
    tree = make(tmp_path, "agx-orin")
    source = power.source(tmp_path)
    assert isinstance(source, power.Sysfs)
    assert source.rails == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
    start = time.perf_counter_ns()
    with power.Sampler(source, 100.0) as sampler:
        while len(sampler.samples) < 5:
            time.sleep(0.005)
        tree.write(f"{INA}/hwmon3/curr1_input", 1000)
        while sampler.samples[-1][1]["VDD_GPU_SOC"] < 19_000:
            time.sleep(0.005)
    end, taken = time.perf_counter_ns(), list(sampler.samples)
    assert all(start <= moment <= end for moment, _ in taken)
    assert taken[0][1]["VDD_GPU_SOC"] == pytest.approx(3174.4)
    assert taken[-1][1]["VDD_GPU_SOC"] == pytest.approx(19_840)
    time.sleep(0.03)
    assert sampler.samples == taken


@pytest.mark.parametrize("hz", [9.9, 100.1, 0.0])
def test_power_is_sampled_ten_times_a_second_or_faster(tmp_path: Path, hz: float) -> None:
    with pytest.raises(ValueError, match="power is sampled 10 to 100 times a second"):
        power.Sampler(power.Sysfs([]), hz)


def flat(milliwatts: float, count: int, *, step: int = SECOND // 20, start: int = 0) -> list[power.Sample]:
    return [(start + index * step, {"VDD_IN": milliwatts}) for index in range(count)]


def test_constant_power_is_its_own_mean() -> None:
    found = power.window(flat(7000.0, 41), SECOND // 2, 3 * SECOND // 2)
    assert found.mean_mw == pytest.approx({"VDD_IN": 7000.0})
    assert (found.seconds, found.samples) == (1.0, 21)
    assert found.gap_seconds == pytest.approx(0.05)
    assert found.total_mw == pytest.approx(7000.0)


def test_energy_is_the_trapezoidal_integral_between_two_moments() -> None:
    # Power that rises by 1 mW a millisecond: from 100 ms to 900 ms the mean is 500 mW, wherever the samples lie.
    samples = [(int(ms * 1e6), {"VDD_IN": float(ms)}) for ms in (0, 70, 130, 400, 410, 850, 1000)]
    assert power.window(samples, 100_000_000, 900_000_000).mean_mw["VDD_IN"] == pytest.approx(500.0)
    # A peak between two samples counts with its sides: 0, 1000, 0 over 200 ms are 500 on average.
    peak = [(0, {"VDD_IN": 0.0}), (100_000_000, {"VDD_IN": 1000.0}), (200_000_000, {"VDD_IN": 0.0})]
    assert power.window(peak, 0, 200_000_000).mean_mw["VDD_IN"] == pytest.approx(500.0)


def test_beyond_the_last_sample_its_value_holds() -> None:
    found = power.window(flat(4000.0, 11), 0, SECOND)  # half a second of samples
    assert found.mean_mw["VDD_IN"] == pytest.approx(4000.0)
    assert found.gap_seconds == pytest.approx(0.5)


def test_a_rail_that_was_read_once_has_no_mean() -> None:
    samples: list[power.Sample] = [(index * SECOND // 10, {"VDD_IN": 1.0, "VDD_SOC": 2.0}) for index in range(11)]
    del samples[4][1]["VDD_SOC"]
    assert power.window(samples, 0, SECOND).mean_mw == {"VDD_IN": 1.0, "VDD_SOC": 2.0}
    for _, rails in samples[1:]:
        rails.pop("VDD_IN", None)
    alone = power.window(samples, 0, SECOND)
    assert (alone.mean_mw, alone.total_mw) == ({"VDD_SOC": 2.0}, None)


def test_the_total_of_a_window_is_that_of_its_meaning() -> None:
    values = {"VDD_GPU_SOC": 3000.0, "VDD_CPU_CV": 1000.0, "VIN_SYS_5V0": 5000.0, "VDDQ_VDD2_1V8AO": 400.0}
    samples = [(index * SECOND // 10, dict(values)) for index in range(11)]
    assert power.window(samples, 0, SECOND).total_mw == pytest.approx(9000.0)


def test_a_rail_that_cannot_be_read_for_a_moment_leaves_the_total_what_it_is() -> None:
    values = {"VIN": 20_000.0, "VDD_GPU": 12_000.0, "VDD_CPU_SOC_MSS": 7_000.0}
    samples = [(index * SECOND // 10, dict(values)) for index in range(11)]
    del samples[5][1]["VIN"]
    found = power.window(samples, 0, SECOND)
    assert found.total_mw == pytest.approx(20_000.0)
    assert list(found.total_rails) == ["VIN"]
    assert found.gap_seconds == pytest.approx(0.2)
    for _, rails in samples[1:]:
        rails.pop("VIN", None)
    assert "VIN" not in power.window(samples, 0, SECOND).mean_mw  # one sample is nothing to integrate


@pytest.mark.parametrize(("count", "start", "end"), [(1, 0, SECOND), (0, 0, SECOND), (20, SECOND, SECOND)])
def test_two_samples_are_the_least(count: int, start: int, end: int) -> None:
    with pytest.raises(ValueError, match="samples of power are too few"):
        power.window(flat(1.0, count), start, end)


LINES = {
    "orin-nano": "12-09-2025 06:06:03 RAM 4832/7620MB SWAP 0/3810MB (cached 0MB) CPU [22%@1497,off] GR3D_FREQ "
    "14% cpu@48.78C tj@50.7C VDD_IN 5830mW/5012mW VDD_CPU_GPU_CV 1156mW/900mW VDD_SOC 1594mW/1594mW",
    "xavier-nx": "RAM 2673/7765MB SWAP 0/3883MB (cached 0MB) CPU [12%@1190,off] EMC_FREQ 7% GR3D_FREQ 33% "
    "PMIC@100C thermal@33.9C VDD_IN 3902/3611 VDD_CPU_GPU_CV 1331/1180 VDD_SOC 997/941",
    "nano": "RAM 1276/3956MB (lfb 108x4MB) SWAP 0/1978MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [31%@1479] EMC_FREQ "
    "14%@1600 GR3D_FREQ 22%@921 APE 25 PLL@21C POM_5V_IN 3478/3201 POM_5V_GPU 840/620 POM_5V_CPU 643/700",
    "thor": "RAM 13983/125780MB (lfb 424x4MB) SWAP 0/0MB (cached 0MB) CPU [90%@2601] cpu@53.7C tj@55.1C "
    "VDD_GPU -392mW/0mW VDD_CPU_SOC_MSS 3924mW/4000mW VIN_SYS_5V0 4968mW/5048mW VIN 23000mW/22000mW",
}
OF_LINES = {
    "orin-nano": {"VDD_IN": 5830, "VDD_CPU_GPU_CV": 1156, "VDD_SOC": 1594},
    "xavier-nx": {"VDD_IN": 3902, "VDD_CPU_GPU_CV": 1331, "VDD_SOC": 997},
    "nano": {"POM_5V_IN": 3478, "POM_5V_GPU": 840, "POM_5V_CPU": 643},
    "thor": {"VDD_GPU": -392, "VDD_CPU_SOC_MSS": 3924, "VIN_SYS_5V0": 4968, "VIN": 23000},
}


@pytest.mark.parametrize("name", list(LINES))
def test_of_a_line_of_tegrastats_the_present_power_is_taken(name: str) -> None:
    assert power.rails_of_line(LINES[name] + "\n") == OF_LINES[name]


def test_where_the_kernel_shows_no_rails_tegrastats_does(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    (tmp_path / INA / "hwmon1/name").unlink()
    tree.write("line", LINES["orin-nano"])
    source = power.source(tmp_path)
    assert isinstance(source, power.Tegrastats)
    assert source.rails == ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    with power.Sampler(source, 50.0) as sampler:
        while len(sampler.samples) < 3:
            time.sleep(0.005)
    assert sampler.samples[0][1]["VDD_IN"] == 5830.0
    assert sampler.samples[0][0] < sampler.samples[1][0]
    assert "power" not in {thread.name for thread in threading.enumerate()}


def test_a_board_without_a_monitor_has_no_source(tmp_path: Path) -> None:
    tree = make(tmp_path, "nano")
    (tmp_path / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0").rename(tmp_path / "gone")
    assert [rail.name for rail in power.rails(tmp_path)] == ["POM_5V_GPU", "POM_5V_CPU"]
    assert power.meaning(["POM_5V_GPU", "POM_5V_CPU"]).kind is None
    for number in (1, 2):
        (tmp_path / f"sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_{number}").unlink()
    tree.write("line", "RAM 1/2MB CPU [1%@2]")
    assert power.source(tmp_path) is None  # of a tegrastats that goes on for ever, as NVIDIA's does
    tree.program("usr/bin/tegrastats", '#!/bin/sh\ncat "$(dirname $0)/../../line"')
    assert power.source(tmp_path) is None
    (tmp_path / "usr/bin/tegrastats").unlink()
    assert power.source(tmp_path) is None
