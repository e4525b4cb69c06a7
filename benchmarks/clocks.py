"""What the clocks of the cores did while models were measured: whether they moved, and whether heat held them back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

CORES = "sys/devices/system/cpu"
# Between pairs the busiest core's clock is this much lower in the slowest tenth of the moments than in the fastest.
MOST_MOVED = 0.05


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


def clocks_moved(clocks: Sequence[int]) -> bool:
    """Return whether clocks that were read at several moments, in kHz, say that the frequency moved."""
    if not clocks:
        return False
    slow, fast = np.quantile(clocks, (0.1, 0.9))
    return bool(slow < (1 - MOST_MOVED) * fast)


def _numbers(root: Path, pattern: str) -> Iterable[int]:
    for path in (root / CORES).glob(pattern):
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue  # a core that has just been switched off
        if text.isdecimal():
            yield int(text)
