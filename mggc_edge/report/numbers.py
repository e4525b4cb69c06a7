"""Numbers as people read them: few digits, a unit, one shape for one kind. A dash stands for what is not known."""

from __future__ import annotations

import math

DASH = "\u2013"
SPACE = "\u00a0"  # does not break, so that a unit stays with its number
_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def plain(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits: 0.0123, 1.23, 123, 12,300, 1.23 x 10^7 in superscript."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent >= 6 or exponent < -4:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        raised = str(int(power)).translate(_SUPERSCRIPT)
        return f"{mantissa}{SPACE}\u00d7{SPACE}10{raised}".replace("-", "\u2212")
    rounded = float(f"{value:.{digits}g}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}".replace("-", "\u2212")


def count(value: float) -> str:
    """Return a count with three digits and a decimal unit: 49.6 G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if 0.9995 * size <= abs(value) < 1e15:
            return f"{plain(value / size)}{SPACE}{unit}"
    return f"{value:.0f}" if abs(value) < 1000 and value == int(value) else plain(value)


def milliseconds(value: float) -> str:
    """Return a time given in milliseconds: 0.123 ms, 68.4 ms, 12.3 s."""
    return f"{plain(value / 1000)}{SPACE}s" if abs(value) >= 9999.5 else f"{plain(value)}{SPACE}ms"


def seconds(value: float) -> str:
    """Return a duration given in seconds: 0.12 s, 42 s, 3 min 20 s, 2 h 5 min."""
    if value < 9.95:
        return f"{value:.2g}{SPACE}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60}{SPACE}s"
    minutes = round(value / 60)
    return f"{minutes // 60:,}{SPACE}h {minutes % 60}{SPACE}min"


def size(value: float) -> str:
    """Return a number of bytes in decimal units: 232.8 kB, 45.5 MB."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= one:
            return f"{plain(value / one)}{SPACE}{unit}"
    return f"{value:.0f}{SPACE}bytes"


def percent(fraction: float) -> str:
    """Return a fraction as per cent, with a decimal below 10: 4.9 %, 62 %."""
    value = 100 * fraction
    return f"{plain(value, 2) if 0 < abs(value) < 9.95 else f'{value:.0f}'}{SPACE}%"


def joules(value: float) -> str:
    """Return an energy given in mJ: 12.3 mJ, 1.23 J."""
    return f"{plain(value / 1000)}{SPACE}J" if abs(value) >= 999.5 else f"{plain(value)}{SPACE}mJ"


def watts(value: float) -> str:
    """Return a power in W: 5.21 W."""
    return f"{plain(value)}{SPACE}W"


def decibel(value: float) -> str:
    """Return a PSNR with two decimals: 27.41 dB."""
    return f"{value:.2f}".replace("-", "\u2212") + f"{SPACE}dB"


def interval(ends: tuple[float, float]) -> str:
    """Return two numbers as an interval: 11.9 to 12.7."""
    return f"{plain(ends[0])} to {plain(ends[1])}"
