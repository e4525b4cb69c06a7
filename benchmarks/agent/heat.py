"""Heat of a Jetson, and whether it throttles: lowers its clocks because it is hot, or its supply too weak.

A block of a measurement lies between two looks, and is void where throttling shows between them:

    cooling devices     a cap of a clock ("cpufreq-cpu0", "devfreq-17000000.gpu"), or an alert of one, is in a state
                        above 0. Fans and the alert of a hot surface ("hot-surface-alert", at 70 degrees) lower nothing.
    counters            the kernel's of thermal trips, and those of over-current and under-voltage protection, rose
    limits of clocks    a highest clock that may be used is lower than it was
    locked clocks       a clock that was locked runs more than 1 % below that

A look reads some fifty small files of the kernel, never within a timed stretch. Python 3.8 and the standard library,
nothing of mggc_edge: the agent carries this file to a board.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, Iterator, Mapping

from .files import number, text

# What a look finds: groups of numbers by name. JSON.
Look = Dict[str, Dict[str, int]]

# The zone of the hottest place of the chip comes first; older boards have none, and there the hottest zone counts.
_JUNCTION = re.compile(r"tj[-_]therm", re.IGNORECASE)
_NO_CHIP = re.compile(r"PMIC|fan|board|diode|wifi|nvme", re.IGNORECASE)  # PMIC-Die says 100 degrees, always
_LOWERS = re.compile(r"throttle|cpufreq|devfreq|balanced|heavy|gk20a|^cpu|^gpu", re.IGNORECASE)
_LEAST, _MOST = -40, 150  # degrees; a zone whose unit is off may say -256
MOVED = 0.01  # a locked clock that is lower by more than this part has been lowered
GPUS = re.compile(r"gpu|g[abmpv]\d+b|gk20a", re.IGNORECASE)


def temperatures(root: Path = Path("/")) -> dict[str, float]:
    """Return the temperature of every zone that can be read, in degrees Celsius. That of a unit that is off cannot."""
    found = {}
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if (value := degrees(folder / "temp")) is not None:
            found[text(folder / "type")] = value
    return found


def degrees(path: Path) -> float | None:
    """Return what a sensor's file says in thousandths, in degrees Celsius; None where that is no temperature."""
    value = number(path)
    return value / 1000 if value is not None and _LEAST <= value / 1000 <= _MOST else None


def junction(zones: Mapping[str, float]) -> float | None:
    """Return the temperature of the chip's hottest place, in degrees Celsius, of `temperatures`; None without any."""
    named = [value for name, value in zones.items() if _JUNCTION.match(name)]
    return max(named or [value for name, value in zones.items() if not _NO_CHIP.search(name)], default=None)


def look(root: Path = Path("/")) -> Look:
    """Return what says whether this board throttles, now and since it started."""
    gpus = {folder.name: folder for folder in _gpus(root)}
    cpus = {folder.name: folder for folder in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))}
    return {
        "cooling": _known({
            text(folder / "type"): number(folder / "cur_state")
            for folder in (root / "sys/class/thermal").glob("cooling_device*")
            if _LOWERS.search(text(folder / "type"))
        }),
        "trips": _known({
            path.parent.name.replace("-throttle-alert", ""): number(path)
            for path in (root / "sys/devices/platform").glob("*-throttle-alert/thermal_trip_event")
        }),
        "protection": _known(_protection(root)),
        "cpu_most_khz": _known({name: number(folder / "scaling_max_freq") for name, folder in cpus.items()}),
        "cpu_least_khz": _known({name: number(folder / "scaling_min_freq") for name, folder in cpus.items()}),
        "cpu_khz": _known({name: _present(folder) for name, folder in cpus.items()}),
        "gpu_most_hz": _known({name: number(folder / "max_freq") for name, folder in gpus.items()}),
        "gpu_least_hz": _known({name: number(folder / "min_freq") for name, folder in gpus.items()}),
        "gpu_hz": _known({name: number(folder / "cur_freq") for name, folder in gpus.items()}),
    }  # fmt: skip


def throttled(before: Look, after: Look) -> list[str]:
    """Return what shows that clocks were lowered between two looks, each a phrase; nothing where nothing does."""
    said = [f"{name} is on" for name, state in _of(after, "cooling") if state > 0]
    said += [f"{name} was on" for name, state in _of(before, "cooling") if state > 0 >= after["cooling"].get(name, 1)]
    for name, count in _risen(before, after, "trips"):
        said.append(f"{name} grew too hot ({count} times)")
    for name, count in _risen(before, after, "protection"):
        said.append(f"the supply was protected from over-current or under-voltage ({name}, {count} times)")
    for part, unit, scale in (("cpu", "khz", 1e3), ("gpu", "hz", 1e6)):
        most, least, now = (f"{part}_{word}{unit}" for word in ("most_", "least_", ""))
        for name, limit in _of(after, most):
            was = before.get(most, {}).get(name, limit)
            if limit < (1 - MOVED) * was:
                said.append(f"the highest clock of {name} fell from {was / scale:.0f} to {limit / scale:.0f} MHz")
            lowest = after.get(least, {}).get(name)
            clock = after.get(now, {}).get(name, limit)
            if lowest == limit and 0 < clock < (1 - MOVED) * limit:
                said.append(f"{name} is locked to {limit / scale:.0f} MHz and runs at {clock / scale:.0f}")
    return said


def locked(found: Look) -> dict[str, bool | None]:
    """Return whether the clocks of processor and GPU can have one value alone; None where that is not known."""
    answer: dict[str, bool | None] = {}
    for part, unit in (("cpu", "khz"), ("gpu", "hz")):
        most, least = found[f"{part}_most_{unit}"], found[f"{part}_least_{unit}"]
        answer[part] = all(least.get(name) == limit for name, limit in most.items()) if most else None
    return answer


def _protection(root: Path) -> dict[str, int | None]:
    """Return how often each protection of the supply lowered clocks, of those that are enabled."""
    found: dict[str, int | None] = {}
    for path in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")):
        name = path.name.split("_")[0]
        if number(path.with_name(f"{name}_throt_en")) != 0:
            found[name] = number(path)
    return found


def _gpus(root: Path) -> Iterator[Path]:
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if GPUS.search(folder.name):
            yield folder


def _present(folder: Path) -> int | None:
    """Return a processor's clock in kHz: the measured one, which root alone may read, or the one that was asked for."""
    measured = number(folder / "cpuinfo_cur_freq")
    return number(folder / "scaling_cur_freq") if measured is None else measured


def _of(found: Look, group: str) -> list[tuple[str, int]]:
    return sorted(found.get(group, {}).items())


def _risen(before: Look, after: Look, group: str) -> list[tuple[str, int]]:
    """Return the counters of a group that are higher than they were, and by how much."""
    counts = [(name, count - before.get(group, {}).get(name, count)) for name, count in _of(after, group)]
    return [(name, count) for name, count in counts if count > 0]


def _known(values: Mapping[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in sorted(values.items()) if value is not None}
