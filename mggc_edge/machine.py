"""What machine this is: processor, instruction sets, cores, memory, NVIDIA's devices, and whether it is a Jetson."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Instruction sets that decide how fast a network runs, by their flag in /proc/cpuinfo (x86 and Arm).
INSTRUCTION_SETS = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16", "amx_int8": "AMX int8", "amx_bf16": "AMX bf16",
    "asimd": "NEON", "asimdhp": "NEON fp16", "asimddp": "NEON dot product", "i8mm": "i8mm", "bf16": "bf16",
    "sve": "SVE",
}  # fmt: skip
# Of these, what multiplies 8-bit values without a sum of 16 bits, and bfloat16 (of x86) without a detour over float32.
INT8_SETS = ("AVX-512 VNNI", "AVX-VNNI", "AMX int8", "NEON dot product", "i8mm")
BF16_SETS = ("AVX-512 BF16", "AMX bf16")
# Device nodes of NVIDIA's drivers below /dev: of cards, and of the graphics unit in a Jetson.
GPU_NODES = re.compile(r"nvidia\d+|nvhost-gpu|nvgpu")
CONTAINERS = re.compile("kubepods|docker|lxc|containerd")  # in the names of control groups
JETSON = re.compile(r"jetson|orin|xavier|nvidia thor", re.IGNORECASE)


@dataclass(frozen=True)
class Machine:
    """This machine.

    Attributes:
        memory_bytes: None where it is not known.
        jetson: the board's name, None where it is none.
        gpu_nodes: names below /dev of what NVIDIA's driver shows; empty where there is no card, or no driver.
        container: what kind of container this is inside of, such as "docker"; None where nothing says so.
    """

    processor: str
    architecture: str
    instruction_sets: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    jetson: str | None
    gpu_nodes: tuple[str, ...] = ()
    container: str | None = None

    def has_any(self, instruction_sets: Iterable[str]) -> bool:
        """Whether the processor has one of these instruction sets at least."""
        return not set(instruction_sets).isdisjoint(self.instruction_sets)

    @property
    def device(self) -> str:
        """Its name as `--device` has it: "jetson", "x86" or "arm64"; elsewhere the architecture."""
        if self.jetson is not None:
            return "jetson"
        return {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm64"}.get(self.architecture, self.architecture)


def this_machine(root: Path = Path("/")) -> Machine:
    """Return what machine this is, from the files below `root` that Linux keeps about it."""
    info = _read(root / "proc/cpuinfo")
    flags = set(_field(info, "flags").split()) | set(_field(info, "Features").split())
    board = _read(root / "proc/device-tree/model").strip("\0\n ")
    compatible = _read(root / "proc/device-tree/compatible")  # a carrier of somebody else has a model of its own
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        processor=_field(info, "model name") or board or platform.processor() or "unknown",
        architecture=platform.machine(),
        instruction_sets=tuple(name for flag, name in INSTRUCTION_SETS.items() if flag in flags),
        cores=min(cores, max(1, int(core_quota(root) or cores))),
        memory_bytes=_memory_bytes(_read(root / "proc/meminfo")),
        jetson=board if JETSON.search(board) or "nvidia,tegra" in compatible else None,
        gpu_nodes=tuple(sorted(filter(GPU_NODES.fullmatch, _names(root / "dev")))),
        container=container_kind(root),
    )


def core_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' time a control group leaves this process (`docker --cpus`); None where none is set.

    That of the process's own group and of those above it, whichever is least; of version 2, or else of version 1.
    """
    groups = [line.split(":", 2)[2] for line in _read(root / "proc/self/cgroup").splitlines() if line.startswith("0::")]
    place, found = root / "sys/fs/cgroup", []
    below = [part for part in (groups[0] if groups else "").split("/") if part not in ("", "..")]
    for depth in range(len(below) + 1):
        words = _read(place.joinpath(*below[:depth]) / "cpu.max").split()
        found += [_ratio(*words)] if len(words) == 2 else []
    if not found:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        found.append(_ratio(*(_read(place / "cpu" / name).strip() for name in names)))
    return min((quota for quota in found if quota is not None), default=None)


def _ratio(quota: str, period: str) -> float | None:
    """Return a quota of time, such as "50000" or "max", as a part of its period."""
    known = quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0
    return int(quota) / int(period) if known else None


def container_kind(root: Path = Path("/")) -> str | None:
    """Return what kind of container this process is in, by the marks that those leave; None where there is none."""
    told = _read(root / "run/systemd/container").strip()  # of systemd-nspawn, LXC and others
    marks = {".dockerenv": "docker", "run/.containerenv": "podman"}
    found = [kind for name, kind in marks.items() if (root / name).exists()]
    named = CONTAINERS.search(_read(root / "proc/1/cgroup"))
    return told[:40] or (found[0] if found else named[0] if named else None)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []  # as below


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not a Linux, or a container that hides it


def _field(text: str, name: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.*)$", text, flags=re.MULTILINE)
    return match[1].strip() if match else ""


def _memory_bytes(text: str) -> int | None:
    match = re.match(r"(\d+) kB", _field(text, "MemTotal"))
    return int(match[1]) * 1024 if match else None
