"""Which Jetson a board is, from the files of six of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mggc_edge.benchmarks.agent import jetson
from mggc_edge.machine import this_machine
from tests.benchmarks.agent.boards import KINDS, every_board, make

EXPECTED = {
    "nano": ("Jetson Nano (developer kit)", "tegra210", "5.3", "32.7.1", "4.6.1"),
    "xavier-nx": ("Jetson Xavier NX (developer kit)", "tegra194", "7.2", "35.4.1", "5.1.2"),
    "orin-nano": ("Jetson Orin Nano 8GB or Jetson Orin Nano 8GB (developer kit)", "tegra234", "8.7", "36.4.3", "6.2"),
    "orin-nx": ("Jetson Orin NX 16GB", "tegra234", "8.7", "36.4.4", "6.2.1"),
    "agx-orin": ("Jetson AGX Orin 64GB", "tegra234", "8.7", "36.4.0", "6.1"),
    "thor": ("Jetson AGX Thor", "tegra264", "11.0", "38.4.0", "7.1"),
}


@every_board
def test_module_chip_and_versions_are_known(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    found = jetson.board(tmp_path)
    assert found is not None
    assert (found.module, found.soc, found.compute, found.l4t, found.jetpack) == EXPECTED[name]
    assert found.model == KINDS[name].model == this_machine(tmp_path).jetson
    assert found.models == (name != "nano")
    assert found.to_json()["parts"] == list(found.parts)


def test_what_a_board_cannot_do_is_said(tmp_path: Path) -> None:
    for name, remark in (("nano", jetson.POWER_ONLY), ("xavier-nx", jetson.FROM_A_HOST), ("agx-orin", None)):
        make(tmp_path / name, name)
        found = jetson.board(tmp_path / name)
        assert found is not None
        assert found.remark == remark


def test_a_xavier_with_jetpack_4_has_its_power_read_alone(tmp_path: Path) -> None:
    tree = make(tmp_path, "xavier-nx")
    tree.write("etc/nv_tegra_release", "# R32 (release), REVISION: 7.4, GCID: 1, BOARD: t186ref")
    found = jetson.board(tmp_path)
    assert found is not None
    assert (found.jetpack, found.models, found.remark) == ("4.6.4", False, jetson.POWER_ONLY)


def test_without_a_release_file_the_package_of_l4t_says_the_version(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nano")
    (tmp_path / "etc/nv_tegra_release").unlink()
    found = jetson.board(tmp_path)
    assert found is not None
    assert (found.l4t, found.jetpack) == (None, None)
    tree.write("packages/nvidia-l4t-core", "36.4.7-20250918154033")
    found = jetson.board(tmp_path)
    assert found is not None
    assert (found.l4t, found.jetpack) == ("36.4.7", "6.2.1")


@pytest.mark.parametrize(
    ("release", "l4t", "jetpack"),
    [
        ("# R36 (release), REVISION: 9.1, GCID: 1", "36.9.1", "6.x"),
        ("# R35 (release), REVISION: 5.0, GCID: 1", "35.5.0", "5.1.3"),
        ("# R41 (release), REVISION: 0, GCID: 1", "41.0.0", None),
        ("nonsense", None, None),
    ],
)
def test_an_unknown_release_is_called_by_its_series(
    tmp_path: Path, release: str, l4t: str | None, jetpack: str | None
) -> None:
    make(tmp_path, "thor").write("etc/nv_tegra_release", release)
    found = jetson.board(tmp_path)
    assert found is not None
    assert (found.l4t, found.jetpack) == (l4t, jetpack)


def test_a_board_on_a_carrier_of_somebody_else_is_known_by_its_chip(tmp_path: Path) -> None:
    tree = make(tmp_path, "orin-nx")
    tree.write("proc/device-tree/model", "Carrier EAI-I233\0")
    tree.write("proc/device-tree/compatible", "acme,i233\0nvidia,tegra234\0")
    found = jetson.board(tmp_path)
    assert found is not None
    assert (found.model, found.module, found.parts, found.soc) == ("Carrier EAI-I233", None, (), "tegra234")
    assert this_machine(tmp_path).jetson == "Carrier EAI-I233"


def test_what_is_no_jetson_is_none(tmp_path: Path) -> None:
    assert jetson.board(tmp_path) is None
    tree = make(tmp_path, "orin-nx")
    tree.write("proc/device-tree/compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0")
    tree.write("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    assert jetson.board(tmp_path) is None
    assert this_machine(tmp_path).jetson is None


def test_memory_is_that_of_the_pool_that_all_share(tmp_path: Path) -> None:
    make(tmp_path, "orin-nano")
    assert jetson.memory(tmp_path) == {
        "total_bytes": 7_802_880 * 1024,
        "available_bytes": 6_100_000 * 1024,
        "swap_total_bytes": None,
    }
    assert set(jetson.memory(tmp_path / "nowhere").values()) == {None}
