"""What surrounds a measurement, as the device itself sees it: load, stolen time, clocks; and what a board tells."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .board import BoardSession
from .host import host_id
from .processor import clock_khz, temperature_c, throttle_events

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARIES = ("numpy", "onnxruntime", "openvino", "tensorrt")
SECONDS_TO_SLEEP = 0.001  # in which a process that has answered goes to sleep, before others are counted

_FREQUENCY = "sys/devices/system/cpu/cpu{}/cpufreq/{}"


@dataclass(frozen=True)
class Moment:
    """The machine at one moment; None where it does not say.

    Attributes:
        load: processes that wanted to run, on average over the last minute.
        ticks: time of all cores since the machine started, in the kernel's ticks.
        stolen_ticks: of these, time that a virtual machine's host gave to others.
        governors: how the cores' clocks are chosen, each name once.
        frequency_khz: mean clock of the cores.
        throttle_events: how often the processor has been slowed down for its heat since the machine started.
        temperature_c: of the processor's hottest place, in degrees Celsius.
    """

    load: float | None
    ticks: int | None
    stolen_ticks: int | None
    governors: tuple[str, ...]
    frequency_khz: float | None
    throttle_events: int | None = None
    temperature_c: float | None = None


class Surroundings:
    """What a device is asked about itself, here or over a connection: `tell` has an answer of JSON values to each name.

    Whatever else a device can tell, or has to be told, enters as a further name in `answers`; what is begun by one is
    ended by `close`, also when the connection is lost.

    Args:
        this_machine: returns what machine this is, a dataclass, from the files below a root.
        root: where the files lie that Linux keeps about the machine; for tests.
    """

    def __init__(self, this_machine: Callable[[Path], Any], root: Path = Path("/")) -> None:
        self._this_machine, self._root, self._board = this_machine, root, BoardSession(root)
        self.answers: dict[str, Callable[[], dict[str, Any]]] = {
            "machine": self._machine,
            "moment": lambda: asdict(moment(self._root)),
            "others": self._others,
            "libraries": lambda: {name: find_spec(name) is not None for name in LIBRARIES},
            **self._board.answers,
        }

    def tell(self, name: str) -> dict[str, Any]:
        """Return the answer to a name."""
        return self.answers[name]()

    def close(self) -> None:
        """End what was begun."""
        self._board.close()

    def _machine(self) -> dict[str, Any]:
        """Return what does not change while it is measured."""
        return {
            "machine": asdict(self._this_machine(self._root)),
            "all_cores": os.cpu_count() or 1,
            "os": platform.system(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "host": host_id(self._root),
        }

    def _others(self) -> dict[str, Any]:
        """Return how many threads of others want to run, while no model runs, and the clock of the fastest core."""
        clock = clock_khz(self._root)
        time.sleep(SECONDS_TO_SLEEP)
        return {"running": others_running(self._root), "clock_khz": clock}


def moment(root: Path = Path("/")) -> Moment:
    """Return the machine as it is now, from the files below `root` that Linux keeps about it."""
    load = _read(root / "proc/loadavg").split()
    # cpu user nice system idle iowait irq softirq steal guest guest_nice; guests are counted in user and nice as well
    cpu = _read(root / "proc/stat").split("\n", 1)[0].split()
    ticks = [int(count) for count in cpu[1:9] if count.isdigit()] if cpu[:1] == ["cpu"] else []
    cores = range(os.cpu_count() or 1)
    governors = [_read(root / _FREQUENCY.format(core, "scaling_governor")).strip() for core in cores]
    clocks = [_read(root / _FREQUENCY.format(core, "scaling_cur_freq")).strip() for core in cores]
    known = [int(clock) for clock in clocks if clock.isdigit()]
    return Moment(
        load=_number(load[0]) if load else None,
        ticks=sum(ticks) if len(ticks) == 8 else None,
        stolen_ticks=ticks[7] if len(ticks) == 8 else None,
        governors=tuple(sorted({governor for governor in governors if governor})),
        frequency_khz=sum(known) / len(known) if known else None,
        throttle_events=throttle_events(root),
        temperature_c=temperature_c(root),
    )


def others_running(root: Path = Path("/")) -> int | None:
    """Return how many threads of the whole machine run or want to run now, without the one that asks.

    The fourth number of loadavg is "running/all"; unlike the load, it does not look back.
    """
    words = _read(root / "proc/loadavg").split()
    count = words[3].split("/")[0] if len(words) > 3 else ""
    return max(0, int(count) - 1) if count.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""  # not a Linux, or a container that hides it


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
