"""How a job speaks to whoever started it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mggc_edge.errors import PictureError
from mggc_edge.training.loop import Watch
from mggc_edge.training.material import Track


@dataclass(frozen=True)
class Hooks:
    """What is told: a line, how far a stage is, how far reading pictures is (`track`), and a skipped file.

    `begun` is called when what was given has been checked and work begins.
    """

    tell: Callable[[str], None] = lambda _: None
    watch: Watch = lambda _: None
    track: Track = lambda numbers, _: numbers
    skipped: Callable[[Path, PictureError], None] = lambda _path, _error: None
    begun: Callable[[], None] = lambda: None
