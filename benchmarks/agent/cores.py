"""Which cores the processes of a block run on: all of them on the same ones, or the cores would be compared too.

The cores of a virtual machine have neighbors of their own, and those of a board or a laptop may be of several kinds.
Left to the kernel, the process of one model may stay on a slower core than that of the other for as long as both live.
And the threads of a process that has slept wake up on one core, and share it for many milliseconds although another one
is free: each gets a core of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Mapping, Sequence

from .files import number, text

CORES = "sys/devices/system/cpu"
SPEEDS = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")  # of the kernel's scheduler on arm64; in kHz
LEAST_OWN = 0.25  # of what the busiest helper computes, the thread that asks for an inference computes itself


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
    """Return as many of the fastest cores as there are threads, in turn from block to block, fast ones first.

    None where there are more threads than physical cores, and not one for every logical one.

    Args:
        allowed: numbers of the cores that may be used.
        threads: how many are wanted: one logical core of each physical one, or all.
        block: its number, which says whose turn it is.
        root: where the kernel's files are.
    """
    places = {core: root / CORES / f"cpu{core}" for core in sorted(allowed)}
    physical: dict[str, int] = {}
    for core, place in places.items():
        physical.setdefault(text(place / "topology/thread_siblings_list") or str(core), core)
    speeds = {core: _speed(place) for core, place in places.items()}
    by_speed = sorted(places, key=lambda core: (-speeds[core], core))
    if threads == len(allowed):
        return by_speed
    if threads > len(physical):
        return None
    apart = [core for core in by_speed if core in physical.values()]
    least = speeds[apart[threads - 1]]
    sure = [core for core in apart if speeds[core] > least]
    others, wanted = [core for core in apart if speeds[core] == least], threads - len(sure)
    return sure + sorted(others[(block * wanted + number) % len(others)] for number in range(wanted))


def _speed(place: Path) -> int:
    return next((found for name in SPEEDS if (found := number(place / name)) is not None), 0)


def running_times() -> dict[int, int]:
    """Return for how long each thread of this process has been on a core, in ns, by its number; nothing off Linux.

    Of the others the kernel may lag behind by a tick, a few ms.
    """
    found = {}
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):  # a thread that has just ended
                found[int(task.name)] = int((task / "schedstat").read_text(encoding="ascii").split()[0])
        found[threading.get_native_id()] = time.thread_time_ns()
    return found


def spread(cores: Sequence[int], ran: Mapping[int, int]) -> None:
    """Give this thread the first of these cores, and each of its helpers one of the others.

    Where this thread only waits for its helpers, as it does in no engine here, all of them may use all cores: they
    would be in each other's way on those that are left.

    Args:
        cores: of this process, fast ones first: what an engine does on one thread it does on this one.
        ran: how long each thread ran during the last inferences, in ns; of its helpers, those that ran longest get a
            core for themselves, and the others may use all but the first.
    """
    own = threading.get_native_id()
    helpers = sorted((thread for thread in ran if thread != own), key=lambda thread: -ran[thread])
    if len(cores) < 2 or not helpers or own not in ran:
        return
    first, *others = cores
    places = {thread: set(cores) for thread in [0, *helpers]}
    if ran[own] >= LEAST_OWN * ran[helpers[0]]:
        places = {0: {first}}
        for rank, thread in enumerate(helpers):
            places[thread] = {others[rank]} if rank < len(others) and ran[thread] > 0 else set(others)
    for thread, chosen in places.items():
        with contextlib.suppress(OSError):  # a container may forbid it, and a thread may have ended
            os.sched_setaffinity(thread, chosen)
