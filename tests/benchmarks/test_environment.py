"""What surrounds a measurement, from files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mggc_edge.benchmarks.agent.surroundings import Moment, moment, others_running
from mggc_edge.benchmarks.devices.base import DeviceFacts
from mggc_edge.benchmarks.environment import METHOD, context, stolen
from mggc_edge.machine import Machine


def tree(root: Path, *, stat: str = "cpu  100 0 50 800 10 0 5 35 0 0\n", governor: str | None = "performance") -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/loadavg").write_text("1.25 0.80 0.50 2/345 6789\n")
    (root / "proc/stat").write_text(stat + "cpu0 1 2 3\n")
    if governor is not None:
        folder = root / "sys/devices/system/cpu/cpu0/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")
        (folder / "scaling_cur_freq").write_text("2400000\n")
    return root


def test_load_time_governor_and_clock_are_read(tmp_path: Path) -> None:
    assert moment(tree(tmp_path / "a")) == Moment(1.25, 1000, 35, ("performance",), 2_400_000.0)


def test_a_machine_that_says_nothing_gives_nothing(tmp_path: Path) -> None:
    assert moment(tmp_path) == Moment(None, None, None, (), None)


def test_the_temperature_is_that_of_the_processors_sensors_or_else_of_a_zone(tmp_path: Path) -> None:
    def put(name: str, value: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value + "\n")

    assert moment(tmp_path).temperature_c is None
    put("sys/class/thermal/thermal_zone0/type", "acpitz")
    put("sys/class/thermal/thermal_zone0/temp", "27800")
    put("sys/class/hwmon/hwmon0/name", "nvme")
    put("sys/class/hwmon/hwmon0/temp1_input", "80000")
    assert moment(tmp_path).temperature_c == 27.8
    put("sys/class/hwmon/hwmon1/name", "k10temp")
    for number, value in enumerate(("61500", "-273000", "58000"), 1):
        put(f"sys/class/hwmon/hwmon1/temp{number}_input", value)
    assert moment(tmp_path).temperature_c == 61.5


def test_those_who_want_to_run_are_counted_without_the_one_who_asks(tmp_path: Path) -> None:
    root = tree(tmp_path / "a")
    for text, count in (("1 1 1 2/345 9\n", 1), ("1 1 1 0/345 9\n", 0), ("1 1 1\n", None), ("1 1 1 x/3 9\n", None)):
        (root / "proc/loadavg").write_text(text)
        assert others_running(root) == count
    assert others_running(tmp_path) is None


@pytest.mark.parametrize("stat", ["", "cpu  1 2 3\n", "cpu  1 2 3 4 5 6 7 x\n", "intr 1 2 3 4 5 6 7 8\n"])
def test_counts_that_are_not_all_there_are_not_used(tmp_path: Path, stat: str) -> None:
    found = moment(tree(tmp_path / "a", stat=stat, governor=None))
    assert (found.ticks, found.stolen_ticks) == (None, None)
    (tmp_path / "a/proc/loadavg").write_text("many\n")
    assert moment(tmp_path / "a").load is None


def test_stolen_time_is_the_share_between_two_moments() -> None:
    before, after = Moment(None, 1000, 35, (), None), Moment(None, 1400, 55, (), None)
    assert stolen(before, after) == pytest.approx(0.05)
    assert stolen(before, before) is None
    assert stolen(before, Moment(None, None, None, (), None)) is None


def test_the_context_says_what_machine_and_which_versions(tmp_path: Path) -> None:
    machine = Machine("Some CPU", "x86_64", ("AVX2",), 2, 8 * 2**30, None, container="docker")
    before, after = moment(tree(tmp_path / "a")), Moment(2.5, 2000, 45, (), None, temperature_c=61.5)
    device = DeviceFacts(machine, 4, "Linux", "6.1", "3.8.10")
    facts = context(device, "ssh://board", before, after, {"onnxruntime": "9.9"})
    assert set(facts) == {
        "device", "address", "host", "os", "kernel", "cpu", "memory_bytes", "jetson", "load_before", "load_after",
        "stolen", "versions", "container", "method",
    }  # fmt: skip
    assert facts["method"] == METHOD
    assert facts["cpu"] == {
        "model": "Some CPU",
        "architecture": "x86_64",
        "instruction_sets": ["AVX2"],
        "cores": 2,
        "governors": ["performance"],
        "frequency_khz_before": 2_400_000.0,
        "frequency_khz_after": None,
        "temperature_c_before": None,
        "temperature_c_after": 61.5,
    }
    assert facts["container"] == "docker"
    assert (facts["load_before"], facts["load_after"], facts["stolen"]) == (1.25, 2.5, pytest.approx(0.01))
    assert (facts["device"], facts["address"], facts["kernel"]) == ("x86", "ssh://board", "6.1")
    assert (facts["versions"]["onnxruntime"], facts["versions"]["python"]) == ("9.9", "3.8.10")
    assert {"mggc-edge", "python", "numpy"} <= set(facts["versions"])
