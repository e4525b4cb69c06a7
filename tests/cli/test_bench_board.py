"""`bench` and `doctor` on a Jetson, which is a tree of files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from mggc_edge import machine
from mggc_edge.benchmarks import harness
from mggc_edge.benchmarks.agent import clocks
from mggc_edge.benchmarks.agent.surroundings import Surroundings
from mggc_edge.benchmarks.devices import local
from tests.benchmarks.agent.boards import Tree, make
from tests.benchmarks.bench_helpers import convolutions
from tests.cli.conftest import Command

SHORT = ("--pairs", 2, "--threads", 1, "--set", "bench.processes=2", "--set", "bench.warmup_seconds=0.01",
         "--set", "bench.energy_seconds=0.5", "--set", "bench.idle_seconds=0.5")  # fmt: skip

NO_POWER = ("--set", "bench.energy_seconds=0")


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> partial[Tree]:
    """Make this machine a board of that name."""
    root = tmp_path / "board"
    monkeypatch.setattr(local, "Surroundings", lambda this_machine: Surroundings(this_machine, root))
    monkeypatch.setattr(machine, "this_machine", partial(machine.this_machine, root))
    return partial(make, root)


def test_bench_measures_power_and_memory_of_each_model_alone(
    command: Command, on: partial[Tree], tmp_path: Path
) -> None:
    on("orin-nx")
    models = [convolutions(tmp_path / f"{name}.onnx", count) for name, count in (("a", 8), ("b", 1))]
    ran = command("bench", *models, *SHORT, "--device", "jetson", "--json")
    assert ran.code == 0
    board = ran.document["context"]["board"]
    assert (board["module"], board["jetpack"], board["power_mode"]["name"]) == (
        "Jetson Orin NX 16GB", "6.2.1", "MAXN_SUPER",
    )  # fmt: skip
    assert "locked_by_bench" not in board
    for run in ran.document["runs"]:
        assert run["power"]["mean_w"] == pytest.approx(7.43552)
        assert run["memory"]["pool_bytes"] == 0
    assert "measuring power and memory of each model alone, about 8 s" in ran.err
    assert "measuring the power of a.onnx" in ran.err


def test_the_table_has_energies_and_what_they_are_of(command: Command, on: partial[Tree], tmp_path: Path) -> None:
    on("agx-orin")
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT)
    assert ran.code == 0
    header = next(line for line in ran.out.splitlines() if "p50" in line)
    assert header.split() == ["model", "p50", "p90", "/s", "MACs", "memory", "energy"]
    assert "the idle board takes 9.23 W" in ran.out  # 3.17 + 1.19 + 4.87, without the memory
    assert "sum of the rails of the module, which is not what the board takes" in " ".join(ran.out.split())
    assert max(map(len, ran.out.splitlines())) <= 80


def test_power_can_be_left_out(command: Command, on: partial[Tree], tmp_path: Path) -> None:
    on("orin-nano")
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT, *NO_POWER, "--json")
    assert ran.document["runs"][0]["power"] is None
    assert ran.document["context"]["board"]["jetpack"] == "6.2"
    assert "power" not in ran.err


def test_clocks_are_locked_while_it_measures_and_then_put_back(
    command: Command, on: partial[Tree], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = on("orin-nano")
    before = clocks.limits(tree.root)
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT, *NO_POWER, "--lock-clocks", "--json")
    assert (ran.code, ran.document["context"]["board"]["locked_by_bench"]) == (0, True)
    assert len(tree.calls()) == 3
    assert clocks.limits(tree.root) == before
    # Ctrl-C in the middle of it.
    monkeypatch.setattr(harness, "schedule", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT, *NO_POWER, "--lock-clocks")
    assert ran.code == 130
    assert clocks.limits(tree.root) == before
    assert len(tree.calls()) == 6


def test_where_clocks_cannot_be_locked_nothing_is_measured(command: Command, on: partial[Tree], tmp_path: Path) -> None:
    on("orin-nano").write("fails", "lock 1")
    path = convolutions(tmp_path / "a.onnx")
    ran = command("bench", path, *SHORT, *NO_POWER, "--lock-clocks")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: jetson_clocks fails: Error: Failed to lock\nhint: leave --lock-clocks out\n"


def test_another_machine_has_no_clocks_to_lock(command: Command, tmp_path: Path) -> None:
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT, *NO_POWER, "--lock-clocks")
    assert ran.code == 1
    assert ran.err == (
        "error: --lock-clocks needs jetson_clocks, which is not on the device\n"
        "hint: leave --lock-clocks out: only a Jetson with NVIDIA's own Linux has it\n"
    )


def test_the_old_nano_is_recognized_and_its_power_read_alone(
    command: Command, on: partial[Tree], tmp_path: Path
) -> None:
    on("nano")
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT)
    assert (ran.code, ran.out) == (1, "")
    assert " ".join(ran.err.split()).startswith(
        "error: no models are measured on this Jetson Nano (developer kit) (L4T 32.7.1, 3.48 W by POM_5V_IN: input of "
        "the board) hint: JetPack 4"
    )


def test_what_was_measured_is_kept_where_power_cannot_be(
    command: Command, on: partial[Tree], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mggc_edge.benchmarks import energy
    from mggc_edge.errors import DeviceError

    def lost(*_: object, **__: object) -> None:
        raise DeviceError("the connection was lost")

    on("orin-nano")
    monkeypatch.setattr(energy, "measure_alone", lost)
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT, "--json")
    assert ran.code == 0
    assert ran.document["runs"][0]["power"] is None
    assert "warning: power was not measured: the connection was lost" in ran.err


DOCTOR = {
    "orin-nano": (
        "Jetson Orin Nano 8GB or Jetson Orin Nano 8GB (developer kit), JetPack 6.2, L4T 36.4.3, tegra234, compute",
        "MAXN_SUPER 2; clocks of processor free, of GPU free",
        "VDD_IN 7.44 W, VDD_CPU_GPU_CV 1.65 W, VDD_SOC 1.73 W; total: VDD_IN: input of the module",
        "51.1 degrees at the hottest place; protection of the supply since the start: oc3 27 times",
        "7.4 GiB, shared by processor and GPU; 5.8 available",
    ),
    "nano": ("JetPack 4.6.1", "POM_5V_IN 3.48 W", "41.5 degrees", "too old to measure models on"),
    "xavier-nx": ("JetPack 5.1.2", "MODE_20W_6CORE 8", "measure it from another machine, --device ssh://user@host"),
    "thor": ("Jetson AGX Thor, JetPack 7.1", "VDD_GPU -0.40 W", "VIN 20.99 W; total: VIN: input of the board"),
}


@pytest.mark.parametrize("name", DOCTOR)
def test_doctor_says_what_it_sees_of_a_board(command: Command, on: partial[Tree], name: str) -> None:
    on(name)
    ran = command("doctor")
    text = " ".join(ran.out.split())
    assert ran.code == 0
    for said in (*DOCTOR[name], "not asked: on a Jetson it starts"):
        assert said in text
    assert max(map(len, ran.out.splitlines())) <= 80


def test_doctor_names_clocks_that_were_left_locked(command: Command, on: partial[Tree]) -> None:
    tree = on("orin-nano")
    assert command("doctor", "--json").document["board"]["left_locked"] is None
    lock = clocks.Lock(tree.root)
    lock.take()
    assert command("doctor", "--json").document["board"]["left_locked"] is None  # they are being held
    lock._held.close()  # type: ignore[union-attr]  # as if its process had been killed
    ran = command("doctor")
    assert "left locked by a measurement that was killed: sudo jetson_clocks --restore" in " ".join(ran.out.split())


def test_doctor_on_another_machine_has_no_board(command: Command) -> None:
    assert command("doctor", "--json").document["board"] is None
