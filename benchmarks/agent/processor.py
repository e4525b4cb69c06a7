"""What the clocks of the cores do: how fast they are now, and how often heat has held them back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CORES = "sys/devices/system/cpu"


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


def _numbers(root: Path, pattern: str) -> Iterable[int]:
    for path in (root / CORES).glob(pattern):
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue  # a core that has just been switched off
        if text.isdecimal():
            yield int(text)
