"""What clocks, heat and samples are warned of for, and which machine this is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mggc_edge.benchmarks.agent.host import host_id
from mggc_edge.benchmarks.agent.processor import clock_khz, throttle_events
from mggc_edge.benchmarks.disturbance import Noted
from mggc_edge.benchmarks.findings import clock_warnings, clocks_moved, sample_warnings
from mggc_edge.benchmarks.samples import ProcessSamples

CPU = "sys/devices/system/cpu"


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_clock_is_that_of_the_fastest_core(tmp_path: Path) -> None:
    for core, clock in ((0, "1200000\n"), (1, "3400000\n"), (10, "oops\n")):
        folder = tmp_path / CPU / f"cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(clock)
    assert clock_khz(tmp_path) == 3_400_000
    assert clock_khz(tmp_path / "nothing") is None


def test_heat_is_counted_by_core_and_package(tmp_path: Path) -> None:
    for core, counts in ((0, (3, 2)), (1, (1, 2))):
        folder = tmp_path / CPU / f"cpu{core}/thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(f"{counts[0]}\n")
        (folder / "package_throttle_count").write_text(f"{counts[1]}\n")
    assert throttle_events(tmp_path) == 8
    assert throttle_events(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("clocks", "moved"),
    [
        ([], False),
        ([3_000_000] * 40, False),
        ([3_000_000] * 39 + [800_000], False),  # a single moment
        ([3_000_000] * 30 + [2_800_000] * 10, True),
        ([3_000_000] * 30 + [2_900_000] * 10, False),  # 3 %
    ],
)
def test_clocks_moved_where_a_tenth_of_the_moments_is_5_percent_slower(clocks: list[int], moved: bool) -> None:
    assert clocks_moved(clocks) == moved
    assert clock_warnings(clocks, (None, None)) == ["frequency"] * moved


@pytest.mark.parametrize(("counts", "codes"), [((1, 2), ["heat"]), ((2, 2), []), ((None, 2), []), ((1, None), [])])
def test_heat_is_warned_of_where_it_was_counted_anew(counts: tuple[int | None, int | None], codes: list[str]) -> None:
    assert clock_warnings([], counts) == codes


def process(pairs: int, noted: Noted | None = None) -> ProcessSamples:
    samples = ((5, 5, 5),) * pairs
    return ProcessSamples(1, 1, 1, 1, True, samples, None, None, (noted,) * pairs if noted else ())


def test_work_that_is_handed_out_all_the_time_is_enqueue_bound() -> None:
    busy, idle = Noted(wall_ns=100, enqueue_ns=95), Noted(wall_ns=100, enqueue_ns=60)
    assert sample_warnings([process(4, busy)] * 10) == ["enqueue_bound"]
    assert sample_warnings([process(4, idle)] * 10) == sample_warnings([process(4, Noted(wall_ns=100))] * 10) == []


def test_few_samples_carry_no_percentile() -> None:
    one = ProcessSamples(1, 1, 1, 1, True, ((5,),) * 5, None, None)
    assert sample_warnings([one] * 7) == ["percentiles"]
    assert sample_warnings([one] * 8) == []
    assert sample_warnings([one] * 3) == ["few_samples"]  # says enough


def test_a_host_has_a_number_of_its_own_that_tells_nothing(tmp_path: Path) -> None:
    a = host_id(write(tmp_path / "a", **{"etc__machine-id": "0123\n"}))
    b = host_id(write(tmp_path / "b", **{"etc__machine-id": "0124\n"}))
    old = host_id(write(tmp_path / "c", **{"etc__machine-id": "", "var__lib__dbus__machine-id": "0123"}))
    assert a is not None
    assert len(a) == 16
    assert a == old != b
    assert "0123" not in a
    assert host_id(tmp_path / "nothing") is None
