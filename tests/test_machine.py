"""What machine this is, read from a made-up root."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mggc_edge.machine import BF16_SETS, INT8_SETS, container_kind, core_quota, this_machine


def make(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "proc" / name.replace("__", "/").replace("_tree", "-tree")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_an_x86_machine_names_its_processor_and_what_makes_it_fast(tmp_path: Path) -> None:
    info = "processor\t: 0\nmodel name\t: AMD EPYC 9R14\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
    machine = this_machine(make(tmp_path, cpuinfo=info, meminfo="MemTotal:       24000000 kB\n"))
    assert machine.processor == "AMD EPYC 9R14"
    assert machine.instruction_sets == ("AVX2", "AVX-512", "AVX-512 VNNI")
    assert (machine.memory_bytes, machine.jetson) == (24_576_000_000, None)


def test_a_jetson_is_known_by_its_device_tree(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        cpuinfo="Features\t: fp asimd asimdhp asimddp\n",
        device_tree__model="NVIDIA Jetson AGX Orin Developer Kit\0",
    )
    machine = this_machine(root)
    assert (machine.device, machine.jetson) == ("jetson", "NVIDIA Jetson AGX Orin Developer Kit")
    assert machine.instruction_sets == ("NEON", "NEON fp16", "NEON dot product")
    assert machine.processor == "NVIDIA Jetson AGX Orin Developer Kit"


def test_another_board_is_no_jetson(tmp_path: Path) -> None:
    assert this_machine(make(tmp_path, device_tree__model="Raspberry Pi 5 Model B Rev 1.0\0")).jetson is None


def test_a_machine_that_tells_nothing_has_cores_and_no_memory(tmp_path: Path) -> None:
    machine = this_machine(tmp_path)
    assert machine.cores >= 1
    assert (machine.memory_bytes, machine.instruction_sets) == (None, ())


@pytest.mark.parametrize(("architecture", "device"), [("x86_64", "x86"), ("aarch64", "arm64"), ("riscv64", "riscv64")])
def test_the_device_follows_the_architecture(tmp_path: Path, architecture: str, device: str) -> None:
    assert dataclasses.replace(this_machine(tmp_path), architecture=architecture, jetson=None).device == device


def test_devices_of_nvidia_are_known_by_their_nodes(tmp_path: Path) -> None:
    assert this_machine(tmp_path).gpu_nodes == ()
    (tmp_path / "dev").mkdir()
    for name in ("nvidia1", "nvidia0", "nvidiactl", "nvidia-uvm", "null", "nvhost-gpu"):
        (tmp_path / "dev" / name).touch()
    assert this_machine(tmp_path).gpu_nodes == ("nvhost-gpu", "nvidia0", "nvidia1")


def test_a_machine_has_any_of_some_instruction_sets_or_none(tmp_path: Path) -> None:
    machine = this_machine(make(tmp_path, cpuinfo="flags\t\t: avx2 avx512_bf16 amx_bf16\n"))
    assert (machine.has_any(BF16_SETS), machine.has_any(INT8_SETS), machine.has_any(())) == (True, False, False)


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.scope\n",
                "sys/fs/cgroup/a.slice/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/a.slice/b.scope/cpu.max": "200000 100000\n",
            },
            0.5,
        ),
        ({"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "100000 0\n"}, None),
    ],
)
def test_the_quota_of_a_control_group_is_the_least_above_a_process(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    assert core_quota(put(tmp_path, files)) == quota


def test_a_quota_below_one_core_leaves_one(tmp_path: Path) -> None:
    assert this_machine(put(tmp_path, {"sys/fs/cgroup/cpu.max": "20000 100000\n"})).cores == 1
    every = this_machine(tmp_path / "none").cores
    assert this_machine(put(tmp_path / "b", {"sys/fs/cgroup/cpu.max": "99900000 100000\n"})).cores == every


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, None),
        ({"proc/1/cgroup": "0::/init.scope\n"}, None),
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": 'engine="podman-4.9"\n'}, "podman"),
        ({"run/systemd/container": "lxc\n", ".dockerenv": ""}, "lxc"),
        ({"proc/1/cgroup": "11:cpu:/kubepods/burstable/pod1\n"}, "kubepods"),
    ],
)
def test_a_container_is_known_by_its_marks(tmp_path: Path, files: dict[str, str], kind: str | None) -> None:
    assert container_kind(put(tmp_path, files)) == kind
