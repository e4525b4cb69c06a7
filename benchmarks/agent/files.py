"""Reading the small files that Linux keeps about a machine, which come and go, and may answer "not now"."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterable


def text(path: Path) -> str:
    """Return what a file holds, without the space around it; nothing where it cannot be read just now."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n\t ")
    except OSError:  # it is not there, a container hides it, or the unit behind it is off
        return ""


def number(path: Path) -> int | None:
    """Return the whole number that a file holds; None where it holds none, or cannot be read just now."""
    try:
        return int(text(path))
    except ValueError:
        return None


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Return paths in the order of the numbers in them: hwmon10 after hwmon9."""
    return sorted(paths, key=lambda path: [_key(part) for part in re.split(r"(\d+)", str(path))])


def _key(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdigit() else (-1, part)
