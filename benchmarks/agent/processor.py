"""What the clocks of the cores do: how fast they are now, how hot it is there, and how often heat held them back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .files import text
from .heat import degrees, junction, temperatures

CORES = "sys/devices/system/cpu"
SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")  # drivers of processors' own sensors, by their hwmon


def clock_khz(root: Path = Path("/")) -> int | None:
    """Return the clock of the fastest core now, in kHz: the one that has just worked; None where nothing says it."""
    return max(_numbers(root, "cpu[0-9]*/cpufreq/scaling_cur_freq"), default=None)


def throttle_events(root: Path = Path("/")) -> int | None:
    """Return how often the processor has been slowed down for its heat since the machine started.

    Of x86 processors, whose kernel counts it by core and by package; None where it does not.
    """
    counts = [
        *_numbers(root, "cpu[0-9]*/thermal_throttle/core_throttle_count"),
        *_numbers(root, "cpu[0-9]*/thermal_throttle/package_throttle_count"),
    ]
    return sum(counts) if counts else None


def temperature_c(root: Path = Path("/")) -> float | None:
    """Return the temperature of the processor's hottest place, in degrees Celsius; None where nothing says it.

    Of the sensors in the processor; without any, of the machine's thermal zones.
    """
    chips = [folder for folder in (root / "sys/class/hwmon").glob("hwmon*") if text(folder / "name") in SENSORS]
    values = [degrees(path) for folder in chips for path in folder.glob("temp*_input")]
    known = [value for value in values if value is not None]
    return max(known) if known else junction(temperatures(root))


def _numbers(root: Path, pattern: str) -> Iterable[int]:
    for path in (root / CORES).glob(pattern):
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue  # a core that has just been switched off
        if text.isdecimal():
            yield int(text)
