"""Which cores the processes of a block run on: all of them on the same ones, or the cores would be compared too.

The cores of a virtual machine have neighbors of their own, and those of a board or a laptop may be of several kinds.
Left to the kernel, the process of one model may stay on a slower core than that of the other for as long as both live.
"""

from __future__ import annotations

import os
from pathlib import Path

from .files import number, text

CORES = "sys/devices/system/cpu"
SPEEDS = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")  # of the kernel's scheduler on arm64; in kHz


def take_cores(threads: int, block: int) -> list[int] | None:
    """Keep this process, and the threads that it will start, on cores of its block; return them.

    None where there is nothing to choose, or the system does not let a process choose.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    chosen = choose_cores(os.sched_getaffinity(0), threads, block)
    if chosen is not None:
        try:
            os.sched_setaffinity(0, chosen)
        except OSError:  # a container may forbid it
            return None
    return chosen


def choose_cores(allowed: set[int], threads: int, block: int, root: Path = Path("/")) -> list[int] | None:
    """Return as many of the fastest cores as there are threads, in turn from block to block; None where all are needed.

    Args:
        allowed: numbers of the cores that may be used.
        threads: how many are wanted: one logical core of each physical one.
        block: its number, which says whose turn it is.
        root: where the kernel's files are.
    """
    places = {core: root / CORES / f"cpu{core}" for core in sorted(allowed)}
    physical: dict[str, int] = {}
    for core, place in places.items():
        physical.setdefault(text(place / "topology/thread_siblings_list") or str(core), core)
    if threads >= len(physical):
        return None
    speeds = {core: _speed(places[core]) for core in physical.values()}
    least = sorted(speeds.values(), reverse=True)[threads - 1]
    sure = [core for core, speed in speeds.items() if speed > least]
    others, wanted = [core for core, speed in speeds.items() if speed == least], threads - len(sure)
    return sorted(sure + [others[(block * wanted + number) % len(others)] for number in range(wanted)])


def _speed(place: Path) -> int:
    return next((found for name in SPEEDS if (found := number(place / name)) is not None), 0)
